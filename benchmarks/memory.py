"""How much memory does a search take: for its weights, and over its generations?

    python benchmarks/memory.py [--full] [--json FILE]

Weights: two versions of a vector of 200 MB are published to four actors of this node, and read by each of them.
`extra_copies` is how often the vector's size fits into the growth of the actors' unique memory, all four together;
`copies_on_node` the same for all processes of the search, Ray's object store included (it holds two versions).

- `broadcast`: the worker only reads the mapped vector: no copy but the object store's.
- `broadcast/supernet_worker`: the real worker on a CPU, whose tensors are the mapped vector itself (on a GPU it copies
  a version to the device, once).

Generations: a small search with meta-learning, evaluation, journal and MLflow. Resident memory is looked at after
every generation; the slope is that of a straight line through the generations from the 20th on. The driver keeps
every evaluation (about 2 kB each), which is what the strategies' history is. Quick: 60 generations; full: 200.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import ray
from numpy.typing import NDArray

from across.orchestrator.plots import gallery
from across.orchestrator.search import run_search
from across.orchestrator.state import Commit
from across.orchestrator.tracking.config import TrackingConfig
from across.orchestrator.worker_pool.actor import Worker, WorkerActor
from across.orchestrator.worker_pool.cluster import connect
from across.orchestrator.worker_pool.config import WorkersConfig
from across.orchestrator.worker_pool.pool import WorkerPool
from across.search_spaces import LayerwiseConfig
from across.search_spaces.base import Genotype
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import EvaluationResult, EvaluationUnit, Unit, UnitResult, WorkerDescription
from across.workers.model import Model
from across.workers.supernet_worker import ComputeSettings, make_supernet_worker
from across.workers.tasks.glyphs import GlyphsConfig
from benchmarks.process_memory import children_of, memory_of, title_of
from benchmarks.report import Measurement, make_parser, show, write_json
from tests.tiny_search import tiny_config

NUM_ACTORS = 4
SETTLED_GENERATION = 20
TASKS = GlyphsConfig(image_size=16, num_queries=1)


class ReadingWorker:
    """Reads every page of the weights and keeps nothing."""

    def describe(self) -> WorkerDescription:
        return WorkerDescription("cpu")

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> UnitResult:
        assert weights is not None
        return EvaluationResult(unit.key, (float(weights.mean()),))


class PunctualWorker:
    """Another worker that answers units of version -1 by itself, to say that it is there."""

    def __init__(self, make_worker: Callable[..., Worker], arguments: Mapping[str, object]) -> None:
        self._worker = make_worker(**arguments)

    def describe(self) -> WorkerDescription:
        return self._worker.describe()

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> UnitResult:
        if unit.weights_version < 0:
            return EvaluationResult(unit.key, (0.0,))
        return self._worker.run(unit, weights)


def measure_broadcast() -> Iterator[Measurement]:
    """Copies of the weights that actors make, each case on a Ray node of its own."""
    spec = TASKS.build().spec
    space = LayerwiseConfig(widths=(608,), readout="mean").build(spec.input_shape)
    model = Model(space, (spec,), InnerLoopConfig(num_steps=1))
    free_path = space.from_string("skip|skip|skip|skip")
    arguments = {"model": model, "sources": [TASKS], "settings": ComputeSettings("cpu")}
    yield from _broadcast(
        "broadcast", {"make_worker": ReadingWorker, "arguments": {}}, free_path, model.index.size
    )
    supernet_worker = {"make_worker": make_supernet_worker, "arguments": arguments}
    yield from _broadcast("broadcast/supernet_worker", supernet_worker, free_path, model.index.size)


def _broadcast(
    case: str, worker: Mapping[str, object], genotype: Genotype, size: int
) -> Iterator[Measurement]:
    config = WorkersConfig(num_workers=NUM_ACTORS, cpus_per_worker=0.9 * (os.cpu_count() or 1) / NUM_ACTORS)
    vectors = [np.full(size, value, np.float32) for value in (1.0, 2.0)]
    for vector in vectors:
        vector.flags.writeable = False  # else the driver keeps a copy of its own
    with local_ray(), WorkerPool(PunctualWorker, worker, config) as pool:
        while pool.statistics.num_workers < NUM_ACTORS:
            _run_on_all(pool, genotype, -1)
        actors = [actor.pid for actor in pool.workers]
        node = [os.getpid(), *children_of(os.getpid()), *actors]
        before = memory_of(actors), memory_of(node)
        for version, vector in enumerate(vectors):
            pool.publish(version, vector)
            _run_on_all(pool, genotype, version)
        after = memory_of(actors), memory_of(node)
    vector_bytes = vectors[0].nbytes
    in_actors = (after[0].unique - before[0].unique) / vector_bytes
    on_node = (after[1].proportional - before[1].proportional) / vector_bytes
    yield Measurement(case, "extra_copies", in_actors, "", 1)
    yield Measurement(case, "copies_on_node", on_node, "", 1)
    yield Measurement(case, "vector_megabytes", vector_bytes / 1e6, "MB", 1)


@contextmanager
def local_ray() -> Iterator[None]:
    """A node that ends here: a used object store keeps its pages, and hides what comes next."""
    connect("local")
    try:
        yield
    finally:
        ray.shutdown()


def _run_on_all(pool: WorkerPool, genotype: Genotype, version: int) -> None:
    """Two units for each actor: the pool gives every idle one a unit before anyone gets a second."""
    keys = [f"{version}-{i}" for i in range(2 * NUM_ACTORS)]
    units = [EvaluationUnit(key, genotype, 0, "test", (0,), version) for key in keys]
    for result in pool.run(units):
        assert result.failure is None, result.failure


class MemoryRecorder:
    """Looks at the memory of the driver and of its actors after every generation.

    After a collection of Python's garbage: drawing pictures leaves cycles, which would come and go in between.
    """

    def __init__(self) -> None:
        self.driver: list[float] = []
        self.actors: list[float] = []
        """Megabytes, all actors together."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def phase(self, name: str, num_units: int) -> None: ...

    def advance(self, num_units: int, num_tasks: int, workers_busy: int, workers_total: int) -> None: ...

    def message(self, text: str) -> None: ...

    def generation_done(self, commit: Commit) -> None:
        if commit.kind == "generation":
            gc.collect()
            self.driver.append(memory_of([os.getpid()]).resident / 1e6)
            self.actors.append(memory_of(actor_pids()).resident / 1e6)


