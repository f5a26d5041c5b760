"""The primitive layers on a batch of tasks: the tensor code behind every candidate operation.

Shape legend: T tasks, B images a task, C channels, H height, W width, O output channels. Activations are folded as
(B, T·C, H, W). A parameter with a leading T axis holds one set of fast weights a task; without it, all tasks share
the parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from across.search_spaces.architecture import (
    BatchNorm,
    Conv,
    FactorizedReduction,
    Layer,
    Pool,
    ReLU,
    Zero,
)
from across.search_spaces.convolution import Geometry, convolve
from across.search_spaces.normalization import normalize, normalize_and_pool, normalize_by_reference

LayerParameters: TypeAlias = Mapping[str, Tensor]
"""A layer's own parameters by their short names."""


def apply_layers(
    layers: Sequence[Layer],
    parameters: Sequence[LayerParameters],
    x: Tensor,
    *,
    num_tasks: int,
    num_reference: int | None,
) -> Tensor:
    """`layers`, one after the other, on folded activations (B, T·C, H, W).

    Batch statistics are taken over the first `num_reference` images of each task (None: over all of them, the
    transductive setting).
    """
    position = 0
    while position < len(layers):
        layer, own = layers[position], parameters[position]
        match layers[position : position + 4]:
            case (Conv() as convolution, BatchNorm(), ReLU(), Pool(kind="max") as pool) if (
                num_reference is None
            ):
                x = _pooled_block(x, own["weight"], parameters[position + 1], convolution, pool, num_tasks)
                position += 4
                continue
            case (BatchNorm(), ReLU(), *_):
                # Nothing else reads a normalised value, so it can be rectified in its place.
                x = _batch_norm(x, own, num_tasks, num_reference).relu_()
                position += 2
                continue
        x = apply_layer(layer, own, x, num_tasks=num_tasks, num_reference=num_reference)
        position += 1
    return x


def apply_layer(
    layer: Layer, parameters: LayerParameters, x: Tensor, *, num_tasks: int, num_reference: int | None
) -> Tensor:
    """One layer of `apply_layers`."""
    match layer:
        case Conv():
            return _convolution(x, parameters["weight"], layer, num_tasks)
        case BatchNorm():
            return _batch_norm(x, parameters, num_tasks, num_reference)
        case ReLU():
            return torch.relu(x)
        case Pool(kind="max"):
            return F.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding)
        case Pool():
            return F.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, count_include_pad=False)
        case FactorizedReduction():
            return _factorized_reduction(x, parameters, num_tasks)
        case Zero():
            return torch.zeros_like(x[:, :, :: layer.stride, :: layer.stride])


def _pooled_block(
    x: Tensor, weight: Tensor, norm: LayerParameters, convolution: Conv, pool: Pool, num_tasks: int
) -> Tensor:
    """Convolution, batch norm, ReLU and max pooling, with the pooling first.

    Filters of a negative scale are turned around, so that what follows the convolution is increasing.
    """
    sign = torch.copysign(weight.new_ones(()), norm["scale"].detach())
    y = _convolution(x, weight * sign[..., None, None, None], convolution, num_tasks)
    scale, shift = _folded(norm["scale"] * sign, num_tasks), _folded(norm["shift"], num_tasks)
    return normalize_and_pool(y, scale, shift, pool).relu_()


def _convolution(x: Tensor, weight: Tensor, layer: Conv, num_tasks: int) -> Tensor:
    per_task = weight.dim() == 5
    channels = layer.in_channels if layer.depthwise else 1
    if per_task or layer.depthwise:
        weight = weight if per_task else weight.expand(num_tasks, *weight.shape)
        geometry = Geometry(layer.stride, layer.padding, layer.dilation, num_tasks * channels)
        return convolve(x, weight.reshape(-1, *weight.shape[2:]), geometry)
    return _shared_convolution(x, weight, Geometry(layer.stride, layer.padding, layer.dilation, 1), num_tasks)


def _shared_convolution(x: Tensor, weight: Tensor, geometry: Geometry, num_tasks: int) -> Tensor:
    batch, channels, height, width = x.shape
    y = convolve(x.reshape(batch * num_tasks, channels // num_tasks, height, width), weight, geometry)
    return y.reshape(batch, -1, *y.shape[2:])


def _factorized_reduction(x: Tensor, parameters: LayerParameters, num_tasks: int) -> Tensor:
    """Even pixels through one 1x1 convolution, odd ones (zeros beyond the edge) through the other."""
    height, width = x.shape[2:]
    shifted = F.pad(x[:, :, 1:, 1:], (0, 1, 0, 1))
    halves = [
        _pointwise(x[:, :, ::2, ::2], parameters["weight"], num_tasks),
        _pointwise(shifted[:, :, :height:2, :width:2], parameters["shifted_weight"], num_tasks),
    ]
    split = [half.unflatten(1, (num_tasks, -1)) for half in halves]
    return torch.cat(split, dim=2).flatten(1, 2)


def _pointwise(x: Tensor, weight: Tensor, num_tasks: int) -> Tensor:
    if weight.dim() == 4:
        return _shared_convolution(x, weight, Geometry(1, 0, 1, 1), num_tasks)
    return convolve(x, weight.reshape(-1, *weight.shape[2:]), Geometry(1, 0, 1, num_tasks))


def _batch_norm(x: Tensor, parameters: LayerParameters, num_tasks: int, num_reference: int | None) -> Tensor:
    scale, shift = _folded(parameters["scale"], num_tasks), _folded(parameters["shift"], num_tasks)
    if num_reference is None:
        return normalize(x, scale, shift)
    return normalize_by_reference(x, scale, shift, num_reference)


def _folded(parameter: Tensor, num_tasks: int) -> Tensor:
    """(T, C), or (C,) for all tasks -> (T·C,)."""
    return (parameter if parameter.dim() == 2 else parameter.expand(num_tasks, -1)).reshape(-1)
