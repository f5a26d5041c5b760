"""Signals that look at no task's images."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from across.search_spaces.architecture import Architecture
from across.search_spaces.normalization import moments
from across.search_spaces.operations import LayerParameters
from across.workers.evaluators.zero_cost.subnet import Subnet, batch_norm, feature_map, ignore, no_norm

DATA_FREE_SIGNALS = ("synflow", "zen")
NUM_ZEN_IMAGES = 16
ZEN_SHIFT = 1e-2
"""α of the paper."""
ZEN_SEED = 0
"""All genotypes meet the same noise."""


def data_free_signals(subnet: Subnet, wanted: Collection[str]) -> dict[str, float]:
    """Those of `DATA_FREE_SIGNALS` that are wanted."""
    signals = {}
    if "synflow" in wanted:
        signals["synflow"] = synflow(subnet)
    if "zen" in wanted:
        signals["zen"] = zen(subnet.path.architecture, subnet.images.device)
    return signals


def synflow(subnet: Subnet) -> float:
    """The logarithm of Σ |θ ⊙ ∂R/∂θ|, R = 1ᵀ(Π_l |θ_l|)1: the outputs' sum on an image of ones with weights |θ|.

    Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow"; as a score
    of a network Abdelfattah et al. 2021, "Zero-Cost Proxies for Lightweight NAS". As there, batch norms are left out,
    since the statistics of a single image would undo the flow, and all is in float64. Deviations: the logarithm, which
    ranks alike, of a sum that grows by an order of magnitude a layer (no flow at all: −∞); biases are not scored.
    """
    leaves = {name: weight.double().abs().requires_grad_() for name, weight in subnet.weights.items()}
    if not leaves:
        return float("nan")
    parameters = {name: value.double() for name, value in subnet.parameters.items()} | leaves
    ones = torch.ones_like(subnet.images[:1], dtype=torch.float64)
    total = subnet.outputs(parameters, ones, normalization=no_norm).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    flows = [
        (weight.detach() * gradient).abs().sum()
        for weight, gradient in zip(leaves.values(), gradients, strict=True)
    ]
    return float(torch.stack(flows).sum().log())


@torch.no_grad()
def zen(architecture: Architecture, device: torch.device) -> float:
    """Zen score log E‖f(x) − f(x + α ε)‖ + Σ_l log σ_l, with x, ε and the weights of f standard normal, α = 0.01.

    Lin et al. 2021, "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", Algorithm 1. f is the network
    up to the last feature map, and σ_l² the variance before batch norm l, averaged over its channels: it makes up for
    what the norm divides by. Neither a task's images nor the supernet's weights play a part: all follows from the
    architecture. Deviations: the paper takes residual links away first, for which f, a general graph here, has no
    equal; one draw of the weights and 16 images, where the authors' program averages 32 draws (and takes the L1 norm).
    """
    generator = torch.Generator().manual_seed(ZEN_SEED)
    parameters = {
        name: torch.randn(shape, generator=generator)
        if len(shape) > 1
        else (torch.ones(shape) if name.endswith("scale") else torch.zeros(shape))
        for name, shape in architecture.parameters.items()
    }
    parameters = {name: value.to(device) for name, value in parameters.items()}
    shape = (2, NUM_ZEN_IMAGES, *architecture.input_shape)
    images, noise = torch.randn(shape, generator=generator).to(device)
    log_deviations: list[Tensor] = []

    def observed_batch_norm(x: Tensor, own: LayerParameters) -> Tensor:
        log_deviations.append(moments(x)[1].mean().log() / 2)
        return batch_norm(x, own)

    first = feature_map(architecture, parameters, images, normalization=observed_batch_norm, observe=ignore)
    second = feature_map(
        architecture, parameters, images + ZEN_SHIFT * noise, normalization=batch_norm, observe=ignore
    )
    distance = (first - second).flatten(1).norm(dim=1).mean().log()
    return float(torch.stack([distance, *log_deviations]).double().sum())
