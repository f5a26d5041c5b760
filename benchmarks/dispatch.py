"""What does the engine itself cost: dispatch, strategy, journal, mirror, and the way of the weights?

    python benchmarks/dispatch.py [--full] [--json FILE]

Evaluations a second of a worker that does nothing, one worker a core:

- `pool`: a whole search of genetic strategy, worker pool, spool and journal, with 2,000 genotypes a generation and
  one unit of 20 tasks a genotype. From the first commit to the last: all that a generation takes is counted.
- `pool_with_mlflow`: the same, mirrored to SQLite.
- `pool_only`: such units through the pool alone.
- `ray_actor_pool`: such units through `ray.util.ActorPool`, a call a unit.
- `ray_tune`: a trial an evaluation, from the end of the first trial to the end of the last.

Contestants take turns in every round; rates are medians over the rounds, ratios medians of the rounds' ratios.
`broadcast` is described in benchmarks/memory.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's other output cannot be silenced

import numpy as np
import ray
from numpy.typing import NDArray
from ray import tune
from ray.util import ActorPool
from rich.console import Console

from across.orchestrator.config.resolution import resolve
from across.orchestrator.config.run_config import RunConfig
from across.orchestrator.engine import Engine
from across.orchestrator.loop import search_until_finished
from across.orchestrator.plots.gallery import Gallery
from across.orchestrator.problem import build_problem
from across.orchestrator.progress import make_progress
from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.tracking.config import TrackingConfig
from across.orchestrator.tracking.tracker import Tracker
from across.orchestrator.worker_pool.config import WorkersConfig
from across.orchestrator.worker_pool.pool import WorkerPool
from across.workers.base import EvaluationResult, EvaluationUnit, Unit, WorkerDescription
from across.workers.outer_optimizer import MetaState
from benchmarks.memory import local_ray, measure_broadcast
from benchmarks.report import Measurement, make_parser, show, write_json

NUM_TASKS = 20
POPULATION_SIZE = 2000


class IdleWorker:
    """Has the result at once."""

    def describe(self) -> WorkerDescription:
        return WorkerDescription("cpu")

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> EvaluationResult:
        return EvaluationResult(unit.key, (0.5,) * len(unit.seeds), {"loss": 1.0})


def idle_config(num_generations: int, tracking: TrackingConfig) -> RunConfig:
    document = {
        "name": "idle",
        "space": {"type": "layerwise", "num_layers": 8, "widths": [16, 32]},
        "tasks": {"type": "glyphs"},
        "meta_learning": {"steps_per_generation": 0},
        "strategy": {"type": "genetic", "population_size": POPULATION_SIZE},
        "evaluation": {"num_tasks": NUM_TASKS, "tasks_per_chunk": NUM_TASKS},
        "search": {"num_generations": num_generations},
        "test": {"num_tasks": 2, "num_finalists": 1},
        "tracking": tracking,
    }
    return resolve(RunConfig.model_validate(document), has_gpus=False)


def idle_units(num: int) -> list[EvaluationUnit]:
    tasks = tuple(range(NUM_TASKS))
    return [EvaluationUnit(f"unit-{i}", (0,) * 16, 0, "validation", tasks, 0) for i in range(num)]


@contextmanager
def idle_pool(num_workers: int) -> Iterator[WorkerPool]:
    """A pool whose workers are all there."""
    with WorkerPool(IdleWorker, {}, WorkersConfig(num_workers=num_workers)) as pool:
        while pool.statistics.num_workers < num_workers:
            list(pool.run(idle_units(1)))
        yield pool


def search_rate(num_workers: int, num_generations: int, *, tracked: bool) -> float:
    """Of a whole search, from its first commit to its last."""
    with TemporaryDirectory() as folder, idle_pool(num_workers) as pool:
        tracking = TrackingConfig(enabled=tracked, uri=f"sqlite:///{folder}/mlflow.db")
        config = idle_config(num_generations, tracking)
        problem = build_problem(config)
        assert problem.model is not None
        run = RunDirectory.create(Path(folder) / "run", json.loads(config.model_dump_json()), {})
        space = problem.space
        tracker = Tracker(config.tracking, run, space.to_string)
        gallery = Gallery(run.path / "plots", space, tracker, num_last_generations=1)
        quiet = make_progress(Console(quiet=True), total_generations=num_generations, title="idle")
        engine = Engine(config, problem, config.strategy.build(space), pool, run, quiet)
        start = MetaState.start(problem.model.initial_vector(config.seed))
        first, *others, _ = search_until_finished(engine, tracker, gallery, start)
        assert tracker.finish([first, *others], "FINISHED"), "MLflow has not taken everything"
    num_evaluations = sum(commit.timings.num_units_computed for commit in others)
    return num_evaluations / (others[-1].timestamp - first.timestamp)


def pool_rate(num_workers: int, num_units: int) -> float:
    with idle_pool(num_workers) as pool:
        started = time.perf_counter()
        num_results = sum(1 for _ in pool.run(idle_units(num_units)))
        return num_results / (time.perf_counter() - started)


def actor_pool_rate(num_workers: int, num_units: int) -> float:
    actor_class: Any = ray.remote(num_cpus=1)(IdleWorker)
    actors = [actor_class.remote() for _ in range(num_workers)]
    ray.get([actor.describe.remote() for actor in actors])
    started = time.perf_counter()
    results = ActorPool(actors).map_unordered(
        lambda actor, unit: actor.run.remote(unit, None), idle_units(num_units)
    )
    rate = sum(1 for _ in results) / (time.perf_counter() - started)
    for actor in actors:
        ray.kill(actor)
    return rate


class TrialClock(tune.Callback):
    """When trials end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ends.append(time.perf_counter())


