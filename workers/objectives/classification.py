"""Few-shot classification: a linear head, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from across.search_spaces.architecture import Shape
from across.workers.base import TaskSpec


class Classification:
    """N-way classification; targets are class numbers (T, B) from 0 to num_ways - 1."""

    score = "accuracy"

    def num_outputs(self, spec: TaskSpec) -> int:
        return spec.num_ways

    def parameter_shapes(self, spec: TaskSpec, feature_dim: int) -> dict[str, Shape]:
        return {"weight": (spec.num_ways, feature_dim), "bias": (spec.num_ways,)}

    def outputs(self, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
        weight, bias = parameters["weight"], parameters["bias"]
        if weight.dim() == 2:
            return F.linear(features, weight, bias)
        return torch.baddbmm(bias.unsqueeze(1), features, weight.transpose(1, 2))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape).mean(dim=1)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        # A diverged network recognises nothing: the greatest of NaNs would be class 0, right by chance.
        recognised = (outputs.argmax(dim=2) == targets) & outputs.isfinite().all(dim=2)
        correct = recognised.to(torch.float64)
        return {"accuracy": correct.mean(dim=1), "loss": self.loss(outputs, targets).to(torch.float64)}
