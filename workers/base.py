"""What travels between the driver and the workers, and the protocols of what computes it.

Shapes: T tasks, B images of one task's support or query set, (C, H, W) one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from across.errors import AcrossError
from across.search_spaces.base import Genotype, InputShape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Split: TypeAlias = Literal["train", "validation", "test"]


class Purpose(IntEnum):
    """What a random stream is for: the last word of `default_rng((seed, index, purpose))`."""

    INITIAL_WEIGHTS = 0
    PROPOSALS = 1
    PATHS = 2
    TRAIN_TASKS = 3
    VALIDATION_TASKS = 4
    TEST_TASKS = 5


class TaskDataError(AcrossError):
    """A task source's data is missing, broken or too small; says which file and what is needed."""


@dataclass(frozen=True)
class TaskSpec:
    """What all tasks of one source have in common."""

    input_shape: InputShape
    num_ways: int
    num_shots: int
    num_queries: int
    """Query images a class."""
    objective: str
    """A key of the registry of objectives."""


@dataclass(frozen=True)
class TaskBatch:
    """T tasks of one spec. Inputs are float32 (T, B, C, H, W); targets int64 (T, B) in classification."""

    spec: TaskSpec
    support_inputs: Tensor
    support_targets: Tensor
    query_inputs: Tensor
    query_targets: Tensor

    @property
    def num_tasks(self) -> int:
        return self.support_inputs.shape[0]

    def to(self, device: torch.device) -> TaskBatch:
        """The same tasks on `device`."""
        return TaskBatch(
            self.spec,
            self.support_inputs.to(device),
            self.support_targets.to(device),
            self.query_inputs.to(device),
            self.query_targets.to(device),
        )


class TaskSource(Protocol):
    """A distribution of tasks, with disjoint classes in its three splits."""

    @property
    def spec(self) -> TaskSpec: ...

    def sample(self, split: Split, seeds: Sequence[int]) -> TaskBatch:
        """len(seeds) tasks on the CPU; seed i alone decides task i, whatever the other seeds are."""


@dataclass(frozen=True)
class EvaluationUnit:
    """One genotype on one chunk of tasks: what an actor computes in one call."""

    key: str
    """Unique within the commit; the name under which the finished result is spooled."""
    genotype: Genotype
    source: int
    split: Split
    seeds: tuple[int, ...]
    """Of the tasks; of a benchmark table the positions of its tasks."""
    weights_version: int
    fidelity: int | None = None
    """The epoch of a benchmark table to look at; None: the configured one."""


@dataclass(frozen=True)
class MetaUnit:
    """One shard of a meta-batch along one path of the supernet."""

    key: str
    genotype: Genotype
    source: int
    seeds: tuple[int, ...]
    weights_version: int
    multi_step_weights: tuple[float, ...] = ()
    """Weight of the query loss after each inner step; empty: the last step's alone."""
    second_order: bool = True


@dataclass(frozen=True)
class SignalUnit:
    """The low-fidelity signals of one genotype at one version of the weights."""

    key: str
    genotype: Genotype
    source: int
    split: Split
    seeds: tuple[int, ...]
    """Of the tasks that the signals look at."""
    weights_version: int


Unit: TypeAlias = EvaluationUnit | MetaUnit | SignalUnit


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of one unit's tasks (higher is better), or why there are none."""

    key: str
    scores: tuple[float, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    """Means over the unit's tasks."""
    seconds: float = 0.0
    failure: str | None = None


@dataclass(frozen=True)
class MetaResult:
    """Sum over a shard's tasks of the meta-gradient of the path's parameters, in task order."""

    key: str
    gradient: NDArray[np.float32] | None
    """In the order of the path's active parameters; None when the shard diverged or failed."""
    num_tasks: int
    loss: float
    """Mean query loss over the tasks."""
    accuracy: float
    seconds: float = 0.0
    failure: str | None = None


@dataclass(frozen=True)
class SignalResult:
    """Signals by name, all finite; one that is not defined for the genotype and the task is absent."""

    key: str
    signals: dict[str, float]
    seconds: float = 0.0
    failure: str | None = None


UnitResult: TypeAlias = EvaluationResult | MetaResult | SignalResult


@dataclass(frozen=True)
class WorkerDescription:
    """What a worker says of itself; workers of one search must agree on the device."""

    device: str
    """Kind of device: `cpu AVX512`, `NVIDIA H200`."""
