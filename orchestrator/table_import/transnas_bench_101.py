"""TransNAS-Bench-101 (Duan et al., CVPR 2021): the official `transnas-bench_v10141024.pth`.

`{"metrics_dict": {task: [metric]}, "task_list": [task], "info_names": [name], "data": {space: {network: {task:
result}}}}` with results `{"model_info": {name: number}, "metrics": {metric: [a value an epoch]}, "total_epochs": int}`.

The official API's best epoch is a plain maximum, of losses too; a `BenchmarkTable` takes their minimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from across.search_spaces.tables.compact import MAIN_TRAINING, Measurement, TableContents

TRANSNAS_KEYS = frozenset({"metrics_dict", "task_list", "info_names", "data"})

SPACES = {"micro": "transnas_micro", "macro": "transnas_macro"}

DEFAULT_METRICS = {
    "class_scene": "valid_top1",
    "class_object": "valid_top1",
    "room_layout": "valid_neg_loss",
    "jigsaw": "valid_top1",
    "segmentsemantic": "valid_acc",
    "normal": "valid_ssim",
    "autoencoder": "valid_ssim",
}
"""As in NASLib and the condensed tables, so that results compare; `valid_mIoU` is there to be asked for."""

STOPWATCH = "time_elapsed"

NOT_TRAINED: Mapping[str, Any] = {"model_info": {}, "metrics": {}}


def transnas_contents(content: Mapping[str, Any]) -> list[TableContents]:
    """A table of each space in the file."""
    return [_space_contents(SPACES[space], networks, content) for space, networks in content["data"].items()]


def _space_contents(space: str, networks: Mapping[str, Any], content: Mapping[str, Any]) -> TableContents:
    curves, costs = {}, {}
    columns: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in content["info_names"]}
    for task in content["task_list"]:
        results = [network.get(task, NOT_TRAINED) for network in networks.values()]
        if not any(result["metrics"] for result in results):
            continue
        metrics = [name for name in content["metrics_dict"][task] if name != STOPWATCH]
        curves[task] = {name: _measurement(results, name) for name in metrics}
        if STOPWATCH in content["metrics_dict"][task]:
            costs[task] = {MAIN_TRAINING: _seconds(results)}
        for name, by_task in columns.items():
            column = [result["model_info"].get(name) for result in results]
            by_task[task] = np.array(column, dtype=np.float64)
    return TableContents(
        space,
        tuple(networks),
        curves=curves,
        default_metrics={task: DEFAULT_METRICS[task] for task in curves},
        costs=costs,
        columns=columns,
    )


def _measurement(results: list[Mapping[str, Any]], metric: str) -> Measurement:
    values = _by_epoch([result["metrics"].get(metric, []) for result in results])
    return Measurement(values, tuple(range(1, len(values) + 1)))


def _seconds(results: list[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Seconds since the training's start (epochs, networks).

    The official training code notes a stopwatch's reading after each epoch, as HH:MM:SS. Readings never fall; if
    those of most networks do, they are the durations of single epochs, and are summed.
    """
    seconds = _by_epoch(
        [[_in_seconds(reading) for reading in result["metrics"].get(STOPWATCH, [])] for result in results]
    )
    falls = (np.diff(seconds, axis=0) < 0).any(axis=0)
    return np.cumsum(seconds, axis=0) if falls.mean() > 0.5 else seconds


def _in_seconds(reading: str | float) -> float:
    if not isinstance(reading, str):
        return float(reading)
    hours, minutes, seconds = map(float, reading.split(":"))
    return 3600 * hours + 60 * minutes + seconds


def _by_epoch(series: list[list[float]]) -> NDArray[np.float64]:
    """(epochs, networks); NaN where a network was trained for fewer epochs than others."""
    values = np.full((max(map(len, series)), len(series)), np.nan)
    for network, curve in enumerate(series):
        values[: len(curve), network] = curve
    return values
