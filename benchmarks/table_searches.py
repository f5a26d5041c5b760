"""Searches of benchmark tables in this process, and what they come to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, lgamma
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from across.orchestrator.config.run_config import TABLE_INPUTS
from across.orchestrator.schedules import Generations
from across.orchestrator.state import Evaluation, Proposal
from across.orchestrator.strategies import StrategyConfig
from across.orchestrator.strategies.base import Strategy
from across.orchestrator.strategies.guidance.knowledge import Forgetful, Knowledge, TableKnowledge
from across.orchestrator.strategies.predictor_guided import PredictorGuided
from across.search_spaces import SpaceConfig
from across.search_spaces.base import Genotype, SearchSpace
from across.search_spaces.tables import open_table
from across.workers.evaluators.tabular import Reading, TableConfig, TabularBenchmark, ranks

Values = NDArray[np.float64]
Result = TypeVar("Result")
FILES = {
    "micro": "transnas_bench_101/micro.npz",
    "macro": "transnas_bench_101/macro.npz",
    "nas_bench_201": "nas_bench_201/nas_bench_201.npz",
}
NAS_BENCH_201 = "nas_bench_201"
FULL_EPOCHS = 200
MAX_PROPOSALS = 10**9
MAX_PROPOSALS_A_QUERY = 50
"""A search that proposes hardly anything new is over."""

STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {
        "population_size": 1,
        "num_elites": 0,
    },  # of a greater generation no two compute the same function
    "regularized_evolution": {"population_size": 10, "sample_size": 5, "num_offspring": 1},
    "genetic": {"population_size": 10, "num_elites": 5, "tournament_size": 3},
    "local_search": {"num_neighbours": 1},
    "reinforce": {"population_size": 1, "learning_rate": 0.1},
    "nsga2": {"population_size": 10},
    "nsga3": {"population_size": 10},
}
"""Settings for budgets of about 100 queries."""
FIDELITIES = {"fidelities": (12, None), "population_size": 81, "eta": 9.0}
"""Of successive halving: 81 trainings of 12 epochs, then 9 of 200."""


@dataclass(frozen=True)
class Question:
    """A table with what a search of it maximises."""

    file: Path
    tasks: tuple[str, ...]
    fitness: str = "score"
    reward: Reading = field(default_factory=Reading)
    earlier_tasks: tuple[str, ...] = ()
    signals: tuple[str, ...] | None = None

    @cached_property
    def benchmark(self) -> TabularBenchmark:
        """The open table."""
        table = open_table(self.file)
        config = TableConfig.model_validate(
            {
                "file": self.file,
                "tasks": self.tasks,
                "fitness": self.fitness,
                "reward": self.reward,
                "earlier_tasks": self.earlier_tasks,
                "signals": self.signals,
            }
        )
        section: Any = {"type": table.space}
        space: SpaceConfig = TypeAdapter[SpaceConfig](SpaceConfig).validate_python(section)
        return TabularBenchmark(config, space.build(TABLE_INPUTS.get(table.space, (3, 256, 256))), table)

    @property
    def space(self) -> SearchSpace:
        return self.benchmark.space

    @cached_property
    def values(self) -> Values:
        """Fitness of every network, (N,)."""
        return self.benchmark.fitness()

    @cached_property
    def ranks(self) -> Values:
        """1 is the best; equal values share the better rank."""
        return ranks(self.values[:, None])[:, 0]

    @cached_property
    def flops(self) -> Callable[[Genotype], float]:
        """Multiply-adds by genotype."""
        known: dict[Genotype, float] = {}

        def flops(genotype: Genotype) -> float:
            if genotype not in known:
                known[genotype] = float(self.space.architecture(genotype).flops)
            return known[genotype]

        return flops

    @cached_property
    def knowledge(self) -> TableKnowledge:
        """What a predictor may see beside the values."""
        return TableKnowledge(self.benchmark)


def build_strategy(name: str, space: SearchSpace, **settings: Any) -> Strategy:
    """A strategy by its `type`, with the settings for small budgets."""
    document: Any = {"type": name, **STRATEGIES.get(name, {}), **settings}
    strategy: Strategy = TypeAdapter[Any](StrategyConfig).validate_python(document).build(space)
    return strategy


def queries(
    question: Question,
    strategy: Strategy,
    seed: int,
    *,
    first: Sequence[Genotype] = (),
    has_costs: bool = False,
) -> Iterator[int]:
    """Rows of distinct genotypes in the order in which the search asks for them, without end.

    A genotype that comes again is answered again, and costs no query. `first` are evaluated in the place of the first
    proposals.
    """
    benchmark, seen, since_new = question.benchmark, set(), 0
    schedule = Generations(strategy, seed=seed)
    start = dict(enumerate(first))
    while since_new < MAX_PROPOSALS_A_QUERY:
        for proposed in schedule.propose(MAX_PROPOSALS):
            genotype = start.get(proposed.index, proposed.genotype)
            row = benchmark.row(genotype)
            metrics = {"flops": question.flops(genotype)} if has_costs else {}
            proposal = Proposal(proposed.index, genotype, proposed.parents, proposed.birth)
            value = float(question.values[row])
            schedule.receive(Evaluation(proposal, value, (value,), metrics))
            since_new += 1
            if row not in seen:
                seen.add(row)
                since_new = 0
                yield row


def best_within_epochs(
    full: Question, cheap: Question, strategy: Strategy, seed: int, *, max_epochs: int
) -> int:
    """The row of the best full reward among what can be trained in `max_epochs`.

    A training that comes again is free; a search that proposes hardly anything else is over.

    Proposals with a fidelity are answered by `cheap` and cost as many epochs, others cost `FULL_EPOCHS`.
    """
    schedule = Generations(strategy, seed=seed)
    trained: set[tuple[int, int | None]] = set()
    best, spent, since_new = -1, 0, 0
    while since_new < MAX_PROPOSALS_A_QUERY:
        for proposal in schedule.propose(MAX_PROPOSALS):
            row = full.benchmark.row(proposal.genotype)
            since_new += 1
            if (row, proposal.fidelity) not in trained:
                since_new = 0
                spent += proposal.fidelity or FULL_EPOCHS
                trained.add((row, proposal.fidelity))
            if spent > max_epochs:
                return best
            if proposal.fidelity is None and (best < 0 or full.values[row] > full.values[best]):
                best = row
            value = float((cheap if proposal.fidelity else full).values[row])
            schedule.receive(Evaluation(proposal, value, (value,)))
    return best


@dataclass(frozen=True)
class Trace:
    """What one search found."""

    ranks: tuple[float, ...]
    """Of the best network, after each of the budgets."""
    regrets: tuple[float, ...]
    queries_to_optimum: float
    """Infinite where the search ended before."""
    rows: tuple[int, ...]
    """Of the queries."""


def trace(
    question: Question,
    name: str,
    seed: int,
    budgets: Sequence[int],
    *,
    to_optimum: bool = False,
    first: Sequence[Genotype] = (),
    settings: Mapping[str, Any] | None = None,
    knowledge: Knowledge | None = None,
) -> Trace:
    """Search up to the greatest budget of distinct queries, or on until the optimum is found.

    `knowledge` is in the place of the question's own.
    """
    strategy = build_strategy(name, question.space, **(settings or {}))
    if isinstance(strategy, PredictorGuided):
        strategy = strategy.informed(knowledge or question.knowledge, seed=seed, cache=Forgetful())
    optimum = question.values.max()
    best, found = -inf, inf
    asked: list[int] = []
    at_budget: dict[int, tuple[float, float]] = {}
    best_rank = inf
    has_costs = name.startswith("nsga")
    for number, row in enumerate(
        queries(question, strategy, seed, first=first, has_costs=has_costs), start=1
    ):
        asked.append(row)
        if question.values[row] > best:
            best, best_rank = float(question.values[row]), float(question.ranks[row])
        if best == optimum:
            found = min(found, number)
        at_budget[number] = best_rank, float(optimum - best)
        if number >= max(budgets) and (not to_optimum or best == optimum):
            break
    last = max(at_budget)
    reached = [at_budget[min(budget, last)] for budget in budgets]
    ranks, regrets = tuple(rank for rank, _ in reached), tuple(regret for _, regret in reached)
    return Trace(ranks, regrets, found, tuple(asked))


def expected_best_rank(ranks: Values, num_queries: int) -> float:
    """Mean rank of the best of `num_queries` distinct networks drawn at random, ties included."""
    size = len(ranks)

    def log_choose(n: int) -> float:
        return lgamma(n + 1) - lgamma(num_queries + 1) - lgamma(n - num_queries + 1)

    expected, before = 0.0, 1.0
    values, counts = np.unique(ranks, return_counts=True)
    for rank, num_better_or_equal in zip(values, np.cumsum(counts), strict=True):
        left = size - int(num_better_or_equal)
        after = float(np.exp(log_choose(left) - log_choose(size))) if left >= num_queries else 0.0
        expected += rank * (before - after)
        before = after
    return expected


def spread(
    pool: ProcessPoolExecutor, num_seeds: int, run: Callable[[Sequence[int]], list[Result]]
) -> list[Result]:
    """`run` over all seeds, in as many processes as there are; results in the order of the seeds."""
    parts = np.array_split(np.arange(num_seeds), min(num_seeds, 2 * (os.cpu_count() or 1)))
    futures = [pool.submit(run, [int(seed) for seed in part]) for part in parts]
    return [result for future in futures for result in future.result()]