def actor_pids() -> list[int]:
    """The pool's actors on this node: Ray names their processes after their class."""
    node_processes = [pid for child in children_of(os.getpid()) for pid in children_of(child)]
    return [pid for pid in node_processes if WorkerActor.__name__ in title_of(pid)]


def measure_generations(num_generations: int) -> Iterator[Measurement]:
    """Growth of the driver and of two actors over the generations of a small search."""
    recorder = MemoryRecorder()
    # Not a minute: what the first drawing loads is then there by the 20th generation.
    gallery.REDRAW_SECONDS = 2.0
    with TemporaryDirectory() as folder:
        tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
        config = tiny_config(search={"num_generations": num_generations})
        config = config.model_copy(update={"tracking": tracking})
        with local_ray():
            run_search(config, run_dir=Path(folder) / "run", progress=recorder)
    for name, megabytes in (("driver", recorder.driver), ("actors", recorder.actors)):
        settled = megabytes[SETTLED_GENERATION - 1 :]
        slope = float(np.polyfit(np.arange(len(settled)), settled, deg=1)[0])
        case = f"generations/{name}"
        growth = "growth_megabytes_per_100_generations"
        yield Measurement(case, f"megabytes_at_{SETTLED_GENERATION}", settled[0], "MB", 1)
        yield Measurement(case, f"megabytes_at_{num_generations}", settled[-1], "MB", 1)
        yield Measurement(case, growth, 100 * slope, "MB", len(settled))


def main() -> None:
    parser = make_parser("memory of a search", full="200 generations rather than 60")
    arguments = parser.parse_args()
    lines = show(chain(measure_broadcast(), measure_generations(200 if arguments.full else 60)))
    write_json(arguments.json, lines)


if __name__ == "__main__":
    main()
