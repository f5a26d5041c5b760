"""Who is measured on test classes."""

from __future__ import annotations

from dataclasses import replace

from across.orchestrator.finalists import choose_finalists
from across.orchestrator.state import Commit, Evaluation, Proposal
from across.search_spaces import LayerwiseConfig
from across.search_spaces.base import Genotype
from tests.example_commits import example_commit

SPACE = LayerwiseConfig(
    operations=("conv_3x3", "conv_5x5", "skip"), widths=(2, 4), num_layers=2, reductions=()
).build((1, 8, 8))
A, B, C, D = (0, 0, 0, 0), (0, 1, 0, 0), (1, 0, 0, 0), (1, 1, 0, 0)


def generation(number: int, fitness: dict[Genotype, float | None], *, version: int | None = None) -> Commit:
    """A commit of individuals whose index is their genotype's first appearance here: A is the oldest."""
    version = number if version is None else version
    order = [A, B, C, D]
    evaluations = tuple(
        Evaluation(
            Proposal(order.index(genotype) if genotype in order else 100, genotype),
            value,
            weights_version=version,
        )
        for genotype, value in fitness.items()
    )
    return replace(example_commit(number), evaluations=evaluations, weights_version=version)


def chosen(*commits: Commit, num_finalists: int = 10, num_generations: int = 5) -> list[Genotype]:
    finalists = choose_finalists(commits, SPACE, num_finalists=num_finalists, num_generations=num_generations)
    return [each.genotype for each in finalists]


def test_best_first_and_only_as_many_as_asked_for() -> None:
    commit = generation(0, {A: 0.1, B: 0.4, C: 0.3, D: 0.2})
    assert chosen(commit) == [B, C, D, A]
    assert chosen(commit, num_finalists=2) == [B, C]


def test_equal_fitness_prefers_the_older() -> None:
    assert chosen(generation(0, {D: 0.5, B: 0.5, C: 0.5})) == [B, C, D]


def test_failures_are_no_finalists() -> None:
    assert chosen(generation(0, {A: None, B: -3.0})) == [B]
    assert chosen(generation(0, {A: None, B: None})) == []
    assert chosen() == []


def test_only_the_last_generations_count() -> None:
    commits = [generation(0, {A: 1.0, B: 0.0}), generation(1, {C: 0.5, D: 0.4}), generation(2, {C: 0.5})]
    assert set(chosen(*commits, num_generations=2)) == {C, D}


def test_measurements_on_test_classes_do_not_count() -> None:
    test = replace(generation(1, {A: 1.0, B: 0.0}), kind="test")
    assert chosen(generation(0, {B: 0.6, C: 0.5}), test, num_generations=1) == [B, C]


def test_one_lucky_evaluation_does_not_beat_a_survivor_that_proved_itself() -> None:
    commits = [generation(number, {A: 0.70, B: 0.50}) for number in range(4)]
    commits.append(generation(4, {A: 0.70, B: 0.50, C: 0.72}))
    assert chosen(*commits)[0] == A


def test_a_survivor_is_not_punished_for_the_poorer_weights_of_its_youth() -> None:
    """The weights learn from generation to generation: B is new, and worse than A whenever they meet."""
    commits = [generation(number, {A: 0.15 * number, C: 0.15 * number - 0.1}) for number in range(4)]
    commits.append(generation(4, {A: 0.60, B: 0.58, C: 0.50}))
    assert chosen(*commits) == [A, B, C]


def test_repeating_an_evaluation_at_the_same_weights_is_no_news() -> None:
    """Without meta-learning a survivor keeps its evaluation: it is not better for having lived longer."""
    commits = [generation(number, {A: 0.80, B: 0.50}, version=0) for number in range(4)]
    commits.append(generation(4, {A: 0.80, C: 0.85, B: 0.50}, version=0))
    assert chosen(*commits) == [C, A, B]


def test_equal_functions_are_one_finalist() -> None:
    """The width of a skip has no effect."""
    narrow, wide = (2, 0, 0, 0), (2, 1, 0, 0)
    assert SPACE.canonical(wide) == SPACE.canonical(narrow)
    commits = [generation(0, {wide: 0.7, A: 0.2}), generation(1, {narrow: 0.7, B: 0.8, A: 0.2})]
    assert chosen(*commits) == [wide, B, A]
