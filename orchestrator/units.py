"""How work is cut into units and named: by the config alone, never by who computes it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from across.search_spaces.base import Genotype
from across.workers.base import Purpose


def task_seeds(rng: np.random.Generator, num: int) -> tuple[int, ...]:
    """Seeds of `num` tasks."""
    return tuple(int(seed) for seed in rng.integers(2**63, size=num, dtype=np.int64))


def test_seeds(seed: int, num_tasks: int) -> tuple[int, ...]:
    """Seeds of the held-out tasks; fewer tasks are the first of more."""
    return task_seeds(np.random.default_rng((seed, 0, Purpose.TEST_TASKS)), num_tasks)


def chunks(seeds: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """`seeds` cut into tuples of `size`; the last may be shorter."""
    return [tuple(seeds[start : start + size]) for start in range(0, len(seeds), size)]


def unit_key(genotype: Genotype, source: int, split: str, seeds: Sequence[int], version: int) -> str:
    """A unit's name: equal for units of equal content, so that a spooled result is never used for another."""
    content = repr((tuple(genotype), source, split, tuple(seeds), version))
    return sha256(content.encode()).hexdigest()[:24]
