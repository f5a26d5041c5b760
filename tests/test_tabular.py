"""Fitness out of a table: readings, ranks, several tasks, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from across.search_spaces import NasBench201Config, TransNasMicroConfig
from across.search_spaces.tables import TableError
from across.workers.base import EvaluationResult, EvaluationUnit, Split
from across.workers.evaluators.tabular import (
    TableConfig,
    TabularBenchmark,
    TabularWorker,
    make_tabular_worker,
    ranks,
)

MICRO = TransNasMicroConfig().build((3, 256, 256))
NAS_BENCH_201 = NasBench201Config().build((3, 32, 32))


@pytest.fixture(scope="module")
def micro(shared_data: Path) -> Path:
    return shared_data / "transnas_bench_101" / "micro.npz"


@pytest.fixture(scope="module")
def nas_bench_201(shared_data: Path) -> Path:
    return shared_data / "nas_bench_201" / "nas_bench_201.npz"


def benchmark(file: Path, *tasks: str, **settings: Any) -> TabularBenchmark:
    space = NAS_BENCH_201 if "201" in file.name else MICRO
    return TableConfig.model_validate({"file": file, "tasks": tasks, **settings}).build(space)


def unit(
    genotype: tuple[int, ...], split: Split = "validation", fidelity: int | None = None
) -> EvaluationUnit:
    return EvaluationUnit("key", genotype, 0, split, (0,), 0, fidelity)


def look_up(worker: TabularWorker, asked: EvaluationUnit) -> EvaluationResult:
    result = worker.run(asked, None)
    assert isinstance(result, EvaluationResult)
    return result


def test_ranks_share_the_better_place_and_nan_has_none() -> None:
    scores = np.array([[3.0], [5.0], [np.nan], [3.0], [1.0]])
    assert ranks(scores)[:, 0].tolist()[:2] == [2.0, 1.0]
    assert np.isnan(ranks(scores)[2, 0])
    assert ranks(scores)[3:, 0].tolist() == [2.0, 4.0]
    assert ranks(np.array([[1.0, 9.0], [2.0, 8.0]])).tolist() == [[2.0, 1.0], [1.0, 2.0]]


def test_one_task_is_its_score(micro: Path) -> None:
    table = benchmark(micro, "class_scene")
    assert table.fitness().max() == pytest.approx(54.936, abs=1e-3)  # published
    best = MICRO.from_string(table.table.strings[int(table.fitness().argmax())])
    result = look_up(TabularWorker(table), unit(best))
    assert result.scores == (table.fitness().max(),)
    assert result.failure is None
    assert "simulated_seconds" not in result.metrics  # this table knows no costs


def test_several_tasks_are_joined_as_the_config_says(micro: Path) -> None:
    tasks = ("class_scene", "room_layout", "autoencoder")
    by_rank = benchmark(micro, *tasks, fitness="mean_rank")
    singles = [ranks(benchmark(micro, task).scores())[:, 0] for task in tasks]
    assert by_rank.fitness() == pytest.approx(-np.mean(singles, axis=0))
    normalised = benchmark(micro, *tasks, fitness="normalised")
    assert (normalised.scores().min(), normalised.scores().max()) == (0.0, 1.0)
    worst = benchmark(micro, *tasks, fitness="worst")
    assert worst.fitness() == pytest.approx(normalised.scores().min(axis=1))
    result = look_up(TabularWorker(worst), unit((3, 2, 3, 2, 1, 1)))
    assert len(result.scores) == 3
    assert min(result.scores) == worst.fitness()[worst.row((3, 2, 3, 2, 1, 1))]


def test_the_test_reading_comes_with_ranks(nas_bench_201: Path) -> None:
    table = benchmark(
        nas_bench_201,
        "cifar10",
        reward={"metric": "valid_accuracy_12ep"},
        test={"metric": "test_accuracy"},
    )
    tested = table.table.values("cifar10", "test_accuracy")
    best = NAS_BENCH_201.from_string(table.table.strings[int(tested.argmax())])
    result = look_up(TabularWorker(table), unit(best, "test"))
    assert result.scores == pytest.approx((94.37,), abs=0.01)  # published
    assert result.metrics["rank/cifar10"] == 1.0
    searched = look_up(TabularWorker(table), unit(best))
    assert searched.scores == (table.table.values("cifar10", "valid_accuracy_12ep")[tested.argmax()],)
    assert searched.metrics["simulated_seconds"] > 10


def test_fidelities_are_readings_of_their_own(nas_bench_201: Path) -> None:
    table = benchmark(
        nas_bench_201,
        "cifar10",
        reward={"metric": "valid_accuracy"},
        fidelities={12: {"metric": "valid_accuracy_12ep"}},
    )
    genotype = NAS_BENCH_201.from_string(table.table.strings[7])
    worker = TabularWorker(table)
    cheap, full = (look_up(worker, unit(genotype, fidelity=fidelity)) for fidelity in (12, None))
    assert cheap.scores == (table.table.values("cifar10", "valid_accuracy_12ep")[7],)
    assert full.scores == (table.table.values("cifar10", "valid_accuracy")[7],)
    assert "simulated_seconds" in cheap.metrics
    assert "simulated_seconds" not in full.metrics


def test_a_network_without_a_value_is_a_failure_and_never_a_fitness(micro: Path) -> None:
    table = benchmark(micro, "class_scene", reward={"epoch": "best"})
    missing = int(np.flatnonzero(np.isnan(table.fitness()))[0])
    result = look_up(TabularWorker(table), unit(MICRO.from_string(table.table.strings[missing])))
    assert (result.scores, result.failure) == ((), "the table has no value for class_scene")


def test_columns_about_the_networks_come_along(nas_bench_201: Path) -> None:
    (column,) = [name for name in benchmark(nas_bench_201, "cifar10").table.info_names if name == "flops_m"]
    table = benchmark(nas_bench_201, "cifar10", info=[column])
    genotype = NAS_BENCH_201.from_string(table.table.strings[3])
    assert (
        look_up(TabularWorker(table), unit(genotype)).metrics[column]
        == table.table.info(column, "cifar10")[3]
    )


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tasks": ["class_scene", "jigsaw"]}, "mean_rank, normalised or worst for several tasks"),
        ({"tasks": ["jigsaw", "jigsaw"]}, "tasks must be distinct"),
        ({"tasks": []}, "at least 1"),
        ({"tasks": ["jigsaw"], "reward": {"epoch": 0}}, "greater than or equal to 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        TableConfig.model_validate({"file": "x.npz", **settings})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"tasks": ["class_scenes"]}, "no task 'class_scenes'; it has class_scene"),
        ({"tasks": ["jigsaw"], "reward": {"metric": "test_top1"}}, "it has valid_top1"),
        ({"tasks": ["jigsaw"], "reward": {"epoch": 12}}, "no epoch 12"),
        ({"tasks": ["jigsaw"], "info": ["latency"]}, "no info 'latency'"),
        ({"tasks": ["jigsaw"], "test": {"metric": "test_top1"}}, "it has valid_top1"),
    ],
)
def test_what_the_table_lacks_is_said_before_anything_starts(
    micro: Path, settings: dict[str, Any], problem: str
) -> None:
    config = TableConfig.model_validate({"file": micro, **settings})
    with pytest.raises(TableError, match=problem):
        make_tabular_worker(config, MICRO)
    with pytest.raises(TableError, match="transnas_micro"):
        TableConfig(file=micro, tasks=("jigsaw",)).build(NAS_BENCH_201)
