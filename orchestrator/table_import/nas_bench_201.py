"""NAS-Bench-201 (Dong and Yang, ICLR 2020): the official `NAS-Bench-201-v1_1-096897.pth` and `v1_0-e61699.pth`.

`{"meta_archs": [network], "arch2infos": {index: {"full": runs, "less": runs}}, "evaluated_indexes": ...}`: `full` is
a training of 200 epochs, `less` a separate one of 12 with its own learning rates. Runs are `{"all_results":
{(data set, seed): result}, "dataset_seed": {data set: [seed]}, ...}`, results `{"epochs": int, "train_acc1es":
{epoch: value}, "train_losses", "train_times", "eval_acc1es": {"x-valid@EPOCH": value}, "eval_losses", "eval_times",
"flop", "params", "latency": [value], ...}`, epochs from 0. Version 1.0 trained the 12 epochs on CIFAR-10's half
only, and has neither every evaluation nor its times.

Conventions of the official API, and of those who publish with it:

- Values are means over a network's seeds, one to three of them: `num_seeds` says how many.
- CIFAR-10 is validated after training on half of its training images (`cifar10-valid`), tested after training on
  all (`cifar10`).
- A query costs the training up to the epoch and one pass over the validation images, on CIFAR-10 those of
  `cifar10-valid`.

Top-5 accuracies are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from across.search_spaces.tables.compact import MAIN_TRAINING, Measurement, TableContents

NAS_BENCH_201_KEYS = frozenset({"meta_archs", "arch2infos", "evaluated_indexes"})

TRAININGS = {"full": (MAIN_TRAINING, ""), "less": ("12ep", "_12ep")}
"""By the file's name: ours, and what metrics of it end with."""

VALIDATED = {"cifar10": "cifar10-valid", "cifar100": "cifar100", "ImageNet16-120": "ImageNet16-120"}
"""By task: the training that validation, cost and info are of, named by its data set."""

SPLITS = {
    "cifar10": {
        "train": ("cifar10-valid", "train"),
        "valid": ("cifar10-valid", "x-valid"),
        "test": ("cifar10", "ori-test"),
        "half_test": ("cifar10-valid", "ori-test"),
        "full_train": ("cifar10", "train"),
    },
    **{
        task: {
            "train": (task, "train"),
            "valid": (task, "x-valid"),
            "test": (task, "x-test"),
            "valid_and_test": (task, "ori-test"),
        }
        for task in ("cifar100", "ImageNet16-120")
    },
}
"""By task and our name: the training's data set, and the official name of the images measured on."""

QUANTITIES = {"accuracy": "acc1es", "loss": "losses"}

Series = NDArray[np.float64]
Runs = Sequence[Mapping[str, Any]]


def nas_bench_201_contents(content: Mapping[str, Any]) -> list[TableContents]:
    """The table of the file; rows in the order of its indexes."""
    strings = tuple(content["meta_archs"])
    curves: dict[str, dict[str, Measurement]] = {task: {} for task in SPLITS}
    costs: dict[str, dict[str, Series]] = {task: {} for task in SPLITS}
    columns: dict[str, dict[str, Series]] = {}
    for name, (training, suffix) in TRAININGS.items():
        runs = [
            _runs_by_data_set(content["arch2infos"].get(index, {}).get(name)) for index in range(len(strings))
        ]
        num_epochs = max(
            (int(run["epochs"]) for by in runs for each in by.values() for run in each), default=0
        )
        for task, splits in SPLITS.items():
            for split, (data_set, images) in splits.items():
                for quantity, key in QUANTITIES.items():
                    values = _by_epoch(
                        [_mean_series(by.get(data_set, []), images, key) for by in runs], num_epochs
                    )
                    if (measured := _measurement(values, training)) is not None:
                        curves[task][f"{split}_{quantity}{suffix}"] = measured
            validated = [by.get(VALIDATED[task], []) for by in runs]
            seconds = _by_epoch([_seconds(each) for each in validated], num_epochs)
            if np.isfinite(seconds).any():
                costs[task][training] = seconds
            columns.setdefault(f"num_seeds{suffix}", {})[task] = np.array(
                list(map(len, validated)), dtype=np.float64
            )
            if training == MAIN_TRAINING:
                for column, values in _model_info(validated).items():
                    columns.setdefault(column, {})[task] = values
    measured_tasks = {task: measured for task, measured in curves.items() if "valid_accuracy" in measured}
    return [
        TableContents(
            "nas_bench_201",
            strings,
            curves=measured_tasks,
            default_metrics=dict.fromkeys(measured_tasks, "valid_accuracy"),
            costs={task: costs[task] for task in measured_tasks},
            columns={name: {task: by[task] for task in measured_tasks} for name, by in columns.items()},
        )
    ]


