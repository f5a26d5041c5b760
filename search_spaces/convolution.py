"""Convolution of T tasks at once, differentiable to any order with a constant number of kernels.

Activations are folded as (B, T·C, H, W) and weights (T, O, I, k, k), so T tasks are one grouped convolution. PyTorch
differentiates a grouped convolution twice with one convolution per group. Convolution is bilinear, though, and the
three maps

    y  = C(x, w)      the convolution,
    gx = X(gy, w)     its gradient with respect to the input,
    gw = W(x, gy)     its gradient with respect to the weight

are closed under differentiation: the derivatives of each are the two others. So each order costs one kernel a map,
whatever the number of tasks and channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """Stride, padding, dilation of a square kernel, and the number of groups."""

    stride: int
    padding: int
    dilation: int
    groups: int


def convolve(inputs: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Grouped convolution (B, G·I, H, W) * (G·O, I, k, k) -> (B, G·O, H', W'), cheap to differentiate twice."""
    output: Tensor = _Convolution.apply(inputs, weight, geometry)  # type: ignore[no-untyped-call]
    return output


def _gradient(
    output_gradient: Tensor, inputs: Tensor, weight: Tensor, geometry: Geometry, of_inputs: bool
) -> Tensor:
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        output_gradient,
        inputs,
        weight,
        None,
        [geometry.stride] * 2,
        [geometry.padding] * 2,
        [geometry.dilation] * 2,
        False,
        [0, 0],
        geometry.groups,
        [of_inputs, not of_inputs, False],
    )
    return result[0] if of_inputs else result[1]


class _Convolution(torch.autograd.Function):
    """y = C(x, w)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.geometry = geometry
        return torch.conv2d(
            inputs,
            weight,
            None,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            geometry.groups,
        )

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs, weight = ctx.saved_tensors
        needs_inputs, needs_weight, _ = ctx.needs_input_grad
        return (
            _InputGradient.apply(output_gradient, weight, inputs.detach(), ctx.geometry)  # type: ignore[no-untyped-call]
            if needs_inputs
            else None,
            _WeightGradient.apply(inputs, output_gradient, weight.detach(), ctx.geometry)  # type: ignore[no-untyped-call]
            if needs_weight
            else None,
            None,
        )


class _InputGradient(torch.autograd.Function):
    """gx = X(gy, w); `like` is a tensor of the input's shape and layout."""

    @staticmethod
    def forward(
        ctx: Any, output_gradient: Tensor, weight: Tensor, like: Tensor, geometry: Geometry
    ) -> Tensor:
        ctx.save_for_backward(output_gradient, weight)
        ctx.geometry = geometry
        return _gradient(output_gradient, like, weight, geometry, of_inputs=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        output_gradient, weight = ctx.saved_tensors
        needs_output_gradient, needs_weight, _, _ = ctx.needs_input_grad
        return (
            _Convolution.apply(gradient, weight, ctx.geometry) if needs_output_gradient else None,  # type: ignore[no-untyped-call]
            _WeightGradient.apply(gradient, output_gradient, weight.detach(), ctx.geometry)  # type: ignore[no-untyped-call]
            if needs_weight
            else None,
            None,
            None,
        )


class _WeightGradient(torch.autograd.Function):
    """gw = W(x, gy); `like` is a tensor of the weight's shape."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, output_gradient: Tensor, like: Tensor, geometry: Geometry
    ) -> Tensor:
        ctx.save_for_backward(inputs, output_gradient)
        ctx.geometry = geometry
        return _gradient(output_gradient, inputs, like, geometry, of_inputs=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        inputs, output_gradient = ctx.saved_tensors
        needs_inputs, needs_output_gradient, _, _ = ctx.needs_input_grad
        return (
            _InputGradient.apply(output_gradient, gradient, inputs.detach(), ctx.geometry)  # type: ignore[no-untyped-call]
            if needs_inputs
            else None,
            _Convolution.apply(inputs, gradient, ctx.geometry) if needs_output_gradient else None,  # type: ignore[no-untyped-call]
            None,
            None,
        )
