"""What `adaptation.py` lets run against each other: implementations of one few-shot learner, on the same tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from across.search_spaces import LayerwiseConfig
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import (
    EvaluationResult,
    EvaluationUnit,
    MetaResult,
    MetaUnit,
    Split,
    TaskBatch,
    TaskSpec,
)
from across.workers.model import Model
from across.workers.supernet_worker import ComputeSettings, SupernetWorker

NUM_WAYS, NUM_SHOTS, NUM_QUERIES, NUM_STEPS, CHANNELS = 5, 1, 15, 5, 32
SIZES = {"omniglot": (1, 28, 28), "mini_imagenet": (3, 84, 84)}
INNER_LRS = {"omniglot": 0.1, "mini_imagenet": 0.01}


@dataclass(frozen=True)
class Workload:
    """Which images, which order of derivatives, where."""

    images: str
    second_order: bool
    device: str

    @property
    def place(self) -> str:
        return "gpu" if self.device == "cuda" else "cpu"

    @property
    def suffix(self) -> str:
        """What follows the contestant in the name of a case."""
        return ("" if self.images == "omniglot" else f"/{self.images}") + "/second_order" * self.second_order


@dataclass(frozen=True)
class Contestant:
    """An implementation and the processes that it gets; `tasks_per_chunk` is for Across alone."""

    name: str
    num_processes: int
    num_threads: int
    tasks_per_chunk: int = 0


@dataclass(frozen=True)
class Outcome:
    """Mean query loss and, in second order, the meta-gradient summed over the tasks."""

    loss: float
    gradient: Tensor


class Learner(Protocol):
    """An implementation on its device."""

    def learn(self, seeds: Sequence[int]) -> Outcome: ...


QueryLoss: TypeAlias = Callable[[nn.Module, TaskBatch, "Workload"], Tensor]
"""Query loss of one task after adaptation, differentiable in second order."""


@dataclass(frozen=True)
class NoisyImages:
    """One random image a class, with noise; kept, so that no contestant pays for making tasks."""

    spec: TaskSpec

    def sample(self, split: Split, seeds: Sequence[int]) -> TaskBatch:
        tasks = [self._task(seed) for seed in seeds]
        ways = torch.arange(NUM_WAYS)
        return TaskBatch(
            self.spec,
            torch.stack([images[:, :NUM_SHOTS].flatten(0, 1) for images in tasks]),
            ways.repeat_interleave(NUM_SHOTS).repeat(len(seeds), 1),
            torch.stack([images[:, NUM_SHOTS:].flatten(0, 1) for images in tasks]),
            ways.repeat_interleave(NUM_QUERIES).repeat(len(seeds), 1),
        )

    @cache  # noqa: B019 - lives as long as the process
    def _task(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = self.spec.input_shape
        noise = torch.rand(NUM_WAYS, NUM_SHOTS + NUM_QUERIES, *shape, generator=generator)
        return 0.5 * (torch.rand(NUM_WAYS, 1, *shape, generator=generator) + noise)


def make_model(workload: Workload) -> tuple[Model, NoisyImages]:
    shape = SIZES[workload.images]
    spec = TaskSpec(shape, NUM_WAYS, NUM_SHOTS, NUM_QUERIES, "classification")
    space = LayerwiseConfig(operations=("conv_3x3",), widths=(CHANNELS,)).build(shape)
    inner_loop = InnerLoopConfig(num_steps=NUM_STEPS, inner_lr=INNER_LRS[workload.images])
    return Model(space, (spec,), inner_loop), NoisyImages(spec)


class Across:
    """The body of Across's actor, chunk of tasks by chunk."""

    def __init__(self, workload: Workload, tasks_per_chunk: int) -> None:
        model, source = make_model(workload)
        self._worker = SupernetWorker(model, [source], ComputeSettings(workload.device))
        self._genotype = model.space.from_string("|".join([f"conv_3x3:{CHANNELS}"] * 4))
        self._weights = model.initial_vector(0)
        self._second_order = workload.second_order
        self._tasks_per_chunk = tasks_per_chunk

    def learn(self, seeds: Sequence[int]) -> Outcome:
        loss, gradient = 0.0, torch.zeros(())
        for start in range(0, len(seeds), self._tasks_per_chunk):
            chunk = tuple(seeds[start : start + self._tasks_per_chunk])
            if self._second_order:
                shard = self._worker.run(MetaUnit("", self._genotype, 0, chunk, 0), self._weights)
                assert isinstance(shard, MetaResult)
                assert shard.gradient is not None, shard.failure
                loss += shard.loss * len(chunk)
                gradient = gradient + torch.from_numpy(shard.gradient)
            else:
                unit = EvaluationUnit("", self._genotype, 0, "test", chunk, 0)
                result = self._worker.run(unit, self._weights)
                assert isinstance(result, EvaluationResult)
                loss += result.metrics["loss"] * len(chunk)
        return Outcome(loss / len(seeds), gradient)


