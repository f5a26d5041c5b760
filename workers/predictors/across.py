"""A ranking predictor that carries knowledge across tasks.

A Gaussian process over four views of a genotype: how it is built (its encoding, and its paths where the space has
them), its low-fidelity signals on this task, and its scores on earlier tasks, once with a linear and once with a Matérn
kernel. The linear one is what a multi-task process with a coregionalised kernel (Bonilla et al. 2007, "Multi-task
Gaussian Process Prediction") comes to when the earlier tasks' scores are known everywhere; the others say where this
task differs. Columns and scores count by their ranks alone, as normal scores (Salinas et al. 2020, "A Quantile-based
Approach for Hyperparameter Transfer Learning").

How much each view is worth is learned on the earlier tasks first: each of them is predicted in turn from the others,
and what its hyperparameters come to is the prior of those of the next task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import norm

from across.search_spaces.base import Config, SearchSpace
from across.workers.predictors.base import (
    Candidates,
    Columns,
    Prediction,
    Values,
    best_first,
    check_scores,
    normal_scores,
    quantiles,
)
from across.workers.predictors.kernels import AdditiveGaussianProcess, Array, Kind, Views, distances

MIN_KNOWN = 0.5
"""A signal that fewer of the pool have is left out."""
MIN_DEVIATION = 0.3
"""Of a logarithm's prior, however well the earlier tasks agree."""
NUM_SAMPLED = 300
"""Candidates from which typical distances are taken."""


View: TypeAlias = Literal["encoding", "paths", "signals", "earlier", "earlier_linear"]


class AcrossConfig(Config):
    """Settings of the predictor that transfers across tasks."""

    type: Literal["across"] = "across"
    views: Annotated[tuple[View, ...], Field(min_length=1)] = get_args(View)
    """What it looks at, as far as it is known: encoding, paths and earlier_linear make a coregionalised process."""
    is_meta_trained: bool = True
    """Whether the prior of the hyperparameters is learned on the earlier tasks."""
    num_meta_scores: int = Field(default=100, ge=10)
    """Scores of each earlier task that it is learned from."""
    prior_width: float = Field(default=2.0, gt=0)
    """How far the hyperparameters of a task may stray from the prior, in units of what the earlier tasks differ by."""

    def build(self, space: SearchSpace, *, seed: int) -> Across:
        return Across(self, seed)


class Across:
    """Additive Gaussian process over what is known of a genotype, here and from earlier tasks."""

    def __init__(self, config: AcrossConfig, seed: int) -> None:
        self.config = config
        self._seed = seed
        self._pool: _Pool | None = None
        self._prior: tuple[Array, Array] | None = None

    def pretrain(self, pool: Candidates) -> None:
        """Learn ranks and scales of `pool`'s columns, and the prior from its earlier tasks."""
        self._pool = _Pool.of(self.config, pool)
        self._prior = self._meta_train(pool) if self.config.is_meta_trained else None

    def fit(self, candidates: Candidates, scores: Values) -> None:
        check_scores(candidates, scores)
        self._fitted_on = self._pool or _Pool.of(self.config, candidates)
        prior = self._prior if self._pool else None
        self._process = AdditiveGaussianProcess(self._fitted_on.kinds, prior)
        self._process.fit(self._fitted_on.views(candidates), normal_scores(scores))

    def predict(self, candidates: Candidates) -> Prediction:
        return Prediction(*self._process.predict(self._fitted_on.views(candidates)))

    def _meta_train(self, pool: Candidates) -> tuple[Array, Array] | None:
        """Mean and standard deviation of the hyperparameters that the earlier tasks have, each seen from the others."""
        rng = np.random.default_rng(self._seed)
        useful = {name: pool.earlier[name] for name in _references(pool.earlier)}
        found = []
        for task, scores in useful.items():
            others = {name: values for name, values in useful.items() if name != task}
            rows = self._meta_rows(scores, others, rng)
            if not others or len(rows) < self.config.num_meta_scores:
                continue
            seen = replace(pool, earlier=others)
            reference = _Pool.of(self.config, seen)
            process = AdditiveGaussianProcess(reference.kinds)
            process.fit(reference.views(seen.take(rows)), normal_scores(scores[rows]))
            found.append(process.hyperparameters)
        if len(found) < 2:
            return None
        deviations = self.config.prior_width * np.maximum(np.std(found, axis=0), MIN_DEVIATION)
        return np.mean(found, axis=0), deviations

    def _meta_rows(self, scores: Values, others: Columns, rng: np.random.Generator) -> NDArray[np.intp]:
        """Half of them the best by the other tasks, half at random, of those with a score."""
        known = np.flatnonzero(np.isfinite(scores))
        if not others or len(known) < self.config.num_meta_scores:
            return known
        order = known[best_first({name: values[known] for name, values in others.items()})]
        num_best = self.config.num_meta_scores // 2
        rest = rng.permutation(order[num_best:])[: self.config.num_meta_scores - num_best]
        return np.concatenate([order[:num_best], rest])


