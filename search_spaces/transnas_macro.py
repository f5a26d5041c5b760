"""The skeleton space of TransNAS-Bench-101: `64-DDDD-basic`, four to six modules of two ResNet basic blocks.

Duan et al. 2021, "TransNAS-Bench-101". A digit says what a module's first block does to the shape. One to four
modules halve the resolution and one to three double the channels: 3,256 genotypes.

In the supernet, modules at the same position share weights whatever their digits: narrower ones use leading slices,
and the stride is no part of a weight. Deviation: the shortcut's batch norm has the same ε as all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from across.search_spaces.architecture import Architecture, BatchNorm, Conv, Node
from across.search_spaces.base import Config, Genotype, InputShape, InvalidGenotypeError
from across.search_spaces.blocks import residual_body
from across.search_spaces.graph import GraphBuilder, Incoming
from across.search_spaces.transnas import DIGITS, doubles, halves, stem_layers

NUM_MODULES = range(4, 7)
NUM_HALVING = range(1, 5)
NUM_DOUBLING = range(1, 4)
BLOCKS_PER_MODULE = 2


class TransNasMacroConfig(Config):
    """The width of the networks; `build` makes the space for images of one shape."""

    type: Literal["transnas_macro"] = "transnas_macro"
    channels: int = Field(default=64, ge=2, multiple_of=2)
    """Channels after the stem; the benchmark has 64."""

    def build(self, input_shape: InputShape) -> TransNasMacro:
        """The space over images of `input_shape`."""
        return TransNasMacro(input_shape, self.channels)


@dataclass(frozen=True)
class TransNasMacro:
    """Four to six genes: the digits of the modules, 1 to 4, from input to output."""

    input_shape: InputShape
    channels: int

    @property
    def encoding_dim(self) -> int:
        """Length of `encode`'s vector."""
        return max(NUM_MODULES) * len(DIGITS)

    def enumerate(self) -> Iterator[Genotype]:
        """Every genotype, short ones first, then in lexicographic order."""
        return iter(all_genotypes())

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype drawn uniformly."""
        genotypes = all_genotypes()
        return genotypes[int(rng.integers(len(genotypes)))]

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """One of the neighbours, drawn uniformly."""
        neighbours = self.neighbours(parent)
        return neighbours[int(rng.integers(len(neighbours)))]

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """All genotypes with one digit changed, inserted or removed."""
        near = {
            (*genotype[:start], *middle, *genotype[stop:])
            for start in range(len(genotype) + 1)
            for stop in (start, start + 1)
            for middle in [(), *((digit,) for digit in DIGITS)]
        }
        return sorted(other for other in near if other != genotype and not _problems(other))

    def crossover(self, mother: Genotype, father: Genotype, rng: np.random.Generator) -> Genotype:
        """Uniform crossover, drawn until it is valid.

        The child is as long as a parent; where only the longer parent has a module, it is that parent's.
        """
        while True:
            longer = max(mother, father, key=len)
            length = len(mother) if rng.integers(2) == 0 else len(father)
            shared = [pair[int(rng.integers(2))] for pair in zip(mother, father, strict=False)]
            child = (*shared, *longer[len(shared) : length])
            if not _problems(child):
                return child

    def validate(self, genotype: Genotype) -> None:
        """Raise `InvalidGenotypeError` unless `genotype` belongs to the space."""
        if problems := _problems(genotype):
            raise InvalidGenotypeError(f"no genotype of the space transnas_macro: {'; '.join(problems)}")

    def canonical(self, genotype: Genotype) -> Genotype:
        """`genotype`: each computes a function of its own."""
        return genotype

    def architecture(self, genotype: Genotype) -> Architecture:
        """The modules that `genotype` stands for."""
        channels, modules = self.channels, []
        for digit in genotype:
            out_channels = 2 * channels if doubles(digit) else channels
            modules.append((channels, out_channels, 2 if halves(digit) else 1))
            channels = out_channels
        return self._stack(modules)

    def super_architecture(self) -> Architecture:
        """Six modules, each with its greatest numbers of channels and a shortcut with weights."""
        most = max(NUM_DOUBLING)
        widths = [self.channels * 2 ** min(module, most) for module in range(max(NUM_MODULES) + 1)]
        return self._stack([(widths[module], widths[module + 1], 2) for module in range(max(NUM_MODULES))])

    def encode(self, genotype: Genotype) -> NDArray[np.float32]:
        """One-hot encoding of each digit, zeros for modules that are not there, shape (24,)."""
        encoding = np.zeros((max(NUM_MODULES), len(DIGITS)), dtype=np.float32)
        encoding[range(len(genotype)), [digit - 1 for digit in genotype]] = 1.0
        return encoding.ravel()

    def to_string(self, genotype: Genotype) -> str:
        """The benchmark's string, such as `64-4111-basic`."""
        return f"{self.channels}-{''.join(map(str, genotype))}-basic"

    def from_string(self, text: str) -> Genotype:
        """The inverse of `to_string`; raises `InvalidGenotypeError`."""
        channels, _, rest = text.strip().partition("-")
        digits, _, block = rest.partition("-")
        problems = [] if channels == str(self.channels) else [f"it begins with {channels!r}"]
        if block != "basic":
            problems.append(f"it ends with {block!r}")
        problems += _problems([int(digit) if digit in "0123456789" else digit for digit in digits])
        if problems:
            raise InvalidGenotypeError(
                f"{text!r} is no architecture of the space transnas_macro: {'; '.join(problems)}; needed is "
                f"{self.channels}-DIGITS-basic with 4 to 6 digits, one for each module: 1 keeps the shape, "
                f"2 doubles the channels, 3 halves the resolution, 4 does both"
            )
        return tuple(map(int, digits))

    def _stack(self, modules: Sequence[tuple[int, int, int]]) -> Architecture:
        """The network of modules with (channels at the input, channels at the output, stride)."""
        graph = GraphBuilder()
        stem = Incoming(0, "stem", "stem", stem_layers(self.input_shape[0], self.channels))
        position = graph.add(Node("stem"), [stem])
        for module, (in_channels, out_channels, stride) in enumerate(modules):
            for block in range(BLOCKS_PER_MODULE):
                place = f"module{module}.block{block}"
                changes = (
                    (in_channels, out_channels, stride) if block == 0 else (out_channels, out_channels, 1)
                )
                position = graph.add(Node(place), _basic_block(position, place, *changes))
        return graph.architecture(self.input_shape, "mean")