class TaskByTask:
    """What both rivals share: 4CONV of plain modules, tasks on the device, the outer loop."""

    def __init__(self, workload: Workload, query_loss: QueryLoss) -> None:
        model, self._source = make_model(workload)
        self._device = torch.device(workload.device)
        self._workload = workload
        self._query_loss = query_loss
        channels, size, _ = SIZES[workload.images]
        self._network = four_conv(channels, size).to(self._device)
        vector = torch.from_numpy(model.initial_vector(0))
        nn.utils.vector_to_parameters(vector.to(self._device), self._network.parameters())
        self._batches: dict[int, TaskBatch] = {}

    def learn(self, seeds: Sequence[int]) -> Outcome:
        self._network.zero_grad(set_to_none=True)
        loss = 0.0
        for seed in seeds:
            query_loss = self._query_loss(self._network, self._batch(seed), self._workload)
            if self._workload.second_order:
                query_loss.backward()
            loss += query_loss.item()
        gradients = [p.grad.reshape(-1).cpu() for p in self._network.parameters() if p.grad is not None]
        return Outcome(loss / len(seeds), torch.cat(gradients) if gradients else torch.zeros(()))

    def _batch(self, seed: int) -> TaskBatch:
        if seed not in self._batches:
            self._batches[seed] = self._source.sample("test", [seed]).to(self._device)
        return self._batches[seed]


def four_conv(channels: int, size: int) -> nn.Module:
    """4CONV with its linear head."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [
            nn.Conv2d(channels, CHANNELS, 3, padding=1, bias=False),
            nn.BatchNorm2d(CHANNELS, track_running_stats=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels, size = CHANNELS, size // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS * size * size, NUM_WAYS))


def higher_query_loss(network: nn.Module, batch: TaskBatch, workload: Workload) -> Tensor:
    """One task with `higher`: its monkey-patched network and differentiable SGD."""
    import higher

    optimizer = torch.optim.SGD(network.parameters(), lr=INNER_LRS[workload.images])
    with higher.innerloop_ctx(
        network, optimizer, copy_initial_weights=False, track_higher_grads=workload.second_order
    ) as (fast, differentiable):
        for _ in range(NUM_STEPS):
            differentiable.step(F.cross_entropy(fast(batch.support_inputs[0]), batch.support_targets[0]))
        with torch.set_grad_enabled(workload.second_order):
            return F.cross_entropy(fast(batch.query_inputs[0]), batch.query_targets[0])


def plain_query_loss(network: nn.Module, batch: TaskBatch, workload: Workload) -> Tensor:
    """One task by torch.func.functional_call and torch.autograd.grad."""
    weights: dict[str, Tensor] = dict(network.named_parameters())
    for _ in range(NUM_STEPS):
        outputs = torch.func.functional_call(network, weights, (batch.support_inputs[0],))
        loss = F.cross_entropy(outputs, batch.support_targets[0])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=workload.second_order)
        with torch.set_grad_enabled(workload.second_order):
            stepped = [
                (weight - INNER_LRS[workload.images] * gradient).requires_grad_()
                for weight, gradient in zip(weights.values(), gradients, strict=True)
            ]
        weights = dict(zip(weights, stepped, strict=True))
    with torch.set_grad_enabled(workload.second_order):
        outputs = torch.func.functional_call(network, weights, (batch.query_inputs[0],))
        return F.cross_entropy(outputs, batch.query_targets[0])


def make_learner(contestant: Contestant, workload: Workload) -> Learner:
    if contestant.name == "across":
        return Across(workload, contestant.tasks_per_chunk)
    return TaskByTask(workload, higher_query_loss if contestant.name == "higher" else plain_query_loss)
