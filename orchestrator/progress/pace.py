"""How fast a search goes and how long it still takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import fsum, inf
from statistics import fmean
from typing import TypeAlias

from across.orchestrator.progress.generation_summary import GenerationSummary

Clock: TypeAlias = Callable[[], float]
"""Monotonic seconds."""

_RATE_WINDOW_SECONDS = 30.0
_NUM_RECENT_GENERATIONS = 5


@dataclass
class Pace:
    """Counts of the phase under way and the clock readings that estimates need."""

    clock: Clock
    total_generations: int
    max_seconds: float | None = None
    """The generations end when together they have taken this long."""
    phase: str = ""
    num_units: int = 0
    num_units_done: int = 0
    workers_busy: int = 0
    workers_total: int = 0
    started: float = field(init=False)
    generation_started: float = field(init=False)
    phase_started: float = field(init=False)
    _tasks: deque[tuple[float, int]] = field(default_factory=deque)
    """Clock reading and number of tasks of each recent advance."""

    def __post_init__(self) -> None:
        self.started = self.generation_started = self.phase_started = self.clock()

    @property
    def elapsed_seconds(self) -> float:
        """Since the start of this process's part of the search."""
        return self.clock() - self.started

    @property
    def phase_fraction(self) -> float:
        """Share of the phase's units that are done, 0 to 1."""
        return min(1.0, self.num_units_done / self.num_units) if self.num_units else 0.0

    def start_phase(self, name: str, num_units: int) -> None:
        """Begin to count a phase's units."""
        self.phase, self.num_units, self.num_units_done = name, num_units, 0
        self.phase_started = self.clock()

    def advance(self, num_units: int, num_tasks: int) -> None:
        """Count finished units and the tasks adapted in them."""
        self.num_units_done += num_units
        if num_tasks:
            self._tasks.append((self.clock(), num_tasks))

    def finish_generation(self) -> None:
        """Begin the next generation."""
        self.start_phase("", 0)
        self.generation_started = self.phase_started

    def tasks_per_second(self) -> float | None:
        """Over the last 30 seconds; None before anything has finished."""
        now = self.clock()
        while self._tasks and self._tasks[0][0] < now - _RATE_WINDOW_SECONDS:
            self._tasks.popleft()
        seconds = min(_RATE_WINDOW_SECONDS, now - self.started)
        return sum(count for _, count in self._tasks) / seconds if self._tasks and seconds > 0 else None

    def seconds_left(self, generations: Sequence[GenerationSummary]) -> float | None:
        """Until the last generation is done (after it: the phase), from the recent generations' times.

        Before the first one is done: as if a generation ended with the phase under way; None before that phase's
        first unit.
        """
        remaining = self.total_generations - len(generations)
        phase_left = self._phase_seconds_left()
        time_left = inf if self.max_seconds is None else self.max_seconds - _seconds(generations)
        if remaining <= 0 or time_left <= 0:
            return phase_left if self.num_units else 0.0
        spent = self.clock() - self.generation_started
        estimate = self._estimate(generations, remaining, spent, phase_left)
        # Time is looked at after a generation, so that the one under way is finished.
        return estimate if estimate is None else min(estimate, max(time_left - spent, phase_left or 0.0))

    def _estimate(
        self,
        generations: Sequence[GenerationSummary],
        remaining: int,
        spent: float,
        phase_left: float | None,
    ) -> float | None:
        recent = [one.wall_seconds for one in generations[-_NUM_RECENT_GENERATIONS:] if one.wall_seconds > 0]
        if recent:
            each = fmean(recent)
            return max(each - spent, phase_left or 0.0) + each * (remaining - 1)
        return None if phase_left is None else phase_left + (spent + phase_left) * (remaining - 1)

    def _phase_seconds_left(self) -> float | None:
        if self.phase_fraction <= 0:
            return None
        return (self.clock() - self.phase_started) * (1 / self.phase_fraction - 1)


def _seconds(generations: Sequence[GenerationSummary]) -> float:
    return fsum(one.wall_seconds for one in generations)
