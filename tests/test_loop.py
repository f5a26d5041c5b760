"""The loop's pure parts: the fold over the journal, and when a search has finished."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest

from across.orchestrator.loop import fold
from across.orchestrator.state import Commit, SearchState, Timings, is_finished, is_over
from across.orchestrator.strategies.random import RandomConfig
from across.search_spaces import LayerwiseConfig
from tests.example_commits import example_commit
from tests.tiny_search import tiny_config

SPACE = LayerwiseConfig(num_layers=2, reductions=()).build((1, 8, 8))


def journal(kinds: str, *, seconds: float = 8.0) -> list[Commit]:
    """Commits by their kinds' first letters: `ggt` is two generations and the final measurement."""
    names: dict[str, Literal["generation", "test"]] = {"g": "generation", "t": "test"}
    timings = Timings(wall_seconds=seconds)
    return [
        replace(example_commit(number), kind=names[letter], timings=timings)
        for number, letter in enumerate(kinds)
    ]


def test_state_is_the_fold_of_the_generations() -> None:
    strategy = RandomConfig(population_size=4).build(SPACE)
    assert fold(tiny_config(), strategy, []) == SearchState()
    commits = journal("ggt")
    state = fold(tiny_config(), strategy, commits)
    assert state == SearchState(
        generation=2,
        next_index=commits[1].next_index,
        population=commits[1].evaluations,
        history=(*commits[0].evaluations, *commits[1].evaluations),
        weights_version=commits[1].weights_version,
    )
    assert (
        fold(tiny_config(), strategy, journal("gg")) == state
    )  # the final measurement teaches the strategy nothing


def test_fold_goes_on_after_a_final_measurement() -> None:
    strategy = RandomConfig(population_size=4).build(SPACE)
    state = fold(tiny_config(), strategy, journal("gtg"))
    assert state.generation == 2
    assert [each.proposal.index for each in state.history] == [0, 1, 2, 3, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("", False),
        ("ggg", False),
        ("gggt", True),
        ("ggt", False),  # made longer after it had finished
        ("ggtg", False),
        ("ggtgt", True),
    ],
)
def test_finished_when_the_finalists_of_the_last_generation_are_measured(kinds: str, expected: bool) -> None:
    assert is_finished(journal(kinds), num_generations=3, max_seconds=None) is expected


@pytest.mark.parametrize(("limit", "expected"), [(None, False), (17.0, False), (16.0, True), (1e-3, True)])
def test_out_of_time_when_the_generations_have_used_it_up(limit: float | None, expected: bool) -> None:
    assert is_over(journal("gg"), num_generations=9, max_seconds=limit) is expected
    assert (
        is_over(journal("ggt"), num_generations=9, max_seconds=limit) is expected
    )  # final measurements are not counted
    assert is_finished(journal("gg"), num_generations=9, max_seconds=limit) is False
    assert is_finished(journal("ggt"), num_generations=9, max_seconds=limit) is expected


def test_nothing_has_used_time_before_it_began() -> None:
    assert not is_over([], num_generations=9, max_seconds=1e-9)
