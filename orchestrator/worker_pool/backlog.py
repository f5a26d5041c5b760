"""The units of one run that still lack a result, and the rules for those that fail.

What a worker's code raised twice at the same place on fresh actors is a property of the unit: a result that says so.
Whatever else goes wrong (actors and nodes that die, time-outs, memory) is the infrastructure's: it is tried again,
and in the end stops the search in a resumable state; it never becomes a fitness.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import nan

from across.orchestrator.worker_pool.actor import RaisedError
from across.orchestrator.worker_pool.errors import PoolExhaustedError, WorkerOutOfMemoryError
from across.workers.base import (
    EvaluationResult,
    EvaluationUnit,
    MetaResult,
    MetaUnit,
    SignalResult,
    SignalUnit,
    Unit,
    UnitResult,
)


@dataclass(eq=False)
class Task:
    """A unit and what happened to it so far."""

    unit: Unit
    num_attempts: int = 0
    """Attempts that ended with the actor's death or with a time-out."""
    errors: list[RaisedError] = field(default_factory=list)
    runs_alone: bool = False
    """Never again in a group, so that a failure can be put down to it."""


class Backlog:
    """Hands out tasks and takes back those without a result; each task is in one place at a time."""

    def __init__(self, units: Sequence[Unit], *, max_attempts: int) -> None:
        self.num_open = 0
        self._max_attempts = max_attempts
        self._waiting: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._keys: set[str] = set()
        self.add(units)

    def add(self, units: Sequence[Unit]) -> None:
        """More units, to be taken after those that are there."""
        keys = {unit.key for unit in units}
        if len(keys) < len(units) or keys & self._keys:
            raise ValueError("the keys of the units of one run must differ")
        self._keys |= keys
        self.num_open += len(units)
        self._waiting.extend(Task(unit) for unit in units)

    @property
    def num_waiting(self) -> int:
        """Tasks that any actor may take now."""
        return len(self._waiting)

    @property
    def num_suspects(self) -> int:
        """Tasks that raised once and now wait for an actor that has run nothing else."""
        return len(self._suspects)

    def take(self, max_size: int, *, for_fresh_actor: bool) -> list[Task]:
        """The next tasks to run in one call, all with the same weights; empty when there is nothing to do."""
        if for_fresh_actor and self._suspects:
            return [self._suspects.popleft()]
        group: list[Task] = []
        while self._waiting and len(group) < max_size:
            task = self._waiting[0]
            if group and (task.runs_alone or task.unit.weights_version != group[0].unit.weights_version):
                break
            group.append(self._waiting.popleft())
            if task.runs_alone:
                break
        return group

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Take back tasks without a result, to be the next in the same order."""
        for task in reversed(list(tasks)):
            (self._suspects if task.errors else self._waiting).appendleft(task)

    def finish(self, num_tasks: int) -> None:
        """Count tasks as done."""
        self.num_open -= num_tasks

    def interrupted(self, tasks: Sequence[Task], reason: str) -> None:
        """The actor that ran `tasks` was lost: a task alone is charged, a group is split to find the culprit."""
        if len(tasks) == 1:
            tasks[0].num_attempts += 1
            if tasks[0].num_attempts >= self._max_attempts:
                raise _exhausted(tasks[0], tasks[0].num_attempts, reason)
        for task in tasks:
            task.runs_alone = True
        self.put_back(tasks)

    def raised(self, task: Task, error: RaisedError) -> UnitResult | None:
        """The unit's code raised `error`: None for another try on a fresh actor, else the unit's result."""
        if error.is_out_of_memory and any(earlier.is_out_of_memory for earlier in task.errors):
            raise _out_of_memory(task.unit, error)
        if any(earlier.kind == error.kind for earlier in task.errors):
            self.finish(1)
            return _failed(task.unit, error.text)
        task.errors.append(error)
        if len(task.errors) >= self._max_attempts:
            raise _exhausted(task, len(task.errors), f"another error each time, at last {error.text}")
        task.runs_alone = True
        self.put_back([task])
        return None


def _failed(unit: Unit, failure: str) -> UnitResult:
    match unit:
        case EvaluationUnit():
            return EvaluationResult(unit.key, (), failure=failure)
        case MetaUnit():
            num_tasks = len(unit.seeds)
            return MetaResult(unit.key, None, num_tasks, loss=nan, accuracy=nan, failure=failure)
        case SignalUnit():
            return SignalResult(unit.key, {}, failure=failure)


def _exhausted(task: Task, num_attempts: int, reason: str) -> PoolExhaustedError:
    return PoolExhaustedError(
        f"unit {task.unit.key} (genotype {task.unit.genotype}) was given up after {num_attempts} attempts without"
        f" a result; the last one: {reason}. Nothing that was finished is lost: check the workers' machines, or"
        " raise workers.unit_timeout_seconds or workers.max_attempts, and resume"
    )


def _out_of_memory(unit: Unit, error: RaisedError) -> WorkerOutOfMemoryError:
    match unit:
        case EvaluationUnit():
            setting = "evaluation.tasks_per_chunk"
        case MetaUnit():
            setting = "meta_learning.tasks_per_shard"
        case SignalUnit():
            setting = "strategy.signals.max_images or strategy.signals.few_steps.num_tasks"
    return WorkerOutOfMemoryError(
        f"unit {unit.key} (genotype {unit.genotype}, {len(unit.seeds)} tasks) ran out of memory on two fresh"
        f" workers: {error.text}. Lower {setting} and resume"
    )
