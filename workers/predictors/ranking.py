"""The pairwise ranking loss of DELE (arXiv 2302.00932, equation 1), and of GATES before it.

Shapes: K rankings that are learned side by side, k either K or 1 for all of them, N candidates, B of a batch, M pairs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau
from torch import Tensor

from across.workers.predictors.base import Values

Ranks: TypeAlias = NDArray[np.float32]
"""From 0, (N,); NaN where a value is unknown."""

MARGIN = 0.1
PAIRS_PER_CANDIDATE = 4
TRUST = 10.0
"""The logit of an expert that ranks just as the scores do, were there many of them."""
SHRINKAGE = 10
"""Scores at which trust is half of that."""


def draw_pairs(num_candidates: int, generator: torch.Generator) -> Tensor:
    """Different pairs (2, M) of different rows, drawn uniformly: all of them, but at most 4 a candidate."""
    pairs = _all_pairs(num_candidates)
    order = torch.randperm(pairs.shape[1], generator=generator)
    return pairs[:, order[: PAIRS_PER_CANDIDATE * num_candidates]]


def ranking_losses(scores_KB: Tensor, values_kB: Tensor, pairs_2M: Tensor) -> Tensor:
    """Mean of max(0, margin - y (s₂ - s₁)) over the pairs whose order is known, (K,); 0 where there is none.

    y is 1 where the second of a pair has the greater value, else -1. NaN is an unknown value.
    """
    first_1M, second_1M = pairs_2M[:1], pairs_2M[1:]
    before_kM, after_kM = values_kB[:, pairs_2M[0]], values_kB[:, pairs_2M[1]]
    order_kM = (after_kM > before_kM).float() - (after_kM < before_kM).float()
    num_rankings = len(scores_KB)
    ahead_KM = scores_KB.gather(1, second_1M.expand(num_rankings, -1)) - scores_KB.gather(
        1, first_1M.expand(num_rankings, -1)
    )
    is_known_kM = order_kM.abs()
    hinge_KM = (MARGIN - order_kM * ahead_KM).relu() * is_known_kM
    return hinge_KM.sum(dim=1) / is_known_kM.sum(dim=1).clamp_min(1.0)


def trust(scores_KN: Tensor, values_N: Tensor) -> Tensor:
    """Logits that weigh each ranking by its Kendall τ with the values, shrunk where these are few, (K,).

    0 for scores or values that are all equal.
    """
    num = len(values_N)
    if num < 2:
        return scores_KN.new_zeros(len(scores_KN))
    taus = [kendalltau(row, values_N.numpy()).statistic for row in scores_KN.numpy()]
    return TRUST * num / (num + SHRINKAGE) * torch.tensor(np.nan_to_num(taus), dtype=scores_KN.dtype)


@lru_cache(maxsize=16)
def _all_pairs(num_candidates: int) -> Tensor:
    """(2, num (num - 1) / 2)."""
    return torch.triu_indices(num_candidates, num_candidates, 1)


def epoch_rows(values_KN: Tensor, generator: torch.Generator) -> Tensor:
    """Rows (k, N) in random order: of each ranking those that are known, again and again."""
    num = values_KN.shape[1]
    order = torch.randperm(num, generator=generator)
    is_known_KN = values_KN[:, order].isfinite()
    if is_known_KN.all():
        return order[None]
    known = [order[is_known] for is_known in is_known_KN]
    return torch.stack([rows.repeat(-(-num // len(rows)))[:num] for rows in known])


def mean_by(positions: NDArray[np.intp], values: Values, num: int) -> Values:
    """Mean of the known values at each position, NaN without any."""
    is_known = np.isfinite(values)
    sums = np.bincount(positions[is_known], values[is_known], num)
    counts = np.bincount(positions[is_known], minlength=num)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def ranks_of(values: Values) -> Ranks:
    """Ranks from 0, equal ones for equal values; NaN for what is unknown."""
    ranks = np.full(len(values), np.nan, dtype=np.float32)
    is_known = np.isfinite(values)
    ranks[is_known] = np.unique(values[is_known], return_inverse=True)[1]
    return ranks