def _runs_by_data_set(archive: Mapping[str, Any] | None) -> dict[str, Runs]:
    """The results of every seed."""
    if archive is None:
        return {}
    return {
        data_set: [archive["all_results"][data_set, seed] for seed in seeds]
        for data_set, seeds in archive["dataset_seed"].items()
    }


def _mean_series(runs: Runs, images: str, quantity: str) -> Series:
    """A value an epoch, the mean over the seeds that have it."""
    return _mean([_series(run, images, quantity) for run in runs])


def _series(run: Mapping[str, Any], images: str, quantity: str) -> Series:
    """A value an epoch, NaN where there is none. `quantity`: `acc1es`, `losses` or `times`."""
    num_epochs = int(run["epochs"])
    part = "train" if images == "train" else "eval"
    stored = run.get(f"{part}_{quantity}") or {}
    if not isinstance(stored, Mapping):
        stored = dict(enumerate(stored))
    keys = range(num_epochs) if part == "train" else _evaluation_keys(images, num_epochs)
    return np.array([stored.get(key) for key in keys], dtype=np.float64)


@cache
def _evaluation_keys(images: str, num_epochs: int) -> tuple[str, ...]:
    return tuple(f"{images}@{epoch}" for epoch in range(num_epochs))


def _seconds(runs: Runs) -> Series:
    """Simulated cost of training up to each epoch and validating there, which some files have no times for."""
    training = np.cumsum(_mean_series(runs, "train", "times"))
    validation = _mean_series(runs, "x-valid", "times")
    if np.isnan(validation).all():
        return training
    return np.asarray(training + np.nanmean(validation))


def _model_info(runs_of_networks: Sequence[Runs]) -> dict[str, Series]:
    """Weights and multiply-adds in millions, and the latency of a batch of 256 in seconds."""
    return {
        "params_m": np.array([_mean_number([run["params"] for run in runs]) for runs in runs_of_networks]),
        "flops_m": np.array([_mean_number([run["flop"] for run in runs]) for runs in runs_of_networks]),
        "latency_seconds": np.array(
            [
                _mean_number([_mean_number(run.get("latency") or []) for run in runs])
                for runs in runs_of_networks
            ]
        ),
    }


def _mean_number(numbers: Sequence[float]) -> float:
    """The mean of those that are there: latencies that were not measured are missing, NaN or -1."""
    measured = [float(number) for number in numbers if number >= 0]
    return sum(measured) / len(measured) if measured else float("nan")


def _mean(rows: Sequence[Series]) -> Series:
    """The mean of the numbers in each column of equally long rows; NaN where there is none."""
    if len(rows) <= 1:
        return rows[0] if rows else np.empty(0)
    stacked = np.stack(rows)
    counts = (~np.isnan(stacked)).sum(axis=0)
    means = np.full(stacked.shape[1], np.nan)
    np.divide(np.nansum(stacked, axis=0), counts, out=means, where=counts > 0)
    return means


def _by_epoch(series: Sequence[Series], num_epochs: int) -> Series:
    """(epochs, networks)."""
    values = np.full((num_epochs, len(series)), np.nan)
    for network, curve in enumerate(series):
        values[: len(curve), network] = curve
    return values


def _measurement(values: Series, training: str) -> Measurement | None:
    """The epochs at which any network was measured, and the last; None if there are none."""
    rows = set(np.flatnonzero((~np.isnan(values)).any(axis=1)).tolist())
    if not rows:
        return None
    kept = sorted(rows | {len(values) - 1})
    return Measurement(values[kept], tuple(row + 1 for row in kept), training)
