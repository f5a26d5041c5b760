"""An architecture under construction: nodes are added in topological order, each with the edges into it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from across.search_spaces.architecture import Architecture, Edge, FeatureShape, Layer, Node


class Incoming(NamedTuple):
    """An edge that does not know its target yet."""

    source: int
    name: str
    operation: str
    layers: tuple[Layer, ...]


class GraphBuilder:
    """Nodes and edges of an architecture to be; node 0 is the image."""

    def __init__(self) -> None:
        self.nodes = [Node("image")]
        self.incoming: list[list[Incoming]] = [[]]

    def add(self, node: Node, incoming: list[Incoming]) -> int:
        """Append `node` with the edges into it; returns its position."""
        self.nodes.append(node)
        self.incoming.append(incoming)
        return len(self.nodes) - 1

    def architecture(self, input_shape: FeatureShape, readout: Literal["flatten", "mean"]) -> Architecture:
        """What reaches the last node, renumbered."""
        live = {len(self.nodes) - 1}
        for index in reversed(range(len(self.nodes))):
            if index in live:
                live.update(edge.source for edge in self.incoming[index])
        renumbered = {old: new for new, old in enumerate(sorted(live))}
        edges = [
            Edge(renumbered[edge.source], renumbered[index], edge.name, edge.operation, edge.layers)
            for index in renumbered
            for edge in self.incoming[index]
        ]
        return Architecture(input_shape, tuple(self.nodes[old] for old in renumbered), tuple(edges), readout)
