"""The flat layout of a supernet's parameters: one float32 vector and an index of names.

A subnet uses whole parameters or leading slices of them (elastic widths). `ParameterIndex` says where they lie, so
that weights travel as one vector and a subnet's gradient as one shorter vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from across.search_spaces.architecture import Shape


@dataclass(frozen=True)
class ParameterIndex:
    """Names and shapes of all parameters in the order in which they lie in the vector."""

    shapes: dict[str, Shape]

    @cached_property
    def offsets(self) -> dict[str, int]:
        """First position of each parameter in the vector."""
        offsets, position = {}, 0
        for name, shape in self.shapes.items():
            offsets[name] = position
            position += prod(shape)
        return offsets

    @cached_property
    def size(self) -> int:
        """Length of the vector."""
        return sum(prod(shape) for shape in self.shapes.values())

    def view(self, vector: NDArray[np.float32], name: str, shape: Shape | None = None) -> NDArray[np.float32]:
        """The parameter `name` in `vector` as a view; its leading slice of `shape` if that is given."""
        full = self.shapes[name]
        start = self.offsets[name]
        values = vector[start : start + prod(full)].reshape(full)
        return values if shape is None or shape == full else values[tuple(slice(size) for size in shape)]

    def positions(self, active: Mapping[str, Shape]) -> NDArray[np.int64]:
        """Where in the vector the active slices lie, raveled and concatenated in the order of `active`."""
        everywhere = np.arange(self.size)
        slices = [
            everywhere[self.offsets[name] : self.offsets[name] + prod(self.shapes[name])]
            .reshape(self.shapes[name])[tuple(slice(size) for size in shape)]
            .ravel()
            for name, shape in active.items()
        ]
        return np.concatenate([everywhere[:0], *slices])
