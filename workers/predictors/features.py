"""What regression on a table of numbers needs: one matrix of encoding, signals and earlier scores; scaled scores.

Of this project; no paper. Everything is learned at `fit` and used again at `predict`, where columns are found by
their names: what is new there is ignored, what is gone counts as unknown. How unknown values are treated:

- A signal or earlier task without two different known values at fit says nothing of how to scale it: left out.
- A value that is unknown becomes the median of the known ones, and a column that is unknown for some candidates at
  fit has an indicator beside it, which says so. One that only turns out unknown at predict has none: nothing could
  be learned of it.
- Signals span orders of magnitude, some with both signs. They are squashed by asinh about their median, in units of
  their interquartile range: linear near the median, logarithmic far out, the order unchanged.
- Signals and earlier scores are standardised one by one, the encoding by one factor for all its columns: they are
  mostly one-hot, and a rare operation is not a large one. The encoding's constant columns stay, so that a candidate
  with an operation that no scored one has is far from them.

Scores are standardised, or replaced by normal scores: the normal distribution's quantiles at their ranks (Blom 1958,
"Statistical Estimates and Transformed Beta-Variables"; here at (rank - 1/2) / N). Only the order counts then, which is
all that a search asks for, and a network that failed to learn is not an outlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isinf, sqrt
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from across.workers.predictors.base import (
    Candidates,
    Columns,
    Prediction,
    Values,
    check_scores,
    normal_scores,
)

Matrix: TypeAlias = NDArray[np.float64]
"""Features, (N, F)."""

ScoreScale: TypeAlias = Literal["standardised", "normal_scores"]
"""What becomes of scores before they are learned."""

MAX_MAGNITUDE = 1e150
"""Of a signal, so that its ratio to any spread is finite."""
MIN_RELATIVE_STD = 1e-6
"""Least standard deviation of a prediction, in standard deviations of the scores."""


@dataclass(frozen=True)
class Scale:
    """A shift and a positive factor."""

    centre: float
    width: float

    def apply(self, values: Values) -> Values:
        """`values` about 0, in units of the width."""
        return (values - self.centre) / self.width


@dataclass(frozen=True)
class Column:
    """What is known of a signal's or an earlier task's values, learned at fit."""

    median: float
    """Takes the place of unknown values."""
    spread: float
    """Interquartile range, or the whole range where most values are equal."""
    scale: Scale
    """Of the squashed values."""
    indicator: Scale | None
    """Of the claim "the value is unknown"; none where it was known of all candidates."""

    def features(self, values: Values) -> Iterator[Values]:
        """One or two features (N,) each."""
        is_unknown = ~np.isfinite(values)
        filled = np.where(is_unknown, self.median, _bounded(values))
        yield self.scale.apply(_squashed(filled, self.median, self.spread))
        if self.indicator is not None:
            yield self.indicator.apply(is_unknown.astype(np.float64))


@dataclass(frozen=True)
class Features:
    """Makes the matrix of any candidates as it was learned from those with scores."""

    encoding_mean: Values
    """(D,)."""
    encoding_std: float
    """Root mean variance of the columns; 1 where it would be 0."""
    signals: dict[str, Column]
    earlier: dict[str, Column]

    def views(self, candidates: Candidates) -> tuple[Matrix, Matrix, Matrix]:
        """Features of the encoding, the signals and the earlier tasks, (N, ...) each, the names in their order."""
        return (
            (candidates.encodings - self.encoding_mean) / self.encoding_std,
            _matrix(self.signals, candidates.signals, len(candidates)),
            _matrix(self.earlier, candidates.earlier, len(candidates)),
        )

    def matrix(self, candidates: Candidates) -> Matrix:
        """All features side by side, (N, F), all finite."""
        return np.hstack(self.views(candidates))


def learn_features(candidates: Candidates) -> Features:
    """How to make features, from candidates that have scores."""
    encodings = candidates.encodings.astype(np.float64)
    return Features(
        encodings.mean(axis=0),
        sqrt(encodings.var(axis=0).mean()) if np.ptp(encodings, axis=0).any() else 1.0,
        _learn_columns(candidates.signals),
        _learn_columns(candidates.earlier),
    )


@dataclass(frozen=True)
class Training:
    """What a predictor is fitted on: scores with mean 0 and standard deviation 1, or all 0 where they are equal."""

    candidates: Candidates
    """In the order of the scores."""
    features: Features
    scores: Values
    scale: Scale
    """Of the scores."""

    @property
    def is_constant(self) -> bool:
        """Whether the scores are all equal, as a single one is."""
        return not self.scores.any()

    def prediction(self, mean: Values, std: Values) -> Prediction:
        """A prediction of `scores`, on the scale that they had before they were standardised."""
        width = self.scale.width
        return Prediction(mean * width + self.scale.centre, np.maximum(std, MIN_RELATIVE_STD) * width)


def training_data(candidates: Candidates, scores: Values, *, score_scale: ScoreScale) -> Training:
    """Features and standardised scores, in an order that does not depend on that of the candidates.

    Bootstraps, batches and sums depend on the order of the rows; the genotypes' own order makes what is learned a
    function of the set. Raises `PredictorInputError`.
    """
    check_scores(candidates, scores)
    order = sorted(range(len(scores)), key=lambda row: (candidates.genotypes[row], scores[row]))
    ordered, values = candidates.take(order), np.asarray(scores, dtype=np.float64)[order]
    if score_scale == "normal_scores":
        values = normal_scores(values)
    scale = _standard(values)
    return Training(ordered, learn_features(ordered), scale.apply(values), scale)


def sklearn_seed(seed: int) -> int:
    """A seed that scikit-learn takes, which allows 32 bits, from one of any size."""
    return int(np.random.default_rng(seed).integers(2**32))


def _learn_columns(columns: Columns) -> dict[str, Column]:
    learned = {name: _learn_column(columns[name]) for name in sorted(columns)}
    return {name: column for name, column in learned.items() if column is not None}


def _learn_column(values: Values) -> Column | None:
    """What a column's known values say of it; nothing where they are equal."""
    is_known = np.isfinite(values)
    known = _bounded(values[is_known])
    if known.size == 0 or known.min() == known.max():
        return None
    low, median, high = np.percentile(known, (25, 50, 75))
    spread = max(float(high - low) or float(np.ptp(known)), 1 / MAX_MAGNITUDE)
    filled = np.where(is_known, _bounded(values), median)
    return Column(
        float(median),
        spread,
        _standard(_squashed(filled, float(median), spread)),
        None if is_known.all() else _standard((~is_known).astype(np.float64)),
    )


def _matrix(columns: dict[str, Column], values: Columns, num_candidates: int) -> Matrix:
    """The features of `columns` side by side, (N, ...)."""
    unknown = np.full(num_candidates, np.nan)
    features = [
        each for name, column in columns.items() for each in column.features(values.get(name, unknown))
    ]
    return np.column_stack(features) if features else np.empty((num_candidates, 0))


def _bounded(values: Values) -> Values:
    return np.clip(values, -MAX_MAGNITUDE, MAX_MAGNITUDE)


def _squashed(values: Values, centre: float, width: float) -> Values:
    return np.arcsinh((values - centre) / width)


def _standard(values: Values) -> Scale:
    """The scale that makes the mean 0 and the standard deviation 1; equal values become 0."""
    centre = float(values.mean())
    with np.errstate(over="ignore"):
        width = float(values.std())
    if isinf(width):  # the squares of values beyond 1e154
        largest = float(np.abs(values).max())
        width = float((values / largest).std()) * largest
    if values.min() == values.max() or width == 0:
        return Scale(float(values[0]), 1.0)
    return Scale(centre, width)
