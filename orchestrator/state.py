"""The search as plain data: proposals, evaluations, commits, and the state that is their fold.

`SearchState` is the checkpoint: it is never saved, but folded anew from the journal's commits, so what a strategy
knows is exactly what was committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import fsum
from typing import Any, Literal

from pydantic import TypeAdapter

from across.search_spaces.base import Genotype


@dataclass(frozen=True)
class Forecast:
    """What a predictor expected of a genotype before its evaluation, on the predictor's own scale."""

    mean: float
    std: float
    num_considered: int = 1
    """Candidates of its generation among which it was chosen; 1: the forecast had no part in the choice."""


@dataclass(frozen=True)
class Proposal:
    """One individual to evaluate. A survivor keeps the index, parents and birth of its first proposal."""

    index: int
    """Position among all individuals ever proposed, from 0."""
    genotype: Genotype
    parents: tuple[int, ...] = ()
    """Indices of the individuals that it was made from; empty for a random one."""
    birth: int = 0
    """Generation of its first proposal."""
    fidelity: int | None = None
    """How much the evaluation may cost: epochs in a benchmark table, tasks in a few-shot search; None: the full one."""
    forecast: Forecast | None = None
    """None where no predictor was asked."""
    signals: dict[str, float] = field(default_factory=dict)
    """Low-fidelity signals as they were measured before it was chosen."""
    signal_scores: dict[str, float] = field(default_factory=dict)
    """Their normal scores among the candidates that they were measured of together: what predictors learn from."""


@dataclass(frozen=True)
class Evaluation:
    """A proposal with what the workers found; `fitness` is higher-better, finite, or None after a failure."""

    proposal: Proposal
    fitness: float | None
    scores: tuple[float, ...] = ()
    """Score of each task, in the order of the generation's task seeds."""
    metrics: dict[str, float] = field(default_factory=dict)
    weights_version: int = 0
    failure: str | None = None

    @property
    def rank_key(self) -> float:
        """Fitness for comparisons: a failure is worse than any fitness."""
        return float("-inf") if self.fitness is None else self.fitness


@dataclass(frozen=True)
class MetaLearningSummary:
    """One generation's outer steps."""

    num_steps: int = 0
    num_shards: int = 0
    num_dropped_shards: int = 0
    """Shards that diverged or failed, and so were left out of the meta-gradient."""
    losses: tuple[float, ...] = ()
    """Mean query loss of each outer step; NaN-free: steps without any finite shard are left out."""
    accuracies: tuple[float, ...] = ()
    outer_lr: float = 0.0
    """Of the last step."""


@dataclass(frozen=True)
class Timings:
    """Where a generation's time went; the part of a commit that differs between equal runs."""

    wall_seconds: float = 0.0
    meta_learning_seconds: float = 0.0
    proposal_seconds: float = 0.0
    """Choosing the individuals, with signals and predictors where they have a part in it."""
    evaluation_seconds: float = 0.0
    worker_busy_seconds: float = 0.0
    """Summed over the workers."""
    num_workers: int = 0
    num_units_computed: int = 0
    num_units_reused: int = 0
    """Taken from the spool or carried over, not computed in this generation."""
    num_tasks: int = 0
    """Tasks adapted, meta-learning and evaluation together."""
    num_worker_failures: int = 0


@dataclass(frozen=True)
class Commit:
    """One generation, or the final measurement on test classes: what one journal file holds."""

    number: int
    """Position in the journal, from 0."""
    kind: Literal["generation", "test"]
    evaluations: tuple[Evaluation, ...]
    """In proposal order."""
    next_index: int
    """Index of the first proposal of the next generation."""
    weights_version: int
    """Outer steps taken so far."""
    weights_digest: str
    """sha256 of the weights file's tensors after this commit; empty where the search has no weights."""
    meta_learning: MetaLearningSummary
    timings: Timings
    timestamp: float
    """Unix seconds; also the timestamp of its MLflow metrics."""
    mlflow_run_id: str | None = None


@dataclass(frozen=True)
class SearchState:
    """All that a strategy may know."""

    generation: int = 0
    """Number of generations committed."""
    next_index: int = 0
    population: tuple[Evaluation, ...] = ()
    """The living, in the strategy's own order."""
    history: tuple[Evaluation, ...] = ()
    """Every evaluation so far in order, survivors' repeated ones included."""
    weights_version: int = 0
    """Version that the next evaluations will use; an evaluation of an older version is stale."""
    memory: object = None
    """What else a strategy has learned from the evaluations: immutable, and its own affair."""


_commit_adapter: TypeAdapter[Commit] = TypeAdapter(Commit)


def is_over(
    commits: Sequence[Commit],
    *,
    num_generations: int,
    max_seconds: float | None = None,
    max_simulated_seconds: float | None = None,
) -> bool:
    """Whether no generation is left to run, by the section `search`."""
    generations = [commit for commit in commits if commit.kind == "generation"]
    used = fsum(commit.timings.wall_seconds for commit in generations)
    return (
        len(generations) >= num_generations
        or (max_seconds is not None and used >= max_seconds)
        or (max_simulated_seconds is not None and simulated_seconds(commits) >= max_simulated_seconds)
    )


def simulated_seconds(commits: Sequence[Commit]) -> float:
    """What the evaluations would have cost, by a benchmark table; each individual counts once."""
    costs = {
        each.proposal.index: each.metrics.get("simulated_seconds", 0.0)
        for commit in commits
        if commit.kind == "generation"
        for each in commit.evaluations
    }
    return fsum(costs.values())


def is_finished(commits: Sequence[Commit], **length: Any) -> bool:
    """Whether the last commit measured the finalists and the search is over (`length` as in `is_over`)."""
    return is_over(commits, **length) and bool(commits) and commits[-1].kind == "test"


def table_ranks(evaluation: Evaluation) -> dict[str, float]:
    """A finalist's rank in the benchmark table by task; empty where it was measured on tasks of its own."""
    prefix = "rank/"
    return {
        name.removeprefix(prefix): value
        for name, value in evaluation.metrics.items()
        if name.startswith(prefix)
    }


def commit_to_json(commit: Commit) -> dict[str, Any]:
    """The commit as JSON values."""
    document: dict[str, Any] = _commit_adapter.dump_python(commit, mode="json")
    return document


def commit_from_json(document: dict[str, Any]) -> Commit:
    """The inverse of `commit_to_json`; raises pydantic's ValidationError."""
    return _commit_adapter.validate_python(document)


def reproducible_part(commit: Commit) -> dict[str, Any]:
    """What is equal, bit for bit, in every run of the same config: a commit without clocks and run ids."""
    document = commit_to_json(commit)
    for name in ("timings", "timestamp", "mlflow_run_id"):
        del document[name]
    return document
