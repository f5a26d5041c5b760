"""A front: what is gained against what it costs, with the way there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from across.orchestrator.objectives import Objective, costs, fronts
from across.orchestrator.plots import style
from across.orchestrator.state import Commit


def plot_front(commits: Sequence[Commit], objectives: Sequence[Objective], path: Path) -> None:
    """Draw the first two objectives of all evaluations, and the fronts of the first and the last generation."""
    across, up = objectives[1], objectives[0]
    summaries = [summary for summary in fronts(commits, objectives) if summary is not None]
    with style.picture(path, height=4.5) as figure:
        axes = figure.subplots()
        every = [
            each
            for commit in commits
            if commit.kind == "generation"
            for each in commit.evaluations
            if each.fitness is not None
        ]
        signs = np.array([-1.0 if each.direction == "maximize" else 1.0 for each in objectives])
        if every:
            values = costs(every, objectives) * signs
            axes.scatter(values[:, 1], values[:, 0], s=6, color=style.LINE, linewidth=0, label="evaluated")
        ends = [(summaries[0], style.LIGHT_BLUE, "first front"), (summaries[-1], style.BLUE, "last front")]
        for summary, color, name in ends if summaries else []:
            values = costs(summary.members, objectives) * signs
            values = values[np.argsort(values[:, 1])]
            minimized = across.direction == "minimize"
            axes.step(
                values[:, 1], values[:, 0], where="post" if minimized else "pre", color=color, linewidth=1.5
            )
            axes.scatter(values[:, 1], values[:, 0], s=14, color=color, label=name, zorder=3)
        if summaries:
            last = summaries[-1]
            knee = (costs([last.members[last.knee]], objectives) * signs)[0]
            axes.scatter(
                knee[1], knee[0], s=70, facecolor="none", edgecolor=style.ORANGE, label="knee", zorder=4
            )
        axes.set_xlabel(across.metric)
        axes.set_ylabel(up.metric)
        axes.legend(loc="best")
