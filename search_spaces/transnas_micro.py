"""The cell space of TransNAS-Bench-101: `64-41414-a_bc_def`, one cell of six edges in a fixed skeleton.

Duan et al. 2021, "TransNAS-Bench-101". Five modules of two cells each follow the stem; the first cell of the
modules 4 doubles the channels and halves the resolution, by its edges from node 0. All cells have the same genes and
each has weights of its own. 4,096 genotypes.

Deviations: what cannot reach the output is no part of the network, and an operation on nothing but zeros is zero,
not its batch norm's shift.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from across.search_spaces.architecture import (
    Architecture,
    BatchNorm,
    FactorizedReduction,
    Layer,
    Node,
    ReLU,
    Zero,
)
from across.search_spaces.base import (
    Config,
    Genotype,
    InputShape,
    InvalidGenotypeError,
    cross_genes,
    enumerate_genes,
    sample_genes,
    validate_genes,
)
from across.search_spaces.blocks import relu_conv_bn
from across.search_spaces.edge_cell import EdgeCell, add_cell
from across.search_spaces.graph import GraphBuilder, Incoming
from across.search_spaces.transnas import doubles, stem_layers

SKELETON = (4, 1, 4, 1, 4)
"""The digits of the modules."""
OPERATIONS = ("zero", "skip", "conv_1x1", "conv_3x3")
"""By digit."""


class TransNasMicroConfig(Config):
    """The size of the skeleton; `build` makes the space for images of one shape."""

    type: Literal["transnas_micro"] = "transnas_micro"
    channels: int = Field(default=64, ge=2, multiple_of=2)
    """Channels after the stem; the benchmark has 64."""

    def build(self, input_shape: InputShape) -> TransNasMicro:
        """The space over images of `input_shape`."""
        return TransNasMicro(input_shape, self.channels)


@dataclass(frozen=True)
class TransNasMicro:
    """Six genes, the digits of the string in its order: the operations of the edges into node 1, 2 and 3."""

    input_shape: InputShape
    channels: int
    cell: ClassVar[EdgeCell] = EdgeCell(len(OPERATIONS), input_skip_has_weights=True)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of values of each gene."""
        return self.cell.cardinalities

    @property
    def encoding_dim(self) -> int:
        """Length of `encode`'s vector."""
        return sum(self.cardinalities)

    def enumerate(self) -> Iterator[Genotype]:
        """Every genotype, in lexicographic order."""
        return enumerate_genes(self.cardinalities)

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype drawn uniformly."""
        return sample_genes(self.cardinalities, rng)

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """`parent` with one gene changed so that its canonical genotype changes too."""
        return self.cell.mutate(parent, rng)

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """The genotypes one gene away whose canonical genotype is another."""
        return self.cell.neighbours(genotype)

    def crossover(self, mother: Genotype, father: Genotype, rng: np.random.Generator) -> Genotype:
        """Uniform crossover of the genes."""
        return cross_genes(mother, father, rng)

    def validate(self, genotype: Genotype) -> None:
        """Raise `InvalidGenotypeError` unless `genotype` belongs to the space."""
        validate_genes(self.cardinalities, genotype, "transnas_micro")

    def canonical(self, genotype: Genotype) -> Genotype:
        """The first genotype whose cell computes the same function; it has the same `architecture`."""
        return self.cell.canonical(genotype)

    def architecture(self, genotype: Genotype) -> Architecture:
        """The skeleton with the cell of the canonical genotype, without its zeros."""
        canonical = self.canonical(genotype)
        return self._stack([[gene] if gene else [] for gene in canonical], is_zero=not any(canonical))

    def super_architecture(self) -> Architecture:
        """The skeleton with every operation on every edge."""
        return self._stack([range(1, len(OPERATIONS))] * len(self.cardinalities), is_zero=False)

    def encode(self, genotype: Genotype) -> NDArray[np.float32]:
        """One-hot encoding of each gene of the canonical genotype, shape (24,)."""
        return self.cell.encode(genotype)

    def encode_paths(self, genotype: Genotype) -> NDArray[np.float32]:
        """The path encoding, shape (39,)."""
        return self.cell.encode_paths(genotype)

    def to_string(self, genotype: Genotype) -> str:
        """The benchmark's string, such as `64-41414-3_12_003`."""
        a, b, c, d, e, f = genotype
        return f"{self._prefix}{a}_{b}{c}_{d}{e}{f}"

    def from_string(self, text: str) -> Genotype:
        """The inverse of `to_string`; raises `InvalidGenotypeError`."""
        problems = []
        prefix, cell = text.strip()[: len(self._prefix)], text.strip()[len(self._prefix) :]
        if prefix != self._prefix:
            problems.append(f"it begins with {prefix!r}")
        elif not re.fullmatch("._.._...", cell):
            problems.append(f"its cell is {cell!r}")
        digits = cell.replace("_", "")
        problems += [
            f"edge {position} is {digit!r}"
            for position, digit in enumerate(digits if not problems else "")
            if digit not in "0123"
        ]
        if problems:
            raise InvalidGenotypeError(
                f"{text!r} is no architecture of the space transnas_micro: {'; '.join(problems)}; needed is "
                f"{self._prefix}a_bc_def, each letter the digit of an edge's operation, 0 to 3: "
                f"{', '.join(OPERATIONS)}"
            )
        return tuple(map(int, digits))

    @property
    def _prefix(self) -> str:
        return f"{self.channels}-{''.join(map(str, SKELETON))}-"

    def _stack(self, choices: Sequence[Sequence[int]], *, is_zero: bool) -> Architecture:
        graph, channels = GraphBuilder(), self.channels
        stem = Incoming(0, "stem", "stem", stem_layers(self.input_shape[0], channels))
        position = graph.add(Node("stem"), [stem])
        for module, digit in enumerate(SKELETON):
            for cell in range(2):
                place = f"module{module}.cell{cell}"
                reduces = cell == 0 and doubles(digit)
                if is_zero:
                    position = _add_zeros(graph, place, position, reduces=reduces)
                else:
                    layers = _OperationLayers(channels, reduces)
                    position = add_cell(graph, place, position, choices, layers, OPERATIONS)
                channels *= 2 if reduces else 1
        return graph.architecture(self.input_shape, "mean")


@dataclass(frozen=True)
class _OperationLayers:
    """The layers of an operation in a cell of `channels` at its input."""

    channels: int
    reduces: bool

    def __call__(self, operation: int, from_input: bool) -> tuple[Layer, ...]:
        changes = self.reduces and from_input
        out_channels = 2 * self.channels if self.reduces else self.channels
        in_channels = self.channels if from_input else out_channels
        match OPERATIONS[operation]:
            case "skip" if changes:
                return (ReLU(), FactorizedReduction(in_channels, out_channels), BatchNorm(out_channels))
            case "skip":
                return ()
            case name:
                kernel_size = 3 if name == "conv_3x3" else 1
                return relu_conv_bn(in_channels, out_channels, kernel_size, stride=2 if changes else 1)


def _add_zeros(graph: GraphBuilder, place: str, source: int, *, reduces: bool) -> int:
    """A cell's output without any input: zeros, twice side by side where the channels double."""
    zeros = [
        Incoming(source, f"{place}.node3.zero{half}", OPERATIONS[0], (Zero(2 if reduces else 1),))
        for half in range(2 if reduces else 1)
    ]
    return graph.add(Node(f"{place}.node3", "concatenate" if reduces else "sum"), zeros)
