"""The pictures of a run, kept up to date beside its journal and in MLflow."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from across.orchestrator.finalists import choose_finalists
from across.orchestrator.objectives import Objective
from across.orchestrator.plots import plot_architecture, plot_front, plot_genealogy, plot_progress
from across.orchestrator.run_directory import RunDirectoryError
from across.orchestrator.state import Commit
from across.orchestrator.tracking.tracker import Tracker
from across.search_spaces.base import SearchSpace

REDRAW_SECONDS = 60.0
"""Drawing takes seconds; a search of short generations must not wait for it every time."""

_logger = logging.getLogger(__name__)


class Gallery:
    """Draws a run's pictures: at the end, and now and then before."""

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        tracker: Tracker,
        *,
        num_last_generations: int,
        objectives: Sequence[Objective] = (),
    ) -> None:
        self._folder = folder
        self._space = space
        self._tracker = tracker
        self._num_last_generations = num_last_generations
        self._objectives = objectives
        self._drawn_at = time.monotonic()

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Where the pictures lie once they are drawn."""
        names = ("progress", "genealogy", "best_architecture", *(("front",) if self._objectives else ()))
        return tuple(self._folder / f"{name}.png" for name in names)

    def update(self, commits: Sequence[Commit]) -> None:
        """Draw if the last drawing is old, or the search's last commit is among `commits`."""
        if commits[-1].kind == "test" or time.monotonic() - self._drawn_at > REDRAW_SECONDS:
            self.draw(commits)

    def is_behind(self, commits: Sequence[Commit]) -> bool:
        """Whether a picture is missing, or older than the last commit."""
        drawn = [picture.stat().st_mtime if picture.exists() else 0.0 for picture in self.pictures]
        return min(drawn) < commits[-1].timestamp

    def draw(self, commits: Sequence[Commit]) -> None:
        """Draw all pictures anew; a disk that does not take them is no reason to stop a search."""
        try:
            self._draw(commits)
        except RunDirectoryError as error:
            _logger.warning("the pictures are not up to date: %s", error)
        self._drawn_at = time.monotonic()

    def _draw(self, commits: Sequence[Commit]) -> None:
        progress, genealogy, architecture, *front = self.pictures
        plot_progress(commits, progress)
        for path in front:
            plot_front(commits, self._objectives, path)
        best = choose_finalists(
            commits, self._space, num_finalists=1, num_generations=self._num_last_generations
        )
        plot_genealogy(commits, genealogy, champion=best[0].index if best else None)
        if best:
            genotype = best[0].genotype
            plot_architecture(
                self._space.architecture(genotype), architecture, self._space.to_string(genotype)
            )
        for picture in self.pictures:
            if picture.exists():
                self._tracker.log_artifact(picture, "pictures")
