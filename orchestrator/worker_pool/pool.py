"""Ray actors that compute units: dispatch, collect, requeue.

Ray never restarts an actor nor retries a call here: the pool does both. An actor runs its calls in the order in which
they were sent, so the first without an answer is the one that was running when the actor died.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import ObjectLostError, RayError, RayTaskError

from across.orchestrator.worker_pool.actor import (
    ActorDescription,
    GroupOutcome,
    RaisedError,
    Worker,
    describe_error,
)
from across.orchestrator.worker_pool.backlog import Backlog, Task
from across.orchestrator.worker_pool.config import WorkersConfig
from across.orchestrator.worker_pool.fleet import FETCH_SECONDS, Actor, ActorFleet, Call, reason
from across.orchestrator.worker_pool.weight_store import WeightStore
from across.workers.base import Unit, UnitResult

WAIT_SECONDS = 0.2
"""Longest wait for results before deadlines and the cluster's size are looked at."""
GROUP_SECONDS = 0.02
"""Units so short that several fit into this time travel in one call."""
MAX_GROUP_SIZE = 64


@dataclass(frozen=True)
class PoolStatistics:
    """What the pool did so far."""

    num_workers: int
    """Ready now."""
    num_busy: int
    """Those of them that have something to do."""
    busy_seconds: float
    """Time in the workers' code, summed over the workers."""
    num_units: int
    """Units with a result."""
    num_failures: int
    """Workers that died, were given up, or raised."""


