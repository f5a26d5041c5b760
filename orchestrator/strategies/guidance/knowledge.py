"""What a search knows of genotypes before it evaluates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from across.search_spaces.base import Genotype
from across.search_spaces.constrained import Constrained
from across.workers.evaluators.tabular import TabularBenchmark
from across.workers.predictors.base import Columns

Arrays: TypeAlias = Mapping[str, NDArray[np.float32]]


class Knowledge(Protocol):
    """Columns of values about genotypes, NaN where nothing is known. The target's own values are never among them."""

    def signals(self, genotypes: Sequence[Genotype]) -> Columns:
        """Low-fidelity signals on the task that is searched."""

    def earlier(self, genotypes: Sequence[Genotype]) -> Columns:
        """Scores on earlier tasks, higher-better."""


class PretrainingCache(Protocol):
    """Where what a predictor learned before its first score is kept."""

    def load(self, key: str) -> Arrays | None:
        """What was saved under `key`, if anything."""

    def save(self, key: str, arrays: Arrays) -> None: ...


@dataclass(frozen=True)
class SizeKnowledge:
    """Parameters and multiply-adds of every architecture."""

    costs: Constrained

    def signals(self, genotypes: Sequence[Genotype]) -> Columns:
        sizes = [self.costs.cost(self.costs.canonical(genotype)) for genotype in genotypes]
        return {
            "params": np.array([size.num_params for size in sizes], dtype=np.float64),
            "flops": np.array([size.flops for size in sizes], dtype=np.float64),
        }

    def earlier(self, genotypes: Sequence[Genotype]) -> Columns:
        return {}


class TableKnowledge:
    """What a benchmark table says beside the values that are searched for: proxies, sizes, other tasks."""

    def __init__(self, benchmark: TabularBenchmark) -> None:
        self._benchmark = benchmark
        self._sizes = SizeKnowledge(Constrained(benchmark.space, 0))

    def signals(self, genotypes: Sequence[Genotype]) -> Columns:
        rows = self._rows(genotypes)
        own = {name: values[rows] for name, values in self._benchmark.signals.items()}
        return own | dict(self._sizes.signals(genotypes))

    def earlier(self, genotypes: Sequence[Genotype]) -> Columns:
        rows = self._rows(genotypes)
        return {task: values[rows] for task, values in self._benchmark.earlier.items()}

    def _rows(self, genotypes: Sequence[Genotype]) -> list[int]:
        return [self._benchmark.row(genotype) for genotype in genotypes]


class Forgetful:
    """Keeps what was learned for this process alone."""

    def __init__(self) -> None:
        self._kept: dict[str, Arrays] = {}

    def load(self, key: str) -> Arrays | None:
        return self._kept.get(key)

    def save(self, key: str, arrays: Arrays) -> None:
        self._kept[key] = arrays
