"""Small tables of published results: a value a network and task, and zero-cost proxies, without the training curves.

Layouts `transnas_bench_101/{micro,macro}.npz` and `nas_bench_201/nas_bench_201.npz`, as condensed from NASLib,
NAS-Bench-Suite-Zero, HW-NAS-Bench and HELP.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from across.search_spaces.tables.archive import StoredArray, read_member, read_strings
from across.search_spaces.tables.table import BenchmarkTable, Curve

TRANSNAS_ARRAYS = frozenset({"arch", "task", "metric", "val_final", "val_best", "proxy", "proxy_score"})
NAS_BENCH_201_ARRAYS = frozenset(
    {
        "arch",
        "dataset",
        "test_acc_200ep",
        "val_acc_200ep",
        "acc_12ep",
        "acc_12ep_column",
        "cifar10_12ep_cost_s",
    }
    | {"proxy", "proxy_score", "proxy_score_early725", "zen_all", "params_m", "flops_m"}
    | {"hw_metric", "hw_value", "help_device", "help_latency_ms"}
)

ALL = slice(None)


def transnas_table(path: Path, archive: NpzFile) -> BenchmarkTable:
    """TransNAS-Bench-101: the validation metric at the final epoch, and at the best of some networks."""
    strings, tasks, metrics = (read_strings(path, archive, key) for key in ("arch", "task", "metric"))
    curves = {}
    for index, (task, metric) in enumerate(zip(tasks, metrics, strict=True)):
        best = StoredArray(path, "val_best", (ALL, index))
        curves[task] = {metric: Curve(StoredArray(path, "val_final", (None, ALL, index)), best=best)}
    return BenchmarkTable(
        path,
        space="transnas_macro" if strings[0].endswith("-basic") else "transnas_micro",
        strings=strings,
        curves=curves,
        default_metrics=dict(zip(tasks, metrics, strict=True)),
        columns={
            name: _by_task(path, f"{name}_full", tasks)
            for name in ("params", "flops")
            if f"{name}_full" in archive.files
        },
        scored_by=_proxies(path, archive, "proxy_score", tasks),
    )


def nas_bench_201_table(path: Path, archive: NpzFile) -> BenchmarkTable:
    """NAS-Bench-201: accuracies after 200 epochs, and after a separate training of 12 (`*_12ep`)."""
    tasks = read_strings(path, archive, "dataset")
    curves = {}
    for index, task in enumerate(tasks):
        curves[task] = {
            f"{split}_accuracy": Curve(StoredArray(path, key, (None, ALL, index)), (200,))
            for split, key in (("valid", "val_acc_200ep"), ("test", "test_acc_200ep"))
        }
    for index, column in enumerate(read_strings(path, archive, "acc_12ep_column")):
        task, _, split = column.rpartition("-")
        values = StoredArray(path, "acc_12ep", (None, ALL, index))
        name = f"{split.replace('val', 'valid')}_accuracy_12ep"
        curves[task][name] = Curve(values, (12,), training="12ep")
    cost = Curve(StoredArray(path, "cifar10_12ep_cost_s", (None, ALL)), (12,), training="12ep")
    scored_by = _proxies(path, archive, "proxy_score", tasks)
    for task, early in _proxies(path, archive, "proxy_score_early725", tasks).items():
        scored_by[task] |= {f"{name}_early725": scores for name, scores in early.items()}
    for index, task in enumerate(tasks):
        scored_by[task]["zen"] = StoredArray(path, "zen_all", (ALL, index))  # complete, unlike `proxy_score`
    return BenchmarkTable(
        path,
        space="nas_bench_201",
        strings=read_strings(path, archive, "arch"),
        curves=curves,
        default_metrics=dict.fromkeys(tasks, "valid_accuracy"),
        costs={"cifar10": {"12ep": cost}},
        columns={
            "params_m": _by_task(path, "params_m", tasks),
            "flops_m": _by_task(path, "flops_m", tasks),
            **{
                metric: {task: StoredArray(path, "hw_value", (row, ALL, i)) for i, task in enumerate(tasks)}
                for row, metric in enumerate(read_strings(path, archive, "hw_metric"))
            },
            **{
                f"{device}_latency_ms": StoredArray(path, "help_latency_ms", (row,))
                for row, device in enumerate(read_strings(path, archive, "help_device"))
            },
        },
        scored_by=scored_by,
    )


def _by_task(path: Path, key: str, tasks: tuple[str, ...]) -> dict[str, StoredArray]:
    """The columns of an array of shape (networks, tasks)."""
    return {task: StoredArray(path, key, (ALL, index)) for index, task in enumerate(tasks)}


def _proxies(
    path: Path, archive: NpzFile, key: str, tasks: tuple[str, ...]
) -> dict[str, dict[str, StoredArray]]:
    """By task, the proxies that score any network at all; `key` has the shape (proxies, networks, tasks)."""
    is_scored = np.isfinite(read_member(path, archive, key)).any(axis=1)
    names = read_strings(path, archive, "proxy")
    return {
        task: {
            name: StoredArray(path, key, (row, ALL, index))
            for row, name in enumerate(names)
            if is_scored[row, index]
        }
        for index, task in enumerate(tasks)
    }
