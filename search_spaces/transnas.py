"""What both search spaces of TransNAS-Bench-101 share: the stem and the digits that name a module's shape change.

Duan et al. 2021, "TransNAS-Bench-101: Improving Transferability and Generalizability of Cross-Task Neural
Architecture Search".
"""

from __future__ import annotations

from across.search_spaces.architecture import BatchNorm, Conv, Layer, ReLU

DIGITS = (1, 2, 3, 4)
"""A module keeps the shape (1), doubles the channels (2), halves the resolution (3), or does both (4)."""


def doubles(digit: int | str) -> bool:
    """Whether a module of this digit doubles the channels."""
    return digit in (2, 4)


def halves(digit: int | str) -> bool:
    """Whether a module of this digit halves the resolution."""
    return digit in (3, 4)


def stem_layers(in_channels: int, channels: int) -> tuple[Layer, ...]:
    """Two 3x3 convolutions that halve the resolution each."""
    return (
        Conv(in_channels, channels // 2, 3, stride=2),
        BatchNorm(channels // 2),
        ReLU(),
        Conv(channels // 2, channels, 3, stride=2),
        BatchNorm(channels),
    )
