"""What all pictures share: size, fonts, colours, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from across.orchestrator.run_directory.durable_files import explained_writes, replace_file

DOTS_PER_INCH = 200
WIDTH = 8.0
"""Inches: 1,600 pixels."""

INK = "#24292f"
MUTED = "#6e7781"
LINE = "#b8bfc7"
GRID = "#e8ebee"
BLUE = "#2f6db3"
LIGHT_BLUE = "#cfe0f1"
ORANGE = "#d9742b"
TEAL = "#2a8f86"
PURPLE = "#7d5bb5"
RED = "#b93a3a"

_STYLE: Any = {  # matplotlib 3.10 and 3.11 type its keys differently
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.solid_capstyle": "round",
}


@contextmanager
def picture(path: Path, *, height: float, width: float = WIDTH) -> Iterator[Figure]:
    """A figure of `width` x `height` inches, written to `path` as PNG at the end of the block.

    Equal drawings give equal bytes: no timestamp, no version, no display. Raises `RunDirectoryError` where the
    file cannot be written.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
        FigureCanvasAgg(figure)
        yield figure
        content = BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
        with explained_writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue())


def show_whole_generations(axes: Axes, num_generations: int) -> None:
    """Limit the x axis to the generations 1 to `num_generations` and tick whole ones only."""
    axes.set_xlim(0.5, num_generations + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))
