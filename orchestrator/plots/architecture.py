"""The picture of one architecture: its operations and feature maps from the input image to the features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch
from matplotlib.path import Path as Curve

from across.orchestrator.plots import style
from across.orchestrator.plots.boxes import Box, BoxKind, Link, boxes_of
from across.orchestrator.plots.placement import FONT_SIZE, Place, Placement, Size, place_boxes
from across.search_spaces.architecture import Architecture

_COLORS: dict[BoxKind, str] = {
    "convolution": style.BLUE,
    "separable": style.TEAL,
    "dilated": style.PURPLE,
    "pooling": style.ORANGE,
    "skip": style.MUTED,
    "none": style.LINE,
    "features": style.INK,
}
_MARGIN = 18.0
_HEADER = 46.0
_FOOTER = 30.0
_TITLE_CHARACTER_WIDTH, _TITLE_LINE_HEIGHT = 8.0, 14.0
_BAND_PADDING = 5.0
_NAME_WIDTH, _NAME_HEIGHT = 34.0, 12.0
"""Room for the name of a cell, left of its boxes or above them."""
_POINTS_PER_INCH = 72


def plot_architecture(architecture: Architecture, path: Path, title: str) -> None:
    """Draw `architecture` as a PNG, 1,600 pixels wide or more, with its counts below `title`.

    A number beside an arrow down is the factor by which the operation reduces the resolution; `none` edges
    are dotted.
    """
    boxes, links = boxes_of(architecture)
    page_width = style.WIDTH * _POINTS_PER_INCH
    placement = place_boxes(boxes, links, page_width=page_width - 2 * _MARGIN)
    width = max(page_width, placement.width + 2 * _MARGIN + _NAME_WIDTH)
    title_lines = wrap(title, int(width / _TITLE_CHARACTER_WIDTH))
    header = _HEADER + _TITLE_LINE_HEIGHT * max(0, len(title_lines) - 1)
    height = placement.height + header + _FOOTER + _NAME_HEIGHT
    with style.picture(path, width=width / _POINTS_PER_INCH, height=height / _POINTS_PER_INCH) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        left, top = (width - placement.width) / 2, header + _NAME_HEIGHT
        axes.set_xlim(-left, width - left)
        axes.set_ylim(height - top, -top)
        axes.axis("off")
        heading = "\n".join(title_lines).replace("$", r"\$")
        axes.text(_MARGIN - left, 9 - top, heading, fontsize=11, fontweight="bold", va="top", linespacing=1.1)
        axes.text(_MARGIN - left, header - 12 - top, _caption(architecture), fontsize=8, color=style.MUTED)
        _draw_groups(axes, boxes, placement)
        _draw_links(axes, links, placement)
        for box, centre, size in zip(boxes, placement.centres, placement.sizes, strict=True):
            _draw_box(axes, box, centre, size)
        _draw_legend(axes, boxes, links)


def _caption(architecture: Architecture) -> str:
    return (
        f"{architecture.num_params:,} parameters  ·  {_short(architecture.flops)} multiply-adds an image  ·  "
        f"without the head"
    )


def _short(count: int) -> str:
    """A count with three significant digits and a unit."""
    for unit, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return str(count)


def _draw_box(axes: Axes, box: Box, centre: Place, size: Size) -> None:
    (x, y), (width, height) = centre, size
    color = _COLORS[box.kind]
    is_features = box.kind == "features"
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={height / 2 if is_features and len(box.lines) == 1 else 3}",
            facecolor="white" if is_features else _tint(color),
            edgecolor=style.LINE if is_features else color,
            linewidth=0.9,
            zorder=3,
        )
    )
    line_height = height / len(box.lines)
    for position, line in enumerate(box.lines):
        axes.text(
            x,
            y - height / 2 + (position + 0.5) * line_height,
            line,
            fontsize=FONT_SIZE,
            color=style.MUTED if position or (is_features and len(box.lines) == 1) else style.INK,
            ha="center",
            va="center_baseline",
            zorder=4,
        )


def _draw_links(axes: Axes, links: Sequence[Link], placement: Placement) -> None:
    for link, points in zip(links, placement.curves, strict=True):
        axes.add_patch(
            FancyArrowPatch(
                path=Curve(points) if placement.is_polyline else _smooth(points, placement.direction),
                arrowstyle="-|>,head_length=2.6,head_width=1.3",
                mutation_scale=1.6,
                color=style.LINE if link.is_dead else style.MUTED,
                linewidth=0.9,
                linestyle=":" if link.is_dead else "-",
                zorder=2,
            )
        )


def _smooth(points: Sequence[Place], direction: Place) -> Curve:
    """Cubic curves through `points`, parallel to `direction` in each of them."""
    vertices, codes = [points[0]], [int(Curve.MOVETO)]
    for (x0, y0), (x1, y1) in pairwise(points):
        reach = ((x1 - x0) * direction[0] + (y1 - y0) * direction[1]) / 2
        vertices += [
            (x0 + reach * direction[0], y0 + reach * direction[1]),
            (x1 - reach * direction[0], y1 - reach * direction[1]),
            (x1, y1),
        ]
        codes += [int(Curve.CURVE4)] * 3
    return Curve(vertices, codes)


def _draw_groups(axes: Axes, boxes: Sequence[Box], placement: Placement) -> None:
    """A pale band across the flow behind the boxes of each cell, with its name at the border."""
    is_horizontal = placement.direction[0] > 0
    for group in dict.fromkeys(box.group for box in boxes if box.group):
        members = [position for position, box in enumerate(boxes) if box.group == group]
        along = 0 if is_horizontal else 1
        starts = [placement.centres[i][along] - placement.sizes[i][along] / 2 for i in members]
        ends = [placement.centres[i][along] + placement.sizes[i][along] / 2 for i in members]
        if is_horizontal:
            left, right, top, bottom = min(starts), max(ends), -_NAME_HEIGHT, placement.height
        else:
            left, right, top, bottom = -_NAME_WIDTH, placement.width, min(starts), max(ends)
        axes.add_patch(
            FancyBboxPatch(
                (left, top),
                right - left,
                bottom - top,
                boxstyle=f"round,pad={_BAND_PADDING},rounding_size=4",
                facecolor="#f6f8fa",
                edgecolor=style.GRID,
                linewidth=0.8,
                zorder=0,
            )
        )
        axes.text(left, top, group, fontsize=FONT_SIZE, color=style.MUTED, va="top", zorder=1)


def _draw_legend(axes: Axes, boxes: Sequence[Box], links: Sequence[Link]) -> None:
    present = {box.kind for box in boxes} | {"none" for link in links if link.is_dead}
    handles = [
        Patch(facecolor=_tint(color), edgecolor=color, linewidth=0.9, label=kind)
        for kind, color in _COLORS.items()
        if kind in present and kind != "features"
    ]
    axes.legend(handles=handles, loc="lower center", ncols=len(handles), handlelength=1.2, handleheight=0.9)


def _tint(color: str) -> tuple[float, float, float]:
    """The colour, mixed with white."""
    red, green, blue = to_rgb(color)
    return 1 - 0.22 * (1 - red), 1 - 0.22 * (1 - green), 1 - 0.22 * (1 - blue)
