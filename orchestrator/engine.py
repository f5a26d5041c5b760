"""What one search works with, put together once: the space, the model, the strategy, the actors, the disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from orchestrator.config.run_config import RunConfig
from orchestrator.progress import Progress
from orchestrator.run_directory import RunDirectory
from orchestrator.strategies.base import Strategy
from orchestrator.worker_pool.pool import WorkerPool
from search_spaces.base import Genotype, SearchSpace
from workers.base import Purpose, Unit, UnitResult
from workers.model import Model


@dataclass(frozen=True)
class Engine:
    """The parts of a running search. None of them holds state that a result depends on."""

    config: RunConfig
    model: Model
    strategy: Strategy
    pool: WorkerPool
    run: RunDirectory
    progress: Progress

    @property
    def space(self) -> SearchSpace:
        return self.model.space

    def rng(self, index: int, purpose: Purpose) -> np.random.Generator:
        """The generator of one purpose at one place of the search."""
        return np.random.default_rng((self.config.seed, index, purpose))

    def compute(self, units: Sequence[Unit]) -> Iterator[UnitResult]:
        """Results of `units` in order of arrival, with the progress shown."""
        yield from compute(self.pool, units, self.progress)


def compute(pool: WorkerPool, units: Sequence[Unit], progress: Progress) -> Iterator[UnitResult]:
    """Results of `units` in order of arrival; `progress` is told several times a second, also while none comes."""
    num_tasks = {unit.key: len(unit.seeds) for unit in units}
    for arrived in pool.collect(units):
        workers = pool.statistics
        finished = sum(num_tasks[result.key] for result in arrived)
        progress.advance(len(arrived), finished, workers.num_busy, workers.num_workers)
        yield from arrived


def task_seeds(rng: np.random.Generator, num: int) -> tuple[int, ...]:
    """Seeds of `num` tasks."""
    return tuple(int(seed) for seed in rng.integers(2**63, size=num, dtype=np.int64))


def chunks(seeds: Sequence[int], size: int) -> Iterable[tuple[int, ...]]:
    """`seeds` cut into tuples of `size`; the last may be shorter."""
    return (tuple(seeds[start : start + size]) for start in range(0, len(seeds), size))


def unit_key(genotype: Genotype, source: int, split: str, seeds: Sequence[int], version: int) -> str:
    """A unit's name: equal for units of equal content, so that a spooled result is never used for another."""
    content = repr((tuple(genotype), source, split, tuple(seeds), version))
    return sha256(content.encode()).hexdigest()[:24]
