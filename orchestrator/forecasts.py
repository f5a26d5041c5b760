"""How good a predictor's forecasts were: rank correlation with the fitness that the workers then found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

from across.orchestrator.state import Evaluation

MIN_FORECASTS = 3


def kendall_tau(evaluations: Iterable[Evaluation]) -> float | None:
    """Kendall's τ of forecast and fitness over the forecast individuals; None where it is not defined."""
    pairs = [
        (each.proposal.forecast.mean, each.fitness)
        for each in evaluations
        if each.proposal.forecast is not None and each.fitness is not None
    ]
    if len(pairs) < MIN_FORECASTS:
        return None
    from scipy.stats import kendalltau  # takes half a second, which `across status` has no need of

    tau = float(kendalltau(*zip(*pairs, strict=True)).statistic)
    return tau if isfinite(tau) else None


def newest(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """The individuals of the latest birth, each in its first evaluation."""
    return newborn(evaluations, max((each.proposal.birth for each in evaluations), default=0))


def newborn(evaluations: Iterable[Evaluation], generation: int) -> list[Evaluation]:
    """The individuals of a generation, each in its first evaluation."""
    first: dict[int, Evaluation] = {}
    for each in evaluations:
        if each.proposal.birth == generation:
            first.setdefault(each.proposal.index, each)
    return list(first.values())


def recent_kendall_taus(history: Sequence[Evaluation], generation: int, num: int) -> list[float]:
    """Of the last `num` generations before `generation` that have one, the newest last."""
    taus = (kendall_tau(newborn(history, each)) for each in range(generation))
    return [tau for tau in taus if tau is not None][-num:]
