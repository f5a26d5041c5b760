"""A Gaussian process on encodings, signals and earlier scores, by scikit-learn.

Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", algorithm 2.1; hyperparameters maximise the
marginal likelihood (equation 5.8). The kernel is a Matérn 3/2 of one length for all features, scaled, plus white noise;
the mean is that of the scores.

Deviations: the encoding, the signals and the earlier scores count alike in a distance, however many features each has.
The standard deviation is that of the noiseless score: what another evaluation would scatter is not in it.
"""

from __future__ import annotations

import warnings
from math import sqrt
from typing import Literal

import numpy as np
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from across.search_spaces.base import Config, SearchSpace
from across.workers.predictors.base import Candidates, Prediction, Values
from across.workers.predictors.features import Features, Matrix, ScoreScale, sklearn_seed, training_data

SIGNAL_BOUNDS = (1e-2, 1e3)
"""Variance of what the features explain, where that of the scores is 1."""
LENGTH_BOUNDS = (1e-1, 1e2)
"""Of the kernel; two random candidates are about the square root of 2 apart in each view."""
NOISE_BOUNDS = (1e-4, 1e1)
"""Variance of the white noise."""


class GaussianProcessConfig(Config):
    """Settings of a Gaussian process."""

    type: Literal["gaussian_process"] = "gaussian_process"
    score_scale: ScoreScale = "normal_scores"
    """Whether scores are learned as they are, or by their ranks alone."""
    smoothness: float = Field(default=1.5, gt=0)
    """ν of the Matérn kernel; 0.5, 1.5 and 2.5 are computed fastest."""
    num_restarts: int = Field(default=1, ge=0)
    """Further starts of the search for hyperparameters, drawn at random."""

    def build(self, space: SearchSpace, *, seed: int) -> GaussianProcess:
        return GaussianProcess(self, seed)


class GaussianProcess:
    """The posterior of a function of the features that is known, with noise, where there are scores."""

    def __init__(self, config: GaussianProcessConfig, seed: int) -> None:
        self.config = config
        self._seed = seed

    def fit(self, candidates: Candidates, scores: Values) -> None:
        training = training_data(candidates, scores, score_scale=self.config.score_scale)
        kernel = ConstantKernel(1.0, SIGNAL_BOUNDS) * Matern(1.0, LENGTH_BOUNDS, nu=self.config.smoothness)
        process = GaussianProcessRegressor(
            kernel + WhiteKernel(0.1, NOISE_BOUNDS),
            # Equal scores say nothing of the hyperparameters: they stay where they start.
            optimizer=None if training.is_constant else "fmin_l_bfgs_b",
            n_restarts_optimizer=self.config.num_restarts,
            random_state=sklearn_seed(self._seed),
        )
        with warnings.catch_warnings():
            # A hyperparameter at its bound is as good an answer as any.
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit(_balanced(training.features, training.candidates), training.scores)
        self._training, self._process = training, process

    def predict(self, candidates: Candidates) -> Prediction:
        mean, std = self._process.predict(_balanced(self._training.features, candidates), return_std=True)
        noise = self._process.kernel_.k2.noise_level
        return self._training.prediction(mean, np.sqrt(np.maximum(std**2 - noise, 0)))


def _balanced(features: Features, candidates: Candidates) -> Matrix:
    """Features whose views have equal shares in the squared distance of two candidates."""
    return np.hstack([view / sqrt(max(1, view.shape[1])) for view in features.views(candidates)])
