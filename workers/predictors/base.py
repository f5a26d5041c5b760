"""What a predictor sees and says.

Shapes: N candidates, D values of an encoding, P of a path encoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from across.errors import AcrossError
from across.search_spaces.base import Genotype, SearchSpace
from across.search_spaces.constrained import unconstrained

Values: TypeAlias = NDArray[np.float64]
"""A number a candidate, (N,)."""
Columns: TypeAlias = Mapping[str, Values]
"""Values by name, NaN where a candidate has none."""


class PredictorInputError(AcrossError):
    """Scores or candidates from which nothing can be learned; says which and why."""


@dataclass(frozen=True)
class Candidates:
    """Genotypes with what is known of them before they are evaluated."""

    genotypes: tuple[Genotype, ...]
    encodings: NDArray[np.float32]
    """(N, D), of the space's `encode`."""
    signals: Columns = field(default_factory=dict)
    """Low-fidelity signals by name. Signs and scales are the signals' own: more is not always better."""
    earlier: Columns = field(default_factory=dict)
    """Scores on earlier tasks by the task's name, higher-better, each on a scale of its own."""
    paths: NDArray[np.float32] | None = None
    """(N, P), of the space's `encode_paths` where it has one."""

    def __len__(self) -> int:
        return len(self.genotypes)

    def __add__(self, other: Candidates) -> Candidates:
        """The candidates of both; a column that one of them lacks is unknown there."""
        has_paths = self.paths is not None and other.paths is not None
        return Candidates(
            self.genotypes + other.genotypes,
            np.concatenate([self.encodings, other.encodings]),
            _joined(self.signals, other.signals, len(self), len(other)),
            _joined(self.earlier, other.earlier, len(self), len(other)),
            np.concatenate([self.paths, other.paths]) if has_paths else None,
        )

    def take(self, rows: NDArray[np.intp] | Sequence[int]) -> Candidates:
        """The candidates of some rows, in that order."""
        rows = np.asarray(rows, dtype=np.intp)
        return Candidates(
            tuple(self.genotypes[row] for row in rows),
            self.encodings[rows],
            {name: values[rows] for name, values in self.signals.items()},
            {name: values[rows] for name, values in self.earlier.items()},
            None if self.paths is None else self.paths[rows],
        )


def candidates_of(
    space: SearchSpace,
    genotypes: Sequence[Genotype],
    *,
    signals: Columns | None = None,
    earlier: Columns | None = None,
) -> Candidates:
    """`genotypes` with their encodings; infinite signals count as unknown."""
    encodings = np.stack([space.encode(genotype) for genotype in genotypes])
    encode_paths = getattr(unconstrained(space), "encode_paths", None)
    paths = None if encode_paths is None else np.stack([encode_paths(genotype) for genotype in genotypes])
    return Candidates(tuple(genotypes), encodings, _finite(signals or {}), _finite(earlier or {}), paths)


@dataclass(frozen=True)
class Prediction:
    """What a predictor expects, on its own scale: higher is better, and predictions of one fit can be compared."""

    mean: Values
    std: Values
    """Standard deviation of what is believed, above 0."""


class Predictor(Protocol):
    """Learns to rank candidates from a few scores. What it does follows from its seed and its input alone."""

    def fit(self, candidates: Candidates, scores: Values) -> None:
        """Learn anew from scores (N,), higher-better; what was fitted before is forgotten.

        Signals may be missing for some candidates or for all, and scores may be equal; one score is enough. Raises
        `PredictorInputError` (`check_scores`) for no scores, or scores that are not finite.
        """

    def predict(self, candidates: Candidates) -> Prediction:
        """Mean and standard deviation, (N,) each, all finite, of one candidate or more; after `fit`."""


@runtime_checkable
class PretrainedPredictor(Predictor, Protocol):
    """One that first learns from a pool of candidates, without any score of the task."""

    def pretrain(self, pool: Candidates) -> None:
        """Learn from the signals and the earlier scores of `pool`, one candidate or more.

        Every `fit` starts from what was learned here.
        """


@runtime_checkable
class SavedPredictor(PretrainedPredictor, Protocol):
    """One whose pretraining is dear enough to be kept."""

    def pretrained(self) -> dict[str, NDArray[np.float32]]:
        """What `pretrain` learned, as named arrays."""

    def load_pretrained(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """The inverse of `pretrained`, instead of `pretrain`."""


def check_scores(candidates: Candidates, scores: Values) -> None:
    """Raise `PredictorInputError` unless there is a finite score for each candidate, and at least one."""
    if len(candidates) != len(scores) or len(scores) == 0:
        raise PredictorInputError(
            f"a predictor needs a score for each candidate, and at least one (got {len(scores)} scores for"
            f" {len(candidates)} candidates)"
        )
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise PredictorInputError(
            f"the score of candidate {wrong[0]}, {candidates.genotypes[wrong[0]]}, is {scores[wrong[0]]}: leave"
            " failures out, or give them a finite score"
        )


def quantiles(values: Values, reference: Values) -> Values:
    """Which share of the known `reference` lies below each value, strictly within 0 and 1; NaN for NaN."""
    known = np.sort(reference[np.isfinite(reference)])
    below, up_to = (np.searchsorted(known, values, side=side) for side in ("left", "right"))
    half = 0.5 / len(known)
    return np.where(np.isfinite(values), np.clip((below + up_to) * half, half, 1 - half), np.nan)


def best_first(columns: Columns) -> NDArray[np.intp]:
    """Rows by their mean rank in the columns, the highest values first; unknown ones count as the median."""
    ranks = [quantiles(each, each) if np.isfinite(each).any() else each for each in columns.values()]
    return np.argsort(-np.nan_to_num(ranks, nan=0.5).mean(axis=0), kind="stable")


def normal_scores(values: Values) -> Values:
    """The normal quantile of each value's rank, at (rank - 1/2) / N; equal values share theirs."""
    return np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)))


def _finite(columns: Columns) -> dict[str, Values]:
    return {
        name: np.where(np.isfinite(values), values, np.nan).astype(np.float64)
        for name, values in columns.items()
    }


def _joined(left: Columns, right: Columns, num_left: int, num_right: int) -> dict[str, Values]:
    return {
        name: np.concatenate(
            [left.get(name, np.full(num_left, np.nan)), right.get(name, np.full(num_right, np.nan))]
        )
        for name in dict.fromkeys((*left, *right))
    }
