"""Searches that came before, as earlier tasks of this one.

A table knows every genotype's score on another task. A search knows those that it evaluated, and the next search asks
about others. What it learned is therefore generalised: each earlier search is a Gaussian process (`across`, on how a
genotype is built and what it costs), and the score there of any genotype is what that process expects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from across.orchestrator.strategies.guidance.knowledge import Knowledge, SizeKnowledge
from across.orchestrator.strategies.guidance.threads import fixed_threads
from across.search_spaces.base import Genotype, SearchSpace
from across.search_spaces.constrained import Constrained
from across.workers.predictors.across import AcrossConfig
from across.workers.predictors.base import Candidates, Columns, Predictor, candidates_of

Scores: TypeAlias = Mapping[Genotype, float]
"""What a search found, higher-better, by canonical genotype."""
MAX_LEARNED = 400
"""Genotypes of an earlier search that are learned, the last: the time it takes grows with the cube of their number."""


@dataclass(frozen=True, eq=False)
class EarlierSearches:
    """`known` about genotypes, and beside it what searches by name found."""

    known: Knowledge
    space: SearchSpace
    scores: Mapping[str, Scores]

    def signals(self, genotypes: Sequence[Genotype]) -> Columns:
        return self.known.signals(genotypes)

    def earlier(self, genotypes: Sequence[Genotype]) -> Columns:
        if not self.scores:
            return self.known.earlier(genotypes)
        with fixed_threads(1):
            candidates = self._describe(genotypes)
            expected = {name: process.predict(candidates).mean for name, process in self._processes.items()}
        return {**self.known.earlier(genotypes), **expected}

    @cached_property
    def _processes(self) -> dict[str, Predictor]:
        return {name: self._learned(scores) for name, scores in self.scores.items() if scores}

    def _learned(self, scores: Scores) -> Predictor:
        last = list(scores)[-MAX_LEARNED:]
        process = AcrossConfig().build(self.space, seed=0)
        process.fit(self._describe(last), np.array([scores[genotype] for genotype in last]))
        return process

    def _describe(self, genotypes: Sequence[Genotype]) -> Candidates:
        sizes = SizeKnowledge(Constrained(self.space, 0)).signals(genotypes)
        return candidates_of(self.space, genotypes, signals=sizes)
