"""A pool of one worker in the driver's own process, without Ray: for look-ups, and for a debugger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from across.orchestrator.worker_pool.actor import ActorDescription, Worker, WorkerActor
from across.orchestrator.worker_pool.backlog import Backlog
from across.orchestrator.worker_pool.config import WorkersConfig
from across.orchestrator.worker_pool.errors import WorkerStartError
from across.orchestrator.worker_pool.pool import MAX_GROUP_SIZE, PoolStatistics
from across.workers.base import Unit, UnitResult


class InProcessPool:
    """Used like a `WorkerPool`, with the same rules for units that raise; a fresh worker is a new object here."""

    def __init__(
        self,
        worker_class: Callable[..., Worker],
        worker_arguments: Mapping[str, object],
        config: WorkersConfig,
    ) -> None:
        self._recipe = worker_class, worker_arguments
        self._config = config
        self._backlog = Backlog((), max_attempts=config.max_attempts)
        self._weights: dict[int, NDArray[np.float32]] = {}
        self._actor, self._description = self._start()
        self._is_fresh = True
        self._is_busy = False
        self._busy_seconds = 0.0
        self._num_units = 0
        self._num_failures = 0

    def __enter__(self) -> InProcessPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def statistics(self) -> PoolStatistics:
        """Counts since the pool was made."""
        return PoolStatistics(
            num_workers=1,
            num_busy=int(self._is_busy),
            busy_seconds=self._busy_seconds,
            num_units=self._num_units,
            num_failures=self._num_failures,
        )

    def wait_for_worker(self) -> ActorDescription:
        """The worker's description."""
        return self._description

    def publish(self, version: int, weights: NDArray[np.float32]) -> None:
        """Make `weights` available to units of `version`, and forget all others."""
        self._weights = {version: weights}

    def collect(self, units: Sequence[Unit]) -> Iterator[Sequence[UnitResult]]:
        """Compute `units` in order; some results at a time. `extend` adds units between two of them."""
        backlog = self._backlog = Backlog(units, max_attempts=self._config.max_attempts)
        while backlog.num_open:
            tasks = backlog.take(MAX_GROUP_SIZE, for_fresh_actor=self._is_fresh)
            if not tasks:  # all that is left has raised before
                self._restart()
                continue
            self._is_fresh, self._is_busy = False, True
            version = tasks[0].unit.weights_version
            outcome = self._actor.run([task.unit for task in tasks], self._weights.get(version))
            self._is_busy = False
            self._busy_seconds += outcome.seconds
            self._num_units += len(outcome.results)
            backlog.finish(len(outcome.results))
            yield outcome.results
            if outcome.error:
                culprit, *others = tasks[len(outcome.results) :]
                backlog.put_back(others)
                self._restart()
                self._num_failures += 1
                failed = backlog.raised(culprit, outcome.error)
                if failed:
                    yield [failed]

    def extend(self, units: Sequence[Unit]) -> None:
        """More units for the `collect` under way."""
        self._backlog.add(units)

    def close(self) -> None:
        """Forget the weights."""
        self._weights.clear()

    def _restart(self) -> None:
        self._actor, self._description = self._start()
        self._is_fresh = True

    def _start(self) -> tuple[WorkerActor, ActorDescription]:
        actor = WorkerActor()
        outcome = actor.start(*self._recipe)
        if isinstance(outcome, ActorDescription):
            return actor, outcome
        raise WorkerStartError(f"a worker cannot be made: {outcome.explanation}")
