"""The inner and the outer loop task by task, by plain autograd on plain modules: what the engine is held against.

Nothing of the engine but its layout of the meta-learned vector is used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from across.search_spaces.network import Network
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import TaskBatch, TaskSpec
from across.workers.model import RATE_PREFIX, Model, Path, slices

Weights = dict[str, Tensor]


class ReferenceNorm(nn.Module):
    """Batch norm whose statistics are those of the first images."""

    def __init__(self, norm: nn.BatchNorm2d, num_reference: int) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.num_reference = norm.weight, norm.bias, norm.eps, num_reference

    def forward(self, x: Tensor) -> Tensor:
        reference = x[: self.num_reference]
        mean = reference.mean((0, 2, 3), keepdim=True)
        variance = reference.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight.view(-1, 1, 1) + self.bias.view(
            -1, 1, 1
        )


@dataclass(frozen=True)
class PlainLearner:
    """One path, one task at a time."""

    model: Model
    path: Path

    @property
    def inner_loop(self) -> InnerLoopConfig:
        return self.model.inner_loop

    def outputs(self, weights: Weights, images: Tensor, num_reference: int | None = None) -> Tensor:
        """Logits (B, num_ways) of images (B, C, H, W)."""
        network: nn.Module = Network(self.path.architecture).to(images.dtype)
        by_place = [weights[name] for name in self.path.architecture.parameters]
        names = [name for name, _ in network.named_parameters()]
        if num_reference is not None:
            for name, module in list(network.named_modules()):
                if isinstance(module, nn.BatchNorm2d):
                    parent, _, own = name.rpartition(".")
                    setattr(network.get_submodule(parent), own, ReferenceNorm(module, num_reference))
        features = torch.func.functional_call(network, dict(zip(names, by_place, strict=True)), (images,))
        source = self.path.source
        return F.linear(features, weights[f"head{source}.weight"], weights[f"head{source}.bias"])

    def query_loss(self, weights: Weights, batch: TaskBatch, task: int) -> Tensor:
        support, query = batch.support_inputs[task], batch.query_inputs[task]
        if self.inner_loop.batch_norm == "support":
            outputs = self.outputs(weights, torch.cat([support, query]), len(support))[len(support) :]
        else:
            outputs = self.outputs(weights, query)
        return F.cross_entropy(outputs, batch.query_targets[task])

    def steps(
        self, start: Weights, rates: Weights | None, batch: TaskBatch, task: int, *, second_order: bool
    ) -> list[Weights]:
        """The task's weights after each step."""
        support, targets = batch.support_inputs[task], batch.support_targets[task]
        weights, visited = start, []
        for step in range(self.inner_loop.num_steps):
            adapted = list(self.model.adapted(self.path))
            loss = F.cross_entropy(self.outputs(weights, support), targets)
            gradients = torch.autograd.grad(loss, [weights[name] for name in adapted], create_graph=True)
            weights = dict(weights)
            for name, gradient in zip(adapted, gradients, strict=True):
                factor = 1.0 if rates is None else rates[f"{RATE_PREFIX}{name}"][step]
                taken = gradient if second_order else gradient.detach()
                weights[name] = weights[name] - self.inner_loop.inner_lr * factor * taken
            visited.append(weights)
        return visited

    def leaves(self, vector: Tensor) -> Weights:
        """What the path uses of the vector, as leaves."""
        active = slices(self.model.index, vector, self.model.active(self.path))
        return {name: value.detach().clone().requires_grad_() for name, value in active.items()}

    def adapted(self, vector: Tensor, batch: TaskBatch, task: int) -> Weights:
        """The task's weights after the last step."""
        leaves = self.leaves(vector)
        rates = leaves if self.inner_loop.learn_inner_lrs else None
        return self.steps(leaves, rates, batch, task, second_order=False)[-1]

    def meta_loss(
        self, leaves: Weights, batch: TaskBatch, *, second_order: bool, step_weights: Sequence[float] = ()
    ) -> Tensor:
        """The weighted query losses, summed over steps and tasks."""
        rates = leaves if self.inner_loop.learn_inner_lrs else None
        total = torch.zeros((), dtype=batch.query_inputs.dtype)
        for task in range(batch.num_tasks):
            visited = self.steps(leaves, rates, batch, task, second_order=second_order)
            weighted = step_weights or [0.0] * (len(visited) - 1) + [1.0]
            for weight, weights in zip(weighted, visited, strict=True):
                total = total + weight * self.query_loss(weights, batch, task)
        return total

    def meta_gradient(
        self, vector: Tensor, batch: TaskBatch, *, second_order: bool, step_weights: Sequence[float] = ()
    ) -> Tensor:
        """The gradient of `meta_loss`, in the order of the path's active parameters."""
        leaves = self.leaves(vector)
        loss = self.meta_loss(leaves, batch, second_order=second_order, step_weights=step_weights)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        return torch.cat([gradient.reshape(-1) for gradient in gradients])

    def reptile_gradient(self, vector: Tensor, batch: TaskBatch) -> Tensor:
        """Σ_t (θ − θ_t,K)."""
        start = self.leaves(vector)
        moved = [self.adapted(vector, batch, task) for task in range(batch.num_tasks)]
        ways = [torch.stack([start[name] - end[name] for end in moved]).sum(0) for name in start]
        return torch.cat([way.detach().reshape(-1) for way in ways])


def random_batch(spec: TaskSpec, *, num_tasks: int, dtype: torch.dtype = torch.float64) -> TaskBatch:
    """Tasks of noise around one random image a class."""
    generator = torch.Generator().manual_seed(3)
    ways = torch.arange(spec.num_ways)

    def images(a_class: int) -> Tensor:
        noise = torch.randn(
            num_tasks, spec.num_ways, a_class, *spec.input_shape, generator=generator, dtype=dtype
        )
        return (classes.unsqueeze(2) + 0.7 * noise).flatten(1, 2)

    classes = torch.randn(num_tasks, spec.num_ways, *spec.input_shape, generator=generator, dtype=dtype)
    return TaskBatch(
        spec,
        images(spec.num_shots),
        ways.repeat_interleave(spec.num_shots).repeat(num_tasks, 1),
        images(spec.num_queries),
        ways.repeat_interleave(spec.num_queries).repeat(num_tasks, 1),
    )
