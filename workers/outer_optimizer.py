"""The outer optimizer: Adam or SGD on the flat vector, lazily.

Only parameters on the paths of this step move; all others keep values, moments and step counts, so that a parameter's
bias correction counts its own updates. Plain numpy on the driver: sums run in shard order and elementwise arithmetic
is exact IEEE, so the same gradients give the same bits on any machine of a kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, pi
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from across.search_spaces.base import Config

Vector = NDArray[np.float32]
"""(size,)"""


class OuterOptimizerConfig(Config):
    """How meta-gradients move the weights."""

    type: Literal["adam", "sgd"] = "adam"
    outer_lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    min_outer_lr: float = Field(default=1e-5, ge=0)
    """Where the cosine ends."""
    total_steps: int | None = Field(default=None, ge=1)
    """Outer steps until the cosine's end; None: all those that the search is configured for."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    max_gradient_norm: float | None = Field(default=10.0, gt=0)
    """Meta-gradients of a larger norm are scaled down to it; None: never, and one that explodes stops its elements."""

    @model_validator(mode="after")
    def _cosine_falls(self) -> Self:
        if self.schedule == "cosine" and self.min_outer_lr > self.outer_lr:
            raise ValueError(
                f"min_outer_lr must be at most outer_lr, {self.outer_lr} (got {self.min_outer_lr})"
            )
        return self

    def learning_rate(self, step: int) -> float:
        """The outer learning rate of outer step `step`, from 0; a cosine needs its `total_steps` by then."""
        if self.schedule == "constant":
            return self.outer_lr
        assert self.total_steps is not None, "resolved before a search starts"
        progress = min(1.0, step / self.total_steps)
        return self.min_outer_lr + 0.5 * (self.outer_lr - self.min_outer_lr) * (1 + cos(pi * progress))


@dataclass(frozen=True)
class MetaState:
    """The meta-learned vector with the optimizer's memory, (size,) each."""

    step: int
    """Outer steps taken: the version of the weights."""
    weights: Vector
    first_moment: Vector
    second_moment: Vector
    num_updates: NDArray[np.int32]
    """How often each element has moved."""

    @classmethod
    def start(cls, weights: Vector) -> MetaState:
        """Before the first step."""
        zeros = np.zeros_like(weights)
        return cls(0, weights, zeros, zeros, np.zeros(weights.shape, np.int32))

    def tensors(self) -> dict[str, NDArray[np.float32] | NDArray[np.int32]]:
        """What is stored, by name."""
        return {
            "weights": self.weights,
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
            "num_updates": self.num_updates,
        }


@dataclass(frozen=True)
class PathGradient:
    """The meta-gradient of one shard: a sum over tasks, at `positions` of the vector."""

    positions: NDArray[np.int64]
    gradient: Vector
    num_tasks: int


def outer_step(
    state: MetaState, gradients: Iterable[PathGradient], config: OuterOptimizerConfig
) -> MetaState:
    """One step along the mean over tasks of `gradients`, which are added in their order.

    Each element's mean is over the tasks whose path used it. Without any gradient only the step is counted.
    """
    total = np.zeros_like(state.weights)
    num_tasks = np.zeros(state.weights.shape, np.int32)
    for shard in gradients:
        total[shard.positions] += shard.gradient
        num_tasks[shard.positions] += shard.num_tasks
    touched = np.flatnonzero(num_tasks)
    sums: Vector = total[touched]
    mean = _clip(np.divide(sums, num_tasks[touched], dtype=np.float32), config.max_gradient_norm)
    learning_rate = np.float32(config.learning_rate(state.step))
    if config.type == "sgd":
        return _replace(state, touched, weights=state.weights[touched] - learning_rate * mean)
    return _adam(state, touched, mean, learning_rate, config)


def _adam(
    state: MetaState,
    touched: NDArray[np.int64],
    gradient: Vector,
    learning_rate: np.float32,
    config: OuterOptimizerConfig,
) -> MetaState:
    """Kingma & Ba, 2015, Algorithm 1, on the touched elements, each with its own step count."""
    beta1, beta2 = np.float32(config.beta1), np.float32(config.beta2)
    rest1, rest2 = np.float32(1 - config.beta1), np.float32(1 - config.beta2)
    first: Vector = beta1 * state.first_moment[touched] + rest1 * gradient
    second: Vector = beta2 * state.second_moment[touched] + rest2 * (gradient * gradient)
    counts = state.num_updates[touched] + 1
    unbiased_first = first / _bias_correction(config.beta1, counts)
    step = unbiased_first / (np.sqrt(second / _bias_correction(config.beta2, counts)) + config.epsilon)
    weights = state.weights[touched] - learning_rate * step.astype(np.float32)
    return _replace(state, touched, weights=weights, first_moment=first, second_moment=second)


def _bias_correction(beta: float, counts: NDArray[np.int32]) -> NDArray[np.float64]:
    """1 - beta^count, from repeated products: unlike a power, these have the same bits on every processor."""
    powers: NDArray[np.float64] = np.multiply.accumulate(np.full(counts.max(initial=0), beta))
    return 1 - powers[counts - 1]


def _replace(state: MetaState, touched: NDArray[np.int64], **changed: Vector) -> MetaState:
    """The state one step on, with the changed vectors' touched elements set."""
    vectors = {
        "weights": state.weights,
        "first_moment": state.first_moment,
        "second_moment": state.second_moment,
    }
    for name, values in changed.items():
        vectors[name] = vectors[name].copy()
        vectors[name][touched] = values
    num_updates = state.num_updates.copy()
    num_updates[touched] += 1
    return MetaState(state.step + 1, num_updates=num_updates, **vectors)


def _clip(gradient: Vector, max_norm: float | None) -> Vector:
    norm = float(np.sqrt(np.sum(np.square(gradient, dtype=np.float64))))
    if max_norm is None or norm <= max_norm:
        return gradient
    return gradient * np.float32(max_norm / norm)