@dataclass(frozen=True)
class _Pool:
    """By what ranks and distances count."""

    signals: Mapping[str, Values]
    """Known values of each signal that is of use, ascending."""
    earlier: Mapping[str, Values]
    kinds: Mapping[str, Kind]
    scales: Mapping[str, float]
    """Typical distance of a view."""

    @classmethod
    def of(cls, config: AcrossConfig, pool: Candidates) -> _Pool:
        signals, earlier = _references(pool.signals), _references(pool.earlier)
        known = {"encoding": True, "paths": pool.paths is not None, "signals": bool(signals)}
        known |= {"earlier": bool(earlier), "earlier_linear": bool(earlier)}
        wanted = [view for view in config.views if known[view]] or ["encoding"]
        kinds: dict[str, Kind] = {view: "linear" if view == "earlier_linear" else "matern" for view in wanted}
        unscaled = cls(signals, earlier, kinds, dict.fromkeys(kinds, 1.0))
        sampled = pool.take(np.unique(np.linspace(0, len(pool) - 1, NUM_SAMPLED).astype(np.intp)))
        views = unscaled.views(sampled)
        return cls(signals, earlier, kinds, {name: _typical_distance(view) for name, view in views.items()})

    def views(self, candidates: Candidates) -> Views:
        """Features (N, d) of each view; an unknown value counts as the median."""
        views = {"encoding": candidates.encodings.astype(np.float64)}
        if candidates.paths is not None:
            views["paths"] = candidates.paths.astype(np.float64)
        if "signals" in self.kinds:
            views["signals"] = _ranked(candidates.signals, self.signals, len(candidates))
        if not self.kinds.keys().isdisjoint({"earlier", "earlier_linear"}):
            earlier = _ranked(candidates.earlier, self.earlier, len(candidates))
            views |= {"earlier": earlier, "earlier_linear": earlier}
        return {
            name: views[name] if kind == "linear" else views[name] / self.scales[name]
            for name, kind in self.kinds.items()
        }


def _references(columns: Columns) -> dict[str, Values]:
    """Known values of the columns that tell candidates apart and that enough of them have."""
    found = {}
    for name, values in columns.items():
        known = np.sort(values[np.isfinite(values)])
        if len(known) >= max(1, MIN_KNOWN * len(values)) and known[0] < known[-1]:
            found[name] = known
    return found


def _ranked(columns: Columns, references: Mapping[str, Values], num: int) -> Array:
    """Normal scores (N, columns) by the references' ranks; 0, the median, for what is unknown."""
    unknown = np.full(num, np.nan)
    ranked = [
        norm.ppf(quantiles(columns.get(name, unknown), reference)) for name, reference in references.items()
    ]
    return np.nan_to_num(np.stack(ranked, axis=1), nan=0.0)


def _typical_distance(view: Array) -> float:
    """The median distance of two different rows."""
    between = distances(view, view)
    apart = between[between > 1e-5]
    return float(np.median(apart)) if apart.size else 1.0
