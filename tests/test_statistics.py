"""The mean of scores with its interval."""

from __future__ import annotations

from math import isnan, sqrt

import pytest

from across.orchestrator.statistics import mean_and_interval


def test_the_interval_is_1_96_standard_errors() -> None:
    scores = [0.2, 0.4, 0.6, 0.8]
    deviation = sqrt((0.09 + 0.01 + 0.01 + 0.09) / 3)

    assert mean_and_interval(scores) == pytest.approx((0.5, 1.96 * deviation / 2))


def test_few_scores() -> None:
    mean, half_width = mean_and_interval([0.25])
    assert mean == 0.25
    assert isnan(half_width)
    with pytest.raises(ValueError, match="no scores"):
        mean_and_interval([])
