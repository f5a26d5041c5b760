"""Signals from the gradient of the loss: one forward and one backward pass, and another backward pass for `grasp`.

Pruning criteria score single weights; Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS", add them up to
a score of the whole network. As there, θ are the weights of convolutions and of the head, without batch norms' scales
and shifts and without biases; L is the mean loss of the batch, g = ∂L/∂θ, and batch norms use, and differentiate, the
batch's statistics. Where a batch norm follows, L does not depend on the length of a weight tensor: then θ·g = 0 and
−θ·Hg = g·g, so that in `plain` only the head and other weights without a norm count.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from across.search_spaces.architecture import Conv, FactorizedReduction, Layer
from across.workers.evaluators.zero_cost.subnet import Subnet

GRADIENT_SIGNALS = ("grad_norm", "snip", "grasp", "fisher", "plain", "l2_norm")


@dataclass(frozen=True)
class LossGradient:
    """What one backward pass of the loss leaves, tensor by tensor."""

    weights: Sequence[Tensor]
    gradients: Sequence[Tensor]
    """Differentiable where that was asked for."""
    activations: Sequence[Tensor]
    """Outputs of the convolutions (B, C, H, W), then of the head (B, num_outputs)."""
    activation_gradients: Sequence[Tensor]


def gradient_signals(subnet: Subnet, wanted: Collection[str]) -> dict[str, float]:
    """Those of `GRADIENT_SIGNALS` that are wanted; none where nothing has weights."""
    if not subnet.weights:
        return {}
    found = loss_gradient(subnet, differentiable="grasp" in wanted)
    functions = {
        "grad_norm": lambda: grad_norm(found.gradients),
        "snip": lambda: snip(found.weights, found.gradients),
        "grasp": lambda: grasp(found.weights, found.gradients),
        "fisher": lambda: fisher(found.activations, found.activation_gradients),
        "plain": lambda: plain(found.weights, found.gradients),
        "l2_norm": lambda: l2_norm(found.weights),
    }
    return {name: functions[name]() for name in GRADIENT_SIGNALS if name in wanted}


def loss_gradient(subnet: Subnet, *, differentiable: bool) -> LossGradient:
    """The gradient of the mean loss with respect to the weights and to the activations."""
    leaves = {name: weight.detach().requires_grad_() for name, weight in subnet.weights.items()}
    activations: list[Tensor] = []

    def observe(layer: Layer, output: Tensor) -> None:
        if isinstance(layer, Conv | FactorizedReduction):
            activations.append(output)

    outputs = subnet.outputs({**subnet.parameters, **leaves}, subnet.images, observe=observe)
    activations.append(outputs)
    weights = list(leaves.values())
    gradients = torch.autograd.grad(
        subnet.loss(outputs), [*weights, *activations], create_graph=differentiable, materialize_grads=True
    )
    return LossGradient(weights, gradients[: len(weights)], activations, gradients[len(weights) :])


def grad_norm(gradients: Sequence[Tensor]) -> float:
    """Σ_l ‖g_l‖₂ over the weight tensors l (Abdelfattah et al. 2021)."""
    return _sum_of_norms(gradients)


def l2_norm(weights: Sequence[Tensor]) -> float:
    """Σ_l ‖θ_l‖₂ over the weight tensors l (Abdelfattah et al. 2021)."""
    return _sum_of_norms(weights)


def snip(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> float:
    """Σ |θ ⊙ g|: Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity".

    Without the paper's division by the sum over all weights, which here is the score.
    """
    return float((_flat(weights) * _flat(gradients)).abs().sum())


def plain(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> float:
    """Σ θ ⊙ g: Mozer & Smolensky 1989, "Skeletonization"; under this name in Abdelfattah et al. 2021."""
    return float((_flat(weights) * _flat(gradients)).sum())


def grasp(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> float:
    """Σ −θ ⊙ (H g), H the Hessian of the loss: Wang et al. 2020, "Picking Winning Tickets Before Training by
    Preserving Gradient Flow" (GraSP).

    `gradients` are differentiable functions of `weights`. Deviations: logits have temperature 1 (the paper: 200), and
    one batch gives both g and H.
    """
    products = [(gradient.detach() * gradient).sum() for gradient in gradients]
    hessian_products = torch.autograd.grad(torch.stack(products).sum(), weights, materialize_grads=True)
    return -float((_flat(weights) * _flat(hessian_products)).sum())


def fisher(activations: Sequence[Tensor], gradients: Sequence[Tensor]) -> float:
    """Σ_c 1/(2B) Σ_b (Σ_ij a_bcij ∂L_b/∂a_bcij)² over all channels c of all activations a.

    Theis et al. 2018, "Faster gaze prediction with dense networks and Fisher pruning"; summed over a network by Turner
    et al. 2020, "BlockSwap". `gradients` are those of the mean over the B images, so that B times as much is the
    image's own. Activations are the outputs of convolutions, before their batch norm, and of the head, as in
    Abdelfattah et al. 2021; BlockSwap takes those of its blocks.
    """
    scores = []
    for activation, gradient in zip(activations, gradients, strict=True):
        num_images = activation.shape[0]
        products = (activation * gradient).detach()
        by_channel = products.reshape(*products.shape[:2], -1).sum(2, dtype=torch.float64)
        scores.append((num_images * by_channel).square().mean(0).sum() / 2)
    return float(torch.stack(scores).sum())


def _sum_of_norms(tensors: Sequence[Tensor]) -> float:
    norms = [tensor.detach().double().norm() for tensor in tensors]
    return float(torch.stack(norms).sum())


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """One vector; in float64, since what is added up nearly cancels in `plain`."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).double()
