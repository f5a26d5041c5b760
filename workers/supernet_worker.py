"""The actor's body: holds one replica of the meta-learned vector on its device and computes units."""

from __future__ import annotations

import time
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from across.workers.allocator import keep_freed_memory
from across.workers.base import (
    EvaluationResult,
    EvaluationUnit,
    MetaResult,
    MetaUnit,
    SignalResult,
    SignalUnit,
    Split,
    TaskBatch,
    TaskSource,
    Unit,
    UnitResult,
    WorkerDescription,
)
from across.workers.episode import Episode, prepare_episode
from across.workers.evaluators.few_shot import evaluate_few_shot
from across.workers.evaluators.zero_cost import SignalsConfig, compute_signals
from across.workers.meta_learning import ShardGradient, meta_gradient, reptile_gradient
from across.workers.model import Model
from across.workers.tasks import TaskSourceConfig

MAX_CACHED_BYTES = {"cpu": 2**29, "cuda": 2**31}
"""Memory for chunks of tasks on the device: all individuals meet the same ones at one version of the weights."""


@dataclass(frozen=True)
class ComputeSettings:
    """How a worker computes; resolved once for a run, since bits depend on it."""

    device: str
    """"cpu" or "cuda": the one GPU that the worker sees."""
    num_threads: int = 1
    allow_tf32: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels-last is the faster layout on a CPU."""
        return torch.channels_last if self.device == "cpu" else torch.contiguous_format


class SupernetWorker:
    """Computes evaluation, meta-learning and signal units; each result is a pure function of unit and weights."""

    def __init__(
        self,
        model: Model,
        sources: Sequence[TaskSource],
        settings: ComputeSettings,
        signals: SignalsConfig | None = None,
    ) -> None:
        if signals is not None:
            signals.check(model.inner_loop.num_steps)
        _configure_torch(settings)
        self._model = model
        self._sources = sources
        self._settings = settings
        self._signals = signals
        self._device = torch.device(settings.device)
        self._version = -1
        self._vector = torch.empty(0)
        self._batches: OrderedDict[tuple[int, Split, tuple[int, ...]], TaskBatch] = OrderedDict()

    def describe(self) -> WorkerDescription:
        """The kind of device that this worker computes on."""
        if self._device.type == "cuda":
            return WorkerDescription(torch.cuda.get_device_name(self._device))
        return WorkerDescription(
            f"cpu {torch.backends.cpu.get_cpu_capability()}"
        )  # sums differ in the last bit

    def run(self, unit: Unit, weights: NDArray[np.float32] | None) -> UnitResult:
        """Compute `unit` at `weights`, whose version the unit names. Raises what the computation raises."""
        start = time.perf_counter()
        assert weights is not None, "units of a supernet need its weights"
        self._load(unit.weights_version, weights)
        result: UnitResult
        match unit:
            case EvaluationUnit():
                result = self._evaluate(unit)
            case MetaUnit():
                result = self._meta_learn(unit)
            case SignalUnit():
                result = self._signal(unit)
        return replace(result, seconds=time.perf_counter() - start)

    def _load(self, version: int, weights: NDArray[np.float32]) -> None:
        """Take a new version of the vector to the device, once; on a CPU that is the node's one copy itself."""
        if version != self._version:
            with warnings.catch_warnings(
                action="ignore"
            ):  # it is not writable, and nothing here writes to it
                self._vector = torch.from_numpy(weights).to(self._device)
            self._version = version
            self._batches.clear()  # evaluation tasks change with the weights

    def _episode(self, unit: Unit, batch: TaskBatch) -> Episode:
        path = self._model.path(unit.genotype, unit.source)
        return prepare_episode(self._model, path, self._vector, batch, self._settings.memory_format)

    def _evaluate(self, unit: EvaluationUnit) -> EvaluationResult:
        batch = self._batch(unit.source, unit.split, unit.seeds)
        metrics = evaluate_few_shot(self._episode(unit, batch))
        path = self._model.path(unit.genotype, unit.source)
        score = path.objective.score
        means = {name: float(_mean(values)) for name, values in metrics.items() if name != score}
        return EvaluationResult(unit.key, tuple(metrics[score].tolist()), means | path.cost)

    def _meta_learn(self, unit: MetaUnit) -> MetaResult:
        batch = self._sources[unit.source].sample("train", unit.seeds).to(self._device)
        episode = self._episode(unit, batch)
        if self._model.inner_loop.algorithm == "reptile":
            shard = reptile_gradient(episode)
        else:
            shard = meta_gradient(
                episode, second_order=unit.second_order, multi_step_weights=unit.multi_step_weights
            )
        return _meta_result(unit, shard)

    def _signal(self, unit: SignalUnit) -> SignalResult:
        assert self._signals is not None, "this worker was made without signals"
        episode = self._episode(unit, self._batch(unit.source, unit.split, unit.seeds))
        return SignalResult(unit.key, compute_signals(episode, self._signals))

    def _batch(self, source: int, split: Split, seeds: tuple[int, ...]) -> TaskBatch:
        key = (source, split, seeds)
        if key not in self._batches:
            self._batches[key] = self._sources[source].sample(split, seeds).to(self._device)
            while len(self._batches) > 1 and self._num_cached_bytes() > MAX_CACHED_BYTES[self._device.type]:
                self._batches.popitem(last=False)
        self._batches.move_to_end(key)
        return self._batches[key]

    def _num_cached_bytes(self) -> int:
        return sum(
            batch.support_inputs.nbytes + batch.query_inputs.nbytes for batch in self._batches.values()
        )


def make_supernet_worker(
    model: Model,
    sources: Sequence[TaskSourceConfig],
    settings: ComputeSettings,
    signals: SignalsConfig | None = None,
) -> SupernetWorker:
    """A worker that opens the task sources where it runs; raises `TaskDataError`."""
    return SupernetWorker(model, [source.build() for source in sources], settings, signals)


def _meta_result(unit: MetaUnit, shard: ShardGradient) -> MetaResult:
    """A shard with any non-finite value has diverged: it has no gradient, and its loss says so."""
    gradient = shard.gradient.cpu().numpy()
    finite = bool(np.isfinite(gradient).all() and np.isfinite(shard.loss))
    return MetaResult(
        unit.key,
        gradient=gradient if finite else None,
        num_tasks=len(unit.seeds),
        loss=shard.loss,
        accuracy=shard.accuracy,
        failure=None if finite else "the shard diverged: its loss or meta-gradient is not finite",
    )


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _configure_torch(settings: ComputeSettings) -> None:
    keep_freed_memory()
    torch.set_num_threads(settings.num_threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = settings.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = settings.allow_tf32
