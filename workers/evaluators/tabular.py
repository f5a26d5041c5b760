"""Fitness out of a benchmark table: what a search asks of it, and the worker that looks it up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from across.search_spaces.base import Config, Genotype, InvalidGenotypeError, SearchSpace
from across.search_spaces.constrained import Constrained, unconstrained
from across.search_spaces.tables import BenchmarkTable, TableError, open_table
from across.workers.base import EvaluationResult, EvaluationUnit, Unit, UnitResult, WorkerDescription

Epoch: TypeAlias = Literal["final", "best"] | Annotated[int, Field(ge=1)]
Scores: TypeAlias = NDArray[np.float64]
MIN_KNOWN = 0.5
"""The share of networks for which a table's proxy must be known to be seen without being named."""


class Reading(Config):
    """One metric at one epoch."""

    metric: str | None = None
    """None: what searches of the table usually maximise, a validation metric."""
    epoch: Epoch = "final"


class TableConfig(Config):
    """The section `table`: a search whose evaluations are looked up."""

    file: Path
    """A condensed table: from `across tables import`, or in one of the published condensed forms."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """One task of the table, or several that one network must solve."""
    reward: Reading = Reading()
    """What is searched."""
    test: Reading | None = None
    """What the finalists are measured by in the end; None: the reward."""
    fidelities: Mapping[Annotated[int, Field(ge=1)], Reading] = Field(default_factory=dict)
    """Cheaper readings by their number, for strategies that use them; others are that epoch of the reward."""
    fitness: Literal["score", "mean_rank", "normalised", "worst"] = "score"
    """Of several tasks: minus the mean rank in the table, the mean or the least of the scores scaled to 0..1; the score
    itself is for one task."""
    info: tuple[str, ...] = ()
    """Columns of the table about the networks themselves that evaluations carry, such as a latency."""
    signals: tuple[str, ...] | None = None
    """Zero-cost proxies that predictors may see; None: all that the table has for most networks."""
    earlier_tasks: tuple[str, ...] = ()
    """Other tasks of the table, whose values predictors may see as if they had been searched before."""

    @model_validator(mode="after")
    def _suits_the_number_of_tasks(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be distinct (got {', '.join(self.tasks)})")
        both = [task for task in self.tasks if task in self.earlier_tasks]
        if both:
            raise ValueError(
                f"earlier_tasks must not be among the tasks that are searched (got {', '.join(both)})"
            )
        if self.fitness == "score" and len(self.tasks) > 1:
            raise ValueError("fitness must be mean_rank, normalised or worst for several tasks (got score)")
        return self

    def build(self, space: SearchSpace) -> TabularBenchmark:
        """Opens the table; raises `TableError` for what it lacks of all that the section asks for."""
        benchmark = TabularBenchmark(self, space, open_table(self.file))
        benchmark.check()
        return benchmark


@dataclass(frozen=True, eq=False)
class TabularBenchmark:
    """A table with the question that a search asks of it."""

    config: TableConfig
    space: SearchSpace
    table: BenchmarkTable
    _rows: dict[Genotype, int] = field(default_factory=dict, init=False, repr=False)

    def check(self) -> None:
        """Raise `TableError` unless the table is of this space and has all that may be asked for."""
        try:
            unconstrained(self.space).from_string(self.table.strings[0])
        except InvalidGenotypeError as error:
            raise TableError(
                f"{self.table.path} is a table of the space {self.table.space}: {error}"
            ) from error
        for reading in (self.config.reward, self.config.test, *self.config.fidelities.values()):
            if reading is not None:
                self.raw(reading)
        _ = self.info, self.signals, self.earlier

    def row(self, genotype: Genotype) -> int:
        """Where a genotype stands in the table; raises `TableError`."""
        if genotype not in self._rows:
            self._rows[genotype] = self.table.row(self.space.to_string(genotype))
        return self._rows[genotype]

    def raw(self, reading: Reading) -> Scores:
        """Higher-better scores (N, T) of every network on every task, NaN where the table has none."""
        columns = [self.table.scores(task, reading.metric, epoch=reading.epoch) for task in self.config.tasks]
        return np.stack(columns, axis=1)

    def reading(self, fidelity: int | None) -> Reading:
        """What an evaluation at `fidelity` looks at."""
        if fidelity is None:
            return self.config.reward
        return self.config.fidelities.get(fidelity) or Reading(
            metric=self.config.reward.metric, epoch=fidelity
        )

    def scores(self, fidelity: int | None = None) -> Scores:
        """What fitness is made of, (N, T)."""
        if fidelity not in self._scores:
            raw = self.raw(self.reading(fidelity))
            match self.config.fitness:
                case "score":
                    scores = raw
                case "mean_rank":
                    scores = -ranks(raw)
                case "normalised" | "worst":
                    low, high = np.nanmin(raw, axis=0), np.nanmax(raw, axis=0)
                    scores = (raw - low) / np.where(high > low, high - low, 1.0)
            self._scores[fidelity] = scores
        return self._scores[fidelity]

    def fitness(self, fidelity: int | None = None) -> Scores:
        """Fitness of every network, (N,)."""
        scores = self.scores(fidelity)
        return np.asarray(scores.min(axis=1) if self.config.fitness == "worst" else scores.mean(axis=1))

    def seconds(self, fidelity: int | None = None) -> Scores | None:
        """Simulated seconds that training every network on all tasks costs, (N,); None where the table does not say."""
        reading = self.reading(fidelity)
        try:
            by_task = [
                self.table.seconds(task, reading.metric, epoch=reading.epoch) for task in self.config.tasks
            ]
        except TableError:
            return None
        return np.asarray(np.stack(by_task).sum(axis=0))

    @cached_property
    def info(self) -> dict[str, Scores]:
        """The columns that evaluations carry; those that depend on the task are the first task's."""
        task = self.config.tasks[0]
        return {name: self.table.info(name, task) for name in self.config.info}

    @cached_property
    def signals(self) -> dict[str, Scores]:
        """Zero-cost proxies by name, (N,) each; those of several tasks are told apart by the task's name."""
        found = {}
        for task in self.config.tasks:
            proxies = self.table.proxies(task)
            lacking = [name for name in self.config.signals or () if name not in proxies]
            if lacking:
                raise TableError(
                    f"{self.table.path}: no signal {', '.join(lacking)} of task {task!r}; it has"
                    f" {', '.join(proxies) or 'none'}"
                )
            for name, values in proxies.items():
                is_common = np.isfinite(values).mean() >= MIN_KNOWN
                if name in self.config.signals if self.config.signals is not None else is_common:
                    found[name if len(self.config.tasks) == 1 else f"{name}/{task}"] = values
        return found

    @cached_property
    def earlier(self) -> dict[str, Scores]:
        """Scores of the earlier tasks, (N,) each: the metric that is searched where they have it, else their own."""
        metric, epoch = self.config.reward.metric, self.config.reward.epoch
        return {
            task: self.table.scores(task, metric if metric in self.table.metrics(task) else None, epoch=epoch)
            for task in self.config.earlier_tasks
        }

    @cached_property
    def _scores(self) -> dict[int | None, Scores]:
        return {}