@lru_cache
def all_genotypes() -> tuple[Genotype, ...]:
    """The genotypes of the space."""
    candidates = (genotype for length in NUM_MODULES for genotype in product(DIGITS, repeat=length))
    return tuple(genotype for genotype in candidates if not _problems(genotype))


def _problems(genotype: Sequence[int | str]) -> list[str]:
    """What keeps `genotype` from the space."""
    problems = [
        f"module {position} must be 1 to {max(DIGITS)} (got {digit!r})"
        for position, digit in enumerate(genotype)
        if type(digit) is not int or digit not in DIGITS
    ]
    counts = (
        ("modules", len(genotype), NUM_MODULES),
        ("modules that halve the resolution (3, 4)", sum(map(halves, genotype)), NUM_HALVING),
        ("modules that double the channels (2, 4)", sum(map(doubles, genotype)), NUM_DOUBLING),
    )
    return problems + [
        f"there must be {min(allowed)} to {max(allowed)} {what} (got {count})"
        for what, count, allowed in counts
        if count not in allowed
    ]


def _basic_block(source: int, place: str, in_channels: int, out_channels: int, stride: int) -> list[Incoming]:
    keeps = in_channels == out_channels and stride == 1
    shortcut = () if keeps else (Conv(in_channels, out_channels, 1, stride), BatchNorm(out_channels))
    return [
        Incoming(source, f"{place}.body", "basic_3x3", residual_body(in_channels, out_channels, stride)),
        Incoming(source, f"{place}.shortcut", "skip" if keeps else "conv_1x1", shortcut),
    ]
