"""A search on many workers in one process: look-ups that take simulated time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from across.orchestrator.schedules import Schedule
from across.orchestrator.state import Evaluation, Proposal


@dataclass(frozen=True)
class Simulation:
    """What happened by the virtual clock."""

    evaluations: tuple[Evaluation, ...]
    """In the order in which they ended."""
    finish_seconds: tuple[float, ...]
    """When each of them ended."""
    busy_seconds: float
    """Summed over the workers."""
    num_workers: int

    @property
    def seconds(self) -> float:
        """Until the last evaluation ended."""
        return self.finish_seconds[-1] if self.finish_seconds else 0.0

    @property
    def utilisation(self) -> float:
        """Share of all workers' time until then in which they had something to do."""
        return self.busy_seconds / (self.num_workers * self.seconds) if self.seconds else 0.0


def simulate(
    schedule: Schedule,
    evaluate: Callable[[Proposal], Evaluation],
    duration: Callable[[Proposal], float],
    *,
    num_workers: int,
    num_proposals: int,
    max_seconds: float = inf,
) -> Simulation:
    """Run `schedule` on `num_workers` workers up to `num_proposals`.

    An evaluation that would end after `max_seconds` is not begun.

    Workers take proposals in the order in which they were proposed. What is found depends on the clock only through
    `max_seconds`; `Generations`, `SteadyState` and `Lineages` see to that.
    """
    waiting = deque(schedule.propose(num_proposals))
    running: list[tuple[float, int, Proposal]] = []
    evaluations, finished, busy, now = [], [], 0.0, 0.0
    while waiting or running:
        while waiting and len(running) < num_workers:
            proposal = waiting.popleft()
            seconds = duration(proposal)
            if now + seconds <= max_seconds:
                busy += seconds
                heapq.heappush(running, (now + seconds, proposal.index, proposal))
        if not running:
            break
        now, _, proposal = heapq.heappop(running)
        result = evaluate(proposal)
        evaluations.append(result)
        finished.append(now)
        schedule.receive(result)
        waiting.extend(schedule.propose(num_proposals))
    return Simulation(tuple(evaluations), tuple(finished), busy, num_workers)
