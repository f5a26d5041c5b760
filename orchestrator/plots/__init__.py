"""Pictures of a search and of what it found, as PNG files of equal bytes for equal data."""

from across.orchestrator.plots.architecture import plot_architecture
from across.orchestrator.plots.front import plot_front
from across.orchestrator.plots.genealogy import plot_genealogy
from across.orchestrator.plots.progress import plot_progress

__all__ = ["plot_architecture", "plot_front", "plot_genealogy", "plot_progress"]
