"""How good are the strategies? Ranks and regrets on benchmark tables, beside published ones.

    python benchmarks/tables.py [--full | --seeds N] [--data DIR] [--table FILE ...] [--json FILE]

Cases `micro/class_scene/regularized_evolution/100`: space or table, task, strategy, budget of queries. Queries are
distinct genotypes; one that comes again costs nothing. Of the best network of the budget, means over the seeds:

- `mean_rank`: its rank in the table, 1 the best, where equal values share the better rank;
- `mean_regret`: how far its value is from the best, in the metric's own unit;
- `queries_to_optimum` (NAS-Bench-201, case without a budget): queries until the best value is found, which is looked
  up as the reward itself: test accuracy after 200 epochs.

`micro/leave_one_out/TASK/STRATEGY/BUDGET`: the same strategy has searched the other tasks together before (mean rank,
`OTHERS_BUDGET` queries), and starts from the best ten of those.

`nas_bench_201/TASK/STRATEGY/12000s`: the reward is the validation accuracy after 12 epochs, every query costs what
that training took, and `test_accuracy` is that after 200 epochs of the network with the best reward.

`nas_bench_201/TASK/STRATEGY/20000_epochs`: the reward is the validation accuracy after 200 epochs, which cost 200;
successive halving may look after 12 first. `test_accuracy` is that of the network with the best reward.

`.../random/BUDGET` `mean_rank_expected` is what random search must come to, computed; `deviation_in_standard_errors`
says how far off it is.

Quick: 10 seeds. --full: 100 seeds, and 10,000 of random search for one task. --table measures other condensed tables
only.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from math import inf, isfinite, sqrt
from pathlib import Path
from statistics import fmean, stdev

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from across.search_spaces.base import Genotype
from across.search_spaces.tables import open_table
from across.workers.evaluators.tabular import Reading
from benchmarks.report import Measurement, make_parser, show, write_json
from benchmarks.table_searches import (
    FIDELITIES,
    FILES,
    NAS_BENCH_201,
    STRATEGIES,
    Question,
    Trace,
    Values,
    best_within_epochs,
    build_strategy,
    expected_best_rank,
    queries,
    spread,
    trace,
)

BUDGETS = (50, 100)
OTHERS_BUDGET = 300
NUM_FIRST = 10
SECONDS_BUDGET = 12_000.0
EPOCHS_BUDGET = 20_000
CHECKED = ("micro", "class_scene")
"""Where random search is held against its expectation with many seeds."""


@cache
def question(file: Path, tasks: tuple[str, ...], fitness: str, metric: str | None) -> Question:
    """Opened once in each process."""
    return Question(file, tasks, fitness, Reading(metric=metric))


def run_traces(
    file: Path, task: str, metric: str | None, name: str, to_optimum: bool, seeds: Sequence[int]
) -> list[Trace]:
    """In a process of the pool: some seeds of one case."""
    asked = question(file, (task,), "score", metric)
    return [trace(asked, name, seed, BUDGETS, to_optimum=to_optimum) for seed in seeds]


def run_left_out(file: Path, task: str, name: str, seeds: Sequence[int]) -> list[Trace]:
    """Search the other tasks together, then this one from the best of them."""
    others = tuple(other for other in open_table(file).tasks if other != task)
    known, asked = question(file, others, "mean_rank", None), question(file, (task,), "score", None)
    return [trace(asked, name, seed, BUDGETS, first=best_of(known, name, seed)) for seed in seeds]


def best_of(known: Question, name: str, seed: int) -> list[Genotype]:
    """The best `NUM_FIRST` genotypes of a search."""
    rows = [
        row
        for row, _ in zip(
            queries(known, build_strategy(name, known.space), seed), range(OTHERS_BUDGET), strict=False
        )
    ]
    ordered = sorted(rows, key=lambda row: -known.values[row])[:NUM_FIRST]
    return [known.space.from_string(known.benchmark.table.strings[row]) for row in ordered]


def run_for_seconds(file: Path, task: str, name: str, seeds: Sequence[int]) -> list[float]:
    """Test accuracy after 200 epochs of what looked best after 12, within `SECONDS_BUDGET` of training."""
    asked = question(file, (task,), "score", "valid_accuracy_12ep")
    costs = asked.benchmark.table.seconds(task, "valid_accuracy_12ep")
    tested = asked.benchmark.table.values(task, "test_accuracy")
    found = []
    for seed in seeds:
        left, best = SECONDS_BUDGET, -1
        for row in queries(asked, build_strategy(name, asked.space), seed):
            left -= costs[row]
            if left < 0:
                break
            if best < 0 or asked.values[row] > asked.values[best]:
                best = row
        found.append(float(tested[best]))
    return found


def run_for_epochs(file: Path, task: str, name: str, seeds: Sequence[int]) -> list[float]:
    """Test accuracy of the best validation accuracy among what can be trained in `EPOCHS_BUDGET`."""
    full = question(file, (task,), "score", "valid_accuracy")
    cheap = question(file, (task,), "score", "valid_accuracy_12ep")
    tested = full.benchmark.table.values(task, "test_accuracy")
    settings = FIDELITIES if name == "successive_halving" else {}
    return [
        float(
            tested[
                best_within_epochs(
                    full,
                    cheap,
                    build_strategy(name, full.space, **settings),
                    seed,
                    max_epochs=EPOCHS_BUDGET,
                )
            ]
        )
        for seed in seeds
    ]


def measurements(options: Namespace, pool: ProcessPoolExecutor) -> Iterator[Measurement]:
    files = {path.stem: path for path in options.table} or {
        name: options.data / file for name, file in FILES.items()
    }
    for table_name, file in files.items():
        table = open_table(file)
        is_201 = table.space == NAS_BENCH_201
        metric = "test_accuracy" if is_201 else None
        for task in table.tasks:
            for name in options.strategies:
                traces = spread(pool, options.seeds, partial(run_traces, file, task, metric, name, is_201))
                yield from summary(f"{table_name}/{task}/{name}", traces, with_optimum=is_201)
                if name == "random":
                    num = 10_000 if options.full and (table_name, task) == CHECKED else options.seeds
                    more = spread(pool, num, partial(run_traces, file, task, metric, name, False))
                    ranks = question(file, (task,), "score", metric).ranks
                    yield from against_expectation(f"{table_name}/{task}/random", more, ranks)
        if is_201 and table.has_seconds("cifar10", "valid_accuracy_12ep"):
            yield from in_training_time(options, pool, table_name, file)
        elif len(table.tasks) > 1 and not is_201:
            yield from left_out(options, pool, table_name, file)


def in_training_time(
    options: Namespace, pool: ProcessPoolExecutor, table_name: str, file: Path
) -> Iterator[Measurement]:
    """Budgets of training: seconds at 12 epochs a network, and epochs at 200 or, for some, first 12."""
    single = [name for name in options.strategies if not name.startswith("nsga")]
    budgets = [(run_for_seconds, name, f"{SECONDS_BUDGET:.0f}s") for name in single]
    budgets += [(run_for_epochs, name, f"{EPOCHS_BUDGET}_epochs") for name in [*single, "successive_halving"]]
    for run, name, budget in budgets:
        found = spread(pool, options.seeds, partial(run, file, "cifar10", name))
        case = f"{table_name}/cifar10/{name}/{budget}"
        yield Measurement(case, "test_accuracy", fmean(found), "%", len(found))
        if len(found) > 1:
            yield Measurement(case, "test_accuracy_deviation", stdev(found), "%", len(found))


def left_out(
    options: Namespace, pool: ProcessPoolExecutor, table_name: str, file: Path
) -> Iterator[Measurement]:
    for name in ("regularized_evolution", "genetic"):
        if name in options.strategies:
            for task in open_table(file).tasks:
                traces = spread(pool, options.seeds, partial(run_left_out, file, task, name))
                yield from summary(f"{table_name}/leave_one_out/{task}/{name}", traces)


def summary(case: str, traces: Sequence[Trace], *, with_optimum: bool = False) -> Iterator[Measurement]:
    num = len(traces)
    for position, budget in enumerate(BUDGETS):
        ranks = [each.ranks[position] for each in traces]
        yield Measurement(f"{case}/{budget}", "mean_rank", fmean(ranks), "", num)
        yield Measurement(
            f"{case}/{budget}", "mean_regret", fmean(each.regrets[position] for each in traces), "", num
        )
    if with_optimum:
        found = [each.queries_to_optimum for each in traces if isfinite(each.queries_to_optimum)]
        yield Measurement(case, "queries_to_optimum", fmean(found) if found else inf, "", len(found))
        yield Measurement(case, "share_that_found_the_optimum", len(found) / num, "", num)


def against_expectation(case: str, traces: Sequence[Trace], ranks: Values) -> Iterator[Measurement]:
    for position, budget in enumerate(BUDGETS):
        found = [each.ranks[position] for each in traces]
        expected = expected_best_rank(ranks, budget)
        yield Measurement(f"{case}/{budget}", "mean_rank_expected", expected, "", 1)
        if len(found) > 1:
            error = stdev(found) / sqrt(len(found))
            deviation = (fmean(found) - expected) / error
            yield Measurement(f"{case}/{budget}", "deviation_in_standard_errors", deviation, "", len(found))


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], full="100 seeds; 10,000 of random search for one task")
    parser.add_argument("--seeds", type=int, metavar="N", help="10, or 100 with --full")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of the condensed tables"
    )
    parser.add_argument(
        "--table", type=Path, nargs="*", default=[], metavar="FILE", help="other tables instead"
    )
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES), choices=list(STRATEGIES))
    options = parser.parse_args()
    options.seeds = options.seeds or (100 if options.full else 10)
    started = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        lines = show(measurements(options, pool))
    seconds = time.perf_counter() - started
    lines += show([Measurement("tables", "seconds", seconds, "s", 1)])
    write_json(options.json, lines)


if __name__ == "__main__":
    main()
