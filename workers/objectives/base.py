"""What an objective offers: a head on the supernet's features, a loss, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from across.search_spaces.architecture import Shape
from across.workers.base import TaskSpec


class Objective(Protocol):
    """Turns features (T, B, F) and targets into losses and scores, a value a task."""

    @property
    def score(self) -> str:
        """The metric that is the fitness; higher is better."""

    def num_outputs(self, spec: TaskSpec) -> int:
        """Values that the head gives for one image."""

    def parameter_shapes(self, spec: TaskSpec, feature_dim: int) -> dict[str, Shape]:
        """The head's parameters; for fewer features they are leading slices of those for more."""

    def outputs(self, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """(T, B, F) -> (T, B, num_outputs); parameters have a leading T axis or are shared by all tasks."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of each task, (T,)."""

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Metrics of each task, (T,) each, among them `score`."""
