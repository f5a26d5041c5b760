"""The pictures: valid, deterministic, and about the right individuals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path

import pytest
from PIL import Image

from across.orchestrator.plots import plot_architecture, plot_genealogy, plot_progress
from across.orchestrator.plots.genealogy import ancestry, fittest, latest_individuals, lineage
from across.orchestrator.state import Commit, Evaluation, MetaLearningSummary, Proposal, Timings
from across.search_spaces.architecture import Architecture, BatchNorm, Conv, Edge, Node, Pool, ReLU

Individual = tuple[int, tuple[int, ...], int, float | None]
"""Index, parents, birth, fitness."""


def commit(number: int, individuals: Sequence[Individual], *, losses: tuple[float, ...] = ()) -> Commit:
    return Commit(
        number=number,
        kind="generation",
        evaluations=tuple(
            Evaluation(Proposal(index, (index,), parents, birth), fitness)
            for index, parents, birth, fitness in individuals
        ),
        next_index=0,
        weights_version=0,
        weights_digest="",
        meta_learning=MetaLearningSummary(losses=losses, accuracies=losses),
        timings=Timings(wall_seconds=2.0, worker_busy_seconds=3.0, num_workers=2, num_tasks=100),
        timestamp=float(number),
    )


FAMILY = [
    commit(0, [(0, (), 0, 0.1), (1, (), 0, 0.3), (2, (), 0, 0.2), (3, (), 0, None)], losses=(2.0, 1.5)),
    commit(1, [(1, (), 0, 0.4), (4, (0, 1), 1, 0.3), (5, (2,), 1, 0.5)], losses=(1.2, 1.1)),
    commit(
        2, [(1, (), 0, None), (6, (4, 5), 2, 0.9), (7, (3, 5), 2, 0.6), (8, (99,), 2, nan)], losses=(1.0,)
    ),
]


def test_survivors_count_once_with_their_latest_fitness() -> None:
    individuals = latest_individuals(FAMILY)
    assert sorted(individuals) == list(range(9))
    assert individuals[1].fitness == 0.4
    assert individuals[1].birth == 0
    assert individuals[3].fitness is None
    assert individuals[8].fitness is None


def test_the_ancestry_of_the_best_is_complete_and_has_nobody_else() -> None:
    individuals = latest_individuals(FAMILY)
    assert fittest(individuals) == 6
    assert ancestry(individuals, 6) == {6, 4, 5, 0, 1, 2}
    assert ancestry(individuals, 7) == {7, 3, 5, 2}
    assert ancestry(individuals, 8) == {8}


def test_the_lineage_follows_the_fitter_parent() -> None:
    individuals = latest_individuals(FAMILY)
    assert lineage(individuals, 6) == (6, 5, 2)
    assert lineage(individuals, 4) == (4, 1)
    assert lineage(individuals, 3) == (3,)


def test_nobody_is_fittest_where_all_failed() -> None:
    assert fittest(latest_individuals([commit(0, [(0, (), 0, None), (1, (), 0, nan)])])) is None


def chain() -> Architecture:
    layers = (Conv(3, 8, 3), BatchNorm(8), ReLU(), Pool("max", 2, 2))
    edges = (Edge(0, 1, "layer0", "conv_3x3", layers), Edge(1, 2, "layer1", "skip", ()))
    return Architecture((3, 28, 28), (Node("image"), Node("layer0"), Node("layer1")), edges, "flatten")


def draw_architecture(path: Path) -> None:
    plot_architecture(chain(), path, "conv_3x3:8|skip costs $1 and $2")


def draw_progress(path: Path) -> None:
    plot_progress(FAMILY, path)


def draw_genealogy(path: Path) -> None:
    plot_genealogy(FAMILY, path)


DRAWINGS = [draw_architecture, draw_progress, draw_genealogy]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_pictures_are_wide_pngs_of_equal_bytes(draw: Callable[[Path], None], tmp_path: Path) -> None:
    first, second = tmp_path / "new folder" / "first.png", tmp_path / "second.png"
    draw(first)
    draw(second)
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        image.load()
        assert (image.format, image.width) == ("PNG", 1600)
        assert 250 < image.height < 1600
        assert set(image.info) <= {"dpi"}
        colors = image.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colors is not None
        assert len(colors) > 20


def changed(draw: Callable[[Path], None], other: Callable[[Path], None], folder: Path) -> bool:
    draw(folder / "a.png")
    other(folder / "b.png")
    return (folder / "a.png").read_bytes() != (folder / "b.png").read_bytes()


def test_pictures_follow_the_data(tmp_path: Path) -> None:
    assert changed(draw_progress, lambda path: plot_progress(FAMILY[:2], path), tmp_path)
    assert changed(draw_genealogy, lambda path: plot_genealogy(FAMILY, path, champion=7), tmp_path)


@pytest.mark.parametrize("commits", [[], [commit(0, [(0, (), 0, None)])], [commit(0, [(0, (), 0, 0.5)])]])
def test_searches_without_much_to_show_still_have_pictures(commits: list[Commit], tmp_path: Path) -> None:
    plot_progress(commits, tmp_path / "progress.png")
    plot_genealogy(commits, tmp_path / "genealogy.png")
    for name in ("progress.png", "genealogy.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width == 1600
