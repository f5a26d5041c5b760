"""What one search works with, put together once: the problem, the strategy, the actors, the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from across.orchestrator.config.run_config import RunConfig
from across.orchestrator.problem import Problem
from across.orchestrator.progress import Progress
from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.strategies.base import Strategy
from across.orchestrator.worker_pool.in_process import InProcessPool
from across.orchestrator.worker_pool.pool import WorkerPool
from across.search_spaces.base import Genotype, SearchSpace
from across.workers.base import EvaluationResult, MetaResult, Purpose, SignalResult, Unit, UnitResult
from across.workers.model import Model

Pool: TypeAlias = WorkerPool | InProcessPool
"""What computes units."""


@dataclass(frozen=True)
class Engine:
    """The parts of a running search. None of them holds state that a result depends on."""

    config: RunConfig
    problem: Problem
    strategy: Strategy
    pool: Pool
    run: RunDirectory
    progress: Progress

    @property
    def space(self) -> SearchSpace:
        return self.problem.space

    @property
    def initial_genotypes(self) -> tuple[Genotype, ...]:
        """What the first generation begins with."""
        section = self.config.initial_population
        return tuple(map(self.space.from_string, section.genotypes)) if section else ()

    @property
    def model(self) -> Model:
        """The layout of what is meta-learned."""
        assert self.problem.model is not None, "nothing is meta-learned in this search"
        return self.problem.model

    def rng(self, index: int, purpose: Purpose) -> np.random.Generator:
        """The generator of one purpose at one place of the search."""
        return np.random.default_rng((self.config.seed, index, purpose))

    def compute(self, units: Sequence[Unit]) -> Iterator[UnitResult]:
        """Results of `units` in order of arrival, with the progress shown; `pool.extend` adds units between two."""
        yield from compute(self.pool, units, self.progress)


def compute(pool: Pool, units: Sequence[Unit], progress: Progress) -> Iterator[UnitResult]:
    """Results of `units` in order of arrival; `progress` is told several times a second, also while none comes."""
    for arrived in pool.collect(units):
        workers = pool.statistics
        finished = sum(_num_tasks(result) for result in arrived)
        progress.advance(len(arrived), finished, workers.num_busy, workers.num_workers)
        yield from arrived


def _num_tasks(result: UnitResult) -> int:
    """Tasks that were learned; signals learn none."""
    match result:
        case EvaluationResult():
            return len(result.scores)
        case MetaResult():
            return result.num_tasks
        case SignalResult():
            return 0
