"""The numbers at the end of a search."""

from __future__ import annotations

from typing import Any

from across.orchestrator.config.run_config import RunConfig
from across.orchestrator.objectives import fronts, objectives_of
from across.orchestrator.problem import TabularProblem, build_problem
from across.orchestrator.progress import SearchSummary, TableScore
from across.orchestrator.search import SearchOutcome
from across.orchestrator.state import SearchState
from across.orchestrator.statistics import mean_and_interval
from across.search_spaces.base import Genotype, SearchSpace
from across.workers.evaluators.tabular import TabularBenchmark, ranks


def summarize(outcome: SearchOutcome, config: RunConfig) -> SearchSummary | None:
    """What `outcome` comes to; None if it has no finalist. Sizes include the first source's head, if there is one."""
    best = outcome.best
    if best is None:
        return None
    problem = build_problem(config)
    genotype = best.proposal.genotype
    cost = problem.cost(genotype)
    measured: dict[str, Any] = {}
    if isinstance(problem, TabularProblem):
        measured["table_scores"] = score_in_table(problem.benchmark, genotype)
    elif best.scores:
        accuracy, interval = mean_and_interval(best.scores)
        measured = {
            "test_accuracy": accuracy,
            "test_interval": interval,
            "num_test_tasks": len(best.scores),
        }
    measured["knee"] = _knee(outcome, config, problem.space)
    return SearchSummary(
        run_dir=outcome.run_dir,
        best_genotype=problem.space.to_string(genotype),
        num_params=cost.num_params,
        flops=cost.flops,
        fitness=_last_fitness(outcome.state, problem.space, genotype),
        fingerprint=outcome.fingerprint,
        pictures=tuple(sorted((outcome.run_dir / "plots").glob("*.png"))),
        **measured,
    )


def score_in_table(benchmark: TabularBenchmark, genotype: Genotype) -> tuple[TableScore, ...]:
    """What the table says of a network on each task, by the test reading, and where that ranks."""
    config, table, row = benchmark.config, benchmark.table, benchmark.row(genotype)
    reading = config.test or config.reward
    scores = benchmark.raw(reading)
    places = ranks(scores)
    return tuple(
        TableScore(
            task=task,
            metric=reading.metric or table.default_metric(task),
            score=float(scores[row, column]),
            rank=int(places[row, column]),
            num_networks=len(table.strings),
        )
        for column, task in enumerate(config.tasks)
    )


def _knee(outcome: SearchOutcome, config: RunConfig, space: SearchSpace) -> str:
    """The member of the last front where a gain begins to cost much; empty where fitness is all."""
    objectives = objectives_of(config.strategy)
    summaries = [each for each in fronts(outcome.commits, objectives) if each] if objectives else []
    if not summaries:
        return ""
    member = summaries[-1].members[summaries[-1].knee]
    values = dict(member.metrics, fitness=member.fitness)
    described = ", ".join(f"{each.metric} {values[each.metric]:,.6g}" for each in objectives)
    return f"{space.to_string(member.proposal.genotype)} ({described})"


def _last_fitness(state: SearchState, space: SearchSpace, genotype: Genotype) -> float | None:
    """On validation tasks, at the newest weights that the genotype was evaluated with."""
    same = (
        each.fitness
        for each in reversed(state.history)
        if space.canonical(each.proposal.genotype) == space.canonical(genotype) and each.fitness is not None
    )
    return next(same, None)
