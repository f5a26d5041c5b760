"""Boxes to places on the page, in points (1/72 inch), y downwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil
from typing import TypeAlias

from across.orchestrator.plots.boxes import Box, Link
from across.orchestrator.plots.layout import Layout, layered_layout

Place: TypeAlias = tuple[float, float]
"""x and y in points."""
Size: TypeAlias = tuple[float, float]
"""Width and height in points."""

FONT_SIZE = 7.5
_CHARACTER_WIDTH = 0.6 * FONT_SIZE
_LINE_HEIGHT = 10.5
_PADDING = 5.0
_BEND_SIZE = 4.0
_GAP_ALONG = 14.0
"""Between the layers of a vertical drawing."""
_GAP_ALONG_HORIZONTAL = 20.0
_GAP_ACROSS = 12.0
_ROW_GAP = 26.0
_RIGHT, _DOWN = (1.0, 0.0), (0.0, 1.0)


@dataclass(frozen=True)
class Placement:
    """Where everything goes."""

    width: float
    height: float
    sizes: tuple[Size, ...]
    """Of each box."""
    centres: tuple[Place, ...]
    curves: tuple[tuple[Place, ...], ...]
    """Of each link: the points that it passes, from the border of its source to the border of its target."""
    direction: Place
    """Unit vector of the flow, in which curves leave and enter their points."""
    is_polyline: bool
    """Whether the points of the links are corners, joined by straight lines."""


def _box_size(box: Box) -> Size:
    width = max(map(len, box.lines)) * _CHARACTER_WIDTH + 2 * _PADDING
    return width, len(box.lines) * _LINE_HEIGHT + 3.0


def place_boxes(boxes: Sequence[Box], links: Sequence[Link], *, page_width: float) -> Placement:
    """Rows of boxes for a chain; else left to right where that fits `page_width`, else top to bottom."""
    sizes = [_box_size(box) for box in boxes]
    ends = [(link.source, link.target) for link in links]
    if ends == [(position, position + 1) for position in range(len(boxes) - 1)]:
        return _place_chain(sizes, page_width)
    precedences = _stacked_groups(boxes)
    for across, is_horizontal in ((1, True), (0, False)):
        extents = [size[across] for size in sizes]
        layout = layered_layout(extents, ends, precedences=precedences, gap=_GAP_ACROSS, bend_size=_BEND_SIZE)
        placement = _place_layers(layout, sizes, ends, is_horizontal=is_horizontal)
        if placement.width <= page_width:
            break
    return placement


def _stacked_groups(boxes: Sequence[Box]) -> list[tuple[int, int]]:
    """Pairs that put each group's boxes after those of the group before."""
    members: dict[str, list[int]] = {}
    for position, box in enumerate(boxes):
        if box.group:
            members.setdefault(box.group, []).append(position)
    return [
        (first, second)
        for earlier, later in pairwise(members.values())
        if earlier[-1] < later[0]
        for first in earlier
        for second in later
    ]


def _place_chain(sizes: Sequence[Size], page_width: float) -> Placement:
    """One row; where that is too long, rows of about equal length in columns of equal boxes."""
    gap = _GAP_ALONG_HORIZONTAL
    row_length = len(sizes)
    row_height = max(height for _, height in sizes)
    if sum(width + gap for width, _ in sizes) - gap > page_width:
        widest = max(width for width, _ in sizes)
        num_rows = ceil(len(sizes) / max(1, int((page_width + gap) / (widest + gap))))
        row_length = ceil(len(sizes) / num_rows)
        sizes = [(widest, row_height)] * len(sizes)
    centres: list[Place] = []
    for position, (width, _) in enumerate(sizes):
        row = position // row_length
        before = sum(other + gap for other, _ in sizes[row * row_length : position])
        centres.append((before + width / 2, row * (row_height + _ROW_GAP) + row_height / 2))
    curves = []
    for ((x0, y0), (w0, _)), ((x1, y1), (w1, _)) in pairwise(zip(centres, sizes, strict=True)):
        start, end = (x0 + w0 / 2, y0), (x1 - w1 / 2, y1)
        middle, reach = (y0 + y1) / 2, gap / 2
        turn = [
            (start[0] + reach, y0),
            (start[0] + reach, middle),
            (end[0] - reach, middle),
            (end[0] - reach, y1),
        ]
        curves.append((start, *(turn if y1 > y0 else ()), end))
    width = max(x + size[0] / 2 for (x, _), size in zip(centres, sizes, strict=True))
    return Placement(
        width,
        centres[-1][1] + row_height / 2,
        tuple(sizes),
        tuple(centres),
        tuple(curves),
        _RIGHT,
        is_polyline=True,
    )


def _place_layers(
    layout: Layout, sizes: Sequence[Size], ends: Sequence[tuple[int, int]], *, is_horizontal: bool
) -> Placement:
    """The layout drawn to the right or downwards, each layer as thick as its thickest box."""
    gap = _GAP_ALONG_HORIZONTAL if is_horizontal else _GAP_ALONG
    along = [width if is_horizontal else height for width, height in sizes]
    across = [height if is_horizontal else width for width, height in sizes]
    thickness = [0.0] * layout.num_layers
    for layer, size in zip(layout.layers, along, strict=True):
        thickness[layer] = max(thickness[layer], size)
    starts = [0.0, *accumulate(size + gap for size in thickness)]
    middles = [start + size / 2 for start, size in zip(starts, thickness, strict=False)]

    def place(position: float, offset: float) -> Place:
        return (position, offset) if is_horizontal else (offset, position)

    curves = []
    for route, (source, target) in zip(layout.routes, ends, strict=True):
        first, last = route[0], route[-1]
        points = [place(middles[first[0]] + along[source] / 2, first[1])]
        for layer, offset in route[1:-1]:
            points += [place(starts[layer], offset), place(starts[layer] + thickness[layer], offset)]
        points.append(place(middles[last[0]] - along[target] / 2, last[1]))
        curves.append(tuple(points))
    extent = max(offset + size / 2 for offset, size in zip(layout.offsets, across, strict=True))
    extent = max(extent, *(offset for route in layout.routes for _, offset in route))
    width, height = place(starts[-1] - gap, extent)
    return Placement(
        width,
        height,
        tuple(sizes),
        tuple(place(middles[layer], off) for layer, off in zip(layout.layers, layout.offsets, strict=True)),
        tuple(curves),
        _RIGHT if is_horizontal else _DOWN,
        is_polyline=False,
    )
