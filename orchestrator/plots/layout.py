"""A layered drawing of a directed acyclic graph, after Sugiyama, Tagawa and Toda (1981).

Longest-path layers; barycentre ordering against crossings; offsets of least total length as a linear program
(Gansner, Koutsofios, North and Vo 1993). Edges that span several layers get a bend in each, so that they run
around boxes and not through them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from itertools import pairwise
from statistics import fmean
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, isotonic_regression, milp
from scipy.sparse import lil_array

Point: TypeAlias = tuple[int, float]
"""Layer and offset within the layer."""

_ORDER_SWEEPS = 12
_CENTRING_SWEEPS = 12
_STRAIGHTNESS = 8.0
"""Weight of a segment between two bends, against 1 between two boxes: long edges run straight."""
_FIXED = 1e6
"""Weight of what keeps its offset while boxes are centred."""


@dataclass(frozen=True)
class Layout:
    """Where the boxes lie and which points the edges pass."""

    layers: tuple[int, ...]
    """Of each node; the target of an edge always lies in a later layer than its source."""
    offsets: tuple[float, ...]
    """Centre of each node within its layer, from 0 at the first edge of the first box."""
    routes: tuple[tuple[Point, ...], ...]
    """Of each edge, from its source to its target, one point a layer."""

    @property
    def num_layers(self) -> int:
        return max(self.layers) + 1


@dataclass
class _Graph:
    """The graph with bends as additional nodes, so that each segment joins neighbouring layers."""

    layers: list[int]
    sizes: list[float]
    num_boxes: int
    before: list[list[int]] = field(default_factory=list)
    after: list[list[int]] = field(default_factory=list)

    def is_bend(self, node: int) -> bool:
        return node >= self.num_boxes

    def weight(self, first: int, second: int) -> float:
        return _STRAIGHTNESS if self.is_bend(first) and self.is_bend(second) else 1.0


def layered_layout(
    sizes: Sequence[float],
    edges: Sequence[tuple[int, int]],
    *,
    precedences: Sequence[tuple[int, int]] = (),
    gap: float,
    bend_size: float,
) -> Layout:
    """Lay out len(sizes) boxes, `sizes` being their extents along the layers, with at least `gap` in between.

    Of each pair in `precedences`, the first box lies in an earlier layer than the second. With the edges they
    must not form a cycle.
    """
    layers = _longest_path_layers(len(sizes), edges, precedences)
    graph = _Graph(list(layers), list(sizes), len(sizes), [[] for _ in sizes], [[] for _ in sizes])
    routes = [_add_route(graph, source, target, bend_size) for source, target in edges]
    rows = _order(graph)
    offsets = _assign_offsets(graph, rows, gap)
    return Layout(
        tuple(layers),
        tuple(offsets[: len(sizes)]),
        tuple(tuple((graph.layers[node], offsets[node]) for node in route) for route in routes),
    )


def _longest_path_layers(
    num_nodes: int, edges: Sequence[tuple[int, int]], precedences: Sequence[tuple[int, int]]
) -> list[int]:
    """Each node as early as its sources allow; then those with at least as many outputs as inputs late."""
    before: list[list[int]] = [[] for _ in range(num_nodes)]
    after: list[list[int]] = [[] for _ in range(num_nodes)]
    surplus = [0] * num_nodes
    for source, target in (*edges, *precedences):
        before[target].append(source)
        after[source].append(target)
    for source, target in edges:
        surplus[source] += 1
        surplus[target] -= 1
    order = tuple(TopologicalSorter(dict(enumerate(before))).static_order())
    layers = [0] * num_nodes
    for node in order:
        layers[node] = max((layers[source] + 1 for source in before[node]), default=0)
    for node in reversed(order):
        if after[node] and surplus[node] >= 0:
            layers[node] = min(layers[target] for target in after[node]) - 1
    first = min(layers)
    return [layer - first for layer in layers]


def _add_route(graph: _Graph, source: int, target: int, bend_size: float) -> list[int]:
    route = [source]
    for layer in range(graph.layers[source] + 1, graph.layers[target]):
        route.append(len(graph.layers))
        graph.layers.append(layer)
        graph.sizes.append(bend_size)
        graph.before.append([])
        graph.after.append([])
    route.append(target)
    for first, second in pairwise(route):
        graph.after[first].append(second)
        graph.before[second].append(first)
    return route


def _order(graph: _Graph) -> list[list[int]]:
    """The order of the nodes in each layer with the fewest crossings that the sweeps have met."""
    rows: list[list[int]] = [[] for _ in range(max(graph.layers) + 1)]
    for node, layer in enumerate(graph.layers):
        rows[layer].append(node)
    best, fewest = [list(row) for row in rows], _num_crossings(graph, rows)
    for sweep in range(_ORDER_SWEEPS):
        for index, neighbours in _sweep(graph, len(rows), down=sweep % 2 == 0):
            position = _positions(rows)
            centres = {
                node: float(np.mean([position[other] for other in neighbours[node]] or [position[node]]))
                for node in rows[index]
            }
            rows[index].sort(key=centres.__getitem__)
        crossings = _num_crossings(graph, rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _sweep(graph: _Graph, num_layers: int, *, down: bool) -> Iterator[tuple[int, list[list[int]]]]:
    """The layers in the order of a sweep, with the neighbours that are already placed."""
    if down:
        return ((index, graph.before) for index in range(1, num_layers))
    return ((index, graph.after) for index in reversed(range(num_layers - 1)))


def _positions(rows: list[list[int]]) -> dict[int, int]:
    return {node: position for row in rows for position, node in enumerate(row)}


def _num_crossings(graph: _Graph, rows: list[list[int]]) -> int:
    position = _positions(rows)
    total = 0
    for row in rows[:-1]:
        ends = np.array(
            [end for node in row for end in sorted(position[other] for other in graph.after[node])]
        )
        total += int(np.triu(ends[:, None] > ends[None, :], 1).sum())
    return total


def _assign_offsets(graph: _Graph, rows: list[list[int]], gap: float) -> list[float]:
    """The offsets of least total length across the layers, then boxes centred between their neighbours."""
    offsets = _shortest(graph, rows, gap)
    for sweep in range(_CENTRING_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted, weights = [], []
            for node in row:
                others = [] if graph.is_bend(node) else graph.before[node] + graph.after[node]
                wanted.append(fmean(offsets[other] for other in others) if others else offsets[node])
                weights.append(1.0 if others else _FIXED)
            steps = _packed(graph, row, gap)
            centred = isotonic_regression(np.array(wanted) - steps, weights=weights).x + steps
            for node, offset in zip(row, centred, strict=True):
                offsets[node] = float(offset)
    first = min(offset - size / 2 for offset, size in zip(offsets, graph.sizes, strict=True))
    return [offset - first for offset in offsets]


def _shortest(graph: _Graph, rows: list[list[int]], gap: float) -> list[float]:
    """Least weighted sum of the segments' absolute shifts, a linear program: long edges come out straight."""
    num_nodes = len(graph.layers)
    segments = [(node, other) for node in range(num_nodes) for other in graph.after[node]]
    num_variables = num_nodes + len(segments)
    constraints: list[tuple[dict[int, float], float]] = []
    for position, (source, target) in enumerate(segments, start=num_nodes):
        constraints.append(({source: 1.0, target: -1.0, position: -1.0}, 0.0))
        constraints.append(({source: -1.0, target: 1.0, position: -1.0}, 0.0))
    for row in rows:
        for first, second in pairwise(row):
            room = (graph.sizes[first] + graph.sizes[second]) / 2 + gap
            constraints.append(({first: 1.0, second: -1.0}, -room))
    matrix = lil_array((len(constraints), num_variables))
    for index, (coefficients, _) in enumerate(constraints):
        for column, coefficient in coefficients.items():
            matrix[index, column] = coefficient
    costs = [0.0] * num_nodes + [graph.weight(source, target) for source, target in segments]
    limits = LinearConstraint(matrix.tocsr(), -np.inf, [bound for _, bound in constraints])
    solution = milp(costs, constraints=limits, bounds=Bounds(0.0, np.inf))
    assert solution.x is not None, solution.message
    return [float(offset) for offset in solution.x[:num_nodes]]


def _packed(graph: _Graph, row: list[int], gap: float) -> NDArray[np.float64]:
    """Centres of the row's boxes when they stand as close together as they may, the first at 0."""
    sizes = np.array([graph.sizes[node] for node in row])
    steps = (sizes[1:] + sizes[:-1]) / 2 + gap
    return np.concatenate([[0.0], np.cumsum(steps)])
