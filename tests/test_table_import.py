"""Official files become tables with the same numbers; what is not plain data is refused, and never run."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from across.orchestrator.cli import across
from across.orchestrator.table_import import TableImportError, import_table
from across.orchestrator.table_import.plain_pickles import load_plain
from across.search_spaces.tables import open_table

MICRO = ["64-41414-1_02_333", "64-41414-0_00_000", "64-41414-3_21_102"]
MACRO = ["64-4111-basic", "64-121341-basic"]
METRICS = {
    "class_scene": ["train_top1", "valid_top1", "valid_loss", "time_elapsed"],
    "room_layout": ["valid_loss", "valid_neg_loss", "time_elapsed"],
}
CELLS = [
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
]
SEEDS = {0: [777, 888], 1: [777], 2: [777, 888, 999]}


def transnas_file(path: Path, *, num_epochs: int = 3) -> dict[str, Any]:
    """A small file as the TransNAS-Bench-101 authors save it, and its content."""
    rng = np.random.default_rng(0)

    def result(task: str) -> dict[str, Any]:
        metrics = {name: rng.uniform(0, 90, num_epochs).tolist() for name in METRICS[task]}
        metrics["time_elapsed"] = [f"00:0{epoch}:30" for epoch in range(num_epochs)]
        names = ("inference_time", "encoder_params", "model_params", "model_FLOPs", "encoder_FLOPs")
        return {
            "model_info": dict.fromkeys(names, rng.uniform()),
            "metrics": metrics,
            "total_epochs": num_epochs,
        }

    data = {
        space: {network: {task: result(task) for task in METRICS} for network in networks}
        for space, networks in (("macro", MACRO), ("micro", MICRO))
    }
    info_names = ["inference_time", "encoder_params", "model_params", "model_FLOPs", "encoder_FLOPs"]
    content = {"metrics_dict": METRICS, "info_names": info_names, "task_list": list(METRICS), "data": data}
    torch.save(content, path)
    return content


def nas_bench_201_file(path: Path, *, version: str) -> dict[str, Any]:
    """A small file as the NAS-Bench-201 authors save it, and its content: 5 and 3 epochs for 200 and 12."""
    rng = np.random.default_rng(0)
    evaluated = {
        "cifar10-valid": ["x-valid", "ori-test"],
        "cifar10": ["ori-test"],
        "cifar100": ["ori-test", "x-valid", "x-test"],
        "ImageNet16-120": ["ori-test", "x-valid", "x-test"],
    }

    def result(index: int, data_set: str, seed: int, epochs: int) -> dict[str, Any]:
        def series() -> OrderedDict[int, float]:
            return OrderedDict((epoch, float(rng.uniform(1, 90))) for epoch in range(epochs))

        held = range(epochs) if version == "1.1" else [epochs - 1]
        keys = [f"{name}@{epoch}" for name in evaluated[data_set] for epoch in held]
        return {
            "name": "infer.tiny",
            "net_state_dict": None,
            "train_acc1es": series(),
            "train_acc5es": None,
            "train_losses": series(),
            "train_times": series(),
            "arch_config": {"channel": 16, "num_cells": 5, "arch_str": CELLS[index], "class_num": 10},
            "params": 0.129306,
            "flop": 17.958592,
            "seed": seed,
            "epochs": epochs,
            "latency": [0.02, 0.04] if version == "1.1" else None,
            "eval_names": evaluated[data_set],
            "eval_acc1es": {key: np.float64(rng.uniform(1, 90)) for key in keys},
            "eval_losses": {key: float(rng.uniform(1, 3)) for key in keys},
            "eval_times": {key: float(rng.uniform(1, 3)) for key in keys} if version == "1.1" else {},
        }

    def runs(index: int, epochs: int, data_sets: list[str]) -> dict[str, Any]:
        return {
            "arch_index": index,
            "arch_str": CELLS[index],
            "all_results": OrderedDict(
                ((name, seed), result(index, name, seed, epochs))
                for name in data_sets
                for seed in SEEDS[index]
            ),
            "dataset_seed": dict.fromkeys(data_sets, SEEDS[index]),
            "clear_net_done": True,
        }

    short = list(evaluated) if version == "1.1" else ["cifar10-valid"]
    content = {
        "meta_archs": CELLS,
        "total_archs": len(CELLS),
        "arch2infos": OrderedDict(
            (index, {"full": runs(index, 5, list(evaluated)), "less": runs(index, 3, short)})
            for index in range(3)
        ),
        "evaluated_indexes": {0, 1, 2},
    }
    torch.save(content, path, _use_new_zipfile_serialization=False)  # as torch did in 2020
    return content


def mean_of(
    content: dict[str, Any], index: int, data_set: str, quantity: str, key: object, hp: str = "full"
) -> float:
    """As the official `get_metrics(data_set, ..., is_random=False)`."""
    runs = content["arch2infos"][index][hp]
    return float(np.mean([runs["all_results"][data_set, seed][quantity][key] for seed in SEEDS[index]]))


def test_transnas_bench_101(tmp_path: Path) -> None:
    content = transnas_file(tmp_path / "official.pth")

    paths = import_table(tmp_path / "official.pth", tmp_path / "tables")

    assert sorted(path.name for path in paths) == ["transnas_macro.npz", "transnas_micro.npz"]
    for space, networks in (("micro", MICRO), ("macro", MACRO)):
        table = open_table(tmp_path / "tables" / f"transnas_{space}.npz")
        assert (table.space, table.strings, table.tasks) == (
            f"transnas_{space}",
            tuple(networks),
            tuple(METRICS),
        )
        assert table.metrics("class_scene") == ("train_top1", "valid_top1", "valid_loss")
        assert [table.default_metric(task) for task in table.tasks] == ["valid_top1", "valid_neg_loss"]
        for task in table.tasks:
            for metric in table.metrics(task):
                written = [content["data"][space][network][task]["metrics"][metric] for network in networks]
                for epoch in (1, 2, 3):
                    assert table.values(task, metric, epoch=epoch).tolist() == [
                        each[epoch - 1] for each in written
                    ]
                assert table.values(task, metric).tolist() == [each[-1] for each in written]
                extreme = min if metric == "valid_loss" else max
                assert table.values(task, metric, epoch="best").tolist() == list(map(extreme, written))
            sizes = [
                content["data"][space][network][task]["model_info"]["model_params"] for network in networks
            ]
            assert table.info("model_params", task).tolist() == sizes
        assert table.seconds("class_scene").tolist() == [150.0] * len(networks)
        assert table.seconds("class_scene", epoch=1).tolist() == [30.0] * len(networks)


def test_durations_of_single_epochs_are_summed(tmp_path: Path) -> None:
    content = transnas_file(tmp_path / "official.pth")
    for network in content["data"]["micro"].values():
        network["class_scene"]["metrics"]["time_elapsed"] = [10.5, 9.0, 10.0]
    torch.save(content, tmp_path / "official.pth")

    import_table(tmp_path / "official.pth", tmp_path)

    table = open_table(tmp_path / "transnas_micro.npz")
    assert [table.seconds("class_scene", epoch=epoch)[0] for epoch in (1, 2, 3)] == [10.5, 19.5, 29.5]


def test_a_network_without_some_results(tmp_path: Path) -> None:
    content = transnas_file(tmp_path / "official.pth")
    del content["data"]["micro"][MICRO[1]]["room_layout"]
    content["data"]["micro"][MICRO[2]]["room_layout"]["metrics"]["valid_loss"] = [1.0]
    torch.save(content, tmp_path / "official.pth")

    import_table(tmp_path / "official.pth", tmp_path)

    table = open_table(tmp_path / "transnas_micro.npz")
    assert np.isnan(table.values("room_layout", "valid_loss")).tolist() == [False, True, True]
    assert np.isnan(table.values("room_layout", "valid_loss", epoch="best")).tolist() == [False, True, False]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_nas_bench_201(tmp_path: Path, version: str) -> None:
    content = nas_bench_201_file(tmp_path / "official.pth", version=version)

    (path,) = import_table(tmp_path / "official.pth", tmp_path / "tables")

    table = open_table(path)
    assert (table.space, table.strings) == ("nas_bench_201", tuple(CELLS))
    assert table.tasks == ("cifar10", "cifar100", "ImageNet16-120")
    for task, metric, data_set, images in (
        ("cifar10", "valid_accuracy", "cifar10-valid", "x-valid"),
        ("cifar10", "test_accuracy", "cifar10", "ori-test"),
        ("cifar10", "half_test_accuracy", "cifar10-valid", "ori-test"),
        ("cifar100", "valid_accuracy", "cifar100", "x-valid"),
        ("ImageNet16-120", "test_accuracy", "ImageNet16-120", "x-test"),
        ("ImageNet16-120", "valid_and_test_accuracy", "ImageNet16-120", "ori-test"),
    ):
        expected = [mean_of(content, index, data_set, "eval_acc1es", f"{images}@4") for index in range(3)]
        assert table.values(task, metric) == pytest.approx(expected)
        assert table.epochs(task, metric) == ((1, 2, 3, 4, 5) if version == "1.1" else (5,))
    for task, metric, data_set in (
        ("cifar10", "train_loss", "cifar10-valid"),
        ("cifar10", "full_train_loss", "cifar10"),
    ):
        expected = [mean_of(content, index, data_set, "train_losses", 1) for index in range(3)]
        assert table.values(task, metric, epoch=2) == pytest.approx(expected)
    for index in range(3):
        curve = [mean_of(content, index, "cifar100", "train_losses", epoch) for epoch in range(5)]
        assert table.values("cifar100", "train_loss", epoch="best")[index] == pytest.approx(min(curve))
    assert table.info("num_seeds", "cifar10").tolist() == [2, 1, 3]
    assert table.info("params_m", "cifar100") == pytest.approx([0.129306] * 3)
    assert np.isfinite(table.info("latency_seconds", "cifar10")).all() == (version == "1.1")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_short_training_of_nas_bench_201(tmp_path: Path, version: str) -> None:
    content = nas_bench_201_file(tmp_path / "official.pth", version=version)

    table = open_table(import_table(tmp_path / "official.pth", tmp_path)[0])

    expected = [mean_of(content, i, "cifar10-valid", "eval_acc1es", "x-valid@2", "less") for i in range(3)]
    assert table.values("cifar10", "valid_accuracy_12ep") == pytest.approx(expected)
    assert ("valid_accuracy_12ep" in table.metrics("cifar100")) == (version == "1.1")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_query_of_nas_bench_201_costs_training_and_one_validation(tmp_path: Path, version: str) -> None:
    content = nas_bench_201_file(tmp_path / "official.pth", version=version)

    table = open_table(import_table(tmp_path / "official.pth", tmp_path)[0])

    for metric, hp, epochs in (("valid_accuracy", "full", 5), ("valid_accuracy_12ep", "less", 3)):
        for index in range(3):
            each = [
                mean_of(content, index, "cifar10-valid", "train_times", epoch, hp) for epoch in range(epochs)
            ]
            keys = [f"x-valid@{epoch}" for epoch in range(epochs)] if version == "1.1" else []
            passes = [mean_of(content, index, "cifar10-valid", "eval_times", key, hp) for key in keys]
            cost = sum(each) + (np.mean(passes) if passes else 0.0)
            assert table.seconds("cifar10", metric)[index] == pytest.approx(cost)


class Trap:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


class Unknown:
    """A class of whoever saved the file."""


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "it_was_run"
    content = transnas_file(tmp_path / "official.pth")
    torch.save(
        content | {"notes": Trap(marker)}, tmp_path / "trap.pth", _use_new_zipfile_serialization=zipped
    )

    with pytest.raises(
        TableImportError, match=r"trap.pth: wants to use posix.mkdir, .* nothing was imported"
    ):
        import_table(tmp_path / "trap.pth", tmp_path / "tables")

    assert not marker.exists()
    assert not (tmp_path / "tables").exists()
    torch.load(tmp_path / "trap.pth", weights_only=False)
    assert marker.exists()  # the trap works


@pytest.mark.parametrize("code", ["<f8", ">f8", "<f4", "<f2", "<i8", ">i4", "|u1", "|b1"])
def test_numbers_of_numpy(tmp_path: Path, code: str) -> None:
    number = np.array([1], dtype=code)[0]
    torch.save({"accuracy": number}, tmp_path / "number.pth")

    assert load_plain(tmp_path / "number.pth") == {"accuracy": 1.0}


def test_classes_are_refused_by_name(tmp_path: Path) -> None:
    for content, name in (
        (Unknown(), "(tests.)?test_table_import.Unknown"),
        (tmp_path, "pathlib.PosixPath"),
        (np.arange(3), r"numpy._core.multiarray._reconstruct"),
        (np.dtype("O"), r"numpy.dtype\('O8'\)"),
    ):
        torch.save({"data": content}, tmp_path / "odd.pth")
        with pytest.raises(TableImportError, match=f"odd.pth: wants to use {name}"):
            import_table(tmp_path / "odd.pth", tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_off(tmp_path: Path, zipped: bool, share: float) -> None:
    torch.save(
        transnas_file(tmp_path / "whole.pth"), tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped
    )
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(share * len(whole))])

    with pytest.raises(
        TableImportError, match=r"cut.pth: cannot be read: it is cut off, or no file of torch.save"
    ):
        import_table(tmp_path / "cut.pth", tmp_path / "tables")


def test_files_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("<html>quota exceeded</html>\n")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    content = transnas_file(tmp_path / "official.pth")
    torch.save(content | {"data": {"nano": {}}}, tmp_path / "other.pth")

    for name, message in (
        ("absent.pth", "cannot be read"),
        ("text.pth", "no file of torch.save"),
        (
            "model.pth",
            r"no official file of a known benchmark: it holds the keys weight \(expected TransNAS-Bench-101: ",
        ),
        ("tensor.pth", "it holds a Tensor"),
        ("other.pth", r"has the keys of TransNAS-Bench-101, but is not laid out .*KeyError\('nano'\)"),
    ):
        with pytest.raises(TableImportError, match=message):
            import_table(tmp_path / name, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_tables_are_not_overwritten_unasked(tmp_path: Path) -> None:
    transnas_file(tmp_path / "official.pth")
    (tmp_path / "transnas_micro.npz").write_text("mine")

    with pytest.raises(TableImportError, match=r"transnas_micro.npz: there already: use --force"):
        import_table(tmp_path / "official.pth", tmp_path)
    assert not (tmp_path / "transnas_macro.npz").exists()
    import_table(tmp_path / "official.pth", tmp_path, replace=True)

    assert open_table(tmp_path / "transnas_micro.npz").strings == tuple(MICRO)
    assert list(tmp_path.glob(".*")) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    transnas_file(tmp_path / "official.pth")

    with pytest.raises(TableImportError, match="cannot be written"):
        import_table(tmp_path / "official.pth", tmp_path / "official.pth" / "tables")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nas_bench_201_file(tmp_path / "official.pth", version="1.0")

    def invoke(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(across, ["tables", *arguments], env={"COLUMNS": "160"})
        return result.exit_code, result.output

    assert invoke("import", "official.pth") == (0, "data/tables/nas_bench_201.npz\n")
    code, shown = invoke("show", "data/tables/nas_bench_201.npz")
    assert code == 0
    assert shown.startswith(f"nas_bench_201, 3 networks such as {CELLS[0]}\n")
    rows = [line.split() for line in shown.splitlines()]
    assert ["cifar10", "valid_accuracy", "*", "5", "yes"] in rows
    assert ["cifar10", "train_loss", "1-5", "yes", "yes"] in rows
    assert "info: num_seeds, params_m, flops_m, latency_seconds, num_seeds_12ep" in " ".join(shown.split())
    assert invoke("show", "official.pth") == (
        2,
        "error: official.pth: not an npz file, or cut off: fetch or import it again\n",
    )
    assert "there already" in invoke("import", "official.pth")[1]
    assert invoke("import", "official.pth", "--force")[0] == 0
