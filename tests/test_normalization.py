"""Batch norm in closed form against torch's own composition, to second order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from across.search_spaces.architecture import Pool
from across.search_spaces.normalization import BLOCK_SIZE, moments, normalize, normalize_and_pool

POOLS = {
    "disjoint": Pool("max", 2, stride=2),
    "overlapping": Pool("max", 3, stride=1, padding=1),
    "strided": Pool("max", 3, stride=2, padding=1),
}
MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]
every_layout = pytest.mark.parametrize("memory_format", MEMORY_FORMATS)


def random_arguments(memory_format: torch.memory_format) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 5, generator=generator, dtype=torch.float64)
    scale = torch.rand(3, generator=generator, dtype=torch.float64) + 0.1
    shift = torch.randn(3, generator=generator, dtype=torch.float64)
    x = x.contiguous(memory_format=memory_format)
    return x.requires_grad_(), scale.requires_grad_(), shift.requires_grad_()


@every_layout
def test_derivatives_of_batch_norm_are_those_of_finite_differences(
    memory_format: torch.memory_format,
) -> None:
    arguments = random_arguments(memory_format)
    assert torch.autograd.gradcheck(normalize, arguments)
    assert torch.autograd.gradgradcheck(normalize, arguments, fast_mode=True)


@every_layout
@pytest.mark.parametrize("pool", POOLS.values(), ids=list(POOLS))
def test_pooling_first_has_the_values_and_derivatives_of_pooling_last(
    pool: Pool, memory_format: torch.memory_format
) -> None:
    x, scale, shift = random_arguments(memory_format)

    def composed(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y = F.batch_norm(x, None, None, scale, shift, training=True)
        return F.max_pool2d(y, pool.kernel_size, pool.stride, pool.padding)

    results = []
    for output in (composed(x, scale, shift), normalize_and_pool(x, scale, shift, pool)):
        value = output.sin().sum()
        first = torch.autograd.grad(value, (x, scale, shift), create_graph=True)
        mixed = sum(gradient.cos().sum() for gradient in first)
        assert isinstance(mixed, Tensor)
        results.append([output, *first, *torch.autograd.grad(mixed, (x, scale, shift))])
    for expected, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


@every_layout
def test_moments_of_many_pixels_keep_the_precision_of_float32(memory_format: torch.memory_format) -> None:
    """A running sum over 80,000 pixels of mean 3 would lose half of the digits."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(5, 8, 127, 127, generator=generator) + 3.0).contiguous(memory_format=memory_format)
    assert (5 * 127 * 127) % BLOCK_SIZE
    mean, variance = moments(x)
    exact = x.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(variance.double(), exact.var((0, 2, 3), correction=0), rtol=2e-6, atol=0.0)
