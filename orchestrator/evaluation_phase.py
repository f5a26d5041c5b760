"""The evaluation phase of a generation: proposals -> units -> evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, isfinite

from across.orchestrator.engine import Engine
from across.orchestrator.problem import Problem
from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.workers.base import EvaluationResult, Split


@dataclass(frozen=True)
class EvaluatedGeneration:
    """What the phase found, and what it took."""

    evaluations: tuple[Evaluation, ...]
    """In the order of the proposals."""
    num_computed: int
    num_reused: int
    """Units found in the spool, and those of survivors whose fitness still held."""
    num_tasks: int
    """Adapted in this phase."""


def evaluate_generation(
    engine: Engine, commit_number: int, state: SearchState, proposals: Sequence[Proposal]
) -> EvaluatedGeneration:
    """Fitness on validation tasks. The task set changes with the weights, and only then.

    A survivor that was evaluated at these very weights keeps its evaluation.
    """
    fresh = {
        each.proposal.index: each
        for each in state.population
        if each.weights_version == state.weights_version
    }
    return _evaluate(engine, commit_number, proposals, "validation", state.weights_version, fresh)


def measure_finalists(
    engine: Engine, commit_number: int, state: SearchState, finalists: Sequence[Proposal]
) -> EvaluatedGeneration:
    """Scores on tasks of held-out test classes; the same tasks for every search of this seed."""
    full = [replace(finalist, fidelity=None) for finalist in finalists]
    return _evaluate(engine, commit_number, full, "test", state.weights_version, {})


def _evaluate(
    engine: Engine,
    commit_number: int,
    proposals: Sequence[Proposal],
    split: Split,
    weights_version: int,
    fresh: Mapping[int, Evaluation],
) -> EvaluatedGeneration:
    problem = engine.problem
    seeds = problem.seeds(split, weights_version)
    units = {
        proposal.index: problem.units(proposal, split, seeds, weights_version)
        for proposal in proposals
        if proposal.index not in fresh
    }
    wanted = {unit.key: unit for own in units.values() for unit in own}
    results = {
        key: result
        for key, result in engine.run.spooled(commit_number).items()
        if key in wanted and isinstance(result, EvaluationResult)
    }
    missing = [unit for key, unit in wanted.items() if key not in results]
    engine.progress.phase("testing" if split == "test" else "evaluating", len(missing))
    num_reused = len(results) + len(proposals) - len(units)
    for result in engine.compute(missing):
        assert isinstance(result, EvaluationResult)
        engine.run.spool(commit_number, [result])
        results[result.key] = result
    evaluations = tuple(
        fresh[proposal.index]
        if proposal.index in fresh
        else join_results(
            problem, proposal, [results[unit.key] for unit in units[proposal.index]], weights_version
        )
        for proposal in proposals
    )
    num_tasks = sum(len(unit.seeds) for unit in missing)
    return EvaluatedGeneration(evaluations, len(missing), num_reused, num_tasks)


def join_results(
    problem: Problem, proposal: Proposal, results: Sequence[EvaluationResult], weights_version: int
) -> Evaluation:
    """One evaluation from the results of its units, in unit order; sums are exact, so order cannot matter.

    A metric that is not finite, such as the loss of a task that diverged, is left out.
    """
    failure = next((result.failure for result in results if result.failure), None)
    scores = tuple(score for result in results for score in result.scores)
    if failure is None and not all(map(isfinite, scores)):
        failure = "the fitness is not finite"
    if failure is not None:
        return Evaluation(proposal, None, weights_version=weights_version, failure=failure)
    metrics = {
        name: fsum(result.metrics[name] * len(result.scores) for result in results) / len(scores)
        for name in results[0].metrics
        if all(isfinite(result.metrics[name]) for result in results)
    }
    return Evaluation(proposal, problem.fitness(scores), scores, metrics, weights_version)
