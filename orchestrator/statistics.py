"""What is said about a list of scores."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt
from statistics import fmean, stdev

NORMAL_95 = 1.96
"""Half-width of a 95 % interval of a mean, in standard errors."""


def mean_and_interval(scores: Sequence[float]) -> tuple[float, float]:
    """The mean and the half-width of its 95 % confidence interval, 1.96 s / sqrt(n).

    This is the normal approximation of the few-shot literature, over tasks; s is the sample's standard deviation.
    One score has no interval: nan. Raises ValueError without any.
    """
    if not scores:
        raise ValueError("there are no scores to average")
    half_width = NORMAL_95 * stdev(scores) / sqrt(len(scores)) if len(scores) > 1 else nan
    return fmean(scores), half_width
