"""Several objectives at once: what is traded against what, fronts, their hypervolume and their knee.

Dominance and hypervolume are pymoo's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from across.errors import AcrossError
from across.orchestrator.state import Commit, Evaluation
from across.search_spaces.base import Config

Costs: TypeAlias = NDArray[np.float64]
"""(individuals, objectives); all are minimised."""


class UnknownObjectiveError(AcrossError):
    """An evaluation has no metric of an objective's name; says which it has."""


class Objective(Config):
    """The fitness, or a metric that evaluations carry."""

    metric: str = Field(min_length=1)
    direction: Literal["maximize", "minimize"]


FITNESS = Objective(metric="fitness", direction="maximize")


def _are_distinct(objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
    names = [objective.metric for objective in objectives]
    if len(set(names)) < len(names):
        raise ValueError(f"the metrics must be distinct (got {', '.join(names)})")
    return objectives


Objectives: TypeAlias = Annotated[tuple[Objective, ...], Field(min_length=2)]


class HasObjectives(Config):
    """The section of a strategy that minimises or maximises several things."""

    objectives: Objectives = (FITNESS, Objective(metric="flops", direction="minimize"))

    _check = field_validator("objectives")(_are_distinct)


def objectives_of(strategy: Config) -> tuple[Objective, ...]:
    """What a strategy trades against what; empty where fitness is all."""
    return strategy.objectives if isinstance(strategy, HasObjectives) else ()


@dataclass(frozen=True)
class FrontSummary:
    """The front after a commit."""

    members: tuple[Evaluation, ...]
    """By the first objective, the best first."""
    hypervolume: float
    """The share that it dominates of the box that the first generation spans."""
    knee: int
    """Position of the member where a gain begins to cost much."""


def fronts(commits: Sequence[Commit], objectives: Sequence[Objective]) -> list[FrontSummary | None]:
    """The front after each generation; None for other commits, and before anything has succeeded.

    It holds all evaluations so far that were made at the newest weights: others are not comparable.
    """
    summaries: list[FrontSummary | None] = []
    members: list[Evaluation] = []
    box: tuple[Costs, Costs] | None = None
    for commit in commits:
        if commit.kind == "generation":
            version = commit.weights_version
            former = [each for each in members if each.weights_version == version]
            members = front([*former, *commit.evaluations], objectives)
        if commit.kind != "generation" or not members:
            summaries.append(None)
            continue
        if box is None:
            first = costs([each for each in commit.evaluations if each.fitness is not None], objectives)
            box = first.min(axis=0), first.max(axis=0)
        matrix = costs(members, objectives)
        share = hypervolume(matrix, ideal=box[0], worst=box[1])
        summaries.append(FrontSummary(tuple(members), share, knee(matrix)))
    return summaries


def costs(evaluations: Sequence[Evaluation], objectives: Sequence[Objective]) -> Costs:
    """What is to be minimised, (N, M); failures cost infinitely much.

    Raises `UnknownObjectiveError` when a metric is missing.
    """
    rows = [[_cost(each, objective) for objective in objectives] for each in evaluations]
    return np.array(rows, dtype=np.float64).reshape(len(evaluations), len(objectives))


def front(evaluations: Sequence[Evaluation], objectives: Sequence[Objective]) -> list[Evaluation]:
    """The evaluations that no other dominates, by the first objective; of equals the oldest."""
    succeeded = [each for each in evaluations if each.fitness is not None]
    if not succeeded:
        return []
    matrix = costs(succeeded, objectives)
    _, firsts = np.unique(matrix, axis=0, return_index=True)
    unique = sorted(firsts.tolist())
    chosen = [unique[position] for position in non_dominated(matrix[unique])]
    return [succeeded[i] for i in sorted(chosen, key=lambda i: (*matrix[i], i))]


def non_dominated(matrix: Costs) -> list[int]:
    """Rows of `matrix` that no other dominates."""
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    return [int(i) for i in NonDominatedSorting().do(matrix, only_non_dominated_front=True)]


def hypervolume(matrix: Costs, *, ideal: Costs, worst: Costs) -> float:
    """The share of the box from `ideal` to `worst`, (M,) each, that the rows of `matrix` dominate.

    Points better than `ideal` count beyond the box: the share may pass 1.
    """
    from pymoo.indicators.hv import HV

    extent = np.where(worst > ideal, worst - ideal, 1.0)
    return float(HV(ref_point=np.ones(len(ideal)))((matrix - ideal) / extent)) if len(matrix) else 0.0


def knee(matrix: Costs) -> int:
    """The row farthest below the plane through the worst trade-offs: where a gain begins to cost much.

    Objectives are scaled to [0, 1] over the front; the plane is that of equal sums (Das, 1999, "On characterizing the
    'knee' of the Pareto curve").
    """
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    scaled = (matrix - low) / np.where(high > low, high - low, 1.0)
    return int(np.argmin(scaled.sum(axis=1)))


def _cost(evaluation: Evaluation, objective: Objective) -> float:
    if evaluation.fitness is None:
        return float("inf")
    if objective.metric == FITNESS.metric:
        value = evaluation.fitness
    elif objective.metric in evaluation.metrics:
        value = evaluation.metrics[objective.metric]
    else:
        raise UnknownObjectiveError(
            f"strategy.objectives: evaluations have no metric {objective.metric}; they have"
            f" {', '.join([FITNESS.metric, *sorted(evaluation.metrics)])}"
        )
    return -value if objective.direction == "maximize" else value
