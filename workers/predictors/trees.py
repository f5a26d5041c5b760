"""Regression trees on encodings, signals and earlier scores, by scikit-learn.

`extra_trees`: Geurts et al. 2006, "Extremely randomized trees". `gradient_boosting`: Friedman 2001, "Greedy function
approximation: a gradient boosting machine", with the subsampling of Friedman 2002, "Stochastic gradient boosting".
Boosted trees on encodings with proxies are the reference of White et al. 2021, "How Powerful are Performance
Predictors in Neural Architecture Search?".

Deviations: the standard deviation is the spread of the single trees' predictions, as in Hutter et al. 2014, "Algorithm
runtime prediction", without the variance in their leaves; boosting, whose trees are no predictions by themselves, is
fitted several times, each time to a bootstrap sample of the scored candidates (Breiman 1996, "Bagging predictors"),
and its mean is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor

from across.search_spaces.base import Config, SearchSpace
from across.workers.predictors.base import Candidates, Prediction, Values
from across.workers.predictors.features import Matrix, ScoreScale, Training, sklearn_seed, training_data


class _Regressor(Protocol):
    """A fitted regressor of scikit-learn."""

    def predict(self, matrix: NDArray[np.float32], /) -> Values:
        """A value (N,) for each row."""


class ExtraTreesConfig(Config):
    """Settings of extremely randomized trees."""

    type: Literal["extra_trees"] = "extra_trees"
    score_scale: ScoreScale = "standardised"
    """Whether scores are learned as they are, or by their ranks alone."""
    num_trees: int = Field(default=300, ge=2)
    """Their spread is the standard deviation."""
    min_samples_leaf: int = Field(default=1, ge=1)
    """Scored candidates in a leaf, at least."""
    max_features: float = Field(default=1 / 3, gt=0, le=1)
    """Share of the features that each split chooses from."""

    def build(self, space: SearchSpace, *, seed: int) -> ExtraTrees:
        return ExtraTrees(self, seed)


class ExtraTrees:
    """The mean of trees whose splits are drawn at random."""

    def __init__(self, config: ExtraTreesConfig, seed: int) -> None:
        self.config = config
        self._seed = seed

    def fit(self, candidates: Candidates, scores: Values) -> None:
        self._training = training_data(candidates, scores, score_scale=self.config.score_scale)
        self._forest = ExtraTreesRegressor(
            self.config.num_trees,
            min_samples_leaf=self.config.min_samples_leaf,
            max_features=self.config.max_features,
            random_state=sklearn_seed(self._seed),
            n_jobs=1,
        ).fit(self._training.features.matrix(self._training.candidates), self._training.scores)

    def predict(self, candidates: Candidates) -> Prediction:
        return _spread(self._training, candidates, self._forest.estimators_)


class GradientBoostingConfig(Config):
    """Settings of an ensemble of boosted trees."""

    type: Literal["gradient_boosting"] = "gradient_boosting"
    score_scale: ScoreScale = "normal_scores"
    """Whether scores are learned as they are, or by their ranks alone."""
    num_ensemble: int = Field(default=10, ge=2)
    """Bootstrap samples; the spread of what is learned from them is the standard deviation."""
    num_trees: int = Field(default=100, ge=1)
    """Boosting steps of each."""
    learning_rate: float = Field(default=0.1, gt=0)
    max_depth: int = Field(default=3, ge=1)
    subsample: float = Field(default=0.5, gt=0, le=1)
    """Share of a bootstrap sample that each tree sees."""
    max_features: float = Field(default=1 / 3, gt=0, le=1)
    """Share of the features that each split chooses from."""

    def build(self, space: SearchSpace, *, seed: int) -> GradientBoosting:
        return GradientBoosting(self, seed)


class GradientBoosting:
    """The mean of boosted trees that are fitted to bootstrap samples."""

    def __init__(self, config: GradientBoostingConfig, seed: int) -> None:
        self.config = config
        self._seed = seed

    def fit(self, candidates: Candidates, scores: Values) -> None:
        self._training = training_data(candidates, scores, score_scale=self.config.score_scale)
        rng = np.random.default_rng(self._seed)
        matrix = self._training.features.matrix(self._training.candidates)
        self._ensemble = [self._boosted(matrix, rng) for _ in range(self.config.num_ensemble)]

    def predict(self, candidates: Candidates) -> Prediction:
        return _spread(self._training, candidates, self._ensemble)

    def _boosted(self, matrix: Matrix, rng: np.random.Generator) -> GradientBoostingRegressor:
        """Boosted trees for one bootstrap sample."""
        num_scores = len(self._training.scores)
        rows = np.sort(rng.integers(num_scores, size=num_scores))
        at_least_one = min(1.0, 1.5 / num_scores)
        return GradientBoostingRegressor(
            n_estimators=self.config.num_trees,
            learning_rate=self.config.learning_rate,
            max_depth=self.config.max_depth,
            subsample=max(self.config.subsample, at_least_one),
            max_features=self.config.max_features,
            random_state=int(rng.integers(2**31)),
        ).fit(matrix[rows], self._training.scores[rows])


def _spread(training: Training, candidates: Candidates, regressors: Iterable[_Regressor]) -> Prediction:
    """Mean and standard deviation of what the regressors of an ensemble say."""
    matrix = training.features.matrix(candidates).astype(np.float32)
    predicted = np.array([regressor.predict(matrix) for regressor in regressors])
    return training.prediction(predicted.mean(axis=0), predicted.std(axis=0))
