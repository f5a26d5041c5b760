"""Small commits with made-up but plausible content, for tests of what stores and shows them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from across.orchestrator.state import Commit, Evaluation, MetaLearningSummary, Proposal, Timings

POPULATION_SIZE = 4


def example_commit(number: int, *, seed: int = 0) -> Commit:
    """A generation of four; equal numbers and seeds give equal commits."""
    rng = np.random.default_rng((seed, number))
    first = number * POPULATION_SIZE
    evaluations = tuple(_evaluation(index, number, rng) for index in range(first, first + POPULATION_SIZE))
    return Commit(
        number=number,
        kind="generation",
        evaluations=evaluations,
        next_index=first + POPULATION_SIZE,
        weights_version=10 * (number + 1),
        weights_digest="",
        meta_learning=MetaLearningSummary(
            num_steps=2,
            num_shards=4,
            num_dropped_shards=1,
            losses=(1.5, 1.25),
            accuracies=(0.5, 0.75),
            outer_lr=0.01,
        ),
        timings=Timings(
            wall_seconds=8.0,
            meta_learning_seconds=4.0,
            evaluation_seconds=2.0,
            worker_busy_seconds=12.0,
            num_workers=2,
            num_units_computed=7,
            num_units_reused=1,
            num_tasks=160,
        ),
        timestamp=1_700_000_000.125 + number,
    )


def example_weights(number: int) -> dict[str, NDArray[np.float32]]:
    """The weights that would follow commit `number`."""
    rng = np.random.default_rng(number)
    return {
        "parameters": rng.standard_normal(1000, dtype=np.float32),
        "outer_optimizer.moments": rng.standard_normal((2, 500), dtype=np.float32),
    }


def _evaluation(index: int, number: int, rng: np.random.Generator) -> Evaluation:
    scores = tuple(float(score) for score in rng.uniform(size=5))
    return Evaluation(
        Proposal(index, tuple(int(gene) for gene in rng.integers(3, size=4)), birth=number),
        fitness=float(np.mean(scores)),
        scores=scores,
        metrics={"num_params": float(rng.integers(1000))},
        weights_version=10 * (number + 1),
    )
