"""The evaluation phase of a search without generations: a stretch of proposals, each evaluated as soon as it may be."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from across.orchestrator.engine import Engine
from across.orchestrator.evaluation_phase import EvaluatedGeneration, join_results
from across.orchestrator.schedules import Schedule
from across.orchestrator.state import Commit, Evaluation, Proposal
from across.workers.base import EvaluationResult, EvaluationUnit


def replay(schedule: Schedule, commits: Sequence[Commit]) -> None:
    """Tell a new schedule what the journal holds: it then proposes what it would have proposed without a pause."""
    known = {
        each.proposal.index: each
        for commit in commits
        if commit.kind == "generation"
        for each in commit.evaluations
    }
    while proposals := schedule.propose(len(known)):
        for proposal in proposals:
            assert known[proposal.index].proposal == proposal, "the journal holds what this schedule proposes"
            schedule.receive(known[proposal.index])


def evaluate_stretch(
    engine: Engine, commit_number: int, schedule: Schedule, limit: int
) -> EvaluatedGeneration:
    """All proposals below index `limit` that are not evaluated yet, in the order of their indices."""
    spooled = engine.run.spooled(commit_number)
    results = {key: result for key, result in spooled.items() if isinstance(result, EvaluationResult)}
    stretch = _Stretch(engine, schedule, limit, results)
    first = stretch.admit(schedule.propose(limit))
    engine.progress.phase("evaluating", len(first))
    num_computed = num_tasks = 0
    for result in engine.compute(first):
        assert isinstance(result, EvaluationResult)
        engine.run.spool(commit_number, [result])
        num_computed += 1
        num_tasks += len(result.scores)
        engine.pool.extend(stretch.take(result))
    evaluations = tuple(stretch.finished[index] for index in sorted(stretch.finished))
    return EvaluatedGeneration(evaluations, num_computed, stretch.num_reused, num_tasks)


@dataclass
class _Stretch:
    """What is under way, and what is known."""

    engine: Engine
    schedule: Schedule
    limit: int
    results: dict[str, EvaluationResult]
    """By unit; equal genotypes share theirs."""
    finished: dict[int, Evaluation] = field(default_factory=dict)
    num_reused: int = 0
    """Units found in the spool, or computed for an equal genotype."""
    _open: dict[int, tuple[Proposal, list[EvaluationUnit]]] = field(default_factory=dict)
    _sent: set[str] = field(default_factory=set)

    def admit(self, proposals: Iterable[Proposal]) -> list[EvaluationUnit]:
        """The units to compute for `proposals`, and for those that follow at once because all is known."""
        problem, missing = self.engine.problem, []
        waiting = deque(proposals)
        while waiting:
            proposal = waiting.popleft()
            units = problem.units(proposal, "validation", problem.seeds("validation", 0), 0)
            self._open[proposal.index] = proposal, units
            new = [unit for unit in units if unit.key not in self.results and unit.key not in self._sent]
            self.num_reused += len(units) - len(new)
            self._sent |= {unit.key for unit in new}
            missing += new
            if self._finish(proposal.index):
                waiting.extend(self.schedule.propose(self.limit))
        return missing

    def take(self, result: EvaluationResult) -> list[EvaluationUnit]:
        """The units to compute now that `result` is in."""
        self.results[result.key] = result
        done = [index for index in list(self._open) if self._finish(index)]
        return self.admit(self.schedule.propose(self.limit)) if done else []

    def _finish(self, index: int) -> bool:
        """Tell the schedule of a proposal whose units all have results."""
        proposal, units = self._open[index]
        if any(unit.key not in self.results for unit in units):
            return False
        own = [self.results[unit.key] for unit in units]
        self.finished[index] = join_results(self.engine.problem, proposal, own, 0)
        del self._open[index]
        self.schedule.receive(self.finished[index])
        return True
