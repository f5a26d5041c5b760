"""A search's parts with one real worker in this process instead of Ray's actors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from across.orchestrator.config.run_config import RunConfig
from across.orchestrator.engine import Engine
from across.orchestrator.problem import FewShotProblem, build_problem
from across.orchestrator.progress import make_progress
from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.worker_pool.pool import PoolStatistics, WorkerPool
from across.workers.base import Unit, UnitResult
from across.workers.supernet_worker import ComputeSettings, SupernetWorker


@dataclass
class InProcessPool:
    """What the phases of a generation use of a `WorkerPool`; units arrive last one first."""

    worker: SupernetWorker
    computed: list[Unit] = field(default_factory=list)
    weights: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def statistics(self) -> PoolStatistics:
        return PoolStatistics(1, 1, 0.0, len(self.computed), 0)

    def publish(self, version: int, weights: NDArray[np.float32]) -> None:
        self.weights[version] = weights

    def collect(self, units: Sequence[Unit]) -> Iterator[list[UnitResult]]:
        for unit in reversed(units):
            self.computed.append(unit)
            yield [self.worker.run(unit, self.weights[unit.weights_version])]


@contextmanager
def in_process_engine(config: RunConfig, run_dir: Path) -> Iterator[tuple[Engine, InProcessPool]]:
    """The engine of a new run in `run_dir`, with its initial weights published as version 0."""
    problem = build_problem(config)
    assert isinstance(problem, FewShotProblem)
    model = problem.model
    pool = InProcessPool(SupernetWorker(model, problem.sources, ComputeSettings("cpu")))
    pool.publish(0, model.initial_vector(config.seed))
    run = RunDirectory.create(run_dir, json.loads(config.model_dump_json()), {"device": "cpu"})
    progress = make_progress(
        Console(quiet=True), total_generations=config.search.num_generations, title=config.name, commits=()
    )
    strategy = config.strategy.build(model.space)
    with run.lock():
        yield Engine(config, problem, strategy, cast(WorkerPool, pool), run, progress), pool
