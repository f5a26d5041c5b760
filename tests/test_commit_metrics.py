"""The scalars and the population that a commit shows."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from across.orchestrator.state import MetaLearningSummary, Timings
from across.orchestrator.tracking.commit_metrics import (
    best_so_far,
    diversity,
    flatten,
    metrics_of,
    population_of,
)
from across.search_spaces.base import Genotype
from tests.example_commits import example_commit


def test_diversity_is_the_mean_pairwise_hamming_distance() -> None:
    rng = np.random.default_rng(0)
    genotypes: list[Genotype] = [tuple(int(gene) for gene in rng.integers(3, size=7)) for _ in range(12)]
    pairs = list(combinations(genotypes, 2))
    distances = [sum(a != b for a, b in zip(*pair, strict=True)) / 7 for pair in pairs]
    assert diversity(genotypes) == pytest.approx(np.mean(distances))


def test_diversity_at_its_ends() -> None:
    assert diversity([]) == diversity([(1, 2)]) == diversity([(1, 2), (1, 2)]) == 0.0
    assert diversity([(0, 0), (1, 1), (2, 2)]) == 1.0
    assert diversity([(0, 1), (0, 1, 1, 1)]) == 0.5


def test_metrics_of_a_generation() -> None:
    commit = example_commit(0)
    fitness = [0.5, 0.25, 0.125]
    evaluations = [
        replace(item, fitness=value) for item, value in zip(commit.evaluations, fitness, strict=False)
    ]
    failed = replace(commit.evaluations[3], fitness=None, failure="diverged")
    metrics = metrics_of(replace(commit, evaluations=(*evaluations, failed)), best=0.75)
    expected = {
        "fitness/best": 0.5,
        "fitness/mean": 0.875 / 3,
        "fitness/median": 0.25,
        "fitness/worst": 0.125,
        "fitness/best_so_far": 0.75,
        "population/size": 4,
        "population/num_failures": 1,
        "throughput/tasks_per_second": 20.0,
        "throughput/evaluations_per_second": 2.0,
        "workers/utilisation": 0.75,
        "workers/units_reused": 1,
        "meta_learning/loss": 1.375,
        "meta_learning/accuracy": 0.625,
        "meta_learning/dropped_shards": 1,
        "seconds/wall": 8.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert len(metrics) <= 100


def test_only_finite_metrics_are_shown() -> None:
    commit = example_commit(0)
    dead = tuple(replace(item, fitness=None, failure="diverged") for item in commit.evaluations)
    empty = replace(
        commit, evaluations=dead, meta_learning=MetaLearningSummary(num_steps=1), timings=Timings()
    )
    metrics = metrics_of(empty, best_so_far([empty])[0])
    assert all(math.isfinite(value) for value in metrics.values())
    absent = {"fitness/best", "fitness/best_so_far", "meta_learning/loss", "throughput/tasks_per_second"}
    assert not absent & metrics.keys()
    assert metrics["population/num_failures"] == 4


def test_best_so_far_never_falls_and_ignores_the_test() -> None:
    commits = [example_commit(number) for number in range(5)]
    lucky = replace(commits[0].evaluations[0], fitness=2.0)
    commits.append(replace(example_commit(5), kind="test", evaluations=(lucky,)))
    fitness = [[item.rank_key for item in commit.evaluations] for commit in commits[:5]]
    expected = [max(max(values) for values in fitness[: count + 1]) for count in range(5)]
    assert best_so_far(commits) == [*expected, expected[-1]]


def test_the_test_shows_the_finalist_that_the_search_ranked_first() -> None:
    commit = example_commit(3)
    first = replace(commit.evaluations[0], scores=(0.5, 0.5, 1.0, 0.0))
    luckier = replace(commit.evaluations[1], scores=(1.0, 1.0))
    metrics = metrics_of(replace(commit, kind="test", evaluations=(first, luckier)), best=1.0)
    assert metrics["test/accuracy"] == 0.5
    assert metrics["test/ci95"] == pytest.approx(1.96 * math.sqrt(0.5 / 3) / 2)
    assert not any(name.startswith("fitness/") for name in metrics)


def test_population_names_genotypes_and_parents() -> None:
    commit = example_commit(1)
    document = population_of(commit, to_string=lambda genotype: "|".join(map(str, genotype)))
    first, item = document["individuals"][0], commit.evaluations[0]
    assert first["index"] == item.proposal.index == 4
    assert first["string"] == "|".join(map(str, item.proposal.genotype))
    assert first["fitness"] == item.fitness
    assert len(document["individuals"]) == 4


def test_flatten() -> None:
    config = {
        "seed": 1,
        "strategy": {"kind": "genetic", "lr": 1e-05, "odd=key": None},
        "tasks": [{"a": 1}],
        "e": {},
    }
    assert flatten(config) == {
        "seed": "1",
        "strategy.kind": "genetic",
        "strategy.lr": "1e-05",
        "strategy.odd_key": "null",
        "tasks": '[{"a": 1}]',
        "e": "{}",
    }
