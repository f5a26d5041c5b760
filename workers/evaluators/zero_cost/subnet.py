"""A subnet with one batch of one task, and its forward pass with the activations in view.

The supernet's own forward pass fuses layers and rectifies in place, which leaves no activations to look at; and some
signals want other batch norms than the network's. So this one takes layer after layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from across.search_spaces.architecture import (
    BATCH_NORM_EPSILON,
    Architecture,
    BatchNorm,
    Edge,
    Layer,
    parameter_shapes,
)
from across.search_spaces.normalization import moments, normalize
from across.search_spaces.operations import LayerParameters, apply_layer
from across.search_spaces.supernet import fold_tasks
from across.workers.episode import Episode
from across.workers.model import Path

Normalization: TypeAlias = Callable[[Tensor, LayerParameters], Tensor]
"""(B, C, H, W) and a batch norm's parameters -> (B, C, H, W)."""
Observer: TypeAlias = Callable[[Layer, Tensor], None]
"""Is told each layer's output."""


def batch_norm(x: Tensor, own: LayerParameters) -> Tensor:
    """The network's: by the batch's statistics."""
    return normalize(x, own["scale"], own["shift"])


def batch_norm_with_constant_statistics(x: Tensor, own: LayerParameters) -> Tensor:
    """The same values as those of `batch_norm`, but an image's value depends on that image alone."""
    mean, variance = moments(x.detach())
    slope = own["scale"] * torch.rsqrt(variance + BATCH_NORM_EPSILON)
    offset = own["shift"] - mean * slope
    return torch.addcmul(offset[:, None, None], x, slope[:, None, None])


def no_norm(x: Tensor, own: LayerParameters) -> Tensor:
    """As if there were no batch norms."""
    return x


def ignore(layer: Layer, output: Tensor) -> None:
    """Observe nothing."""


@dataclass(frozen=True)
class Subnet:
    """One path at its weights, which all tasks share, and the images of one task: B of them."""

    path: Path
    parameters: Mapping[str, Tensor]
    images: Tensor
    """(B, C, H, W)."""
    targets: Tensor
    """(B, ...)."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """What the pruning literature scores: convolutions' and the head's weights, without scales and shifts."""
        return {name: self.parameters[name] for name in self.path.weights if self.parameters[name].dim() >= 2}

    def outputs(
        self,
        parameters: Mapping[str, Tensor],
        images: Tensor,
        *,
        normalization: Normalization = batch_norm,
        observe: Observer = ignore,
    ) -> Tensor:
        """The head's outputs (B, num_outputs) at `parameters` on `images`."""
        architecture = self.path.architecture
        x = feature_map(architecture, parameters, images, normalization=normalization, observe=observe)
        features = x.mean(dim=(2, 3)) if architecture.readout == "mean" else x.flatten(1)
        return self.path.outputs(parameters, features.unsqueeze(0)).squeeze(0)

    def loss(self, outputs: Tensor) -> Tensor:
        """Mean loss of the images."""
        return self.path.objective.loss(outputs.unsqueeze(0), self.targets.unsqueeze(0)).squeeze(0)


def subnets_of(episode: Episode, *, max_images: int) -> Iterator[Subnet]:
    """The episode's subnet with each of its tasks: support and then query images, evenly spaced ones of many."""
    batch = episode.batch
    inputs = torch.cat([batch.support_inputs, batch.query_inputs], dim=1)
    targets = torch.cat([batch.support_targets, batch.query_targets], dim=1)
    num_images = min(max_images, inputs.shape[1])
    chosen = torch.arange(num_images, device=inputs.device) * inputs.shape[1] // num_images
    for task in range(episode.num_tasks):
        images = fold_tasks(inputs[task : task + 1, chosen], episode.memory_format)
        yield Subnet(episode.path, episode.parameters, images, targets[task, chosen])


def feature_map(
    architecture: Architecture,
    parameters: Mapping[str, Tensor],
    images: Tensor,
    *,
    normalization: Normalization,
    observe: Observer,
) -> Tensor:
    """The last node (B, C, H, W), before the readout."""
    values = [images]
    for index, node in enumerate(architecture.nodes[1:], start=1):
        arrived = [
            _follow(edge, parameters, values[edge.source], normalization, observe)
            for edge in architecture.incoming(index)
        ]
        is_sum = node.join == "sum"
        values.append(sum(arrived[1:], start=arrived[0]) if is_sum else torch.cat(arrived, dim=1))
    return values[-1]


def _follow(
    edge: Edge, parameters: Mapping[str, Tensor], x: Tensor, normalization: Normalization, observe: Observer
) -> Tensor:
    for position, layer in enumerate(edge.layers):
        own = {name: parameters[f"{edge.name}.{position}.{name}"] for name in parameter_shapes(layer)}
        if isinstance(layer, BatchNorm):
            x = normalization(x, own)
        else:
            x = apply_layer(layer, own, x, num_tasks=1, num_reference=None)
        observe(layer, x)
    return x
