"""The pairwise ranking loss of DELE (arXiv 2302.00932, equation 1) and of GATES before it.

Shapes: K rankings that are learned side by side, B candidates, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

MARGIN = 0.1
PAIRS_PER_CANDIDATE = 4


def draw_pairs(num: int, generator: torch.Generator) -> Tensor:
    """Rows (2, P) of `PAIRS_PER_CANDIDATE` pairs a candidate, drawn with replacement."""
    return torch.randint(num, (2, PAIRS_PER_CANDIDATE * num), generator=generator)


def ranking_losses(predicted_KB: Tensor, wanted_KB: Tensor, pairs_2P: Tensor) -> Tensor:
    """Mean of max(0, margin - y (s₂ - s₁)) over the pairs whose order is known, (K,); 0 where there is none.

    `wanted_KB` is NaN where nothing is known; y is the sign of the difference there.
    """
    first, second = pairs_2P
    order_KP = (wanted_KB[:, second] - wanted_KB[:, first]).sign().nan_to_num(0.0)
    distance_KP = predicted_KB[:, second] - predicted_KB[:, first]
    hinge_KP = (MARGIN - order_KP * distance_KP).clamp_min(0.0) * order_KP.abs()
    return hinge_KP.sum(dim=1) / order_KP.abs().sum(dim=1).clamp_min(1.0)
