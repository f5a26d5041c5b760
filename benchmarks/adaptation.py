"""How many few-shot tasks a second can be learned: Across against `higher` and a plain autograd loop.

    python benchmarks/adaptation.py [--full] [--json FILE]

Work: the 4CONV network with 32 channels, 5-way 1-shot, K = 5 gradient steps on the support set, then the loss of 75
query images (first order: what fitness costs), or the gradient of that loss with respect to the initial weights
through all steps (`second_order`: what meta-training costs). Images of Omniglot's size, with --full of
mini-ImageNet's too. Every contestant starts from the same weights and gets the same tasks, and their losses and
meta-gradients are compared before any time is taken.

Two cores, both busy. Across: two processes of one thread each, as its worker pool runs, each a `SupernetWorker`
that takes chunks of tasks. Rivals, task by task in torch's default memory format: the better of one process with
two threads and two processes with one. All processes have the machine's environment; the worker itself tells
glibc's allocator to keep freed memory, and computes channels-last. Contestants take turns in every round, so that
a busy machine slows all of them; rates are medians over the rounds, ratios medians of the rounds' ratios.

`higher` is measured where it is installed: pip install --no-deps higher==0.2.1
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Protocol, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.report import Measurement, make_parser, show, write_json
from search_spaces import LayerwiseConfig
from workers.adaptation import InnerLoopConfig
from workers.base import EvaluationResult, EvaluationUnit, MetaResult, MetaUnit, Split, TaskBatch, TaskSpec
from workers.model import Model
from workers.supernet_worker import ComputeSettings, SupernetWorker

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


_learners: dict[tuple[str, int, Workload], Learner] = {}


def learn_in_process(contestant: Contestant, workload: Workload, seeds: Sequence[int]) -> Outcome:
    """Runs in a process of the contestant's camp, which keeps its learners."""
    torch.set_num_threads(contestant.num_threads)
    key = (contestant.name, contestant.tasks_per_chunk, workload)
    if key not in _learners:
        _learners[key] = make_learner(contestant, workload)
    return _learners[key].learn(seeds)


@dataclass(frozen=True)
class Team:
    """A contestant's processes."""

    contestant: Contestant
    workload: Workload
    processes: Sequence[ProcessPoolExecutor]

    def learn(self, seeds: Sequence[int]) -> Outcome:
        """All processes at once, each on an equal part of the tasks."""
        parts = [seeds[i :: len(self.processes)] for i in range(len(self.processes))]
        futures = [
            process.submit(learn_in_process, self.contestant, self.workload, part)
            for process, part in zip(self.processes, parts, strict=True)
        ]
        outcomes = [future.result() for future in futures]
        loss = sum(o.loss * len(part) for o, part in zip(outcomes, parts, strict=True)) / len(seeds)
        return Outcome(loss, torch.stack([outcome.gradient for outcome in outcomes]).sum(0))

    def seconds(self, num_tasks: int) -> float:
        start = time.perf_counter()
        self.learn(range(num_tasks))
        return time.perf_counter() - start


@contextmanager
def two_camps() -> Iterator[dict[bool, list[ProcessPoolExecutor]]]:
    """Two processes for Across and two for its rivals, who so keep the default allocator."""
    camps = {
        is_across: [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(2)]
        for is_across in (True, False)
    }
    try:
        yield camps
    finally:
        for processes in camps.values():
            for process in processes:
                process.shutdown()


def contestants_on(device: str, *, full: bool) -> list[Contestant]:
    rivals = ["plain", *(["higher"] if find_spec("higher") else [])]
    if device == "cpu":
        chunks = [Contestant("across", 2, 1, tasks) for tasks in ((4, 1, 2, 8) if full else (4,))]
        return chunks + [Contestant(name, *size) for name in rivals for size in ((1, 2), (2, 1))]
    chunks = [Contestant("across", 1, 1, tasks) for tasks in ((64, 1, 4, 16, 256) if full else (64, 16))]
    return chunks + [Contestant(name, 1, 1) for name in rivals]


def check_results(teams: Sequence[Team], num_tasks: int) -> None:
    """Raise unless all contestants find the same losses and meta-gradients, up to the rounding of float32."""
    outcomes = [team.learn(range(num_tasks)) for team in teams]
    first = outcomes[0]
    for team, outcome in zip(teams, outcomes, strict=True):
        name = f"{team.contestant.name}{team.workload.suffix}"
        difference = (outcome.gradient - first.gradient).norm() / first.gradient.norm().clamp(min=1e-30)
        if abs(outcome.loss - first.loss) > 2e-3 * first.loss or difference > 2e-2:
            raise SystemExit(
                f"{name} computes something else: {outcome.loss} against {first.loss}, {difference:.2e}"
            )


def measure(teams: Sequence[Team], *, num_rounds: int, num_tasks: int) -> Iterator[Measurement]:
    """Rates of all contestants, and how many times faster Across is than each rival's better variant."""
    workload = teams[0].workload
    check_results(teams, num_tasks)
    rounds = [[num_tasks / team.seconds(num_tasks) for team in teams] for _ in range(num_rounds)]
    rates: list[Sequence[float]] = list(zip(*rounds, strict=True))
    best: dict[str, Sequence[float]] = {}
    for team, of_team in zip(teams, rates, strict=True):
        name = team.contestant.name
        if team is not teams[0] and name == "across":
            case = f"{workload.place}/across/tasks_{team.contestant.tasks_per_chunk}{workload.suffix}"
            yield Measurement(case, "tasks_per_second", median(of_team), "1/s", num_rounds)
        elif name not in best or median(of_team) > median(best[name]):
            best[name] = of_team
    for name, of_team in best.items():
        case = f"{workload.place}/{name}{workload.suffix}"
        yield Measurement(case, "tasks_per_second", median(of_team), "1/s", num_rounds)
        if name != "across":
            ratio = median(ours / theirs for ours, theirs in zip(best["across"], of_team, strict=True))
            case = f"{workload.place}/across{workload.suffix}"
            yield Measurement(case, f"times_faster_than_{name}", ratio, "", num_rounds)


def main() -> None:
    parser = make_parser(
        "few-shot tasks learned a second", full="more rounds, images of 84x84, other chunk sizes"
    )
    arguments = parser.parse_args()
    if find_spec("higher") is None:
        print("higher is not installed (pip install --no-deps higher==0.2.1): measured without it")
    lines: list[Measurement] = []
    with two_camps() as camps:
        for workload in workloads(full=arguments.full):
            teams = [
                Team(contestant, workload, camps[contestant.name == "across"][: contestant.num_processes])
                for contestant in contestants_on(workload.device, full=arguments.full)
            ]
            num_tasks = 64 if workload.device == "cuda" else 16 if workload.images == "omniglot" else 8
            lines += show(measure(teams, num_rounds=15 if arguments.full else 5, num_tasks=num_tasks))
    write_json(arguments.json, lines)


def workloads(*, full: bool) -> Iterator[Workload]:
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for images in SIZES if full else ["omniglot"]:
            for second_order in (False, True):
                yield Workload(images, second_order, device)


if __name__ == "__main__":
    main()
