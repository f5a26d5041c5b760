"""Everything that is meta-learned, in one flat vector: the supernet, a head a task source, inner learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from across.search_spaces.architecture import Architecture, Shape
from across.search_spaces.base import Genotype, SearchSpace
from across.search_spaces.constrained import cost_with_head
from across.search_spaces.parameters import ParameterIndex
from across.search_spaces.supernet import features
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import Purpose, TaskSpec
from across.workers.objectives import OBJECTIVES
from across.workers.objectives.base import Objective

MAX_REMEMBERED_PATHS = 4096
RATE_PREFIX = "inner_lr_factor."
"""Of the learned inner rate of the parameter whose name follows, in units of `inner_lr`."""


@dataclass(frozen=True)
class Path:
    """One subnet with the head of one task source: a function of parameters and images."""

    architecture: Architecture
    source: int
    spec: TaskSpec

    @property
    def objective(self) -> Objective:
        return OBJECTIVES[self.spec.objective]

    @cached_property
    def head(self) -> dict[str, Shape]:
        """Names in the index, and shapes, of the head's parameters."""
        shapes = self.objective.parameter_shapes(self.spec, self.architecture.feature_dim)
        return {f"head{self.source}.{name}": shape for name, shape in shapes.items()}

    @cached_property
    def cost(self) -> dict[str, float]:
        """Its parameters, and its multiply-adds on one image, with the head."""
        num_outputs = self.objective.num_outputs(self.spec)
        cost = cost_with_head(self.architecture, num_outputs)
        return {"params": float(cost.num_params), "flops": float(cost.flops)}

    @cached_property
    def weights(self) -> dict[str, Shape]:
        """Names and shapes of all of its weights: the subnet's, then the head's."""
        return {**self.architecture.parameters, **self.head}

    def features(
        self, parameters: Mapping[str, Tensor], inputs: Tensor, *, num_tasks: int, num_reference: int | None
    ) -> Tensor:
        """Features (T, B, F) of folded images (B, T·C, H, W)."""
        return features(
            self.architecture, parameters, inputs, num_tasks=num_tasks, num_reference=num_reference
        )

    def outputs(self, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """The head's outputs (T, B, num_outputs) on features (T, B, F)."""
        prefix = f"head{self.source}."
        own = {name.removeprefix(prefix): parameters[name] for name in self.head}
        return self.objective.outputs(own, features)


@dataclass(frozen=True)
class Model:
    """The layout of the meta-learned vector for a space, its task sources and an inner loop."""

    space: SearchSpace
    specs: tuple[TaskSpec, ...]
    inner_loop: InnerLoopConfig
    _paths: dict[tuple[Genotype, int], Path] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What `path` made before: a population's paths are met again and again."""

    def path(self, genotype: Genotype, source: int) -> Path:
        """The subnet `genotype` with the head of `source`."""
        key = genotype, source
        if key not in self._paths:
            if len(self._paths) >= MAX_REMEMBERED_PATHS:
                self._paths.clear()
            self._paths[key] = Path(self.space.architecture(genotype), source, self.specs[source])
        return self._paths[key]

    @cached_property
    def index(self) -> ParameterIndex:
        """Where each parameter lies in the vector."""
        everything = self.space.super_architecture()
        weights = dict(everything.parameters)
        for source, spec in enumerate(self.specs):
            weights |= Path(everything, source, spec).head
        return ParameterIndex(weights | self._learning_rates(weights))

    def active(self, path: Path) -> dict[str, Shape]:
        """What `path` uses of the vector: its weights, then their inner learning rates."""
        return path.weights | self._learning_rates(path.weights)

    def adapted(self, path: Path) -> dict[str, Shape]:
        """The weights that the inner loop changes."""
        return path.head if self.inner_loop.adapts_head_only else path.weights

    def _learning_rates(self, weights: Mapping[str, Shape]) -> dict[str, Shape]:
        if not self.inner_loop.learn_inner_lrs:
            return {}
        adapted = {
            name for name in weights if name.startswith("head") or not self.inner_loop.adapts_head_only
        }
        return {f"{RATE_PREFIX}{name}": (self.inner_loop.num_steps,) for name in weights if name in adapted}

    def initial_vector(self, seed: int) -> NDArray[np.float32]:
        """Initial weights, shape (index.size,): He-normal convolutions and heads, unit scales, zero shifts."""
        vector = np.zeros(self.index.size, dtype=np.float32)
        for position, (name, shape) in enumerate(self.index.shapes.items()):
            values = self.index.view(vector, name)
            if name.startswith(RATE_PREFIX) or name.endswith("scale"):
                values[:] = 1.0
            elif name.endswith("weight"):
                rng = np.random.default_rng((seed, position, Purpose.INITIAL_WEIGHTS))
                gain = 1.0 if name.startswith("head") else 2.0
                values[:] = rng.standard_normal(shape, dtype=np.float32) * sqrt(gain / prod(shape[1:]))
        return vector


def slices(index: ParameterIndex, vector: Tensor, shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    """The named parameters, or their leading slices, as views of `vector`."""
    views = {}
    for name, shape in shapes.items():
        full = index.shapes[name]
        start = index.offsets[name]
        whole = vector[start : start + prod(full)].view(full)
        views[name] = whole[tuple(slice(size) for size in shape)]
    return views
