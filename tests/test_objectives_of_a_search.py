"""Fronts, their hypervolume and their knee."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from across.orchestrator.objectives import (
    FITNESS,
    Objective,
    UnknownObjectiveError,
    costs,
    front,
    hypervolume,
    knee,
)
from across.orchestrator.state import Evaluation, Proposal
from across.orchestrator.strategies.nsga2 import Nsga2Config, survive_by_crowding
from across.orchestrator.strategies.nsga3 import survive_by_directions

FLOPS = Objective(metric="flops", direction="minimize")
BOTH = (FITNESS, FLOPS)


def evaluations(*points: tuple[float | None, float]) -> list[Evaluation]:
    return [
        Evaluation(Proposal(index, (index,)), fitness, metrics={"flops": flops})
        for index, (fitness, flops) in enumerate(points)
    ]


def test_the_front_is_what_nothing_dominates() -> None:
    found = evaluations((1.0, 1.0), (2.0, 3.0), (1.5, 3.0), (3.0, 9.0), (2.0, 3.0), (None, 0.0))
    assert [each.proposal.index for each in front(found, BOTH)] == [3, 1, 0]
    assert front(evaluations((None, 1.0)), BOTH) == []


def test_costs_turn_what_is_maximised_around_and_failures_cost_most() -> None:
    assert costs(evaluations((2.0, 3.0), (None, 1.0)), BOTH).tolist() == [[-2.0, 3.0], [np.inf, np.inf]]


def test_a_missing_metric_is_named_with_those_that_there_are() -> None:
    latency = Objective(metric="latency", direction="minimize")
    with pytest.raises(UnknownObjectiveError, match="no metric latency; they have fitness, flops"):
        costs(evaluations((1.0, 1.0)), (FITNESS, latency))


def test_hypervolume_is_the_dominated_share_of_the_box() -> None:
    ideal, worst = np.array([0.0, 0.0]), np.array([2.0, 4.0])
    assert hypervolume(np.array([[1.0, 2.0]]), ideal=ideal, worst=worst) == pytest.approx(0.25)
    both = np.array([[1.0, 2.0], [0.0, 3.0]])
    assert hypervolume(both, ideal=ideal, worst=worst) == pytest.approx(0.25 + 0.125)
    assert hypervolume(np.empty((0, 2)), ideal=ideal, worst=worst) == 0.0


def test_the_knee_is_where_the_front_bends() -> None:
    assert knee(np.array([[0.0, 10.0], [1.0, 1.0], [5.0, 0.5], [10.0, 0.0]])) == 1
    assert knee(np.array([[3.0, 3.0]])) == 0


def test_survival_keeps_fronts_and_their_ends() -> None:
    matrix = np.array([[0.0, 4.0], [1.0, 2.0], [1.1, 1.9], [4.0, 0.0], [5.0, 5.0], [4.0, 4.5]])
    rng = np.random.default_rng(0)
    assert set(survive_by_crowding(matrix, 4, rng)) == {0, 1, 2, 3}
    assert {0, 3} < set(survive_by_crowding(matrix, 3, rng))
    assert set(survive_by_directions(2, 4)(matrix, 4, rng)) == {0, 1, 2, 3}
    assert len(survive_by_directions(2, 4)(matrix, 99, rng)) == len(matrix)


def test_objectives_are_distinct_and_at_least_two() -> None:
    with pytest.raises(ValidationError, match="must be distinct"):
        Nsga2Config(objectives=(FLOPS, FLOPS))
    with pytest.raises(ValidationError, match="at least 2"):
        Nsga2Config(objectives=(FITNESS,))
