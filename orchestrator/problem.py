"""What a search evaluates: adaptation to tasks, or look-ups in a benchmark table.

A problem cuts the evaluation of a genotype into units and joins their scores to a fitness. All else, from the
strategies to the journal, is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from typing import Protocol, TypeAlias

import numpy as np

from across.orchestrator.config.run_config import RunConfig, build_model, build_sources, build_space
from across.orchestrator.state import Proposal
from across.orchestrator.strategies.guidance.knowledge import Knowledge, SizeKnowledge, TableKnowledge
from across.orchestrator.strategies.predictor_guided import PredictorGuidedConfig
from across.orchestrator.units import chunks, task_seeds, test_seeds, unit_key
from across.orchestrator.worker_pool.actor import Worker
from across.search_spaces.base import Genotype, SearchSpace
from across.search_spaces.constrained import Constrained, Cost
from across.workers.base import EvaluationUnit, Purpose, SignalUnit, Split, TaskSource
from across.workers.evaluators.tabular import TabularBenchmark, make_tabular_worker
from across.workers.evaluators.zero_cost import SignalsConfig
from across.workers.model import Model
from across.workers.objectives import OBJECTIVES
from across.workers.supernet_worker import ComputeSettings, make_supernet_worker

WorkerRecipe: TypeAlias = tuple[Callable[..., Worker], Mapping[str, object]]
"""A function that makes a worker where it runs, and its arguments."""


class Problem(Protocol):
    """What the evaluations of a search are."""

    @property
    def space(self) -> SearchSpace: ...

    @property
    def model(self) -> Model | None:
        """The layout of the meta-learned weights; None where nothing is learned."""

    def worker(self, settings: ComputeSettings) -> WorkerRecipe:
        """How to make what computes the units."""

    def seeds(self, split: Split, version: int) -> tuple[int, ...]:
        """The tasks that all genotypes meet: for validation at one version of the weights, for test ever the same."""

    def units(
        self, proposal: Proposal, split: Split, seeds: Sequence[int], version: int
    ) -> list[EvaluationUnit]:
        """The work for one genotype, cut by the config alone."""

    def signal_units(self, genotypes: Sequence[Genotype], version: int) -> list[SignalUnit]:
        """The work of measuring signals, one unit a genotype; none where no signals are measured."""

    @property
    def knowledge(self) -> Knowledge:
        """What is known of genotypes before they are evaluated."""

    def fitness(self, scores: Sequence[float]) -> float:
        """Of the scores of all tasks, in unit order."""

    def cost(self, genotype: Genotype) -> Cost:
        """Parameters and multiply-adds."""


def build_problem(config: RunConfig) -> Problem:
    """The problem of `config`; raises what is wrong with its data, table or space."""
    if config.table is not None:
        space = build_space(config, ())
        return TabularProblem(config, config.table.build(space))
    sources = build_sources(config)
    return FewShotProblem(config, sources, build_model(config, build_space(config, sources), sources))


@dataclass(frozen=True)
class FewShotProblem:
    """Accuracy on the query set after a few steps from the meta-learned weights."""

    config: RunConfig
    sources: tuple[TaskSource, ...]
    model: Model

    @property
    def space(self) -> SearchSpace:
        return self.model.space

    def worker(self, settings: ComputeSettings) -> WorkerRecipe:
        arguments = {"model": self.model, "sources": self.config.tasks, "settings": settings}
        return make_supernet_worker, arguments | {"signals": self._signals}

    def seeds(self, split: Split, version: int) -> tuple[int, ...]:
        if split == "test":
            return test_seeds(self.config.seed, self.config.test.num_tasks)
        rng = np.random.default_rng((self.config.seed, version, Purpose.VALIDATION_TASKS))
        return task_seeds(rng, self.config.evaluation.num_tasks)

    def units(
        self, proposal: Proposal, split: Split, seeds: Sequence[int], version: int
    ) -> list[EvaluationUnit]:
        seeds = seeds[: proposal.fidelity]
        size = self.config.evaluation.tasks_per_chunk or len(seeds)
        genotype = proposal.genotype
        return [
            EvaluationUnit(
                unit_key(genotype, source, split, chunk, version), genotype, source, split, chunk, version
            )
            for source in range(len(self.model.specs))
            for chunk in chunks(seeds, size)
        ]

    def signal_units(self, genotypes: Sequence[Genotype], version: int) -> list[SignalUnit]:
        if self._signals is None:
            return []
        seeds = self.seeds("validation", version)[: self._signals.num_seeds]
        return [
            SignalUnit(
                unit_key(genotype, 0, "signals", seeds, version), genotype, 0, "validation", seeds, version
            )
            for genotype in genotypes
        ]

    @property
    def knowledge(self) -> Knowledge:
        return SizeKnowledge(self._costs)

    @property
    def _signals(self) -> SignalsConfig | None:
        strategy = self.config.strategy
        return strategy.signals if isinstance(strategy, PredictorGuidedConfig) else None

    def fitness(self, scores: Sequence[float]) -> float:
        return fsum(scores) / len(scores)

    def cost(self, genotype: Genotype) -> Cost:
        """With the head of the first task source."""
        return self._costs.cost(genotype)

    @cached_property
    def _costs(self) -> Constrained:
        spec = self.model.specs[0]
        return Constrained(self.space, OBJECTIVES[spec.objective].num_outputs(spec))


@dataclass(frozen=True)
class TabularProblem:
    """A value out of a benchmark table."""

    config: RunConfig
    benchmark: TabularBenchmark

    @property
    def space(self) -> SearchSpace:
        return self.benchmark.space

    @property
    def model(self) -> None:
        return None

    def worker(self, settings: ComputeSettings) -> WorkerRecipe:
        return make_tabular_worker, {"config": self.benchmark.config, "space": self.space}

    def seeds(self, split: Split, version: int) -> tuple[int, ...]:
        return tuple(range(len(self.benchmark.config.tasks)))

    def units(
        self, proposal: Proposal, split: Split, seeds: Sequence[int], version: int
    ) -> list[EvaluationUnit]:
        genotype, fidelity = proposal.genotype, None if split == "test" else proposal.fidelity
        key = unit_key(genotype, 0, f"{split} {fidelity}", seeds, version)
        return [EvaluationUnit(key, genotype, 0, split, tuple(seeds), version, fidelity)]

    def signal_units(self, genotypes: Sequence[Genotype], version: int) -> list[SignalUnit]:
        return []

    @cached_property
    def knowledge(self) -> Knowledge:
        return TableKnowledge(self.benchmark)

    def fitness(self, scores: Sequence[float]) -> float:
        return min(scores) if self.benchmark.config.fitness == "worst" else fsum(scores) / len(scores)

    def cost(self, genotype: Genotype) -> Cost:
        """Without a head."""
        return self._costs.cost(genotype)

    @cached_property
    def _costs(self) -> Constrained:
        return Constrained(self.space, 0)
