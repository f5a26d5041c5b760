"""One architecture as a plain `nn.Module`: the reference for the supernet, and what is exported.

It is made of PyTorch's ordinary layers and knows nothing of tasks, supernets or genotypes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from across.errors import AcrossError
from across.search_spaces.architecture import (
    BATCH_NORM_EPSILON,
    Architecture,
    BatchNorm,
    Conv,
    FactorizedReduction,
    Layer,
    Pool,
    ReLU,
    Zero,
)


class ParameterMismatchError(AcrossError):
    """Parameters are missing, or too small for the architecture; names each of them."""


class Network(nn.Module):
    """The body of one architecture, without a head; batch norms always use the statistics of the batch."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.edges = nn.ModuleList(
            nn.Sequential(*(_module(layer) for layer in edge.layers)) for edge in architecture.edges
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, feature_dim) of images (B, C, H, W)."""
        values, modules = [x], iter(self.edges)
        for index, node in enumerate(self.architecture.nodes[1:], start=1):
            arrived = [next(modules)(values[edge.source]) for edge in self.architecture.incoming(index)]
            joined = torch.cat(arrived, dim=1) if node.join == "concatenate" else sum(arrived[1:], arrived[0])
            values.append(joined)
        features = values[-1]
        return features.mean(dim=(2, 3)) if self.architecture.readout == "mean" else features.flatten(1)

    def architecture_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters under the names, and in the order, of `Architecture.parameters`."""
        return dict(zip(self.architecture.parameters, self.parameters(), strict=True))

    def load_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy the leading slice of each named tensor, such as a supernet's, into this network.

        Names of other architectures' parameters are ignored. Raises `ParameterMismatchError`, and changes
        nothing, when a parameter is missing or too small.
        """
        own = self.architecture_parameters()
        problems = [
            f"{name} of shape {tuple(parameter.shape)} is needed "
            f"(got {tuple(parameters[name].shape) if name in parameters else 'none'})"
            for name, parameter in own.items()
            if name not in parameters or not _contains(parameters[name], parameter)
        ]
        if problems:
            raise ParameterMismatchError("; ".join(problems))
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(parameters[name][tuple(slice(size) for size in parameter.shape)])


def _contains(tensor: Tensor, part: Tensor) -> bool:
    return tensor.dim() == part.dim() and all(
        size >= needed for size, needed in zip(tensor.shape, part.shape, strict=True)
    )


def _module(layer: Layer) -> nn.Module:
    """The layer's module; its parameters are registered in the order of `parameter_shapes`."""
    match layer:
        case Conv():
            return nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                groups=layer.in_channels if layer.depthwise else 1,
                bias=False,
            )
        case FactorizedReduction():
            return _FactorizedReduction(layer)
        case BatchNorm():
            return nn.BatchNorm2d(layer.channels, eps=BATCH_NORM_EPSILON, track_running_stats=False)
        case ReLU():
            return nn.ReLU()
        case Pool(kind="max"):
            return nn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding)
        case Pool():
            return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, count_include_pad=False)
        case Zero():
            return _Zero(layer.stride)


class _FactorizedReduction(nn.Module):
    """Even pixels through one 1x1 convolution, odd pixels through another.

    An image of odd size has one row and column of odd pixels less: zeros at the far edge make up for it.
    """

    def __init__(self, layer: FactorizedReduction) -> None:
        super().__init__()
        first = layer.out_channels // 2
        self.even = nn.Conv2d(layer.in_channels, first, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(layer.in_channels, layer.out_channels - first, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shifted = functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        return torch.cat([self.even(x), self.odd(shifted)], dim=1)


class _Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])
