"""A Gaussian process whose kernel is a sum over views of the candidates, for tens to hundreds of scores.

Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning": algorithm 2.1; hyperparameters maximise the
marginal likelihood (section 5.4) times a prior. Duvenaud et al. 2011, "Additive Gaussian Processes".

Shapes: n scores, m candidates, d values of a view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Array: TypeAlias = NDArray[np.float64]
Kind: TypeAlias = Literal["linear", "matern"]
Views: TypeAlias = Mapping[str, Array]
"""Features (n, d) by the view's name, scaled so that 1 is a typical distance."""

JITTER = 1e-5
PREDICTED_AT_ONCE = 2048
"""Candidates: memory is for their similarities to all scored ones."""
LOG_AMPLITUDE_BOUNDS, LOG_LENGTH_BOUNDS, LOG_NOISE_BOUNDS = (-7.0, 4.0), (-2.5, 2.5), (-7.0, 1.0)


def default_prior(num_views: int) -> tuple[Array, Array]:
    """Mean and standard deviation of the logarithms before anything is known."""
    return np.array([-1.0, 0.0] * num_views + [-3.0]), np.array([1.5, 0.7] * num_views + [1.0])


class AdditiveGaussianProcess:
    """Sum of a linear or a Matérn-3/2 kernel a view, and noise, on standardised targets."""

    def __init__(self, kinds: Mapping[str, Kind], prior: tuple[Array, Array] | None = None) -> None:
        self.kinds = dict(kinds)
        self.prior = prior or default_prior(len(self.kinds))

    def fit(self, views: Views, targets: Array) -> None:
        """Learn hyperparameters and posterior from targets (n,)."""
        self._views = views
        self._shift = float(targets.mean())
        self._scale = float(targets.std()) or 1.0
        y = (targets - self._shift) / self._scale
        similarities = self._similarities(views, views)
        self.hyperparameters = self._most_probable(similarities, y)
        kernel = _total(self._terms(self.hyperparameters, similarities))
        self._factor = cho_factor(self._with_noise(kernel, self.hyperparameters), lower=True)
        self._weights = cho_solve(self._factor, y)

    def predict(self, views: Views) -> tuple[Array, Array]:
        """Mean and standard deviation (m,) of the noiseless function."""
        num = len(next(iter(views.values())))
        parts = [
            self._predict({name: view[start : start + PREDICTED_AT_ONCE] for name, view in views.items()})
            for start in range(0, num, PREDICTED_AT_ONCE)
        ]
        mean, std = (np.concatenate(part) for part in zip(*parts, strict=True))
        return mean * self._scale + self._shift, std * self._scale

    def _predict(self, views: Views) -> tuple[Array, Array]:
        """On the scale of the standardised targets."""
        cross = _total(self._terms(self.hyperparameters, self._similarities(views, self._views)))
        explained = np.square(solve_triangular(self._factor[0], cross.T, lower=True)).sum(axis=0)
        variance = np.maximum(self._prior_variance(views) - explained, 1e-9)
        return cross @ self._weights, np.sqrt(variance)

    def _most_probable(self, similarities: Sequence[Array], y: Array) -> Array:
        """The mode of the hyperparameters, by gradients of the marginal likelihood (equation 5.9)."""
        means, deviations = self.prior

        def loss(theta: Array) -> tuple[float, Array]:
            terms = self._terms(theta, similarities)
            kernel = self._with_noise(_total(terms), theta)
            factor = cho_factor(kernel, lower=True)
            weights = cho_solve(factor, y)
            pull = (cho_solve(factor, np.eye(len(y))) - np.outer(weights, weights)) / 2
            stray = (theta - means) / deviations
            total = y @ weights / 2 + np.log(np.diagonal(factor[0])).sum() + stray @ stray / 2
            slopes = [float((pull * slope).sum()) for term in terms for slope in term]
            slopes.append(float(np.trace(pull) * np.exp(theta[-1])))
            return float(total), np.array(slopes) + stray / deviations

        bounds = [LOG_AMPLITUDE_BOUNDS, LOG_LENGTH_BOUNDS] * len(self.kinds) + [LOG_NOISE_BOUNDS]
        low, high = map(np.array, zip(*bounds, strict=True))
        start = np.clip(means, low, high)
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40})
        return np.asarray(found.x)

    def _terms(self, theta: Array, similarities: Sequence[Array]) -> list[tuple[Array, Array]]:
        """Each view's kernel, which is also its slope by the log-amplitude, and its slope by the log-length."""
        terms = []
        for position, (kind, similarity) in enumerate(zip(self.kinds.values(), similarities, strict=True)):
            amplitude, length = np.exp(theta[2 * position : 2 * position + 2])
            if kind == "linear":
                terms.append((amplitude * similarity, np.zeros_like(similarity)))
            else:
                ratio = similarity * (3**0.5 / length)
                decay = amplitude * np.exp(-ratio)
                terms.append((decay * (1 + ratio), decay * ratio**2))
        return terms

    def _with_noise(self, kernel: Array, theta: Array) -> Array:
        return np.asarray(kernel + (np.exp(theta[-1]) + JITTER) * np.eye(len(kernel)))

    def _similarities(self, left: Views, right: Views) -> list[Array]:
        """Of a linear view the mean products, of others the distances, (m, n)."""
        return [
            left[name] @ right[name].T / left[name].shape[1]
            if kind == "linear"
            else distances(left[name], right[name])
            for name, kind in self.kinds.items()
        ]

    def _prior_variance(self, views: Views) -> Array:
        variance = np.zeros(len(next(iter(views.values()))))
        for position, (name, kind) in enumerate(self.kinds.items()):
            amplitude = np.exp(self.hyperparameters[2 * position])
            variance += amplitude * (np.square(views[name]).mean(axis=1) if kind == "linear" else 1.0)
        return variance


def _total(terms: Sequence[tuple[Array, Array]]) -> Array:
    """The kernel that the views' terms add up to."""
    total = terms[0][0].copy()
    for term, _ in terms[1:]:
        total += term
    return total


def distances(left: Array, right: Array) -> Array:
    """Euclidean distances (m, n) between rows."""
    squared = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)[None] - 2 * left @ right.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))
