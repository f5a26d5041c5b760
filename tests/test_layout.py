"""The layered layout and the boxes of an architecture."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from across.orchestrator.plots.boxes import boxes_of, operation_kind
from across.orchestrator.plots.layout import Layout, layered_layout
from across.orchestrator.plots.placement import Placement, place_boxes
from across.search_spaces.architecture import (
    Architecture,
    BatchNorm,
    Conv,
    Edge,
    FactorizedReduction,
    Layer,
    Node,
    Pool,
    ReLU,
    Zero,
)

GAP, BEND = 10.0, 4.0


def random_graph(seed: int, num_nodes: int) -> tuple[list[float], list[tuple[int, int]]]:
    rng = np.random.default_rng(seed)
    pairs = [(i, j) for j in range(1, num_nodes) for i in range(max(0, j - 6), j)]
    edges = [(j - 1, j) for j in range(1, num_nodes) if j % 3] + [
        pair for pair in pairs if rng.random() < 0.2
    ]
    return [float(size) for size in rng.uniform(20, 80, num_nodes)], edges


def rows_of(layout: Layout, sizes: list[float]) -> dict[int, list[tuple[float, float]]]:
    """Centre and size of all boxes and bends in each layer, sorted by centre."""
    rows: dict[int, list[tuple[float, float]]] = {}
    for layer, offset, size in zip(layout.layers, layout.offsets, sizes, strict=True):
        rows.setdefault(layer, []).append((offset, size))
    for route in layout.routes:
        for layer, offset in route[1:-1]:
            rows.setdefault(layer, []).append((offset, BEND))
    return {layer: sorted(row) for layer, row in rows.items()}


@pytest.mark.parametrize("seed", range(8))
def test_boxes_and_bends_do_not_overlap_and_edges_point_forward(seed: int) -> None:
    sizes, edges = random_graph(seed, 25)
    layout = layered_layout(sizes, edges, gap=GAP, bend_size=BEND)
    for row in rows_of(layout, sizes).values():
        for (offset, size), (next_offset, next_size) in pairwise(row):
            assert next_offset - offset >= (size + next_size) / 2 + GAP - 1e-3
    for (source, target), route in zip(edges, layout.routes, strict=True):
        assert route[0] == (layout.layers[source], layout.offsets[source])
        assert route[-1] == (layout.layers[target], layout.offsets[target])
        assert [layer for layer, _ in route] == list(range(route[0][0], route[-1][0] + 1))
        assert len(route) >= 2


def test_a_chain_is_a_straight_line() -> None:
    layout = layered_layout([10, 50, 30, 20], [(0, 1), (1, 2), (2, 3)], gap=GAP, bend_size=BEND)
    assert layout.layers == (0, 1, 2, 3)
    assert layout.offsets == pytest.approx((25, 25, 25, 25))


def test_crossings_are_removed_where_an_order_without_any_exists() -> None:
    edges = [(0, 3), (0, 4), (1, 2), (1, 3), (2, 5), (3, 5), (4, 5)]
    layout = layered_layout([20.0] * 6, edges, gap=GAP, bend_size=BEND)
    spans = [(layout.offsets[source], layout.offsets[target]) for source, target in edges if source < 2]
    for a, b in spans:
        for c, d in spans:
            assert not (a < c and b > d), "two edges cross"


def test_a_long_edge_runs_straight_around_the_boxes() -> None:
    edges = [(i, i + 1) for i in range(5)] + [(0, 5)]
    layout = layered_layout([40.0] * 6, edges, gap=GAP, bend_size=BEND)
    bends = [offset for _, offset in layout.routes[-1][1:-1]]
    assert len(bends) == 4
    assert bends == pytest.approx([bends[0]] * 4, abs=0.01)
    assert all(abs(bends[0] - layout.offsets[i]) >= 20 for i in range(1, 5))


def test_precedences_order_layers_without_an_edge() -> None:
    edges = [(0, 1), (0, 2)]
    free = layered_layout([10.0] * 3, edges, gap=GAP, bend_size=BEND)
    ordered = layered_layout([10.0] * 3, edges, precedences=[(1, 2)], gap=GAP, bend_size=BEND)
    assert free.layers == (0, 1, 1)
    assert ordered.layers == (0, 1, 2)


def test_the_layout_is_a_function_of_the_graph() -> None:
    sizes, edges = random_graph(3, 25)
    assert layered_layout(sizes, edges, gap=GAP, bend_size=BEND) == layered_layout(
        sizes, edges, gap=GAP, bend_size=BEND
    )


def conv(in_channels: int, out_channels: int, *, stride: int = 1) -> tuple[Layer, ...]:
    return (Conv(in_channels, out_channels, 3, stride), BatchNorm(out_channels), ReLU())


def chain_architecture(num_layers: int) -> Architecture:
    edges = [Edge(i, i + 1, f"layer{i}", "conv_3x3", conv(1 if i == 0 else 8, 8)) for i in range(num_layers)]
    nodes = tuple(Node(f"layer{i}") for i in range(num_layers + 1))
    return Architecture((1, 28, 28), nodes, tuple(edges), "flatten")


def cells_architecture(num_cells: int) -> Architecture:
    """Each cell: two operations on the previous output, their sum, and both concatenated."""
    nodes, edges = [Node("image")], []
    previous, channels = 0, 4
    for cell in range(num_cells):
        first = len(nodes)
        nodes += [Node(f"cell{cell}.a"), Node(f"cell{cell}.b"), Node(f"cell{cell}.output", "concatenate")]
        edges += [
            Edge(
                previous, first, f"{cell}.x", "sep_conv_5x5", (Conv(channels, channels, 5, depthwise=True),)
            ),
            Edge(first, first + 1, f"{cell}.y", "max_pool_3x3", (Pool("max", 3, 1, 1),)),
            Edge(previous, first + 1, f"{cell}.z", "skip", ()),
            Edge(previous, first + 1, f"{cell}.none", "none", (Zero(),)),
            Edge(first, first + 2, f"{cell}.out0", "concatenate", ()),
            Edge(first + 1, first + 2, f"{cell}.out1", "concatenate", ()),
        ]
        previous, channels = first + 2, 2 * channels
    return Architecture((4, 16, 16), tuple(nodes), tuple(edges), "mean")


@pytest.mark.parametrize(
    ("layers", "kind"),
    [
        ((Conv(4, 4, 3),), "convolution"),
        ((Conv(4, 4, 3, depthwise=True), Conv(4, 4, 1)), "separable"),
        ((Conv(4, 4, 3, dilation=2, depthwise=True), Conv(4, 4, 1)), "dilated"),
        ((Pool("max", 3, 1, 1),), "pooling"),
        ((), "skip"),
        ((ReLU(), FactorizedReduction(4, 4), BatchNorm(4)), "skip"),
        ((Zero(),), "none"),
    ],
)
def test_the_kind_of_an_operation_comes_from_its_layers(layers: tuple[Layer, ...], kind: str) -> None:
    assert operation_kind(Edge(0, 1, "e", "x", layers)) == kind


def test_boxes_carry_operations_shapes_and_strides() -> None:
    edges = (
        Edge(0, 1, "e0", "sep_conv_3x3", conv(3, 8, stride=2)),
        Edge(1, 2, "e1", "skip", (Pool("max", 2, 2),)),
    )
    architecture = Architecture((3, 15, 15), (Node("i"), Node("a"), Node("b")), edges, "flatten")
    boxes, links = boxes_of(architecture)
    assert [box.lines for box in boxes] == [
        ("input", "3×15×15"),
        ("sep conv 3×3 ↓2", "8×8×8"),
        ("skip ↓2", "8×4×4"),
        ("flatten", "128 features"),
    ]
    assert [(link.source, link.target) for link in links] == [(0, 1), (1, 2), (2, 3)]


def test_edges_of_zeros_are_dead_links_without_a_box() -> None:
    boxes, links = boxes_of(cells_architecture(1))
    assert [box.kind for box in boxes if box.group] == [
        "separable",
        "pooling",
        "skip",
        "features",
        "features",
    ]
    assert [(link.source, link.target) for link in links if link.is_dead] == [(0, 4)]


def rectangles(placement: Placement) -> list[tuple[float, float, float, float]]:
    return [
        (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        for (x, y), (width, height) in zip(placement.centres, placement.sizes, strict=True)
    ]


@pytest.mark.parametrize(
    "architecture",
    [chain_architecture(4), chain_architecture(13), cells_architecture(1), cells_architecture(4)],
)
def test_placed_boxes_lie_on_the_page_and_do_not_overlap(architecture: Architecture) -> None:
    boxes, links = boxes_of(architecture)
    placement = place_boxes(boxes, links, page_width=540.0)
    placed = rectangles(placement)
    for index, (left, top, right, bottom) in enumerate(placed):
        assert -0.01 <= left < right <= placement.width + 0.01
        assert -0.01 <= top < bottom <= placement.height + 0.01
        for other_left, other_top, other_right, other_bottom in placed[index + 1 :]:
            assert right < other_left or other_right < left or bottom < other_top or other_bottom < top


def test_a_chain_is_placed_in_rows_within_the_page() -> None:
    boxes, links = boxes_of(chain_architecture(13))
    placement = place_boxes(boxes, links, page_width=540.0)
    assert placement.width <= 540.0
    rows: dict[float, list[float]] = {}
    for x, y in placement.centres:
        rows.setdefault(y, []).append(x)
    assert len(rows) > 1
    assert all(row == sorted(row) for row in rows.values())
    assert list(rows) == sorted(rows)


def test_cells_lie_one_after_the_other() -> None:
    boxes, links = boxes_of(cells_architecture(3))
    placement = place_boxes(boxes, links, page_width=100.0)
    spans = []
    for cell in range(3):
        members = [
            (top, bottom)
            for box, (_, top, _, bottom) in zip(boxes, rectangles(placement), strict=True)
            if box.group == f"cell{cell}"
        ]
        spans.append((min(top for top, _ in members), max(bottom for _, bottom in members)))
    assert all(bottom < top for (_, bottom), (top, _) in pairwise(spans))
