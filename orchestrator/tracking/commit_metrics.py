"""What a commit shows in a tracking server: a few scalars, and its population as JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, zip_longest
from statistics import fmean, median
from typing import Any

from across.orchestrator.forecasts import kendall_tau, newest
from across.orchestrator.objectives import FrontSummary, Objective
from across.orchestrator.state import Commit, Evaluation, Timings, table_ranks
from across.orchestrator.statistics import mean_and_interval
from across.search_spaces.base import Genotype


def best_so_far(commits: Sequence[Commit]) -> list[float]:
    """Highest fitness in each commit or before it; minus infinity where there is none yet."""
    bests = (
        max((item.rank_key for item in commit.evaluations), default=-math.inf)
        if commit.kind == "generation"
        else -math.inf
        for commit in commits
    )
    return list(accumulate(bests, max))


def metrics_of(commit: Commit, best: float) -> dict[str, float]:
    """The commit's finite scalars by name, at most 100; `best` is its entry in `best_so_far`."""
    if commit.kind == "test":
        metrics = {**_test(commit.evaluations), **_seconds(commit.timings)}
    else:
        metrics = {
            **_fitness(commit.evaluations, best),
            **_population(commit.evaluations),
            **_predictor(commit),
            **_throughput(commit),
            **_workers(commit.timings),
            **_meta_learning(commit),
            **_seconds(commit.timings),
        }
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def diversity(genotypes: Sequence[Genotype]) -> float:
    """Mean Hamming distance of all pairs divided by the genotype's length: 0 (all equal) to 1.

    Of genotypes of different lengths the missing genes count as a value of their own.
    """
    num_pairs = len(genotypes) * (len(genotypes) - 1) / 2
    length = max(map(len, genotypes), default=0)
    if num_pairs == 0 or length == 0:
        return 0.0
    num_different = 0.0
    for genes in zip_longest(*genotypes):
        counts = [genes.count(value) for value in set(genes)]
        num_different += num_pairs - sum(count * (count - 1) / 2 for count in counts)
    return num_different / (num_pairs * length)


def population_of(commit: Commit, to_string: Callable[[Genotype], str]) -> dict[str, Any]:
    """The commit's individuals as a JSON document, in proposal order."""
    individuals = [
        {
            "index": item.proposal.index,
            "genotype": item.proposal.genotype,
            "string": to_string(item.proposal.genotype),
            "parents": item.proposal.parents,
            "birth": item.proposal.birth,
            "forecast": None if item.proposal.forecast is None else asdict(item.proposal.forecast),
            "signals": item.proposal.signals,
            "signal_scores": item.proposal.signal_scores,
            "fitness": item.fitness,
            "metrics": item.metrics,
            "failure": item.failure,
        }
        for item in commit.evaluations
    ]
    return {"commit": commit.number, "kind": commit.kind, "individuals": individuals}


def front_metrics(summary: FrontSummary | None) -> dict[str, float]:
    """What a front shows; nothing where there is none."""
    if summary is None:
        return {}
    return {"front/hypervolume": summary.hypervolume, "front/size": float(len(summary.members))}


def front_of(
    summary: FrontSummary, objectives: Sequence[Objective], to_string: Callable[[Genotype], str]
) -> dict[str, Any]:
    """A front as a JSON document, by its first objective."""
    members = [
        {
            "index": each.proposal.index,
            "string": to_string(each.proposal.genotype),
            "fitness": each.fitness,
            "metrics": each.metrics,
        }
        for each in summary.members
    ]
    return {
        "objectives": [objective.model_dump() for objective in objectives],
        "hypervolume": summary.hypervolume,
        "knee": summary.knee,
        "members": members,
    }


def flatten(config: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Dotted names and texts of a nested configuration; anything but a text is JSON."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = prefix + re.sub(r"[^/\w.\- :]", "_", key)
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _fitness(evaluations: Sequence[Evaluation], best: float) -> dict[str, float]:
    values = [item.fitness for item in evaluations if item.fitness is not None]
    if not values:
        return {"fitness/best_so_far": best}
    return {
        "fitness/best": max(values),
        "fitness/mean": fmean(values),
        "fitness/median": median(values),
        "fitness/worst": min(values),
        "fitness/best_so_far": best,
    }


def _population(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    return {
        "population/size": len(evaluations),
        "population/diversity": diversity([item.proposal.genotype for item in evaluations]),
        "population/num_failures": sum(item.failure is not None for item in evaluations),
    }


def _predictor(commit: Commit) -> dict[str, float]:
    """How well the forecasts ranked what was found; nothing where no predictor was asked."""
    born = newest(commit.evaluations)
    forecasts = [each.proposal.forecast for each in born if each.proposal.forecast is not None]
    if not forecasts:
        return {}
    tau = kendall_tau(born)
    return {
        "predictor/kendall_tau": math.nan if tau is None else tau,
        "predictor/num_considered": max(each.num_considered for each in forecasts),
        "predictor/num_screened": sum(each.num_considered > 1 for each in forecasts),
        "predictor/std": fmean(each.std for each in forecasts),
    }


def _throughput(commit: Commit) -> dict[str, float]:
    timings = commit.timings
    return {
        "throughput/tasks_per_second": _ratio(timings.num_tasks, timings.wall_seconds),
        "throughput/evaluations_per_second": _ratio(len(commit.evaluations), timings.evaluation_seconds),
    }


def _workers(timings: Timings) -> dict[str, float]:
    return {
        "workers/num_workers": timings.num_workers,
        "workers/num_failures": timings.num_worker_failures,
        "workers/utilisation": _ratio(
            timings.worker_busy_seconds, timings.wall_seconds * timings.num_workers
        ),
        "workers/units_computed": timings.num_units_computed,
        "workers/units_reused": timings.num_units_reused,
    }


def _meta_learning(commit: Commit) -> dict[str, float]:
    summary = commit.meta_learning
    if summary.num_steps == 0:
        return {}
    return {
        "meta_learning/num_steps": summary.num_steps,
        "meta_learning/loss": fmean(summary.losses) if summary.losses else math.nan,
        "meta_learning/accuracy": fmean(summary.accuracies) if summary.accuracies else math.nan,
        "meta_learning/outer_lr": summary.outer_lr,
        "meta_learning/dropped_shards": summary.num_dropped_shards,
    }


def _seconds(timings: Timings) -> dict[str, float]:
    return {
        "seconds/wall": timings.wall_seconds,
        "seconds/meta_learning": timings.meta_learning_seconds,
        "seconds/proposal": timings.proposal_seconds,
        "seconds/evaluation": timings.evaluation_seconds,
        "seconds/worker_busy": timings.worker_busy_seconds,
    }


def _test(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Of the first finalist: the search ranked them before the test, and choosing by the test would flatter."""
    finalist = next((item for item in evaluations if item.scores), None)
    if finalist is None:
        return {}
    ranks = table_ranks(finalist)
    if ranks:
        return {f"test/rank/{task}": rank for task, rank in ranks.items()}
    accuracy, half_width = mean_and_interval(finalist.scores)
    return {"test/accuracy": accuracy, "test/ci95": half_width, "test/num_tasks": len(finalist.scores)}


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else math.nan
