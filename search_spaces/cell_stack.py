"""The stacked cells as a graph: candidate operations, preprocessing, strides, and what is left out.

Edges are named by cell, node, input and operation (`cell1.node2.input0.sep_conv_3x3`), and by that name genotypes
share weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from across.search_spaces.architecture import (
    Architecture,
    BatchNorm,
    Conv,
    FactorizedReduction,
    FeatureShape,
    Layer,
    Node,
    Pool,
    ReLU,
    Zero,
)
from across.search_spaces.graph import GraphBuilder, Incoming

CellOperation: TypeAlias = Literal[
    "none",
    "skip",
    "max_pool_3x3",
    "avg_pool_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
]
CELL_OPERATIONS: tuple[CellOperation, ...] = get_args(CellOperation)

Choice: TypeAlias = tuple[int, CellOperation]
"""An input (0: output of the cell before the last, 1: of the last, 2...: this cell's nodes), its operation."""
CellChoices: TypeAlias = list[list[Choice]]
"""For each intermediate node, its incoming choices."""


def operation_layers(operation: CellOperation, channels: int, stride: int) -> tuple[Layer, ...]:
    """The primitive layers of a candidate operation, as in DARTS but for the batch norm after pooling."""
    kernel_size = 3 if operation.endswith("3x3") else 5
    pointwise = (Conv(channels, channels, 1), BatchNorm(channels))
    match operation:
        case "none":
            return (Zero(stride),)
        case "skip":
            return () if stride == 1 else reduction_layers(channels, channels)
        case "max_pool_3x3":
            return (Pool("max", kernel_size, stride, padding=1),)
        case "avg_pool_3x3":
            return (Pool("average", kernel_size, stride, padding=1),)
        case "sep_conv_3x3" | "sep_conv_5x5":
            first = Conv(channels, channels, kernel_size, stride, depthwise=True)
            second = Conv(channels, channels, kernel_size, depthwise=True)
            return (ReLU(), first, *pointwise, ReLU(), second, *pointwise)
        case "dil_conv_3x3" | "dil_conv_5x5":
            dilated = Conv(channels, channels, kernel_size, stride, dilation=2, depthwise=True)
            return (ReLU(), dilated, *pointwise)


def reduction_layers(in_channels: int, out_channels: int) -> tuple[Layer, ...]:
    """Half the resolution with every pixel seen, where no operation does it."""
    return (ReLU(), FactorizedReduction(in_channels, out_channels), BatchNorm(out_channels))


def edges_into(choices: list[Choice]) -> list[Choice]:
    """Which of a node's choices become edges: all but `none`, or one `none` from input 1 for the shape's sake."""
    return [choice for choice in choices if choice[1] != "none"] or [(1, "none")]


def stack_cells(
    cells: Sequence[CellChoices],
    *,
    input_shape: FeatureShape,
    channels: int,
    reduces: Sequence[bool],
    readout: Literal["flatten", "mean"],
) -> Architecture:
    """The network of a stem and `cells`; `reduces` says which of them halve the resolution.

    Nodes and edges that cannot reach the output are left out, and so are `none` edges, unless a node has
    nothing else: then it is zeros in the shape of the cell's second input.
    """
    graph = GraphBuilder()
    stem_layers = (Conv(input_shape[0], channels, kernel_size=3), BatchNorm(channels))
    stem = graph.add(Node("stem"), [Incoming(0, "stem", "stem", stem_layers)])
    previous = ((stem, channels), (stem, channels))
    for position, nodes in enumerate(cells):
        inputs = []
        for i, (source, in_channels) in enumerate(previous):
            if i == 0 and position > 0 and reduces[position - 1]:
                layers = reduction_layers(in_channels, channels)
            else:
                layers = (ReLU(), Conv(in_channels, channels, 1), BatchNorm(channels))
            name = f"cell{position}.input{i}"
            preprocess = Incoming(source, f"{name}.preprocess", "preprocess", layers)
            inputs.append(graph.add(Node(name), [preprocess]))
        stride = 2 if reduces[position] else 1
        output = _add_cell(graph, f"cell{position}", inputs, nodes, channels=channels, stride=stride)
        previous = (previous[1], (output, channels * len(nodes)))
    return graph.architecture(input_shape, readout)


def _add_cell(
    graph: GraphBuilder, place: str, inputs: list[int], nodes: CellChoices, *, channels: int, stride: int
) -> int:
    """Add a cell's intermediate nodes and its output; returns the output."""
    sources = list(inputs)
    for node, choices in enumerate(nodes):
        name = f"{place}.node{node}"
        incoming = []
        for i, operation in edges_into(choices):
            layers = operation_layers(operation, channels, stride if i < 2 else 1)
            incoming.append(Incoming(sources[i], f"{name}.input{i}.{operation}", operation, layers))
        sources.append(graph.add(Node(name), incoming))
    joined = [
        Incoming(source, f"{place}.output.node{node}", "concatenate", ())
        for node, source in enumerate(sources[2:])
    ]
    return graph.add(Node(f"{place}.output", "concatenate"), joined)
