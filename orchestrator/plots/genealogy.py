"""Who descends from whom: every individual by birth and fitness, and the ancestry of the best one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from across.orchestrator.plots import style
from across.orchestrator.state import Commit


@dataclass(frozen=True)
class Individual:
    """One proposal with the fitness of its latest evaluation that did not fail."""

    index: int
    parents: tuple[int, ...]
    birth: int
    """Generation, from 0."""
    fitness: float | None
    """None when every evaluation failed."""


def latest_individuals(commits: Iterable[Commit]) -> dict[int, Individual]:
    """The individuals of the generations among `commits`, by index; a survivor has its latest fitness."""
    individuals: dict[int, Individual] = {}
    for commit in commits:
        if commit.kind != "generation":
            continue
        for evaluation in commit.evaluations:
            proposal, fitness = evaluation.proposal, evaluation.fitness
            earlier = individuals[proposal.index].fitness if proposal.index in individuals else None
            known = fitness if fitness is not None and isfinite(fitness) else earlier
            individuals[proposal.index] = Individual(proposal.index, proposal.parents, proposal.birth, known)
    return individuals


def fittest(individuals: Mapping[int, Individual]) -> int | None:
    """Index of the individual of greatest fitness, the earliest of equals; None if all failed."""
    scored = [(-one.fitness, one.index) for one in individuals.values() if one.fitness is not None]
    return min(scored)[1] if scored else None


def ancestry(individuals: Mapping[int, Individual], index: int) -> frozenset[int]:
    """`index` and the known ones of its ancestors."""
    found, waiting = {index}, [index]
    while waiting:
        for parent in individuals[waiting.pop()].parents:
            if parent in individuals and parent not in found:
                found.add(parent)
                waiting.append(parent)
    return frozenset(found)


def lineage(individuals: Mapping[int, Individual], index: int) -> tuple[int, ...]:
    """`index`, the fitter of its parents, the fitter of that one's, and so on to one without parents."""
    line = [index]
    while True:
        parents = [individuals[parent] for parent in individuals[line[-1]].parents if parent in individuals]
        scored = [(one.fitness, one.index) for one in parents if one.fitness is not None]
        if not scored:
            return tuple(line)
        line.append(max(scored)[1])


def plot_genealogy(commits: Iterable[Commit], path: Path, *, champion: int | None = None) -> None:
    """Draw the individuals of `commits` as a PNG of 1,600 pixels width.

    `champion` is the index of the individual whose ancestry stands out; by default that of greatest fitness.
    """
    individuals = latest_individuals(commits)
    best = fittest(individuals) if champion is None else champion
    line = ancestry(individuals, best) if best is not None else frozenset()
    with style.picture(path, height=5.0) as figure:
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        _draw_everyone(axes, individuals, line)
        _draw_failures(axes, individuals)
        if best is not None:
            _draw_ancestry(axes, individuals, line, best)
        axes.set_xlabel("generation of birth")
        axes.set_ylabel("fitness, latest evaluation")
        axes.margins(y=0.1)
        style.show_whole_generations(axes, 1 + max((one.birth for one in individuals.values()), default=0))
        if individuals:
            axes.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, columnspacing=1.4, borderaxespad=0.2
            )


def _draw_everyone(axes: Axes, individuals: Mapping[int, Individual], line: Collection[int]) -> None:
    opacity = min(0.7, max(0.15, 8 / sqrt(max(1, len(individuals)))))
    _draw_lines(axes, individuals, individuals, color=style.LINE, linewidth=0.6, opacity=opacity)
    others = [one for one in individuals.values() if one.index not in line]
    _draw_points(
        axes, others, size=_point_size(individuals), color=style.MUTED, opacity=0.55, label="individual"
    )


def _draw_ancestry(
    axes: Axes, individuals: Mapping[int, Individual], line: Collection[int], best: int
) -> None:
    size = _point_size(individuals)
    ancestors = [individuals[index] for index in sorted(line) if index != best]
    opacity = min(0.9, max(0.2, 3 / sqrt(len(line))))
    _draw_lines(axes, individuals, line, color=style.BLUE, linewidth=1.0, opacity=opacity)
    _draw_points(
        axes, ancestors, size=1.3 * size, color=style.BLUE, opacity=1.0, label="ancestor of the best"
    )
    direct = [individuals[index] for index in lineage(individuals, best)]
    points = [(one.birth + 1, one.fitness) for one in direct if one.fitness is not None]
    axes.plot(
        *zip(*points, strict=True), color=style.ORANGE, linewidth=2.0, label="through the fitter parents"
    )
    champion = individuals[best]
    label = f"best: {champion.fitness:.4f}" if champion.fitness is not None else ""
    _draw_points(axes, [champion], size=60, color=style.ORANGE, opacity=1.0, label=label)


def _draw_failures(axes: Axes, individuals: Mapping[int, Individual]) -> None:
    births = [one.birth + 1 for one in individuals.values() if one.fitness is None]
    if births:
        axes.scatter(
            births,
            [0.015] * len(births),
            transform=axes.get_xaxis_transform(),
            marker="x",
            s=14,
            linewidths=0.9,
            color=style.RED,
            label="failed",
        )


def _draw_lines(
    axes: Axes,
    individuals: Mapping[int, Individual],
    shown: Iterable[int],
    *,
    color: str,
    linewidth: float,
    opacity: float,
) -> None:
    """Lines from the individuals of `shown` to those of their parents who have a fitness."""
    lines = []
    for index in shown:
        child = individuals[index]
        for parent in (individuals[index] for index in child.parents if index in individuals):
            if child.fitness is not None and parent.fitness is not None:
                lines.append([(parent.birth + 1, parent.fitness), (child.birth + 1, child.fitness)])
    axes.add_collection(LineCollection(lines, colors=color, linewidths=linewidth, alpha=opacity))


def _draw_points(
    axes: Axes, individuals: Iterable[Individual], *, size: float, color: str, opacity: float, label: str
) -> None:
    points = [(one.birth + 1, one.fitness) for one in individuals if one.fitness is not None]
    if points:
        births, fitness = zip(*points, strict=True)
        axes.scatter(births, fitness, s=size, color=color, alpha=opacity, linewidths=0, label=label, zorder=3)


def _point_size(individuals: Mapping[int, Individual]) -> float:
    """Square points: large for ten individuals, small for thousands."""
    return min(28.0, max(6.0, 350 / sqrt(max(1, len(individuals)))))
