"""Batch normalisation, with or without the max pooling that follows, in closed form to second order.

PyTorch differentiates batch norm twice by some thirty elementwise operations; by hand it is two reductions and one
linear combination. And max pooling commutes with the increasing map y = scale · x̂ + shift for scale ≥ 0: pooling
first leaves a quarter of the values to scale, rectify and differentiate.

Per channel, over its n values x: x̂ = r (x − μ), r = 1 / √(σ² + ε). With g the gradient of the output (scattered to
where the maxima were), a = Σ g x̂ and b = Σ g are those of scale and shift, and that of x is

    gx = scale · r (g − b/n − x̂ a/n).

Let u, v, w be the gradients of gx, a, b; U = Σ u, P = Σ u x̂, Q = Σ u g, K = Q − bU/n − aP/n, and
α = v − scale · r P/n, β = −scale · r a/n. Then the gradients are

    of g:      scale · r (u − U/n) + α x̂ + w
    of scale:  r K
    of x:      r (α g + β u) − r (α b + β U)/n − x̂ r (α a + β P + scale · r K)/n.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from across.search_spaces.architecture import BATCH_NORM_EPSILON, Pool

BLOCK_SIZE = 1024
"""Pixels whose values are summed without an intermediate result."""


def normalize(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Batch norm of (B, C, H, W) by its own statistics; differentiable twice."""
    output: Tensor = _Normalize.apply(x, scale, shift, None)  # type: ignore[no-untyped-call]
    return output


def normalize_and_pool(x: Tensor, scale: Tensor, shift: Tensor, pool: Pool) -> Tensor:
    """Batch norm, then max pooling, for scale ≥ 0; differentiable twice."""
    output: Tensor = _Normalize.apply(x, scale, shift, pool)  # type: ignore[no-untyped-call]
    return output


