"""Sequences of layers that several search spaces are made of."""

from __future__ import annotations

from across.search_spaces.architecture import BatchNorm, Conv, Layer, ReLU


def relu_conv_bn(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> tuple[Layer, ...]:
    """A convolution between ReLU and batch norm."""
    return (ReLU(), Conv(in_channels, out_channels, kernel_size, stride), BatchNorm(out_channels))


def residual_body(in_channels: int, out_channels: int, stride: int) -> tuple[Layer, ...]:
    """The two 3x3 convolutions of a ResNet basic block, the ReLU first (He et al. 2016)."""
    return (
        *relu_conv_bn(in_channels, out_channels, 3, stride),
        *relu_conv_bn(out_channels, out_channels, 3),
    )
