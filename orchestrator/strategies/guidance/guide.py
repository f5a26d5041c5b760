"""A predictor in a search: what it is told of genotypes, what it learns from, and where its pretraining is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple, TypeAlias

import numpy as np

from across.orchestrator.state import Evaluation, SearchState
from across.orchestrator.strategies.guidance.experience import Experience, experience
from across.orchestrator.strategies.guidance.knowledge import Knowledge, PretrainingCache
from across.orchestrator.strategies.guidance.threads import fixed_threads
from across.search_spaces.base import Genotype, SearchSpace
from across.workers.predictors import PredictorConfig
from across.workers.predictors.base import (
    Candidates,
    Prediction,
    Predictor,
    PretrainedPredictor,
    SavedPredictor,
    candidates_of,
    normal_scores,
)

Signals: TypeAlias = Mapping[Genotype, Mapping[str, float]]
"""Signals by genotype and name."""


class _Fit(NamedTuple):
    """A predictor with all that it learned from."""

    history: tuple[Evaluation, ...]
    candidates: Candidates | None
    """Those of the moment, where it was pretrained on them."""
    predictor: Predictor
    learned_from: Candidates


@dataclass(frozen=True, eq=False)
class Guide:
    """Fits a predictor to a search's state and asks it. An answer follows from the arguments alone."""

    config: PredictorConfig
    space: SearchSpace
    pool: tuple[Genotype, ...]
    """What the predictor is pretrained on; empty: the candidates of the moment."""
    knowledge: Knowledge
    seed: int
    cache: PretrainingCache
    max_experience: int
    num_threads: int
    measured: tuple[str, ...] = ()
    """Signals of the workers beside those known from the start; of a genotype for which one is not defined, unknown."""
    _last: list[_Fit] = field(default_factory=list)
    """The last fit: within a generation the predictor is asked often, and fitted once."""

    def describe(self, genotypes: Sequence[Genotype], signals: Signals | None = None) -> Candidates:
        """`genotypes` with what is known of them; the scores of measured `signals` beside what was known before."""
        rows = [self._rows.get(genotype, -1) for genotype in genotypes]
        if not signals and min(rows, default=-1) >= 0:
            return self._described_pool.take(rows)
        columns = dict(self.knowledge.signals(genotypes))
        for name in self.measured:
            if name not in columns:
                values = [(signals or {}).get(genotype, {}).get(name, np.nan) for genotype in genotypes]
                columns[name] = np.array(values, dtype=np.float64)
        earlier = self.knowledge.earlier(genotypes)
        return candidates_of(self.space, genotypes, signals=columns, earlier=earlier)

    def predict(self, state: SearchState, candidates: Candidates) -> Prediction:
        """What the predictor, fitted to all evaluations of `state`, says of `candidates`."""
        with fixed_threads(self.num_threads):
            return self._fit(state, candidates).predictor.predict(candidates)

    def best(self, state: SearchState, candidates: Candidates) -> float:
        """The highest mean that it predicts for what is evaluated."""
        with fixed_threads(self.num_threads):
            fit = self._fit(state, candidates)
            return float(fit.predictor.predict(fit.learned_from).mean.max())

    def _fit(self, state: SearchState, candidates: Candidates) -> _Fit:
        of_the_moment = None if self.pool else candidates
        if not any(each.history == state.history and each.candidates is of_the_moment for each in self._last):
            known = experience(state.history, self.space, max_functions=self.max_experience)
            own = self._learned_from(known)
            predictor = self._pretrained if self.pool else self._pretrained_on(own + candidates)
            predictor.fit(own, known.scores)
            self._last[:] = [_Fit(state.history, of_the_moment, predictor, own)]
        return self._last[0]

    def _learned_from(self, known: Experience) -> Candidates:
        proposals = [each.proposal for each in known.evaluations]
        signals = {each.genotype: each.signal_scores for each in proposals if each.signal_scores}
        return self.describe([each.genotype for each in proposals], signals)

    @cached_property
    def _pretrained(self) -> Predictor:
        return self._pretrained_on(self._described_pool)

    def _pretrained_on(self, pool: Candidates) -> Predictor:
        """A new predictor that has learned from `pool`, or from what it learned there in another process."""
        predictor: Predictor = self.config.build(self.space, seed=self.seed)
        if not isinstance(predictor, PretrainedPredictor):
            return predictor
        key = _key(self.config, pool, self.seed)
        arrays = self.cache.load(key) if isinstance(predictor, SavedPredictor) and self.pool else None
        if isinstance(predictor, SavedPredictor) and arrays is not None:
            predictor.load_pretrained(arrays)
            return predictor
        predictor.pretrain(pool)
        if isinstance(predictor, SavedPredictor) and self.pool:
            self.cache.save(key, predictor.pretrained())
        return predictor

    @cached_property
    def _rows(self) -> dict[Genotype, int]:
        return {genotype: row for row, genotype in enumerate(self.pool)}

    @cached_property
    def _described_pool(self) -> Candidates:
        known = self.knowledge
        return candidates_of(
            self.space, self.pool, signals=known.signals(self.pool), earlier=known.earlier(self.pool)
        )


def ranked_signals(signals: Signals) -> dict[Genotype, dict[str, float]]:
    """Each signal as its normal score among the genotypes that were measured together.

    Signals at weights that learn drift from generation to generation; ranks within one can be compared.
    """
    ranked: dict[Genotype, dict[str, float]] = {genotype: {} for genotype in signals}
    for name in sorted({name for own in signals.values() for name in own}):
        having = [genotype for genotype, own in signals.items() if name in own]
        scores = normal_scores(np.array([signals[genotype][name] for genotype in having]))
        for genotype, score in zip(having, scores, strict=True):
            ranked[genotype][name] = float(score)
    return ranked


def _key(config: PredictorConfig, pool: Candidates, seed: int) -> str:
    """Equal for what learns the same."""
    digest = sha256(f"{config.model_dump_json()} {seed} {pool.genotypes}".encode())
    for columns in (pool.signals, pool.earlier):
        for name, values in sorted(columns.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:24]
