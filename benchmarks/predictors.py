"""How well do predictors rank networks from a few scores, and what does a search gain by them?

    python benchmarks/predictors.py [--full | --seeds N] [--part ranking|search|speed] [--predictors NAME ...]
                                    [--strategies NAME ...] [--settings NAME ...] [--data DIR] [--table FILE ...]
                                    [--tasks TASK ...] [--first-seed N] [--json FILE]

Ranking, cases `nas_bench_201/cifar10/dele/78` (table, task, predictor, true scores): of the networks that have every
proxy a random half is the test set, the scores are drawn from the other half, both by the seed. Means over the seeds:

- `kendall_tau` on the test set;
- `precision_top_P_percent`: the share of the true top P % among the predicted top P %;
- `fit_and_predict_seconds`: of one fit and one prediction of the test set, by one thread.

`dele_SIGNAL` has one expert, `dele_static` weights that ignore the candidate, `vanilla` no signal at all: the
ablations of the paper. `vanilla_longer` has three times as many epochs, which help it with many scores. `*_alone`
sees the encoding without signals. What DELE learns from the signals (step 1) it learns once a table, from all networks:
signals are cheap, and no score is among them; `pretraining_seconds` says how long.

Search, cases `micro/leave_one_out/TASK/STRATEGY/BUDGET`: every other task of the table is known;
`micro/after_searches/...`: of each other task what a search of 100 queries found; `micro/alone/...`: nothing of them.
`mean_rank` is that of the best network found, 1 the best of the space; `micro/leave_one_out/STRATEGY/BUDGET`
is the mean over the tasks. `nas_bench_201/TASK/STRATEGY`, `queries_to_optimum`: until the best test accuracy is found.

Speed, in one process of two threads: `nas_bench_201/cifar10/dele/78/all_15625`, `fit_and_predict_seconds` on the whole
space, and `times_faster_stacked`: step 1 of all experts as one, against one after the other.

Quick: 2 seeds of the rankings, 4 of the searches. --full: 10 and 50.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: processes share the cores

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from pydantic import TypeAdapter
from scipy.stats import kendalltau

from across.orchestrator.run_directory.pretraining import Pretraining
from across.search_spaces.tables import open_table
from across.workers.predictors import PredictorConfig
from across.workers.predictors.base import (
    Candidates,
    Predictor,
    PretrainedPredictor,
    SavedPredictor,
    candidates_of,
)
from benchmarks.guided_searches import SETTINGS, STRATEGIES, searches
from benchmarks.report import Measurement, make_parser, show, write_json
from benchmarks.table_searches import FILES, NAS_BENCH_201, Question, Values, spread

SUBSETS = ("_early725",)
"""Endings of proxies that few networks have."""
NUM_SCORES = {NAS_BENCH_201: (39, 78, 156, 390)}
FEW_SCORES = (20, 50)
TOP_PERCENT = (0.1, 0.5, 1, 5, 10, 50)
ONE_SIGNAL = ("synflow", "nwot", "jacov", "flops")
PREDICTORS: dict[str, dict[str, Any]] = {
    "across": {"type": "across"},
    "dele": {"type": "dele"},
    "dele_static": {"type": "dele", "ensemble": "static"},
    **{f"dele_{signal}": {"type": "dele", "signals": (signal,)} for signal in ONE_SIGNAL},
    "vanilla": {"type": "dele", "signals": ()},
    "vanilla_longer": {"type": "dele", "signals": (), "num_epochs": 300, "num_averaged_epochs": 150},
    "extra_trees": {"type": "extra_trees"},
    "extra_trees_alone": {"type": "extra_trees"},
    "gradient_boosting": {"type": "gradient_boosting"},
    "gaussian_process": {"type": "gaussian_process"},
    "weak": {"type": "weak"},
}


def build(name: str, question: Question, seed: int) -> Predictor:
    config: Any = TypeAdapter[Any](PredictorConfig).validate_python(PREDICTORS[name])
    predictor: Predictor = config.build(question.space, seed=seed)
    return predictor


@cache
def ranked_networks(file: Path, task: str) -> tuple[Question, Candidates, Values]:
    """The networks that have every proxy of every task, with the scores of one task; opened once in each process."""
    table = open_table(file)
    by_task = {each: _proxies(file, each) for each in table.tasks}
    known = [np.isfinite(values) for own in by_task.values() for values in own.values()]
    rows = np.flatnonzero(np.all(known, axis=0))
    question = Question(file, (task,))
    genotypes = [question.space.from_string(table.strings[row]) for row in rows]
    signals = {name: values[rows] for name, values in by_task[task].items()}
    return question, candidates_of(question.space, genotypes, signals=signals), table.scores(task)[rows]


def _proxies(file: Path, task: str) -> dict[str, Values]:
    proxies = open_table(file).proxies(task)
    return {name: values for name, values in proxies.items() if not name.endswith(SUBSETS)}


def pretrain(file: Path, task: str, name: str, folder: Path) -> float:
    """Step 1 on all networks, kept in `folder`; the seconds that it took."""
    torch.set_num_threads(1)
    question, candidates, _ = ranked_networks(file, task)
    predictor = build(name, question, seed=0)
    assert isinstance(predictor, SavedPredictor)
    started = time.perf_counter()
    predictor.pretrain(candidates)
    Pretraining(folder).save(f"{file.stem}_{task}", predictor.pretrained())
    return time.perf_counter() - started


def rank(
    file: Path, task: str, name: str, num_scores: int, folder: Path, seeds: Sequence[int]
) -> list[dict[str, float]]:
    """In a process of the pool: one predictor, some seeds."""
    torch.set_num_threads(1)
    question, candidates, scores = ranked_networks(file, task)
    if name.endswith("_alone"):
        candidates = Candidates(candidates.genotypes, candidates.encodings, paths=candidates.paths)
    found = []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(candidates))
        given, tested = order[:num_scores], order[len(order) // 2 :]
        predictor = build(name, question, seed)
        if isinstance(predictor, SavedPredictor):
            predictor.load_pretrained(Pretraining(folder).load(f"{file.stem}_{task}") or {})
        elif isinstance(predictor, PretrainedPredictor):
            predictor.pretrain(candidates)
        started = time.perf_counter()
        predictor.fit(candidates.take(given), scores[given])
        mean = predictor.predict(candidates.take(tested)).mean
        seconds = time.perf_counter() - started
        precision = {
            f"precision_top_{top:g}_percent": _precision(mean, scores[tested], top) for top in TOP_PERCENT
        }
        tau = float(kendalltau(mean, scores[tested]).statistic)
        found.append({"kendall_tau": tau, **precision, "fit_and_predict_seconds": seconds})
    return found


def _precision(predicted: Values, true: Values, top_percent: float) -> float:
    num = max(1, round(len(true) * top_percent / 100))
    return len(set(np.argsort(-predicted)[:num]) & set(np.argsort(-true)[:num])) / num


def rankings(options: Namespace, pool: ProcessPoolExecutor, files: dict[str, Path]) -> Iterator[Measurement]:
    with TemporaryDirectory() as folder:
        for table_name, file in files.items():
            for task in options.tasks or open_table(file).tasks:
                if _can_be_ranked(file, task):
                    yield from ranking(options, pool, f"{table_name}/{task}", file, task, Path(folder))


def _can_be_ranked(file: Path, task: str) -> bool:
    """Whether there are several proxies, and networks enough that have all of them."""
    is_there = task in open_table(file).tasks and len(_proxies(file, task)) > 1
    return is_there and len(ranked_networks(file, task)[1]) >= 2 * max(FEW_SCORES)


def ranking(
    options: Namespace, pool: ProcessPoolExecutor, case: str, file: Path, task: str, folder: Path
) -> Iterator[Measurement]:
    names = [name for name in PREDICTORS if name in options.predictors]
    if any(PREDICTORS[name]["type"] == "dele" for name in names):
        seconds = pool.submit(pretrain, file, task, "dele", folder).result()
        yield Measurement(f"{case}/dele", "pretraining_seconds", seconds, "s", 1)
    for num_scores in NUM_SCORES.get(open_table(file).space, FEW_SCORES):
        for name in names:
            run = partial(rank, file, task, name, num_scores, folder)
            results = spread(pool, options.ranking_seeds, run)
            for metric in results[0]:
                value = fmean(each[metric] for each in results)
                unit = "s" if metric.endswith("seconds") else ""
                yield Measurement(f"{case}/{name}/{num_scores}", metric, value, unit, len(results))


def speed(options: Namespace, pool: ProcessPoolExecutor, files: dict[str, Path]) -> Iterator[Measurement]:
    """In this process, with two threads: DELE's steps on the whole of NAS-Bench-201."""
    for table_name, file in files.items():
        table = open_table(file)
        if table.space != NAS_BENCH_201:
            continue
        task = table.tasks[0]
        case = f"{table_name}/{task}/dele"
        torch.set_num_threads(2)
        question, candidates, scores = ranked_networks(file, task)
        ratios = [_alone_against_stacked(question, candidates) for _ in range(options.num_rounds)]
        yield Measurement(case, "times_faster_stacked", median(ratios), "", len(ratios))
        dele = build("dele", question, seed=0)
        assert isinstance(dele, SavedPredictor)
        dele.pretrain(candidates)
        everything = candidates_of(
            question.space, [question.space.from_string(string) for string in table.strings]
        )
        for num_scores in NUM_SCORES[NAS_BENCH_201]:
            given = np.random.default_rng(0).permutation(len(candidates))[:num_scores]
            seconds = []
            for _ in range(options.num_rounds):
                started = time.perf_counter()
                dele.fit(candidates.take(given), scores[given])
                dele.predict(everything)
                seconds.append(time.perf_counter() - started)
            of_all = f"{case}/{num_scores}/all_{len(everything)}"
            yield Measurement(of_all, "fit_and_predict_seconds", median(seconds), "s", len(seconds))


