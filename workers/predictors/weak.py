"""The predictor of WeakNAS: a multilayer perceptron on the encoding, by scikit-learn.

Wu et al. 2021, "Stronger NAS with Weaker Predictors", arXiv 2102.10490: four hidden layers of 1,000 rectified units on
the one-hot encoding, regression by the squared error; the rest is scikit-learn's default, as in the authors' code.
Which genotypes are scored next belongs to the search.

Deviations:
- Scores are standardised.
- The standard deviation, for which the authors have no use, is that of a Bayesian linear regression on the last hidden
  layer, as in Snoek et al. 2015, "Scalable Bayesian Optimization Using Deep Neural Networks" (equation 6), in the dual
  form that needs one equation a scored candidate. Its mean is not used: the prediction is the perceptron's. Prior and
  noise are fixed: the prior variance is that of the scores, on average over the scored candidates.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.linalg import cholesky, solve_triangular
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from across.search_spaces.base import Config, SearchSpace
from across.workers.predictors.base import Candidates, Prediction, Values
from across.workers.predictors.features import sklearn_seed, training_data

Inputs: TypeAlias = NDArray[np.float32]
"""Features, (N, F)."""

NOISE = 0.01
"""Variance of what the last layer cannot explain, where that of the scores is 1."""
PREDICTED_AT_ONCE = 4096


class WeakConfig(Config):
    """Settings of WeakNAS's predictor."""

    type: Literal["weak"] = "weak"
    uses_signals: bool = False
    """Whether signals and earlier scores are inputs too, beside the encoding."""
    num_layers: int = Field(default=4, ge=1)
    """Hidden ones."""
    width: int = Field(default=1000, ge=1)
    """Units of each hidden layer."""
    num_epochs: int = Field(default=200, ge=1)
    """At most: it ends when the loss has not fallen by 1e-4 for ten of them."""

    def build(self, space: SearchSpace, *, seed: int) -> Weak:
        return Weak(self, seed)


class Weak:
    """A wide perceptron."""

    def __init__(self, config: WeakConfig, seed: int) -> None:
        self.config = config
        self._seed = seed

    def fit(self, candidates: Candidates, scores: Values) -> None:
        self._training = training_data(candidates, scores, score_scale="standardised")
        inputs = self._inputs(self._training.candidates)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are all it gets
            self._perceptron = MLPRegressor(
                hidden_layer_sizes=(self.config.width,) * self.config.num_layers,
                max_iter=self.config.num_epochs,
                random_state=sklearn_seed(self._seed),
            ).fit(inputs, self._training.scores.astype(np.float32))
        self._belief = _Belief.of(self._hidden(inputs))

    def predict(self, candidates: Candidates) -> Prediction:
        inputs = self._inputs(candidates)
        parts = [
            inputs[start : start + PREDICTED_AT_ONCE] for start in range(0, len(inputs), PREDICTED_AT_ONCE)
        ]
        means = [self._perceptron.predict(part) for part in parts]
        stds = [self._belief.std(self._hidden(part)) for part in parts]
        return self._training.prediction(np.concatenate(means).astype(np.float64), np.concatenate(stds))

    def _inputs(self, candidates: Candidates) -> Inputs:
        """Without signals the encoding as it is."""
        if self.config.uses_signals:
            return self._training.features.matrix(candidates).astype(np.float32)
        return candidates.encodings.astype(np.float32)

    def _hidden(self, inputs: Inputs) -> NDArray[np.float64]:
        """The last hidden layer, (N, H)."""
        hidden = inputs
        for weight, bias in zip(self._perceptron.coefs_[:-1], self._perceptron.intercepts_[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
        return hidden.astype(np.float64)


@dataclass(frozen=True)
class _Belief:
    """Posterior of a linear function of H hidden units, of which N values are known."""

    seen: NDArray[np.float64]
    """(N, H)."""
    factor: NDArray[np.float64]
    """(N, N), lower Cholesky factor of the covariance of what is known, noise included."""
    scale: float
    """Of the prior variance of a weight."""

    @classmethod
    def of(cls, seen: NDArray[np.float64]) -> _Belief:
        """What is believed once the values at `seen` (N, H) are known."""
        covariance = seen @ seen.T
        scale = 1 / max(float(np.diagonal(covariance).mean()), float(np.finfo(np.float64).tiny))
        return cls(seen, cholesky(scale * covariance + NOISE * np.eye(len(seen)), lower=True), scale)

    def std(self, hidden: NDArray[np.float64]) -> Values:
        """Standard deviation (M,) of the function at `hidden` (M, H), without noise."""
        explained = solve_triangular(self.factor, self.scale * self.seen @ hidden.T, lower=True)
        variance = self.scale * np.square(hidden).sum(axis=1) - np.square(explained).sum(axis=0)
        return np.asarray(np.sqrt(np.maximum(variance, 0)))
