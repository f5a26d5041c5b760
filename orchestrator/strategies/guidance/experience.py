"""What a predictor learns from: one comparable score a genotype, from evaluations at many weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from across.orchestrator.state import Evaluation
from across.search_spaces.base import Genotype, SearchSpace

NUM_SWEEPS = 50
SHRINKAGE = 1.0
"""Evaluations by which a genotype's mean is pulled to that of its generation."""


@dataclass(frozen=True)
class Experience:
    """Evaluated functions in the order of their first evaluation, with a finite score each."""

    evaluations: tuple[Evaluation, ...]
    """The newest of each."""
    scores: NDArray[np.float64]


def experience(history: Sequence[Evaluation], space: SearchSpace, *, max_functions: int) -> Experience:
    """The newest `max_functions` of what was evaluated.

    Weights that learn make every later fitness higher, so fitness is taken apart into an effect of the weights and one
    of the function: y = version + function, least squares with the functions' effects shrunk. Those who live through
    several generations tie the versions together. A function that always failed scores as the worst that did not.
    """
    functions: dict[Genotype, list[Evaluation]] = {}
    for each in history:
        functions.setdefault(space.canonical(each.proposal.genotype), []).append(each)
    newest = list(functions.values())[-max_functions:]
    effects = _function_effects(newest)
    worst = np.nanmin(effects) if np.isfinite(effects).any() else 0.0
    return Experience(
        tuple(evaluations[-1] for evaluations in newest), np.where(np.isnan(effects), worst, effects)
    )


def _function_effects(functions: Sequence[Sequence[Evaluation]]) -> NDArray[np.float64]:
    """Effect of each function, NaN for one that always failed; at a single version simply its mean fitness."""
    rows = [
        (function, each.weights_version, each.fitness)
        for function, evaluations in enumerate(functions)
        for each in evaluations
        if each.fitness is not None
    ]
    if not rows:
        return np.full(len(functions), np.nan)
    function, version, fitness = (np.array(column) for column in zip(*rows, strict=True))
    _, version = np.unique(version, return_inverse=True)
    of_function = np.bincount(function, minlength=len(functions)).astype(np.float64)
    if version.max() == 0:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.bincount(function, fitness, len(functions)) / of_function)
    of_version = np.bincount(version)
    effects = np.zeros(len(functions))
    for _ in range(NUM_SWEEPS):
        levels = np.bincount(version, fitness - effects[function]) / of_version
        effects = np.bincount(function, fitness - levels[version], len(functions)) / (of_function + SHRINKAGE)
    return np.where(of_function > 0, effects, np.nan)