def _alone_against_stacked(question: Question, candidates: Candidates) -> float:
    """How much longer step 1 takes expert by expert."""
    few_epochs = {"type": "dele", "num_pretraining_epochs": 2}
    seconds = []
    for groups in ([tuple(candidates.signals)], [(name,) for name in candidates.signals]):
        started = time.perf_counter()
        for signals in groups:
            config: Any = TypeAdapter[Any](PredictorConfig).validate_python(
                {**few_epochs, "signals": signals}
            )
            config.build(question.space, seed=0).pretrain(candidates)
        seconds.append(time.perf_counter() - started)
    return seconds[1] / seconds[0]


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], full="10 seeds of the rankings, 50 of the searches")
    parser.add_argument("--seeds", type=int, metavar="N", help="of both parts")
    parser.add_argument("--part", choices=("ranking", "search", "speed"), help="one part alone")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of the condensed tables"
    )
    parser.add_argument(
        "--table", type=Path, nargs="*", default=[], metavar="FILE", help="other tables instead"
    )
    parser.add_argument("--tasks", nargs="*", default=[], metavar="TASK", help="of the rankings; else all")
    parser.add_argument("--predictors", nargs="*", default=list(PREDICTORS), choices=list(PREDICTORS))
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES), choices=list(STRATEGIES))
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="of the searches")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    options = parser.parse_args()
    options.ranking_seeds = options.seeds or (10 if options.full else 2)
    options.num_rounds = 5 if options.full else 3
    options.search_seeds = options.seeds or (50 if options.full else 4)
    files = {path.stem: path for path in options.table} or {
        name: options.data / file for name, file in FILES.items()
    }
    parts = {"ranking": rankings, "search": searches, "speed": speed}
    lines = []
    with ProcessPoolExecutor() as pool:
        for name, part in parts.items():
            if options.part in (None, name):
                lines += show(part(options, pool, files))
    write_json(options.json, lines)


if __name__ == "__main__":
    main()
