"""What a tabular benchmark answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from across.search_spaces.tables.archive import StoredArray, TableError

Epoch: TypeAlias = Literal["final", "best"] | int
"""`final`: the last of the training; `best`: each network's own best; N: the N-th, counted from 1."""


@dataclass(frozen=True)
class Curve:
    """What one training measured over its epochs."""

    values: StoredArray
    """Shape (epochs held, networks), in the order of the epochs; the last row is the final epoch's."""
    epochs: tuple[int, ...] = ()
    """The epoch of each row, counted from 1; empty where only the final one is held, under no number."""
    best: StoredArray | None = None
    """Shape (networks,): the best over all epochs, where the table has it but not the epochs."""
    training: str = ""
    """Which of a task's trainings this is, where it has several."""

    @property
    def is_complete(self) -> bool:
        """Whether every epoch up to the last is held."""
        return self.epochs == tuple(range(1, len(self.epochs) + 1)) != ()


@dataclass(frozen=True, eq=False)
class BenchmarkTable:
    """The results of every network of a space on several tasks; arrays are read when they are asked for.

    All answers are arrays of one value a network, in the order of `strings`. Everything that the table lacks raises
    a `TableError` that says what it has.
    """

    path: Path
    space: str
    """`transnas_micro`, `transnas_macro` or `nas_bench_201`."""
    strings: tuple[str, ...]
    """The official string of each network."""
    curves: Mapping[str, Mapping[str, Curve]]
    """By task and metric."""
    default_metrics: Mapping[str, str]
    """By task."""
    costs: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    """By task and training: the seconds since the training's start."""
    columns: Mapping[str, StoredArray | Mapping[str, StoredArray]] = field(default_factory=dict)
    """What is known of the networks themselves by name, and by task where it depends on that."""
    scored_by: Mapping[str, Mapping[str, StoredArray]] = field(default_factory=dict)
    """Zero-cost proxies by task and name."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks; data sets count as tasks."""
        return tuple(self.curves)

    @property
    def info_names(self) -> tuple[str, ...]:
        """What `info` knows."""
        return tuple(self.columns)

    def metrics(self, task: str) -> tuple[str, ...]:
        """Names of what was measured on `task`."""
        return tuple(self._curves(task))

    def default_metric(self, task: str) -> str:
        """What searches maximise: a validation metric."""
        self._curves(task)
        return self.default_metrics[task]

    def epochs(self, task: str, metric: str | None = None) -> tuple[int, ...]:
        """The epochs that can be asked for by number; none where only the final one is held, without its number."""
        return self._curve(task, metric).epochs

    def num_epochs(self, task: str, metric: str | None = None) -> int:
        """How many epochs are held, the final one included."""
        return max(1, len(self.epochs(task, metric)))

    def has_best(self, task: str, metric: str | None = None) -> bool:
        """Whether `epoch="best"` can be asked for."""
        curve = self._curve(task, metric)
        return curve.is_complete or curve.best is not None

    def has_seconds(self, task: str, metric: str | None = None) -> bool:
        """Whether the table knows what measuring it costs."""
        return self._curve(task, metric).training in self.costs.get(task, {})

    def values(self, task: str, metric: str | None = None, *, epoch: Epoch = "final") -> NDArray[np.float64]:
        """Raw values (N,) of a metric, `default_metric` without one; NaN where a network lacks it."""
        metric = metric or self.default_metric(task)
        curve = self._curve(task, metric)
        what = f"metric {metric!r} of task {task!r}"
        if epoch != "best":
            return self._at(curve, epoch, what)
        if curve.best is not None:
            return self._checked(curve.best)
        if not curve.is_complete:
            raise TableError(f"{self.path}: {what}: no best epoch is known; it has {_held(curve)}")
        extreme = np.fmin if is_loss(metric) else np.fmax  # NaN only where every epoch is
        return self._checked(curve.values, reduce_by=extreme)

    def scores(self, task: str, metric: str | None = None, *, epoch: Epoch = "final") -> NDArray[np.float64]:
        """As `values`, but a higher one is always better: losses are turned around."""
        metric = metric or self.default_metric(task)
        values = self.values(task, metric, epoch=epoch)
        return -values if is_loss(metric) else values

    def seconds(self, task: str, metric: str | None = None, *, epoch: Epoch = "final") -> NDArray[np.float64]:
        """Simulated seconds (N,) of the training that measured `metric`, up to `epoch`.

        The best epoch is known only at the end, so it costs the whole training.
        """
        curve = self._curve(task, metric)
        metric = metric or self.default_metric(task)
        costs = self.costs.get(task, {})
        what = f"training cost of metric {metric!r} of task {task!r}"
        if curve.training not in costs:
            known = [
                f"{name} of {each}"
                for each in self.tasks
                for name in self.curves[each]
                if self.has_seconds(each, name)
            ]
            raise TableError(f"{self.path}: {what}: not in this table; it has {_listed('costs', known)}")
        return self._at(costs[curve.training], "final" if epoch == "best" else epoch, what)

    def row(self, string: str) -> int:
        """Where a network stands in every array."""
        try:
            return self._rows[string]
        except KeyError:
            raise TableError(
                f"{self.path}: no network {string!r}; its {len(self.strings):,} networks are written like "
                f"{self.strings[0]!r}"
            ) from None

    def info(self, name: str, task: str | None = None) -> NDArray[np.float64]:
        """A column (N,) about the networks themselves, such as their weights; some depend on the task."""
        if name not in self.columns:
            raise TableError(f"{self.path}: no info {name!r}; it has {_listed('info', self.columns)}")
        column = self.columns[name]
        if isinstance(column, StoredArray):
            return self._checked(column)
        if task is None or task not in column:
            given = "none was given" if task is None else f"got {task!r}"
            raise TableError(
                f"{self.path}: info {name!r} depends on the task ({given}); it has {', '.join(column)}"
            )
        return self._checked(column[task])

    def proxies(self, task: str) -> dict[str, NDArray[np.float64]]:
        """Zero-cost proxies: an array (N,) by name, NaN where a network has no score; signs as published."""
        self._curves(task)
        return {name: self._checked(scores) for name, scores in self.scored_by.get(task, {}).items()}

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {string: row for row, string in enumerate(self.strings)}

    def _curves(self, task: str) -> Mapping[str, Curve]:
        if task not in self.curves:
            raise TableError(f"{self.path}: no task {task!r}; it has {', '.join(self.tasks)}")
        return self.curves[task]

    def _curve(self, task: str, metric: str | None) -> Curve:
        curves = self._curves(task)
        metric = metric or self.default_metrics[task]
        if metric not in curves:
            raise TableError(
                f"{self.path}: no metric {metric!r} of task {task!r}; it has {', '.join(curves)}"
            )
        return curves[metric]

    def _at(self, curve: Curve, epoch: Epoch, what: str) -> NDArray[np.float64]:
        if epoch == "final":
            return self._checked(curve.values, row=-1)
        if epoch not in curve.epochs:
            raise TableError(f"{self.path}: {what}: no epoch {epoch!r}; it has {_held(curve)}")
        return self._checked(curve.values, row=curve.epochs.index(epoch))

    def _checked(
        self, stored: StoredArray, *, row: int | None = None, reduce_by: np.ufunc | None = None
    ) -> NDArray[np.float64]:
        """One value a network: `stored` itself, a row of it, or its rows reduced to one."""
        array = stored.read()
        if row is not None:
            with suppress(IndexError):  # which is a wrong shape, as said below
                array = array[row]
        elif reduce_by is not None:
            array = reduce_by.reduce(array, axis=0)
        if array.shape != (len(self.strings),) or array.dtype.kind not in "fiu":
            raise TableError(
                f"{self.path}: the array {stored.key!r} must hold a number for each of {len(self.strings):,} networks"
                f" (got {array.dtype} of shape {array.shape})"
            )
        return array.astype(np.float64)


def is_loss(metric: str) -> bool:
    """Whether lower values of a metric are better, by its official name; `neg_loss` has been turned already."""
    return "loss" in metric and "neg_loss" not in metric


def _held(curve: Curve) -> str:
    """The epochs that a curve has, in words."""
    if not curve.epochs:
        held = "only the final epoch, without its number"
    elif curve.is_complete and len(curve.epochs) > 1:
        held = f"epochs 1 to {curve.epochs[-1]}"
    elif len(curve.epochs) == 1:
        held = f"only epoch {curve.epochs[0]}"
    else:
        held = f"epochs {', '.join(map(str, curve.epochs))}"
    return f"{held}, and the best" if curve.best is not None else held


def _listed(kind: str, names: Iterable[str]) -> str:
    return ", ".join(names) or f"no {kind}"
