"""An architecture as boxes and links: what the picture shows, before anything has a place.

An operation is a box of its own between two feature maps. A feature map that comes from a single operation
shares its box, so that a chain of layers is a chain of boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

from across.search_spaces.architecture import (
    Architecture,
    Conv,
    Edge,
    FactorizedReduction,
    FeatureShape,
    Layer,
    Pool,
    Zero,
)

OperationKind: TypeAlias = Literal["convolution", "separable", "dilated", "pooling", "skip", "none"]
BoxKind: TypeAlias = OperationKind | Literal["features"]


@dataclass(frozen=True)
class Box:
    """One rectangle of text."""

    kind: BoxKind
    lines: tuple[str, ...]
    group: str
    """Name of the cell that it belongs to; empty outside cells."""


@dataclass(frozen=True)
class Link:
    """A line from one box to another."""

    source: int
    target: int
    is_dead: bool = False
    """Whether it carries nothing but zeros."""


def operation_kind(edge: Edge) -> OperationKind:
    """What an edge does, by its layers."""
    layers = edge.layers
    convolutions = [layer for layer in layers if isinstance(layer, Conv)]
    if any(isinstance(layer, Zero) for layer in layers):
        return "none"
    if any(layer.dilation > 1 for layer in convolutions):
        return "dilated"
    if any(layer.depthwise for layer in convolutions):
        return "separable"
    if convolutions:
        return "convolution"
    if any(isinstance(layer, Pool) for layer in layers) and edge.operation != "skip":
        return "pooling"
    return "skip"


def boxes_of(architecture: Architecture) -> tuple[list[Box], list[Link]]:
    """The boxes of `architecture`, topologically ordered along the links."""
    shapes = architecture.node_shapes
    boxes, links = [Box("features", ("input", _shape_text(shapes[0])), "")], []
    box_of_node = [0]
    for index, node in enumerate(architecture.nodes[1:], start=1):
        group = node.name.rpartition(".")[0]
        incoming = architecture.incoming(index)
        if len(incoming) == 1 and not _is_wire(incoming[0], node.join):
            edge = incoming[0]
            text = _operation_text(edge)
            links.append(Link(box_of_node[edge.source], len(boxes), operation_kind(edge) == "none"))
            boxes.append(Box(operation_kind(edge), (text, _shape_text(shapes[index])), group))
        else:
            ends = []
            for edge in incoming:
                source, kind = box_of_node[edge.source], operation_kind(edge)
                if kind == "none" or _is_wire(edge, node.join):
                    ends.append((source, kind == "none"))
                    continue
                links.append(Link(source, len(boxes)))
                ends.append((len(boxes), False))
                boxes.append(Box(kind, (_operation_text(edge),), group))
            links += [Link(source, len(boxes), is_dead) for source, is_dead in ends]
            join = "sum" if node.join == "sum" else "concat"
            boxes.append(Box("features", (f"{join}  {_shape_text(shapes[index])}",), group))
        box_of_node.append(len(boxes) - 1)
    links.append(Link(box_of_node[-1], len(boxes)))
    boxes.append(Box("features", (architecture.readout, f"{architecture.feature_dim:,} features"), ""))
    return boxes, links


def _is_wire(edge: Edge, join: str) -> bool:
    """Whether the edge is no choice, but the way of a part into a concatenation."""
    return not edge.layers and join == "concatenate"


def _operation_text(edge: Edge) -> str:
    words = edge.operation.replace("_", " ")
    *name, last = words.split(" ")
    height, width = last.split("x") if last.count("x") == 1 else ("", "")
    if name and height.isdigit() and width.isdigit():
        words = f"{' '.join(name)} {height}×{width}"
    stride = prod(layer_stride(layer) for layer in edge.layers)
    return f"{words} ↓{stride}" if stride > 1 else words


def layer_stride(layer: Layer) -> int:
    """The factor by which a layer reduces the resolution."""
    match layer:
        case Conv() | Pool() | Zero():
            return layer.stride
        case FactorizedReduction():
            return 2
        case _:
            return 1


def _shape_text(shape: FeatureShape) -> str:
    return "×".join(map(str, shape))