class WorkerPool:
    """Workers that compute units: `with WorkerPool(...) as pool: for result in pool.run(units)`.

    Raises `ClusterError` when the workers that `config` asks for do not fit into the cluster. All that stops a run
    later is a `PoolError`.
    """

    def __init__(
        self,
        worker_class: Callable[..., Worker],
        worker_arguments: Mapping[str, object],
        config: WorkersConfig,
    ) -> None:
        self._config = config
        self._fleet = ActorFleet(worker_class, worker_arguments, config)
        self._weights = WeightStore()
        self._backlog = Backlog((), max_attempts=config.max_attempts)
        self._unit_seconds: float | None = None
        self._busy_seconds = 0.0
        self._num_units = 0

    def __enter__(self) -> WorkerPool:
        self._fleet.follow_cluster()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def statistics(self) -> PoolStatistics:
        """Counts since the pool was made."""
        ready = self._fleet.ready
        return PoolStatistics(
            num_workers=len(ready),
            num_busy=sum(bool(actor.calls) for actor in ready),
            busy_seconds=self._busy_seconds,
            num_units=self._num_units,
            num_failures=self._fleet.num_failures,
        )

    @property
    def workers(self) -> tuple[ActorDescription, ...]:
        """Where the workers that are ready now run."""
        return tuple(actor.description for actor in self._fleet.actors if actor.description)

    def wait_for_worker(self) -> ActorDescription:
        """Block until a worker is ready; its description."""
        for arrived in self._collect_until(lambda: bool(self._fleet.ready), Backlog((), max_attempts=1)):
            assert not arrived, "nothing was dispatched"
        return self.workers[0]

    def publish(self, version: int, weights: NDArray[np.float32]) -> None:
        """Make `weights` available to units of `version`; the two newest versions are kept."""
        self._weights.publish(version, weights)

    def run(self, units: Sequence[Unit]) -> Iterator[UnitResult]:
        """Compute `units`; yields each unit's result exactly once, in order of arrival.

        A run that is left early stops the workers that were busy. Arrays in results are read-only.
        """
        for arrived in self.collect(units):
            yield from arrived

    def collect(self, units: Sequence[Unit]) -> Iterator[Sequence[UnitResult]]:
        """As `run`, but yields each call's results together, and nothing while none arrives, some times a second.

        `extend` adds units between two of them.
        """
        backlog = self._backlog = Backlog(units, max_attempts=self._config.max_attempts)
        self._unit_seconds = None
        try:
            yield from self._collect_until(lambda: not backlog.num_open, backlog)
        finally:
            for actor in [actor for actor in self._fleet.actors if actor.calls]:
                self._fleet.stop(actor)

    def extend(self, units: Sequence[Unit]) -> None:
        """More units for the `collect` under way."""
        self._backlog.add(units)

    def close(self) -> None:
        """Kill the workers and free the weights, without waiting for anything."""
        for actor in list(self._fleet.actors):
            self._fleet.stop(actor)
        self._weights.clear()

    def _collect_until(self, is_done: Callable[[], bool], backlog: Backlog) -> Iterator[Sequence[UnitResult]]:
        self._fleet.expect_actors()
        while not is_done():
            self._fleet.follow_cluster()
            self._dispatch(backlog)
            yield from self._collect(backlog)
            self._check_deadlines(backlog)
            self._fleet.check_actors()

    def _dispatch(self, backlog: Backlog) -> None:
        """Give every ready actor something to do, and more than that while there is as much for all of them.

        Back and forth over the actors: where units come longest first, who has the longest is the last to get more.
        Nothing waits behind a task that has raised before: it would have to be taken back if that raises again.
        """
        if backlog.num_suspects and not self._fleet.expects_fresh_actor:
            idle = next((actor for actor in self._fleet.ready if not actor.calls), None)
            if idle:
                self._fleet.stop(idle)  # the next look at the cluster replaces it
        ready = self._fleet.ready
        for depth in range(self._config.units_in_flight):
            if depth and backlog.num_waiting < len(ready):
                return
            for actor in reversed(ready) if depth % 2 else ready:
                if len(actor.calls) == depth and not actor.has_suspect:
                    size = self._group_size(backlog.num_waiting, len(ready))
                    tasks = backlog.take(size, for_fresh_actor=actor.is_fresh)
                    if tasks:
                        self._send(actor, tasks)

    def _group_size(self, num_waiting: int, num_ready: int) -> int:
        if self._unit_seconds is None:
            return 1
        in_time = GROUP_SECONDS / max(self._unit_seconds, 1e-6)
        fair_share = num_waiting / (num_ready * self._config.units_in_flight)
        return max(1, int(min(in_time, fair_share, MAX_GROUP_SIZE)))

    def _send(self, actor: Actor, tasks: list[Task]) -> None:
        units = [task.unit for task in tasks]
        reference = actor.handle.run.remote(units, self._weights.reference(units[0].weights_version))
        if not actor.calls:
            actor.head_since = time.monotonic()
        actor.calls.append(Call(tasks, reference))
        actor.is_fresh = False

    def _collect(self, backlog: Backlog) -> Iterator[Sequence[UnitResult]]:
        """Wait a moment for whatever is under way, and handle all that has arrived."""
        owners = {actor.starting: actor for actor in self._fleet.actors if actor.description is None}
        owners |= {call.reference: actor for actor in self._fleet.actors for call in actor.calls}
        arrived = _wait(list(owners))
        if not arrived:
            yield ()
        for actor in {owners[reference]: None for reference in arrived}:
            if actor.description is None:
                self._fleet.welcome(actor)
            else:
                yield from self._receive(actor, arrived, backlog)

    def _receive(
        self, actor: Actor, arrived: set[ray.ObjectRef[Any]], backlog: Backlog
    ) -> Iterator[Sequence[UnitResult]]:
        """Results of the calls of `actor` that arrived, up to the first that went wrong."""
        for call in [call for call in actor.calls if call.reference in arrived]:
            try:
                outcome: GroupOutcome = ray.get(call.reference, timeout=FETCH_SECONDS)
            except RayError as error:
                cause = error.cause if isinstance(error, RayTaskError) else error
                if isinstance(cause, RayError):
                    self._lost(actor, cause, backlog)
                    return
                outcome = GroupOutcome((), describe_error(cause), 0.0)
            actor.calls.remove(call)
            actor.head_since = time.monotonic()
            self._learn_unit_seconds(outcome)
            backlog.finish(len(outcome.results))
            self._num_units += len(outcome.results)
            yield outcome.results
            if outcome.error:
                culprit, *others = call.tasks[len(outcome.results) :]
                yield from self._raised(actor, culprit, others, outcome.error, backlog)
                return

    def _raised(
        self, actor: Actor, culprit: Task, others: list[Task], error: RaisedError, backlog: Backlog
    ) -> Iterator[Sequence[UnitResult]]:
        """The code raised: its process may be broken, so nothing more that it computes is trusted."""
        self._fleet.give_up(actor)
        backlog.put_back([*others, *(task for call in actor.calls for task in call.tasks)])
        failed = backlog.raised(culprit, error)
        if failed:
            self._num_units += 1
            yield [failed]

    def _lost(self, actor: Actor, error: RayError | str, backlog: Backlog) -> None:
        """The actor is gone, or given up: its tasks go back, and the one that it was running is charged."""
        if isinstance(error, ObjectLostError):
            self._weights.restore(error.object_ref_hex)
        self._fleet.give_up(actor)
        head, *others = actor.calls
        backlog.put_back(task for call in others for task in call.tasks)
        backlog.interrupted(head.tasks, error if isinstance(error, str) else reason(error))

    def _check_deadlines(self, backlog: Backlog) -> None:
        limit = self._config.unit_timeout_seconds
        for actor in self._fleet.ready:
            if actor.calls and time.monotonic() - actor.head_since > limit:
                self._lost(actor, f"no result within {limit:g} s (workers.unit_timeout_seconds)", backlog)

    def _learn_unit_seconds(self, outcome: GroupOutcome) -> None:
        self._busy_seconds += outcome.seconds
        if outcome.results:
            latest = outcome.seconds / len(outcome.results)
            known = latest if self._unit_seconds is None else self._unit_seconds
            self._unit_seconds = 0.5 * known + 0.5 * latest


def _wait(references: list[ray.ObjectRef[Any]]) -> set[ray.ObjectRef[Any]]:
    """All of `references` that are ready, after at least one is or `WAIT_SECONDS` have passed."""
    if not references:
        time.sleep(WAIT_SECONDS)
        return set()
    ready, _ = ray.wait(references, num_returns=1, timeout=WAIT_SECONDS)
    if ready:
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
    return set(ready)
