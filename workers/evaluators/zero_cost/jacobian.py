"""Signals from how the images of a batch are told apart: one forward pass, and one backward pass to the images.

J is the (B, C·H·W) matrix whose row b is the gradient of the sum of all outputs on image b with respect to image b.
Deviation: batch norms' statistics are constants here. The papers' programs differentiate them too, and so the outputs
of the other images; then, where a batch norm is the last layer before a mean over the pixels, the sum of the outputs
does not depend on the images at all, and J is rounding noise.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from across.search_spaces.architecture import Layer, ReLU
from across.workers.evaluators.zero_cost.subnet import Subnet, batch_norm_with_constant_statistics, ignore

JACOBIAN_SIGNALS = ("jacob_cov", "naswot", "epe_nas")
K = 1e-5
"""What both papers that use J add before they divide or take a logarithm."""


@dataclass
class ReluCodes:
    """The kernel matrix of the images' binary codes, ReLU layer by ReLU layer."""

    kernel: Tensor | None = None
    """(B, B): units on which two images agree; None before the first ReLU."""

    def observe(self, layer: Layer, output: Tensor) -> None:
        """Count the units of one ReLU layer; sums of less than 2**24 ones are exact in float32."""
        if isinstance(layer, ReLU):
            active = (output.detach() > 0).permute(0, 2, 3, 1).flatten(1).to(torch.float32)
            both = (active @ active.T).double()
            num_active = both.diagonal()
            agreeing = active.shape[1] - num_active[:, None] - num_active + 2 * both
            self.kernel = agreeing if self.kernel is None else self.kernel + agreeing


def jacobian_signals(subnet: Subnet, wanted: Collection[str]) -> dict[str, float]:
    """Those of `JACOBIAN_SIGNALS` that are wanted and defined: `epe_nas` needs classes, `naswot` ReLUs."""
    codes = ReluCodes()
    needs_jacobian = not {"jacob_cov", "epe_nas"}.isdisjoint(wanted)
    images = subnet.images.detach().requires_grad_(needs_jacobian)
    outputs = subnet.outputs(
        subnet.parameters,
        images,
        normalization=batch_norm_with_constant_statistics,
        observe=codes.observe if "naswot" in wanted else ignore,
    )
    signals = {}
    if codes.kernel is not None:
        signals["naswot"] = naswot(codes.kernel)
    if outputs.requires_grad:
        (gradient,) = torch.autograd.grad(outputs.sum(), images)
        jacobian = gradient.flatten(1).double()
        if "jacob_cov" in wanted:
            signals["jacob_cov"] = jacob_cov(jacobian)
        if "epe_nas" in wanted and _is_class_number(subnet.targets):
            signals["epe_nas"] = epe_nas(jacobian, subnet.targets)
    return signals


def naswot(kernel: Tensor) -> float:
    """The logarithm of det K, K_ij = N − d(c_i, c_j): binary codes c of N ReLU units, d the Hamming distance.

    Mellor et al. 2021, "Neural Architecture Search without Training". Two images of the same code: −∞.
    """
    return float(torch.linalg.slogdet(kernel).logabsdet)


def jacob_cov(jacobian: Tensor) -> float:
    """−Σ_i [log(v_i + k) + 1/(v_i + k)], v the eigenvalues of the correlation matrix of the rows of J, k = 1e-5.

    Mellor et al. 2020, the first version of "Neural Architecture Search without Training" (arXiv 2006.04647v1).
    """
    correlations = torch.corrcoef(jacobian)
    if not correlations.isfinite().all():
        return float("nan")
    shifted = torch.linalg.eigvalsh(correlations) + K
    return -float((shifted.log() + 1 / shifted).sum())


def epe_nas(jacobian: Tensor, targets: Tensor) -> float:
    """Σ_c |Σ_ij log(|M_c,ij| + k)|, M_c the correlation matrix of the rows of J of class c, k = 1e-5.

    Lopes et al. 2021, "EPE-NAS: Efficient Performance Estimation Without Training for Neural Architecture Search".
    Deviations: classes of a single image count nothing, and without others the score is NaN; the paper's other score,
    for more than 100 classes, is left out.
    """
    scores = []
    for number in targets.unique():
        rows = jacobian[targets == number]
        if len(rows) > 1:
            correlations = torch.corrcoef(rows)
            scores.append((correlations.abs() + K).log().sum().abs())
    return float(torch.stack(scores).sum()) if scores else float("nan")


def _is_class_number(targets: Tensor) -> bool:
    """Whether each image has one whole number for its target."""
    return targets.dim() == 1 and not targets.is_floating_point()
