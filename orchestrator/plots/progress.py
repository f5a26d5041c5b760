"""The course of a search: fitness, meta-learning and the use of the workers by generation."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from across.orchestrator.plots import style
from across.orchestrator.progress.generation_summary import (
    GenerationSummary,
    finite_values,
    summarize_generations,
)
from across.orchestrator.state import Commit

_MAX_MARKED = 40
"""With more generations than this, lines go without a marker a generation."""


def plot_progress(commits: Sequence[Commit], path: Path) -> None:
    """Draw the generations among `commits` as a PNG of 1,600 pixels width."""
    summaries = summarize_generations(commits)
    has_meta_learning = any(summary.loss is not None for summary in summaries)
    heights = [3.0, 1.4, 0.7] if has_meta_learning else [3.0, 0.7]
    with style.picture(path, height=sum(heights) + 1.0) as figure:
        figure.set_layout_engine("constrained", hspace=0.06)
        panels = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        _draw_fitness(panels[0], summaries)
        if has_meta_learning:
            _draw_meta_learning(panels[1], summaries, commits)
        _draw_workers(panels[-1], summaries)
        panels[-1].set_xlabel("generation")
        style.show_whole_generations(panels[-1], max(1, len(summaries)))
        figure.align_ylabels(list(panels))


def _draw_fitness(axes: Axes, summaries: Sequence[GenerationSummary]) -> None:
    generations = [summary.generation for summary in summaries]
    best = [_or_nan(summary.best) for summary in summaries]
    worst = [_or_nan(summary.worst) for summary in summaries]
    records = [_or_nan(summary.best_so_far) for summary in summaries]
    marker = "o" if len(summaries) <= _MAX_MARKED else ""
    axes.fill_between(generations, worst, best, color=style.LIGHT_BLUE, linewidth=0, label="best to worst")
    if len(summaries) == 1:
        axes.vlines(generations, worst, best, color=style.LIGHT_BLUE, linewidth=20)
    axes.plot(generations, best, color=style.BLUE, linewidth=0.8, marker=marker, markersize=2, label="best")
    mean = [_or_nan(summary.mean) for summary in summaries]
    axes.plot(generations, mean, color=style.BLUE, linewidth=2.0, marker=marker, markersize=4, label="mean")
    axes.step(generations, records, where="post", color=style.ORANGE, linewidth=2.0, label="best so far")
    last = summaries[-1].best_so_far if summaries else None
    if last is not None:
        axes.annotate(
            f"{last:.4f}",
            (generations[-1], last),
            xytext=(0, 5),
            textcoords="offset points",
            ha="right",
            color=style.ORANGE,
            fontweight="bold",
        )
    axes.margins(y=0.1)
    axes.set_ylabel("fitness")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, borderaxespad=0.2)


def _draw_meta_learning(
    axes: Axes, summaries: Sequence[GenerationSummary], commits: Sequence[Commit]
) -> None:
    generations = [summary.generation for summary in summaries]
    rolled = [commit for commit in commits if commit.kind == "generation"]
    losses = [commit.meta_learning.losses for commit in rolled]
    accuracies = [commit.meta_learning.accuracies for commit in rolled]
    marker = "o" if len(summaries) <= _MAX_MARKED else ""
    accuracy_axes = axes.twinx()
    for panel, steps, means, color, name in (
        (axes, losses, [summary.loss for summary in summaries], style.PURPLE, "loss"),
        (accuracy_axes, accuracies, [summary.accuracy for summary in summaries], style.TEAL, "accuracy"),
    ):
        panel.plot(*_outer_steps(steps), color=color, linewidth=0.7, alpha=0.3)
        panel.plot(generations, [_or_nan(mean) for mean in means], color=color, marker=marker, markersize=3)
        panel.set_ylabel(f"outer {name}", color=color)
        panel.tick_params(axis="y", labelcolor=color)
    accuracy_axes.grid(visible=False)


def _outer_steps(values: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """The values of the outer steps, spread evenly within half a generation to either side of their own."""
    places = [
        (generation - 0.5 + (step + 0.5) / len(steps), value)
        for generation, steps in enumerate(values, start=1)
        for step, value in enumerate(steps)
    ]
    return [place for place, _ in places], [value for _, value in places]


def _draw_workers(axes: Axes, summaries: Sequence[GenerationSummary]) -> None:
    generations = [summary.generation for summary in summaries]
    utilisation = [_or_nan(summary.utilisation) for summary in summaries]
    axes.bar(generations, utilisation, width=0.8, color=style.LINE, alpha=0.6, linewidth=0)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("workers\nbusy", color=style.MUTED)
    axes.grid(visible=False)
    rates = [_or_nan(summary.tasks_per_second) for summary in summaries]
    rate_axes = axes.twinx()
    marker = "o" if len(summaries) <= _MAX_MARKED else ""
    rate_axes.plot(generations, rates, color=style.INK, linewidth=1.0, marker=marker, markersize=2)
    rate_axes.set_ylim(0, 1.3 * max(finite_values(rates), default=1.0))
    rate_axes.set_ylabel("tasks/s")
    rate_axes.grid(visible=False)


def _or_nan(value: float | None) -> float:
    return nan if value is None else value