def normalize_by_reference(x: Tensor, scale: Tensor, shift: Tensor, num_reference: int) -> Tensor:
    """Batch norm of (B, C, H, W) by the statistics of the first `num_reference` images."""
    mean = x[:num_reference].mean(dim=(0, 2, 3), keepdim=True)
    centered = x - mean
    variance = centered[:num_reference].square().mean(dim=(0, 2, 3))
    slope = scale * torch.rsqrt(variance + BATCH_NORM_EPSILON)
    return torch.addcmul(shift[:, None, None], centered, slope[:, None, None])


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel of (B, C, H, W).

    PyTorch sums a channels-last tensor on the CPU pixel after pixel in its own precision, which after tens of
    thousands of pixels leaves four digits of a variance. So its pixels are taken in blocks, which also stay in the
    cache for the second pass, and the blocks' moments are joined.
    """
    if x.is_cuda or x.is_contiguous():
        return _moments_of_block(x)
    pixels = x.permute(0, 2, 3, 1).reshape(1, -1, 1, x.shape[1]).permute(0, 3, 1, 2)
    blocks = pixels.split(BLOCK_SIZE, dim=2)
    means, variances = map(torch.stack, zip(*map(_moments_of_block, blocks), strict=True))
    shares = x.new_tensor([block.shape[2] / pixels.shape[2] for block in blocks])
    mean = shares @ means
    return mean, shares @ (variances + (means - mean).square_())


def _moments_of_block(x: Tensor) -> tuple[Tensor, Tensor]:
    mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
    return mean, variance


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, pool: Pool | None) -> Tensor:
        mean, variance = moments(x)
        inverse_deviation = torch.rsqrt(variance + BATCH_NORM_EPSILON)
        selected, indices = x, None
        if pool is not None:
            selected, indices = F.max_pool2d(
                x, pool.kernel_size, pool.stride, pool.padding, return_indices=True
            )
        slope = scale * inverse_deviation
        offset = torch.addcmul(shift, mean, slope, value=-1.0)
        output = torch.addcmul(offset[:, None, None], selected, slope[:, None, None])
        ctx.save_for_backward(x, selected, indices, scale, mean, inverse_deviation)
        ctx.pool = pool
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*_NormalizeGradient.apply(gradient, *ctx.saved_tensors, ctx.pool), None)  # type: ignore[no-untyped-call]


class _NormalizeGradient(torch.autograd.Function):
    """(gx, a, b) from g; the statistics are functions of x, which the backward pass accounts for."""

    @staticmethod
    def forward(
        ctx: Any,
        gradient: Tensor,
        x: Tensor,
        selected: Tensor,
        indices: Tensor | None,
        scale: Tensor,
        mean: Tensor,
        inverse_deviation: Tensor,
        pool: Pool | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        of_x, of_scale, of_shift = torch.ops.aten.native_batch_norm_backward(
            gradient,
            selected,
            scale,
            None,
            None,
            mean,
            inverse_deviation,
            True,
            BATCH_NORM_EPSILON,
            [pool is None, True, True],
        )
        if pool is not None and indices is not None:
            factor = scale * inverse_deviation / -_num_values(x)
            slope = factor * inverse_deviation * of_scale
            offset = factor * of_shift - slope * mean
            of_x = _scatter(gradient * (scale * inverse_deviation)[:, None, None], x, indices, pool)
            of_x.addcmul_(x, slope[:, None, None]).add_(offset[:, None, None])
        ctx.save_for_backward(
            gradient, x, selected, indices, scale, mean, inverse_deviation, of_scale, of_shift
        )
        ctx.pool = pool
        return of_x, of_scale, of_shift

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor | None, ...]:
        g, x, selected, indices, scale, mean, r, a, b = ctx.saved_tensors
        num_values = _num_values(x)
        _, p, s = torch.ops.aten.native_batch_norm_backward(
            u, x, scale, None, None, mean, r, True, BATCH_NORM_EPSILON, [False, True, True]
        )
        u_selected = u if indices is None else _gather(u, indices)
        q = (u_selected * g).sum(dim=(0, 2, 3))
        slope = scale * r
        k = q - (b * s + a * p) / num_values
        alpha = v - slope * p / num_values
        beta = -slope * a / num_values
        of_g = _combine(
            u_selected * slope[:, None, None], selected, r * alpha, mean, w - slope * s / num_values
        )
        of_x = g * (r * alpha)[:, None, None]
        if indices is not None:
            of_x = _scatter(of_x, x, indices, ctx.pool)
        of_x.addcmul_(u, (r * beta)[:, None, None])
        factor = -r * r * (alpha * a + beta * p + slope * k) / num_values
        of_x = _combine(of_x, x, factor, mean, -r * (alpha * b + beta * s) / num_values)
        return of_g, of_x, None, None, r * k, None, None, None


def _combine(accumulated: Tensor, x: Tensor, slope: Tensor, mean: Tensor, offset: Tensor) -> Tensor:
    """Add slope · (x − mean) + offset, channel by channel, in place."""
    accumulated.addcmul_(x, slope[:, None, None])
    return accumulated.add_((offset - slope * mean)[:, None, None])


def _num_values(x: Tensor) -> int:
    """Values of one channel."""
    return x.numel() // x.shape[1]


def _scatter(pooled: Tensor, x: Tensor, indices: Tensor, pool: Pool) -> Tensor:
    """Values of the pooled shape, at the places of the maxima in the shape of x; elsewhere zeros."""
    window = [[pool.kernel_size] * 2, [pool.stride] * 2, [pool.padding] * 2, [1, 1]]
    scattered: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(pooled, x, *window, False, indices)
    return scattered


def _gather(values: Tensor, indices: Tensor) -> Tensor:
    """`values` at the places of the maxima, in the layout of `indices`."""
    if indices.is_contiguous():
        return values.flatten(2).gather(2, indices.flatten(2)).view_as(indices)
    pixels, places = (tensor.permute(0, 2, 3, 1).flatten(1, 2) for tensor in (values, indices))
    batch, channels, height, width = indices.shape
    return pixels.gather(1, places).view(batch, height, width, channels).permute(0, 3, 1, 2)