def tune_rate(num_workers: int, num_trials: int) -> float:
    clock = TrialClock()
    with TemporaryDirectory() as folder:
        tune.Tuner(
            lambda config: {"score": 0.5},
            param_space={"genotype": tune.randint(0, 1_000_000)},
            tune_config=tune.TuneConfig(num_samples=num_trials, max_concurrent_trials=num_workers),
            run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[clock]),
        ).fit()
    assert len(clock.ends) == num_trials
    return (num_trials - 1) / (clock.ends[-1] - clock.ends[0])


def measure_dispatch(*, num_rounds: int, num_generations: int, num_trials: int) -> Iterator[Measurement]:
    """All contestants in turn, round by round; medians over the rounds."""
    num_workers = os.cpu_count() or 1
    num_units = POPULATION_SIZE * (num_generations - 1)
    contestants: dict[str, Callable[[], float]] = {
        "pool": lambda: search_rate(num_workers, num_generations, tracked=False),
        "pool_with_mlflow": lambda: search_rate(num_workers, num_generations, tracked=True),
        "pool_only": lambda: pool_rate(num_workers, num_units),
        "ray_actor_pool": lambda: actor_pool_rate(num_workers, num_units),
        "ray_tune": lambda: tune_rate(num_workers, num_trials),
    }
    rounds = [{name: measure() for name, measure in contestants.items()} for _ in range(num_rounds)]
    for name in contestants:
        rate = median(rates[name] for rates in rounds)
        yield Measurement(name, "evaluations_per_second", rate, "1/s", num_rounds)
        if name.startswith("ray_"):
            ratio = median(rates["pool"] / rates[name] for rates in rounds)
            yield Measurement("pool", f"times_faster_than_{name}", ratio, "", num_rounds)


def main() -> None:
    parser = make_parser("what the engine itself costs", full="more generations, rounds and trials")
    arguments = parser.parse_args()
    with local_ray():
        if arguments.full:
            lines = show(measure_dispatch(num_rounds=5, num_generations=11, num_trials=20))
        else:
            lines = show(measure_dispatch(num_rounds=1, num_generations=4, num_trials=6))
    lines += show(measure_broadcast())
    write_json(arguments.json, lines)


if __name__ == "__main__":
    main()
