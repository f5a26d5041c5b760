"""The space of NAS-Bench-201: one cell of six edges, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

Dong & Yang 2020, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search". Three stages of
cells, all with the same genes and each with weights of its own, are joined by residual blocks that double the
channels and halve the resolution. 15,625 genotypes.

Deviations: what cannot reach the output is no part of the network, and an operation on nothing but zeros is zero,
not its batch norm's shift. Where a side of the feature map is odd (never with images of 32x32), the residual block's
shortcut averages 3x3 instead of 2x2 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from across.search_spaces.architecture import Architecture, BatchNorm, Conv, Layer, Node, Pool, ReLU, Zero
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
from across.search_spaces.blocks import relu_conv_bn, residual_body
from across.search_spaces.edge_cell import EDGES, EdgeCell, add_cell
from across.search_spaces.graph import GraphBuilder, Incoming

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""By gene value, in the benchmark's order."""
NUM_STAGES = 3


class NasBench201Config(Config):
    """The size of the skeleton; `build` makes the space for images of one shape."""

    type: Literal["nas_bench_201"] = "nas_bench_201"
    channels: int = Field(default=16, ge=1)
    """Channels after the stem; the benchmark has 16."""
    cells_per_stage: int = Field(default=5, ge=1)
    """The benchmark has 5."""

    def build(self, input_shape: InputShape) -> NasBench201:
        """The space over images of `input_shape`."""
        return NasBench201(input_shape, self.channels, self.cells_per_stage)


@dataclass(frozen=True)
class NasBench201:
    """Six genes: the operations of the edges into node 1, 2 and 3, in the string's order."""

    input_shape: InputShape
    channels: int
    cells_per_stage: int
    cell: ClassVar[EdgeCell] = EdgeCell(len(OPERATIONS), linear=frozenset({OPERATIONS.index("avg_pool_3x3")}))

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
        validate_genes(self.cardinalities, genotype, "nas_bench_201")

    def canonical(self, genotype: Genotype) -> Genotype:
        """The first genotype whose cell computes the same function; it has the same `architecture`."""
        return self.cell.canonical(genotype)

    def architecture(self, genotype: Genotype) -> Architecture:
        """The skeleton with the cell of the canonical genotype, without its zeros."""
        canonical = self.canonical(genotype)
        return self._stack([[gene] if gene else [] for gene in canonical], is_zero=not any(canonical))

    def super_architecture(self) -> Architecture:
        """The skeleton with every operation on every edge."""
        return self._stack([range(1, len(OPERATIONS))] * len(EDGES), is_zero=False)

    def encode(self, genotype: Genotype) -> NDArray[np.float32]:
        """One-hot encoding of each gene of the canonical genotype, shape (30,)."""
        return self.cell.encode(genotype)

    def encode_paths(self, genotype: Genotype) -> NDArray[np.float32]:
        """The path encoding, shape (84,)."""
        return self.cell.encode_paths(genotype)

    def to_string(self, genotype: Genotype) -> str:
        """The benchmark's string, such as `|none~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|`."""
        edges = [f"{OPERATIONS[gene]}~{source}" for gene, (source, _) in zip(genotype, EDGES, strict=True)]
        return "+".join(f"|{'|'.join(edges[start:stop])}|" for start, stop in ((0, 1), (1, 3), (3, 6)))

    def from_string(self, text: str) -> Genotype:
        """The inverse of `to_string`; raises `InvalidGenotypeError`."""
        nodes = [node.split("|")[1:-1] for node in text.strip().split("+")]
        edges = [(node, i, edge) for node, inputs in enumerate(nodes, 1) for i, edge in enumerate(inputs)]
        genotype = [
            value for _, i, edge in edges for value, name in enumerate(OPERATIONS) if edge == f"{name}~{i}"
        ]
        problems = [
            f"input {i} of node {node} is {edge!r}"
            for node, i, edge in edges
            if edge not in [f"{name}~{i}" for name in OPERATIONS]
        ]
        if [len(node) for node in nodes] != [1, 2, 3]:
            problems.append(f"its nodes have {[len(node) for node in nodes]} inputs")
        if not problems and self.to_string(tuple(genotype)) != text.strip():
            problems.append("a node is not enclosed in |")
        if problems:
            raise InvalidGenotypeError(
                f"{text!r} is no architecture of the space nas_bench_201: {'; '.join(problems)}; needed is "
                f"|op~0|+|op~0|op~1|+|op~0|op~1|op~2|, each op one of {', '.join(OPERATIONS)}"
            )
        return tuple(genotype)

    def _stack(self, choices: Sequence[Sequence[int]], *, is_zero: bool) -> Architecture:
        graph, channels = GraphBuilder(), self.channels
        stem = Incoming(0, "stem", "stem", (Conv(self.input_shape[0], channels, 3), BatchNorm(channels)))
        position = graph.add(Node("stem"), [stem])
        sides: Sequence[int] = self.input_shape[1:]
        for stage in range(NUM_STAGES):
            if stage:
                position = _reduce(graph, f"reduction{stage}", position, channels, sides)
                channels, sides = 2 * channels, [(side + 1) // 2 for side in sides]
            for cell in range(self.cells_per_stage):
                place = f"stage{stage}.cell{cell}"
                if is_zero:
                    zero = Incoming(position, f"{place}.none", OPERATIONS[0], (Zero(),))
                    position = graph.add(Node(f"{place}.node3"), [zero])
                else:
                    position = add_cell(
                        graph, place, position, choices, _OperationLayers(channels), OPERATIONS
                    )
        last = Incoming(position, "last", "normalise", (BatchNorm(channels), ReLU()))
        graph.add(Node("last"), [last])
        return graph.architecture(self.input_shape, "mean")


@dataclass(frozen=True)
class _OperationLayers:
    """The layers of an operation in a cell of `channels`."""

    channels: int

    def __call__(self, operation: int, from_input: bool) -> tuple[Layer, ...]:
        match OPERATIONS[operation]:
            case "skip_connect":
                return ()
            case "avg_pool_3x3":
                return (Pool("average", 3, stride=1, padding=1),)
            case name:
                return relu_conv_bn(self.channels, self.channels, 3 if name == "nor_conv_3x3" else 1)


def _reduce(graph: GraphBuilder, place: str, source: int, channels: int, sides: Sequence[int]) -> int:
    """Add a residual block with twice the channels at half the resolution; returns its output."""
    is_even = all(side % 2 == 0 for side in sides)
    pool = Pool("average", 2, stride=2) if is_even else Pool("average", 3, stride=2, padding=1)
    incoming = [
        Incoming(source, f"{place}.body", "basic_3x3", residual_body(channels, 2 * channels, 2)),
        Incoming(source, f"{place}.shortcut", "conv_1x1", (pool, Conv(channels, 2 * channels, 1))),
    ]
    return graph.add(Node(place), incoming)
