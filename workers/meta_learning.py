"""The outer loop: the meta-gradient of one shard, and the outer optimizer.

MAML (Finn et al., 2017): the gradient of Σ_t L_t^query(θ_t,K) with respect to the initial weights; first order drops
the derivative of the inner gradients. Reptile (Nichol et al., 2018): Σ_t (θ − θ_t,K) stands for it. The multi-step
loss of MAML++ (Antoniou et al., 2019) weighs the query loss after every inner step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from across.workers.adaptation import FastWeights, adapt, inner_steps
from across.workers.episode import Episode
from across.workers.model import RATE_PREFIX


@dataclass(frozen=True)
class ShardGradient:
    """The meta-gradient of one shard, in the order of the path's active parameters, summed over its tasks."""

    gradient: Tensor
    loss: float
    accuracy: float


def reptile_gradient(episode: Episode) -> ShardGradient:
    """Σ_t (θ − θ_t,K); loss and accuracy are those of the query set after adaptation."""
    layout = episode.layout()
    start = layout.replicate(episode.parameters)
    support, query = episode.inputs(episode.parameters)
    rates = episode.rates(None, layout)
    fast = adapt(partial(episode.support_losses, support), start, layout, rates)
    with torch.no_grad():
        outputs = episode.query_outputs(query, layout.views(fast))
        metrics = episode.path.objective.metrics(outputs, episode.batch.query_targets)
        displacement = _sum_in_order(layout.by_task(start - fast))
    return ShardGradient(displacement, *_summary(episode, metrics))


def meta_gradient(
    episode: Episode, *, second_order: bool, multi_step_weights: Sequence[float] = ()
) -> ShardGradient:
    """The gradient of the summed query losses with respect to everything that the path uses.

    `multi_step_weights`: weight of the query loss after each inner step (empty: the last alone counts).
    """
    layout = episode.layout()
    start = layout.replicate(episode.parameters)
    learned = episode.learned_rates()
    if learned is not None:
        learned.requires_grad_()
    fixed = {
        name: episode.parameters[name].detach().requires_grad_()
        for name in episode.path.weights
        if name not in layout.shapes
    }
    support, query = episode.inputs(fixed)
    num_steps = episode.model.inner_loop.num_steps
    weights = multi_step_weights or (0.0,) * (num_steps - 1) + (1.0,)
    losses = torch.zeros((), device=start.device)
    outputs = torch.empty(0)
    steps = inner_steps(
        partial(episode.support_losses, support),
        start,
        layout,
        episode.rates(learned, layout),
        second_order=second_order,
    )
    for weight, fast in zip(weights, steps, strict=True):
        if weight > 0.0:
            outputs = episode.query_outputs(query, layout.views(fast))
            losses = losses + weight * episode.path.objective.loss(outputs, episode.batch.query_targets).sum()
    leaves = [start, *fixed.values(), *([] if learned is None else [learned])]
    # A parameter may be on the path and yet without effect, before a node of zeros.
    gradients = list(torch.autograd.grad(losses, leaves, materialize_grads=True))
    with torch.no_grad():
        metrics = episode.path.objective.metrics(outputs, episode.batch.query_targets)
        gradient = _in_active_order(episode, layout, gradients, list(fixed))
    return ShardGradient(gradient, *_summary(episode, metrics))


def _in_active_order(
    episode: Episode, layout: FastWeights, gradients: list[Tensor], fixed: list[str]
) -> Tensor:
    """[fast weights, fixed weights..., learned rates?] -> one vector in the order of the active parameters."""
    total = _sum_in_order(layout.by_task(gradients[0]))
    parts = dict(zip(layout.shapes, torch.split(total, list(layout.sizes)), strict=True))
    parts |= dict(zip(fixed, gradients[1 : 1 + len(fixed)], strict=True))
    if episode.model.inner_loop.learn_inner_lrs:
        rates = _sum_in_order(gradients[-1])
        parts |= {f"{RATE_PREFIX}{name}": rate for name, rate in zip(layout.shapes, rates, strict=True)}
    return torch.cat([parts[name].reshape(-1) for name in episode.model.active(episode.path)])


def _sum_in_order(values: Tensor) -> Tensor:
    """Sum over the first axis, task after task: the same bits whatever sum kernel a device would choose."""
    total = values[0].clone()
    for value in values[1:]:
        total += value
    return total


def _summary(episode: Episode, metrics: Mapping[str, Tensor]) -> tuple[float, float]:
    return float(metrics["loss"].mean()), float(metrics[episode.path.objective.score].mean())
