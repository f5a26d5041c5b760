"""The primitive layers on a batch of tasks: the tensor code behind every candidate operation.

Shape legend: T tasks, B images a task, C channels, H height, W width, O output channels. Activations are folded as
(B, T·C, H, W). A parameter with a leading T axis holds one set of fast weights a task; without it, all tasks share
the parameter.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.architecture import (
    BatchNorm,
    Conv,
    FactorizedReduction,
    Layer,
    Pool,
    ReLU,
    Zero,
)
from search_spaces.convolution import Geometry, convolve

BATCH_NORM_EPSILON = 1e-5


def apply_layer(
    layer: Layer,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    *,
    num_tasks: int,
    num_reference: int | None,
) -> Tensor:
    """`layer` on folded activations (B, T·C, H, W).

    `parameters` holds the layer's own parameters by their short names. Batch statistics are taken over the first
    `num_reference` images of each task (None: over all of them, the transductive setting).
    """
    match layer:
        case Conv():
            return _convolution(x, parameters["weight"], layer, num_tasks)
        case BatchNorm():
            return _batch_norm(x, parameters["scale"], parameters["shift"], num_tasks, num_reference)
        case ReLU():
            return torch.relu(x)
        case Pool(kind="max"):
            return max_pool(x, layer)
        case Pool():
            return F.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, count_include_pad=False)
        case FactorizedReduction():
            return _factorized_reduction(x, parameters, num_tasks)
        case Zero():
            return torch.zeros_like(x[:, :, :: layer.stride, :: layer.stride])


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


def _factorized_reduction(x: Tensor, parameters: Mapping[str, Tensor], num_tasks: int) -> Tensor:
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


def _batch_norm(x: Tensor, scale: Tensor, shift: Tensor, num_tasks: int, num_reference: int | None) -> Tensor:
    scale, shift = (
        (p if p.dim() == 2 else p.expand(num_tasks, *p.shape)).reshape(-1) for p in (scale, shift)
    )
    if num_reference is None:
        return F.batch_norm(x, None, None, scale, shift, training=True, eps=BATCH_NORM_EPSILON)
    variance, mean = torch.var_mean(x[:num_reference], dim=(0, 2, 3), correction=0)
    slope = scale * torch.rsqrt(variance + BATCH_NORM_EPSILON)
    return x * slope[:, None, None] + (shift - mean * slope)[:, None, None]


def max_pool(x: Tensor, layer: Pool) -> Tensor:
    """Max pooling; without gradients, disjoint 2x2 windows are the maximum of four strided views, much faster."""
    if (layer.kernel_size, layer.stride, layer.padding) == (2, 2, 0) and not torch.is_grad_enabled():
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        rows = torch.maximum(x[:, :, 0:height:2, :width], x[:, :, 1:height:2, :width])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])
    return F.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding)
