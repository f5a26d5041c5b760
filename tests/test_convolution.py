"""The convolution against torch's own, to second order, and what its double backward costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from across.search_spaces.convolution import Geometry, convolve

CASES = {
    "dense": (Geometry(1, 1, 1, 1), (2, 3, 5, 5), (4, 3, 3, 3)),
    "grouped": (Geometry(1, 1, 1, 3), (2, 6, 4, 4), (9, 2, 3, 3)),
    "pointwise": (Geometry(1, 0, 1, 2), (2, 6, 3, 3), (4, 3, 1, 1)),
    "depthwise": (Geometry(1, 2, 1, 4), (2, 4, 5, 5), (4, 1, 5, 5)),
    "dilated": (Geometry(1, 2, 2, 2), (2, 4, 6, 6), (6, 2, 3, 3)),
    "strided": (Geometry(2, 1, 1, 2), (2, 4, 5, 5), (6, 2, 3, 3)),
    "strided, dilated, depthwise": (Geometry(2, 2, 2, 4), (2, 4, 6, 6), (4, 1, 3, 3)),
}

Convolution = Callable[[Tensor, Tensor, Geometry], Tensor]


def torch_convolve(inputs: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    return F.conv2d(
        inputs, weight, None, geometry.stride, geometry.padding, geometry.dilation, geometry.groups
    )


def random_arguments(case: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Geometry]:
    geometry, input_shape, weight_shape = CASES[case]
    generator = torch.Generator().manual_seed(0)
    inputs, weight = (
        torch.randn(shape, dtype=dtype, generator=generator, requires_grad=True)
        for shape in (input_shape, weight_shape)
    )
    return inputs, weight, geometry


@pytest.mark.parametrize("case", CASES)
def test_first_and_second_derivatives_are_those_of_finite_differences(case: str) -> None:
    inputs, weight, geometry = random_arguments(case)
    assert torch.autograd.gradcheck(lambda x, w: convolve(x, w, geometry), (inputs, weight))
    assert torch.autograd.gradgradcheck(
        lambda x, w: convolve(x, w, geometry), (inputs, weight), fast_mode=True
    )


def derivatives(function: Convolution, inputs: Tensor, weight: Tensor, geometry: Geometry) -> list[Tensor]:
    """Output, both gradients, and the gradients of a scalar made of both, with a third order on top."""
    output = function(inputs, weight, geometry)
    seed = torch.linspace(-1.0, 1.0, output.numel(), dtype=output.dtype).view(output.shape).requires_grad_()
    first = torch.autograd.grad(output, (inputs, weight), seed, create_graph=True)
    value = first[0].square().sum() + (first[1] ** 3).sum()
    second = torch.autograd.grad(value, (inputs, weight, seed), create_graph=True)
    third = torch.autograd.grad(second[0].square().sum() + second[1].square().sum(), (inputs, weight))
    return [output, *first, *second, *third]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_equal_those_of_torch(case: str, memory_format: torch.memory_format) -> None:
    inputs, weight, geometry = random_arguments(case)
    inputs = inputs.detach().contiguous(memory_format=memory_format).requires_grad_()
    ours = derivatives(convolve, inputs, weight, geometry)
    theirs = derivatives(torch_convolve, inputs, weight, geometry)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_what_needs_no_gradient_is_not_differentiated() -> None:
    inputs, weight, geometry = random_arguments("grouped")
    with CountedKernels() as counted:
        torch.autograd.grad(convolve(inputs.detach(), weight, geometry).sum(), weight)
    assert counted.output_masks == [[False, True, False]]


class CountedKernels(TorchDispatchMode):
    """Counts the operators that reach the device, and what is asked of the convolutions' gradients."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.convolutions = 0
        self.output_masks: list[list[bool]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.total += 1
        self.convolutions += "convolution" in function.name()
        if function is torch.ops.aten.convolution_backward.default:
            self.output_masks.append(args[10])
        return function(*args, **(kwargs or {}))


def kernels_of_double_backward(
    function: Convolution, kind: str, num_tasks: int, channels: int
) -> tuple[int, int]:
    """All kernels and convolutions of a double backward, for `num_tasks` tasks of `channels` channels."""
    groups = num_tasks * channels if kind == "depthwise" else num_tasks
    geometry = Geometry(1, 2 if kind == "dilated" else 1, 2 if kind == "dilated" else 1, groups)
    inputs = torch.randn(2, num_tasks * channels, 5, 5, requires_grad=True)
    weight = torch.randn(num_tasks * channels, num_tasks * channels // groups, 3, 3, requires_grad=True)
    gradients = torch.autograd.grad(
        function(inputs, weight, geometry).square().sum(), (inputs, weight), create_graph=True
    )
    value = gradients[0].square().sum() + gradients[1].square().sum()
    with CountedKernels() as counted:
        torch.autograd.grad(value, (inputs, weight))
    return counted.total, counted.convolutions


@pytest.mark.parametrize("kind", ["dense", "depthwise", "dilated"])
def test_the_double_backward_costs_as_many_kernels_for_many_tasks_and_channels_as_for_few(kind: str) -> None:
    few = kernels_of_double_backward(convolve, kind, num_tasks=2, channels=2)
    assert (
        few[1] == 6
    )  # two for each of the three maps: the graph holds the convolution and its two gradients
    assert kernels_of_double_backward(convolve, kind, num_tasks=16, channels=2) == few
    assert kernels_of_double_backward(convolve, kind, num_tasks=2, channels=16) == few


def test_torch_s_own_double_backward_costs_a_convolution_a_group() -> None:
    """What the count above would catch."""
    few = kernels_of_double_backward(torch_convolve, "dense", num_tasks=2, channels=2)
    many = kernels_of_double_backward(torch_convolve, "dense", num_tasks=16, channels=2)
    assert many[1] - few[1] >= 14
