"""Architecture: the graph that a genotype stands for, as plain data.

Nodes hold feature maps; edges transform them. An edge is a sequence of primitive layers, so that a new candidate
operation is new data, not new tensor code: the batched supernet, the plain `nn.Module`, the counts, the picture
and the graph encoders read this module's types and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal, TypeAlias

Shape: TypeAlias = tuple[int, ...]
FeatureShape: TypeAlias = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True)
class Conv:
    """Convolution without bias (a batch norm follows), padded to keep the size before its stride."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False

    @property
    def padding(self) -> int:
        return self.dilation * (self.kernel_size - 1) // 2


@dataclass(frozen=True)
class FactorizedReduction:
    """Two 1x1 convolutions of stride 2, the second on the input shifted by one pixel, concatenated (DARTS)."""

    in_channels: int
    out_channels: int


BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation with learned scale and shift; statistics are always those of a batch."""

    channels: int


@dataclass(frozen=True)
class ReLU:
    pass


@dataclass(frozen=True)
class Pool:
    """Max or average pooling; `padding` pixels never count in an average."""

    kind: Literal["max", "average"]
    kernel_size: int
    stride: int
    padding: int = 0


@dataclass(frozen=True)
class Zero:
    """No information: zeros in the shape that a stride leaves."""

    stride: int = 1


Layer: TypeAlias = Conv | FactorizedReduction | BatchNorm | ReLU | Pool | Zero


def parameter_shapes(layer: Layer) -> dict[str, Shape]:
    """Names and shapes of a layer's parameters; empty for layers without any."""
    match layer:
        case Conv(depthwise=True):
            return {"weight": (layer.out_channels, 1, layer.kernel_size, layer.kernel_size)}
        case Conv():
            return {"weight": (layer.out_channels, layer.in_channels, layer.kernel_size, layer.kernel_size)}
        case FactorizedReduction():
            first = layer.out_channels // 2
            return {
                "weight": (first, layer.in_channels, 1, 1),
                "shifted_weight": (layer.out_channels - first, layer.in_channels, 1, 1),
            }
        case BatchNorm():
            return {"scale": (layer.channels,), "shift": (layer.channels,)}
        case _:
            return {}


def output_shape(layer: Layer, shape: FeatureShape) -> FeatureShape:
    """The feature shape after `layer` on features of `shape`."""
    channels, height, width = shape
    match layer:
        case Conv():
            return layer.out_channels, _strided(height, layer.stride), _strided(width, layer.stride)
        case FactorizedReduction():
            return layer.out_channels, _strided(height, 2), _strided(width, 2)
        case Zero():
            return channels, _strided(height, layer.stride), _strided(width, layer.stride)
        case Pool():
            reach = 2 * layer.padding - layer.kernel_size
            return channels, (height + reach) // layer.stride + 1, (width + reach) // layer.stride + 1
        case _:
            return shape


def multiply_adds(layer: Layer, shape: FeatureShape) -> int:
    """Multiply-adds of a layer on one image of `shape`; convolutions count, as is usual in the field."""
    if not isinstance(layer, Conv | FactorizedReduction):
        return 0
    _, height, width = output_shape(layer, shape)
    return height * width * sum(prod(shape) for shape in parameter_shapes(layer).values())


def _strided(size: int, stride: int) -> int:
    return (size - 1) // stride + 1


@dataclass(frozen=True)
class Edge:
    """`layers` applied to node `source`, added to (or concatenated in) node `target`.

    `name` is the place of its weights in the supernet: edges of different genotypes with the same name share
    weights, and a narrower one uses the leading slice. `operation` is the choice's name, for pictures and strings.
    """

    source: int
    target: int
    name: str
    operation: str
    layers: tuple[Layer, ...]

    def parameters(self) -> dict[str, Shape]:
        """Full parameter names (`<edge>.<layer position>.<parameter>`) and shapes, in order."""
        return {
            f"{self.name}.{position}.{name}": shape
            for position, layer in enumerate(self.layers)
            for name, shape in parameter_shapes(layer).items()
        }


@dataclass(frozen=True)
class Node:
    """One feature map: the sum or the channel-wise concatenation of its incoming edges."""

    name: str
    join: Literal["sum", "concatenate"] = "sum"


@dataclass(frozen=True)
class Architecture:
    """Nodes in topological order: node 0 is the input image, the last node the output features.

    Edges are ordered by target. `readout` makes the feature vector of the last node: all of its values in
    channel-major order, or the mean over each channel.
    """

    input_shape: FeatureShape
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    readout: Literal["flatten", "mean"]

    @cached_property
    def node_shapes(self) -> tuple[FeatureShape, ...]:
        """Feature shape of each node; in a graph of all candidates, of which some are narrower, the widest."""
        shapes: list[FeatureShape] = [self.input_shape]
        for index in range(1, len(self.nodes)):
            incoming = [edge_shapes(edge, shapes[edge.source])[-1] for edge in self.incoming(index)]
            channels = sum(shape[0] for shape in incoming)
            widest = max(incoming)
            shapes.append((channels, *widest[1:]) if self.nodes[index].join == "concatenate" else widest)
        return tuple(shapes)

    @cached_property
    def _incoming(self) -> tuple[tuple[Edge, ...], ...]:
        return tuple(
            tuple(edge for edge in self.edges if edge.target == index) for index in range(len(self.nodes))
        )

    def incoming(self, node: int) -> tuple[Edge, ...]:
        """The edges into `node`, in order."""
        return self._incoming[node]

    @cached_property
    def parameters(self) -> dict[str, Shape]:
        """Names and shapes of all parameters, in edge order."""
        return {name: shape for edge in self.edges for name, shape in edge.parameters().items()}

    @property
    def feature_dim(self) -> int:
        """Length of the feature vector of one image."""
        return self.node_shapes[-1][0] if self.readout == "mean" else prod(self.node_shapes[-1])

    @property
    def num_params(self) -> int:
        """Number of parameters without the head, which belongs to the task's objective."""
        return sum(prod(shape) for shape in self.parameters.values())

    @cached_property
    def flops(self) -> int:
        """Multiply-adds on one image, without the head."""
        return sum(
            multiply_adds(layer, shape)
            for edge in self.edges
            for layer, shape in zip(
                edge.layers, edge_shapes(edge, self.node_shapes[edge.source]), strict=False
            )
        )


def edge_shapes(edge: Edge, shape: FeatureShape) -> list[FeatureShape]:
    """Feature shapes along an edge: the source's, then the one after each layer."""
    shapes = [shape]
    for layer in edge.layers:
        shapes.append(output_shape(layer, shapes[-1]))
    return shapes
