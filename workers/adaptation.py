"""The inner loop: few-step adaptation of T tasks at once.

MAML (Finn et al., 2017, Algorithm 1): θ_t,k+1 = θ_t,k − α_k ∇ L_t(θ_t,k) on task t's support set, for k < K.
First-order MAML and Reptile (Nichol et al., 2018) take the same steps without differentiating them; ANIL (Raghu et
al., 2020) steps on the head alone. Learned per-parameter, per-step rates α are those of MAML++ (Antoniou et al.,
2019, "LSLR"), but learned in units of the initial rate: Adam, whose steps have a size of their own, then changes them
in proportion. Learned as they are, rates of 0.2 grew sevenfold within thousands of steps, and training suffered.

The fast weights of all tasks are one vector, parameter-major: the block of one parameter holds its T copies, one
after the other. So a step is two kernels whatever the network (learned rates take one more a parameter), every block
is a contiguous (T, *shape) view, and the gradient of the sum over tasks keeps the tasks apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from across.search_spaces.architecture import Shape
from across.search_spaces.base import Config

TaskLosses = Callable[[Mapping[str, Tensor]], Tensor]
"""Fast weights by name, (T, *shape) each -> the support loss of each task, (T,)."""


class InnerLoopConfig(Config):
    """How a task is learned from its support set."""

    algorithm: Literal["maml", "first_order_maml", "anil", "reptile"] = "maml"
    num_steps: int = Field(default=5, ge=1)
    inner_lr: float = Field(default=0.1, gt=0)
    """Initial value where the rates are learned."""
    learn_inner_lrs: bool = False
    """Learn one rate a parameter tensor and step (MAML++); needs a query loss, so not with Reptile."""
    batch_norm: Literal["transductive", "support"] = "transductive"
    """Query images are normalised by their own statistics, or by those of the support set."""

    @property
    def adapts_head_only(self) -> bool:
        return self.algorithm == "anil"

    @property
    def is_second_order(self) -> bool:
        """Whether the meta-gradient differentiates the inner steps."""
        return self.algorithm in ("maml", "anil")


@dataclass(frozen=True)
class FastWeights:
    """The layout of T tasks' fast weights in one parameter-major vector."""

    shapes: Mapping[str, Shape]
    num_tasks: int

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Elements of each parameter, for one task."""
        return tuple(prod(shape) for shape in self.shapes.values())

    def replicate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """One copy a task of the shared parameters, as a new leaf that requires a gradient."""
        with torch.no_grad():
            blocks = [
                parameters[name].expand(self.num_tasks, *shape).reshape(-1)
                for name, shape in self.shapes.items()
            ]
            return torch.cat(blocks).requires_grad_()

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Each parameter as (T, *shape), differentiably."""
        blocks = torch.split(vector, [size * self.num_tasks for size in self.sizes])
        return {
            name: block.view(self.num_tasks, *shape)
            for (name, shape), block in zip(self.shapes.items(), blocks, strict=True)
        }

    def spread(self, rates: Tensor) -> Tensor:
        """Rates (T, number of parameters) -> one value an element of the vector.

        By broadcasting, whose derivative is a sum in a fixed order; that of `repeat_interleave` on a GPU is not.
        """
        blocks = [rates[:, i, None].expand(-1, size).reshape(-1) for i, size in enumerate(self.sizes)]
        return torch.cat(blocks)

    def by_task(self, vector: Tensor) -> Tensor:
        """The vector as (T, P), each task's parameters in the order of `shapes`."""
        blocks = torch.split(vector, [size * self.num_tasks for size in self.sizes])
        return torch.cat([block.view(self.num_tasks, -1) for block in blocks], dim=1)


def inner_steps(
    task_losses: TaskLosses,
    start: Tensor,
    layout: FastWeights,
    rates: Sequence[Tensor | float],
    *,
    second_order: bool,
) -> Iterator[Tensor]:
    """Yield the fast weights after each of len(rates) gradient steps from `start`.

    What is yielded is differentiable with respect to `start` and to the rates: through the gradients of the steps
    if `second_order`, else taking them as constants.
    """
    fast = start
    for rate in rates:
        losses = task_losses(layout.views(fast))
        (gradient,) = torch.autograd.grad(losses.sum(), fast, create_graph=second_order)
        fast = fast - rate * gradient
        yield fast


def adapt(
    task_losses: TaskLosses, start: Tensor, layout: FastWeights, rates: Sequence[Tensor | float]
) -> Tensor:
    """The fast weights after the last inner step, cut off from the graph."""
    fast = start
    for rate in rates:
        losses = task_losses(layout.views(fast))
        (gradient,) = torch.autograd.grad(losses.sum(), fast)
        with torch.no_grad():
            fast = (fast - rate * gradient).requires_grad_()
    return fast.detach()
