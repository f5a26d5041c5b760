"""Searches of benchmark tables by predictors that know other tasks, or do not: a part of `predictors.py`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

from across.orchestrator.strategies.guidance.earlier_searches import EarlierSearches
from across.orchestrator.strategies.guidance.knowledge import Knowledge
from across.search_spaces.base import Genotype
from across.search_spaces.tables import open_table
from across.workers.evaluators.tabular import Reading
from benchmarks.report import Measurement
from benchmarks.table_searches import NAS_BENCH_201, Question, spread, trace

BUDGETS = (50, 100)
GUIDED: dict[str, Any] = {
    "type": "predictor_guided",
    "candidates": {"type": "exhaustive"},
    "num_elites": 0,
    "num_threads": 1,
}
ACROSS: dict[str, Any] = {**GUIDED, "batch_size": 4, "num_initial": 12, "num_initial_from_earlier": 8}
STRATEGIES: dict[str, dict[str, Any]] = {
    "across": {**ACROSS, "predictor": {"type": "across"}},
    "across_not_meta_trained": {**ACROSS, "predictor": {"type": "across", "is_meta_trained": False}},
    "coregionalised": {
        **ACROSS,
        "predictor": {"type": "across", "views": ("encoding", "paths", "earlier_linear")},
    },
    "dele": {
        **GUIDED,
        "predictor": {"type": "dele"},
        "batch_size": 10,
        "num_initial": 20,
        "num_initial_from_earlier": 10,
    },
    "extra_trees": {
        **GUIDED,
        "predictor": {"type": "extra_trees"},
        "acquisition": {"type": "mean"},
        "batch_size": 10,
        "num_initial": 20,
        "num_initial_from_earlier": 10,
    },
}
DESIGNS = ("across_not_meta_trained", "coregionalised", "dele")
"""Other ways to learn from other tasks; not searched with where there are none."""
SETTINGS = ("leave_one_out", "after_searches", "alone")


@cache
def search_question(file: Path, task: str, earlier_tasks: tuple[str, ...], metric: str | None) -> Question:
    return Question(
        file, (task,), reward=Reading(metric=metric), earlier_tasks=earlier_tasks, signals=("zen",)
    )


@cache
def searched_before(file: Path, task: str, seed: int) -> dict[Genotype, float]:
    """What a search finds that knows of no other task, by canonical genotype."""
    asked = search_question(file, task, (), None)
    found = trace(asked, "predictor_guided", seed, BUDGETS, settings=STRATEGIES["across"])
    genotypes = {row: asked.space.from_string(asked.benchmark.table.strings[row]) for row in found.rows}
    return {asked.space.canonical(genotypes[row]): float(asked.values[row]) for row in found.rows}


def search(
    file: Path, task: str, name: str, metric: str | None, setting: str, first_seed: int, seeds: Sequence[int]
) -> list[tuple[float, ...]]:
    """In a process of the pool: ranks after each budget, and queries to the optimum where `metric` is given."""
    others = tuple(each for each in open_table(file).tasks if each != task)
    asked = search_question(file, task, others if setting == "leave_one_out" else (), metric)
    found = []
    for seed in (first_seed + seed for seed in seeds):
        knowledge: Knowledge = asked.knowledge
        if setting == "after_searches":
            before = {other: searched_before(file, other, seed) for other in others}
            knowledge = EarlierSearches(asked.knowledge, asked.space, before)
        traced = trace(
            asked,
            "predictor_guided",
            seed,
            BUDGETS,
            to_optimum=metric is not None,
            settings=STRATEGIES[name],
            knowledge=knowledge,
        )
        found.append((*traced.ranks, traced.queries_to_optimum))
    return found


def searches(options: Namespace, pool: ProcessPoolExecutor, files: dict[str, Path]) -> Iterator[Measurement]:
    for table_name, file in files.items():
        table = open_table(file)
        names = [name for name in STRATEGIES if name in options.strategies]
        if table.space == NAS_BENCH_201:
            for task in table.tasks:
                run = partial(search, file, task, "across", "test_accuracy", "alone", options.first_seed)
                found = [float(result[-1]) for result in spread(pool, options.search_seeds, run)]
                case = f"{table_name}/{task}/across"
                yield Measurement(case, "queries_to_optimum", fmean(found), "", len(found))
            continue
        for setting in [setting for setting in SETTINGS if setting in options.settings]:
            for name in names:
                if name not in DESIGNS or setting == "leave_one_out":
                    yield from of_all_tasks(options, pool, table_name, setting, file, name)


def of_all_tasks(
    options: Namespace, pool: ProcessPoolExecutor, table_name: str, setting: str, file: Path, name: str
) -> Iterator[Measurement]:
    """Each task of a table, and their mean."""
    means, case = [], f"{table_name}/{setting}"
    for task in open_table(file).tasks:
        run = partial(search, file, task, name, None, setting, options.first_seed)
        results = spread(pool, options.search_seeds, run)
        means.append([fmean(each[position] for each in results) for position in range(len(BUDGETS))])
        for budget, mean in zip(BUDGETS, means[-1], strict=True):
            yield Measurement(f"{case}/{task}/{name}/{budget}", "mean_rank", mean, "", len(results))
    for budget, column in zip(BUDGETS, zip(*means, strict=True), strict=True):
        yield Measurement(f"{case}/{name}/{budget}", "mean_rank", fmean(column), "", options.search_seeds)
