"""Benchmark tables: what they answer, what they say when they cannot, and the published numbers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from across.search_spaces.tables import BenchmarkTable, TableError, open_table
from across.search_spaces.tables.compact import Measurement, TableContents, compact_arrays

STRINGS = ("64-41414-0_00_000", "64-41414-1_02_333", "64-41414-3_21_102")
NAN = float("nan")

ACCURACY = [[1.0, 20.0, NAN], [5.0, 40.0, NAN], [4.0, 30.0, NAN]]
LOSS = [[3.0, 2.0, 7.0], [1.0, 2.5, NAN], [2.0, 1.5, 6.0]]
NEG_LOSS = [[-3.0, -2.0, -7.0], [-1.0, -2.5, NAN], [-2.0, -1.5, -6.0]]


def save(path: Path, **arrays: NDArray[np.generic]) -> Path:
    np.savez(path, allow_pickle=True, **arrays)
    return path


def arrays_of(values: list[list[float]], *epochs: int) -> Measurement:
    return Measurement(np.array(values), epochs)


@pytest.fixture
def table(tmp_path: Path) -> BenchmarkTable:
    contents = TableContents(
        "transnas_micro",
        STRINGS,
        curves={
            "class_scene": {
                "valid_top1": arrays_of(ACCURACY, 1, 2, 3),
                "valid_loss": arrays_of(LOSS, 1, 2, 3),
            },
            "room_layout": {
                "valid_neg_loss": arrays_of(NEG_LOSS, 1, 2, 3),
                "test_neg_loss": arrays_of(NEG_LOSS[1:], 2, 30),
            },
        },
        default_metrics={"class_scene": "valid_top1", "room_layout": "valid_neg_loss"},
        costs={"class_scene": {"main": np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]])}},
        columns={
            "edges": np.array([0.0, 5.0, 6.0]),
            "model_params": {
                "class_scene": np.array([1e6, 2e6, 3e6]),
                "room_layout": np.array([1e5, 2e5, 3e5]),
            },
        },
    )
    return open_table(save(tmp_path / "small.npz", **compact_arrays(contents)))


def same(answer: NDArray[np.float64], expected: list[float]) -> bool:
    return answer.dtype == np.float64 and np.array_equal(answer, expected, equal_nan=True)


def test_what_a_table_holds(table: BenchmarkTable) -> None:
    assert (table.space, table.strings) == ("transnas_micro", STRINGS)
    assert table.tasks == ("class_scene", "room_layout")
    assert table.metrics("class_scene") == ("valid_top1", "valid_loss")
    assert table.default_metric("room_layout") == "valid_neg_loss"
    assert table.info_names == ("edges", "model_params")
    assert table.num_epochs("class_scene") == 3
    assert table.epochs("room_layout", "test_neg_loss") == (2, 30)
    assert [table.row(string) for string in STRINGS] == [0, 1, 2]


def test_values_at_an_epoch(table: BenchmarkTable) -> None:
    assert same(table.values("class_scene"), ACCURACY[2])
    assert same(table.values("class_scene", epoch=1), ACCURACY[0])
    assert same(table.values("class_scene", "valid_loss", epoch=3), LOSS[2])
    assert same(table.values("room_layout", "test_neg_loss", epoch=30), NEG_LOSS[2])


def test_the_best_of_a_loss_is_its_minimum(table: BenchmarkTable) -> None:
    assert same(table.values("class_scene", epoch="best"), [5.0, 40.0, NAN])
    assert same(table.values("class_scene", "valid_loss", epoch="best"), [1.0, 1.5, 6.0])
    assert same(table.values("room_layout", epoch="best"), [-1.0, -1.5, -6.0])


def test_higher_scores_are_better(table: BenchmarkTable) -> None:
    assert same(table.scores("class_scene"), ACCURACY[2])
    assert same(table.scores("class_scene", "valid_loss"), [-2.0, -1.5, -6.0])
    assert same(table.scores("class_scene", "valid_loss", epoch="best"), [-1.0, -1.5, -6.0])
    assert same(table.scores("room_layout"), NEG_LOSS[2])


def test_costs_and_info(table: BenchmarkTable) -> None:
    assert same(table.seconds("class_scene"), [3.0, 6.0, 9.0])
    assert same(table.seconds("class_scene", "valid_loss", epoch=2), [2.0, 4.0, 6.0])
    assert same(table.seconds("class_scene", epoch="best"), [3.0, 6.0, 9.0])  # known at the end only
    assert same(table.info("edges"), [0.0, 5.0, 6.0])
    assert same(table.info("model_params", "room_layout"), [1e5, 2e5, 3e5])
    assert table.proxies("class_scene") == {}


def test_a_table_can_be_sent_about(table: BenchmarkTable) -> None:
    copy = pickle.loads(pickle.dumps(table))

    assert same(copy.values("class_scene"), ACCURACY[2])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda t: t.metrics("jigsaw"), "no task 'jigsaw'; it has class_scene, room_layout"),
        (lambda t: t.values("jigsaw"), "no task 'jigsaw'"),
        (lambda t: t.proxies("jigsaw"), "no task 'jigsaw'"),
        (
            lambda t: t.values("class_scene", "top1"),
            "no metric 'top1' of task 'class_scene'; it has valid_top1, valid_l",
        ),
        (lambda t: t.values("class_scene", epoch=0), "no epoch 0; it has epochs 1 to 3"),
        (lambda t: t.values("class_scene", epoch=4), "metric 'valid_top1' of task 'class_scene': no epoch 4"),
        (lambda t: t.scores("room_layout", "test_neg_loss", epoch=1), "no epoch 1; it has epochs 2, 30"),
        (
            lambda t: t.values("room_layout", "test_neg_loss", epoch="best"),
            "no best epoch is known; it has epochs 2, 30",
        ),
        (
            lambda t: t.seconds("room_layout"),
            "not in this table; it has valid_top1 of class_scene, valid_loss of class",
        ),
        (lambda t: t.seconds("class_scene", epoch=4), "no epoch 4; it has epochs 1 to 3"),
        (
            lambda t: t.row("64-4111-basic"),
            "no network '64-4111-basic'; its 3 networks are written like '64-41414-0_00",
        ),
        (lambda t: t.info("flops"), "no info 'flops'; it has edges, model_params"),
        (
            lambda t: t.info("model_params"),
            r"depends on the task \(none was given\); it has class_scene, room_layout",
        ),
    ],
)
def test_what_is_not_there(
    table: BenchmarkTable, ask: Callable[[BenchmarkTable], object], message: str
) -> None:
    with pytest.raises(TableError, match=message):
        ask(table)


def test_files_that_are_no_table(table: BenchmarkTable, tmp_path: Path) -> None:
    whole = table.path.read_bytes()
    contents = dict(np.load(table.path))
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("not a table\n")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "one.npy", np.zeros(3))
    save(tmp_path / "foreign.npz", images=np.zeros(3))
    save(tmp_path / "partial.npz", space=np.array("x"), strings=np.array(STRINGS))
    save(tmp_path / "twice.npz", **contents | {"strings": np.array(STRINGS[:2] * 2)})
    save(tmp_path / "misfit.npz", **contents | {"tasks": np.array(["class_scene"])})
    save(tmp_path / "objects.npz", **contents | {"strings": np.array(STRINGS, dtype=object)})

    for name, message in (
        ("absent.npz", "there is no such file"),
        (".", "cannot be read"),
        ("cut.npz", "not an npz file, or cut off"),
        ("text.npz", "not an npz file, or cut off"),
        ("empty.npz", "not an npz file, or cut off"),
        ("one.npy", "a single array"),
        (
            "foreign.npz",
            r"no benchmark table; as an imported table it lacks default_metrics, .* \(it has images\)",
        ),
        ("partial.npz", "as an imported table it lacks default_metrics, tasks"),
        ("twice.npz", "holds some networks twice"),
        ("misfit.npz", "its arrays do not fit together as an imported table"),
        ("objects.npz", "'strings' is damaged, or holds Python objects"),
    ):
        with pytest.raises(TableError, match=message):
            open_table(tmp_path / name)


def test_arrays_of_another_shape(table: BenchmarkTable) -> None:
    contents = dict(np.load(table.path))
    for key in ("curve/class_scene/main/valid_top1", "info/edges"):
        save(table.path, **contents | {key: np.zeros((0, 3))})
        with pytest.raises(TableError, match=f"'{key}' must hold a number for each of 3 networks"):
            (table.values("class_scene"), table.info("edges"))


MICRO_BEST = {
    "class_object": 45.586,
    "class_scene": 54.936,
    "autoencoder": 0.5772,
    "normal": 0.5873,
    "segmentsemantic": 94.613,
    "room_layout": -0.6010,
    "jigsaw": 95.372,
}
MACRO_BEST = {
    "class_object": 47.422,
    "class_scene": 57.414,
    "autoencoder": 0.7488,
    "segmentsemantic": 94.859,
    "jigsaw": 97.019,
}


@pytest.mark.parametrize(
    ("space", "num_networks", "best"), [("micro", 4096, MICRO_BEST), ("macro", 3256, MACRO_BEST)]
)
def test_transnas_bench_101(shared_data: Path, space: str, num_networks: int, best: dict[str, float]) -> None:
    table = open_table(shared_data / "transnas_bench_101" / f"{space}.npz")

    assert table.space == f"transnas_{space}"
    assert len(table.strings) == num_networks
    assert {task: table.values(task).max() for task in table.tasks} == pytest.approx(best, abs=6e-4)
    assert table.epochs("class_scene") == ()
    at_best = table.values("class_scene", epoch="best")
    measured = np.isfinite(at_best)
    assert 600 < measured.sum() < 800
    assert (at_best[measured] >= table.values("class_scene")[measured] - 1e-6).mean() > 0.99
    with pytest.raises(
        TableError, match="no epoch 3; it has only the final epoch, without its number, and the best"
    ):
        table.values("class_scene", epoch=3)
    with pytest.raises(TableError, match="it has no costs"):
        table.seconds("class_scene")
    assert np.isfinite(table.proxies("class_scene")["zen"]).all()


def test_nas_bench_201(shared_data: Path) -> None:
    table = open_table(shared_data / "nas_bench_201" / "nas_bench_201.npz")

    assert (table.space, len(table.strings)) == ("nas_bench_201", 15625)
    assert table.values("cifar10", "test_accuracy").max() == pytest.approx(94.37, abs=0.005)
    assert table.values("cifar100", "test_accuracy", epoch=200).max() == pytest.approx(73.51, abs=0.005)
    assert table.default_metric("cifar10") == "valid_accuracy"
    assert table.seconds("cifar10", "valid_accuracy_12ep").min() > 0
    with pytest.raises(
        TableError, match="it has test_accuracy_12ep of cifar10, valid_accuracy_12ep of cifar10"
    ):
        table.seconds("cifar10")
    with pytest.raises(TableError, match="no best epoch is known; it has only epoch 200"):
        table.values("cifar10", epoch="best")
    assert all(np.isfinite(table.info(name, "cifar10")).all() for name in table.info_names)
    assert np.isfinite(table.proxies("cifar10")["synflow"]).sum() == 9445
    assert set(table.proxies("cifar100")) > {"zen", "synflow_early725"}
