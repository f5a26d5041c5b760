"""One operation a layer, with a choice of widths: the surroundings of few-shot learning's 4CONV network.

4CONV is four blocks of convolution 3x3, batch norm, ReLU and 2x2 max pooling (Vinyals et al. 2016, "Matching
Networks for One Shot Learning"; the body that MAML, Reptile and their successors report). Here each layer
chooses its operation and, where it has one, its width. Deviation from 4CONV: convolutions have no bias, because
the batch norm that follows removes it; the function is the same with fewer weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from across.errors import AcrossError
from across.search_spaces.architecture import Architecture, BatchNorm, Conv, Edge, Layer, Node, Pool, ReLU
from across.search_spaces.base import (
    Config,
    Genotype,
    InputShape,
    InvalidGenotypeError,
    cross_genes,
    encode_genes,
    mutate_gene,
    neighbour_functions,
    sample_genes,
    validate_genes,
)

LayerOperation: TypeAlias = Literal[
    "conv_3x3",
    "conv_5x5",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip",
]
LAYER_OPERATIONS: tuple[LayerOperation, ...] = get_args(LayerOperation)


class InputTooSmallError(AcrossError):
    """The reductions leave nothing of the input images; says how many are possible."""


class LayerwiseConfig(Config):
    """Which operations, widths and layers; `build` makes the space for images of one shape."""

    type: Literal["layerwise"] = "layerwise"
    operations: Annotated[tuple[LayerOperation, ...], Field(min_length=1)] = LAYER_OPERATIONS
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16, 32, 64)
    """Numbers of filters that a convolution may have, ascending."""
    num_layers: int = Field(default=4, ge=1)
    reductions: tuple[int, ...] | None = None
    """Layers followed by a 2x2 max pooling, from 0; None: all of up to four layers, else four of them."""
    readout: Literal["flatten", "mean"] = "flatten"

    @model_validator(mode="after")
    def _choices_are_distinct(self) -> Self:
        problems = []
        if len(set(self.operations)) < len(self.operations):
            problems.append(f"operations must be distinct (got {', '.join(self.operations)})")
        if list(self.widths) != sorted(set(self.widths)):
            problems.append(f"widths must be distinct and ascending (got {list(self.widths)})")
        reductions = self.reductions or ()
        if len(set(reductions)) < len(reductions) or not set(reductions) <= set(range(self.num_layers)):
            problems.append(
                f"reductions must be distinct layers, 0 to {self.num_layers - 1} (got {list(reductions)})"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def build(self, input_shape: InputShape) -> Layerwise:
        """The space over images of `input_shape`; raises `InputTooSmallError` when these are too small."""
        reductions = spread_reductions(self.num_layers) if self.reductions is None else self.reductions
        possible = min(input_shape[1:]).bit_length() - 1
        if len(reductions) > possible:
            raise InputTooSmallError(
                f"images of {input_shape[1]}x{input_shape[2]} can be halved {possible} times, but the space "
                f"layerwise has {len(reductions)} reductions (after layers {list(reductions)}): give `reductions`"
            )
        return Layerwise(
            input_shape=input_shape,
            operations=self.operations,
            widths=self.widths,
            num_layers=self.num_layers,
            reductions=tuple(sorted(reductions)),
            readout=self.readout,
        )


@dataclass(frozen=True)
class Layerwise:
    """A chain of layers; the genotype holds an (operation, width) pair of genes for each.

    The width gene of a pooling or skip layer has no effect: they keep the number of channels.
    """

    input_shape: InputShape
    operations: tuple[LayerOperation, ...]
    widths: tuple[int, ...]
    num_layers: int
    reductions: tuple[int, ...]
    readout: Literal["flatten", "mean"]

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of values of each gene."""
        return (len(self.operations), len(self.widths)) * self.num_layers

    @property
    def encoding_dim(self) -> int:
        """Length of `encode`'s vector."""
        return sum(self.cardinalities)

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype drawn uniformly: each operation with equal chance, then each width."""
        return sample_genes(self.cardinalities, rng)

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """`parent` with one gene changed, among those that have an effect."""
        effective = [
            1 if position % 2 and not self._has_width(parent[position - 1]) else cardinality
            for position, cardinality in enumerate(self.cardinalities)
        ]
        return mutate_gene(effective, parent, rng)

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """The genotypes one gene away whose canonical genotype is another."""
        return neighbour_functions(self.cardinalities, self.canonical, genotype)

    def crossover(self, mother: Genotype, father: Genotype, rng: np.random.Generator) -> Genotype:
        """Uniform crossover of the genes."""
        return cross_genes(mother, father, rng)

    def validate(self, genotype: Genotype) -> None:
        """Raise `InvalidGenotypeError` unless `genotype` belongs to the space."""
        validate_genes(self.cardinalities, genotype, "layerwise")

    def canonical(self, genotype: Genotype) -> Genotype:
        """`genotype` with width gene 0 where the operation has no width."""
        return tuple(
            0 if position % 2 and not self._has_width(genotype[position - 1]) else gene
            for position, gene in enumerate(genotype)
        )

    def architecture(self, genotype: Genotype) -> Architecture:
        """The chain that `genotype` stands for."""
        edges, channels = [], self.input_shape[0]
        for layer in range(self.num_layers):
            operation = self.operations[genotype[2 * layer]]
            width = self.widths[genotype[2 * layer + 1]]
            edges.append(self._edge(layer, operation, channels, width))
            channels = _out_channels(operation, channels, width)
        return self._chain(edges)

    def super_architecture(self) -> Architecture:
        """Every candidate of every layer with its greatest numbers of input and output channels.

        Poolings may differ from convolutions in channels here: the graph lists weights, it is not run.
        """
        edges, channels, width = [], self.input_shape[0], max(self.widths)
        for layer in range(self.num_layers):
            edges += [self._edge(layer, operation, channels, width) for operation in self.operations]
            channels = max(_out_channels(operation, channels, width) for operation in self.operations)
        return self._chain(edges)

    def encode(self, genotype: Genotype) -> NDArray[np.float32]:
        """One-hot encoding of each gene of the canonical genotype, shape (encoding_dim,)."""
        return encode_genes(self.cardinalities, self.canonical(genotype))

    def to_string(self, genotype: Genotype) -> str:
        """Operations with their widths, such as `conv_3x3:32|skip|sep_conv_5x5:16|max_pool_3x3`."""
        tokens = {genes: token for token, genes in self._tokens().items()}
        canonical = self.canonical(genotype)
        return "|".join(tokens[canonical[i], canonical[i + 1]] for i in range(0, len(canonical), 2))

    def from_string(self, text: str) -> Genotype:
        """The canonical genotype of a string; raises `InvalidGenotypeError`."""
        tokens, layers = self._tokens(), text.strip().split("|")
        problems = [
            f"layer {position} is {layer!r}" for position, layer in enumerate(layers) if layer not in tokens
        ]
        if len(layers) != self.num_layers:
            problems.append(f"it has {len(layers)} layers")
        if problems:
            raise InvalidGenotypeError(
                f"{text!r} is no architecture of the space layerwise: {'; '.join(problems)}; needed are "
                f"{self.num_layers} layers separated by |, each one of {', '.join(tokens)}"
            )
        return tuple(gene for layer in layers for gene in tokens[layer])

    def _tokens(self) -> dict[str, tuple[int, int]]:
        """The strings that a layer can have, with their genes."""
        return {
            f"{operation}:{width}" if _is_convolution(operation) else operation: (i, j)
            for i, operation in enumerate(self.operations)
            for j, width in enumerate(self.widths if _is_convolution(operation) else self.widths[:1])
        }

    def _has_width(self, gene: int) -> bool:
        return _is_convolution(self.operations[gene])

    def _edge(self, layer: int, operation: LayerOperation, in_channels: int, width: int) -> Edge:
        layers = operation_layers(operation, in_channels, width)
        if layer in self.reductions:
            layers = (*layers, Pool("max", kernel_size=2, stride=2))
        return Edge(layer, layer + 1, f"layer{layer}.{operation}", operation, layers)

    def _chain(self, edges: Sequence[Edge]) -> Architecture:
        nodes = (Node("image"), *(Node(f"layer{layer}") for layer in range(self.num_layers)))
        return Architecture(self.input_shape, nodes, tuple(edges), self.readout)


def operation_layers(operation: LayerOperation, in_channels: int, width: int) -> tuple[Layer, ...]:
    """The primitive layers of a candidate operation at stride 1."""
    kernel_size = 3 if operation.endswith("3x3") else 5
    activation = (BatchNorm(width), ReLU())
    match operation:
        case "conv_3x3" | "conv_5x5":
            return (Conv(in_channels, width, kernel_size), *activation)
        case "sep_conv_3x3" | "sep_conv_5x5":
            depthwise = Conv(in_channels, in_channels, kernel_size, depthwise=True)
            return (depthwise, Conv(in_channels, width, 1), *activation)
        case "dil_conv_3x3":
            return (Conv(in_channels, width, kernel_size, dilation=2), *activation)
        case "max_pool_3x3":
            return (Pool("max", kernel_size, stride=1, padding=1),)
        case "avg_pool_3x3":
            return (Pool("average", kernel_size, stride=1, padding=1),)
        case "skip":
            return ()


def spread_reductions(num_layers: int) -> tuple[int, ...]:
    """Every layer of up to four, else four of them, evenly spread, the last layer included."""
    count = min(4, num_layers)
    return tuple((i + 1) * num_layers // count - 1 for i in range(count))


def _is_convolution(operation: LayerOperation) -> bool:
    return "conv" in operation


def _out_channels(operation: LayerOperation, in_channels: int, width: int) -> int:
    return width if _is_convolution(operation) else in_channels
