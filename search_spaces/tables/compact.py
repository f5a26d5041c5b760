"""The project's own layout: every metric of every epoch, training costs, and what is known of the networks.

| array | shape | |
|---|---|---|
| `space` | () | name of the space |
| `strings` | (networks,) | official string of each network |
| `tasks`, `default_metrics` | (tasks,) | names |
| `curve/TASK/TRAINING/METRIC` | (epochs, networks) | values, NaN where a network lacks one |
| `epochs/TASK/TRAINING/METRIC` | (epochs,) | the number of each of these epochs, from 1; the last is the final one |
| `seconds/TASK/TRAINING` | (epochs, networks) | simulated cost since the training's start, every epoch from 1 |
| `info/NAME` | (networks,) | what is known of a network on every task alike |
| `task_info/TASK/NAME` | (networks,) | what is known of it on one task, such as weights and FLOPs |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from across.search_spaces.tables.archive import StoredArray, read_member, read_strings
from across.search_spaces.tables.table import BenchmarkTable, Curve

COMPACT_ARRAYS = frozenset({"space", "strings", "tasks", "default_metrics"})

MAIN_TRAINING = "main"
"""The training whose results a benchmark is known for."""

Values: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """A metric to be stored: values (epochs, networks) and the number of each epoch."""

    values: Values
    epochs: tuple[int, ...]
    training: str = MAIN_TRAINING


@dataclass(frozen=True)
class TableContents:
    """A table to be stored; the fields are those of `BenchmarkTable`, read."""

    space: str
    strings: tuple[str, ...]
    curves: Mapping[str, Mapping[str, Measurement]]
    """By task and metric."""
    default_metrics: Mapping[str, str]
    """By task."""
    costs: Mapping[str, Mapping[str, Values]] = field(default_factory=dict)
    """By task and training: (epochs, networks), every epoch from the first."""
    columns: Mapping[str, Values | Mapping[str, Values]] = field(default_factory=dict)
    """By name, and by task where it depends on that."""


def compact_arrays(contents: TableContents) -> dict[str, NDArray[Any]]:
    """The arrays that store a table."""
    arrays: dict[str, NDArray[Any]] = {
        "space": np.array(contents.space),
        "strings": np.array(contents.strings),
        "tasks": np.array(list(contents.curves)),
        "default_metrics": np.array([contents.default_metrics[task] for task in contents.curves]),
    }
    for task, curves in contents.curves.items():
        for metric, measured in curves.items():
            arrays[f"curve/{task}/{measured.training}/{metric}"] = measured.values
            arrays[f"epochs/{task}/{measured.training}/{metric}"] = np.array(measured.epochs)
    for task, costs in contents.costs.items():
        for training, seconds in costs.items():
            arrays[f"seconds/{task}/{training}"] = seconds
            arrays[f"epochs/{task}/{training}/seconds"] = np.arange(1, len(seconds) + 1)
    for name, column in contents.columns.items():
        if isinstance(column, Mapping):
            arrays |= {f"task_info/{task}/{name}": values for task, values in column.items()}
        else:
            arrays[f"info/{name}"] = column
    return arrays


def compact_table(path: Path, archive: NpzFile) -> BenchmarkTable:
    """The table that `compact_arrays` stored."""
    tasks = read_strings(path, archive, "tasks")
    curves: dict[str, dict[str, Curve]] = {task: {} for task in tasks}
    costs: dict[str, dict[str, Curve]] = {task: {} for task in tasks}
    columns: dict[str, StoredArray] = {}
    task_columns: dict[str, dict[str, StoredArray]] = {}

    def curve(key: str, task: str, training: str, metric: str) -> Curve:
        epochs = read_member(path, archive, f"epochs/{task}/{training}/{metric}").tolist()
        return Curve(StoredArray(path, key), tuple(epochs), training=training)

    for key in archive.files:
        match key.split("/"):
            case ["curve", task, training, metric]:
                curves[task][metric] = curve(key, task, training, metric)
            case ["seconds", task, training]:
                costs[task][training] = curve(key, task, training, "seconds")
            case ["info", name]:
                columns[name] = StoredArray(path, key)
            case ["task_info", task, name]:
                task_columns.setdefault(name, {})[task] = StoredArray(path, key)
    return BenchmarkTable(
        path,
        space=str(read_member(path, archive, "space")),
        strings=read_strings(path, archive, "strings"),
        curves=curves,
        default_metrics=dict(zip(tasks, read_strings(path, archive, "default_metrics"), strict=True)),
        costs=costs,
        columns={**columns, **task_columns},
    )
