"""Which predicted candidates are worth an evaluation: acquisition functions, and batches that spread out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import norm

from across.search_spaces.base import Config
from across.workers.predictors.base import Prediction, Values

Acquisition: TypeAlias = Callable[[Prediction], Values]
"""Worth of each candidate, (N,)."""


class MeanConfig(Config):
    """The predicted mean: no exploration."""

    type: Literal["mean"] = "mean"

    def build(self, best: float, rng: np.random.Generator) -> Acquisition:
        return lambda prediction: prediction.mean


class UpperBoundConfig(Config):
    """Mean + width · deviation: Srinivas et al. 2010, "Gaussian Process Optimization in the Bandit Setting"."""

    type: Literal["upper_bound"] = "upper_bound"
    width: float = Field(default=1.0, ge=0)

    def build(self, best: float, rng: np.random.Generator) -> Acquisition:
        return lambda prediction: prediction.mean + self.width * prediction.std


class ExpectedImprovementConfig(Config):
    """Jones et al. 1998, "Efficient Global Optimization": how far above the best prediction of what is evaluated."""

    type: Literal["expected_improvement"] = "expected_improvement"

    def build(self, best: float, rng: np.random.Generator) -> Acquisition:
        def improvement(prediction: Prediction) -> Values:
            z = (prediction.mean - best) / prediction.std
            return np.asarray(prediction.std * (z * norm.cdf(z) + norm.pdf(z)))

        return improvement


class ThompsonConfig(Config):
    """Thompson sampling: a draw from what is believed of each candidate.

    Deviation: candidates are drawn independently of each other, since not every predictor knows how they hang together.
    """

    type: Literal["thompson"] = "thompson"

    def build(self, best: float, rng: np.random.Generator) -> Acquisition:
        return lambda prediction: rng.normal(prediction.mean, prediction.std)


AcquisitionConfig: TypeAlias = Annotated[
    UpperBoundConfig | ExpectedImprovementConfig | ThompsonConfig | MeanConfig, Field(discriminator="type")
]
"""Any acquisition function, told apart by `type`."""


def choose_batch(
    acquisition: Acquisition,
    prediction: Prediction,
    encodings: NDArray[np.float32],
    groups: NDArray[np.intp],
    num: int,
    *,
    reach: float,
) -> list[int]:
    """Rows of up to `num` candidates, one after the other the best by `acquisition`, and one of each group at most.

    A chosen candidate takes uncertainty away from those like it, as its evaluation will (Desautels et al. 2014,
    "Parallelizing Exploration-Exploitation Tradeoffs"), so that a batch spreads out: standard deviations shrink by
    sqrt(1 - exp(-d² / reach²)), d the distance of the encodings. `reach` 0: they do not.
    """
    std, is_open = prediction.std.copy(), np.ones(len(groups), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < num and is_open.any():
        worth = acquisition(Prediction(prediction.mean, std))
        row = int(np.argmax(np.where(is_open, worth, -np.inf)))
        chosen.append(row)
        is_open &= groups != groups[row]
        if reach > 0:
            distances = np.square(encodings - encodings[row], dtype=np.float64).sum(axis=1)
            std *= np.sqrt(np.maximum(1 - np.exp(-distances / reach**2), 1e-6))
    return chosen