class TabularWorker:
    """The actor's body of a tabular search."""

    def __init__(self, benchmark: TabularBenchmark) -> None:
        self._benchmark = benchmark
        self._costs: dict[int | None, Scores | None] = {}
        self._sizes = Constrained(benchmark.space, 0)
        self._tested: tuple[Scores, Scores] | None = None

    def describe(self) -> WorkerDescription:
        """A look-up is the same everywhere."""
        return WorkerDescription("table")

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> UnitResult:
        """Look up one unit."""
        assert isinstance(unit, EvaluationUnit), "a table has nothing to learn from"
        row = self._benchmark.row(unit.genotype)
        return self._test(unit, row) if unit.split == "test" else self._evaluate(unit, row)

    def _evaluate(self, unit: EvaluationUnit, row: int) -> EvaluationResult:
        scores = self._benchmark.scores(unit.fidelity)[row]
        if np.isnan(scores).any():
            missing = [
                task
                for task, score in zip(self._benchmark.config.tasks, scores, strict=True)
                if np.isnan(score)
            ]
            return EvaluationResult(unit.key, (), failure=f"the table has no value for {', '.join(missing)}")
        if unit.fidelity not in self._costs:
            self._costs[unit.fidelity] = self._benchmark.seconds(unit.fidelity)
        costs = self._costs[unit.fidelity]
        metrics = {name: float(column[row]) for name, column in self._benchmark.info.items()}
        size = self._sizes.cost(unit.genotype)
        metrics |= {"params": float(size.num_params), "flops": float(size.flops)}
        if costs is not None:
            metrics["simulated_seconds"] = float(costs[row])
        return EvaluationResult(unit.key, tuple(map(float, scores)), metrics)

    def _test(self, unit: EvaluationUnit, row: int) -> EvaluationResult:
        """Scores by the test reading, and where they rank in the table."""
        config = self._benchmark.config
        if self._tested is None:
            raw = self._benchmark.raw(config.test or config.reward)
            self._tested = raw, ranks(raw)
        raw, places = self._tested
        if np.isnan(raw[row]).any():
            return EvaluationResult(unit.key, (), failure="the table has no test value")
        metrics = {f"rank/{task}": float(places[row, i]) for i, task in enumerate(config.tasks)}
        return EvaluationResult(unit.key, tuple(map(float, raw[row])), metrics)


def make_tabular_worker(config: TableConfig, space: SearchSpace) -> TabularWorker:
    """A worker that opens the table where it runs; raises `TableError`."""
    return TabularWorker(config.build(space))


def ranks(scores: Scores) -> Scores:
    """Rank of each row within each column, 1 for the highest score; equal scores share the better one, NaN has none."""
    ordered = np.sort(np.where(np.isnan(scores), -np.inf, scores), axis=0)
    positions = np.stack(
        [np.searchsorted(column, own, side="right") for column, own in zip(ordered.T, scores.T, strict=True)],
        axis=1,
    )
    return np.asarray(np.where(np.isnan(scores), np.nan, len(scores) - positions + 1.0))
