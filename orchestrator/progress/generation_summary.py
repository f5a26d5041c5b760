"""One generation in a few numbers: what the displays and the pictures show of a commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from across.orchestrator.forecasts import kendall_tau, newest
from across.orchestrator.state import Commit


@dataclass(frozen=True)
class GenerationSummary:
    """A generation's statistics; None where there is no finite value."""

    generation: int
    """From 1."""
    best: float | None
    mean: float | None
    worst: float | None
    best_so_far: float | None
    loss: float | None
    """Mean query loss of the generation's outer steps."""
    accuracy: float | None
    tasks_per_second: float | None
    utilisation: float | None
    """Share of the workers' time in which they computed, 0 to 1."""
    num_workers: int
    num_failed: int
    """Genotypes without fitness."""
    num_worker_failures: int
    kendall_tau: float | None
    """Of a predictor's forecasts with what was found; None without forecasts."""
    is_unscreened: bool
    """Whether the predictor had no part in the choice although it was asked."""
    wall_seconds: float


def summarize_generations(commits: Iterable[Commit]) -> tuple[GenerationSummary, ...]:
    """The summaries of the generations among `commits`, in order; commits of other kinds are left out."""
    summaries: list[GenerationSummary] = []
    for commit in commits:
        if commit.kind == "generation":
            summaries.append(summarize_generation(commit, summaries))
    return tuple(summaries)


def summarize_generation(commit: Commit, earlier: Sequence[GenerationSummary]) -> GenerationSummary:
    """The summary of the generation that follows those of `earlier`."""
    fitness = finite_values(evaluation.fitness for evaluation in commit.evaluations)
    best = max(fitness, default=None)
    records = finite_values([best, earlier[-1].best_so_far if earlier else None])
    born = newest(commit.evaluations)
    forecasts = [each.proposal.forecast for each in born if each.proposal.forecast is not None]
    timings = commit.timings
    worker_seconds = timings.wall_seconds * timings.num_workers
    return GenerationSummary(
        generation=len(earlier) + 1,
        best=best,
        mean=fmean(fitness) if fitness else None,
        worst=min(fitness, default=None),
        best_so_far=max(records, default=None),
        loss=_mean(commit.meta_learning.losses),
        accuracy=_mean(commit.meta_learning.accuracies),
        tasks_per_second=timings.num_tasks / timings.wall_seconds if timings.wall_seconds > 0 else None,
        utilisation=min(1.0, timings.worker_busy_seconds / worker_seconds) if worker_seconds > 0 else None,
        num_workers=timings.num_workers,
        num_failed=len(commit.evaluations) - len(fitness),
        num_worker_failures=timings.num_worker_failures,
        kendall_tau=kendall_tau(born),
        is_unscreened=bool(forecasts) and all(each.num_considered == 1 for each in forecasts),
        wall_seconds=timings.wall_seconds,
    )


def finite_values(values: Iterable[float | None]) -> list[float]:
    """The finite ones among `values`."""
    return [value for value in values if value is not None and isfinite(value)]


def _mean(values: Iterable[float]) -> float | None:
    finite = finite_values(values)
    return fmean(finite) if finite else None
