"""Random search: every generation is drawn anew. Strong for its price, and the baseline of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.strategies.base import Bred, advance, elites, fittest_first, propose_distinct
from across.search_spaces.base import Config, Genotype, SearchSpace


class RandomConfig(Config):
    """Settings of random search."""

    type: Literal["random"] = "random"
    population_size: int = Field(default=16, ge=1)
    """Genotypes a generation."""
    num_elites: int = Field(default=1, ge=0)
    """The fittest so far, which are evaluated again as the weights move on; not counted in population_size."""

    def build(self, space: SearchSpace) -> Random:
        return Random(self, space)


@dataclass(frozen=True)
class Random:
    """Draws without looking; the fittest are kept so that their fitness follows the weights."""

    config: RandomConfig
    space: SearchSpace

    def num_new(self, state: SearchState) -> int:
        return self.config.population_size

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        survivors = elites(state, self.config.num_elites)
        return propose_distinct(state, self.space, survivors, num, lambda: self.breed(state, rng), rng)

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        return advance(state, results, population=results)

    def breed(self, state: SearchState, rng: np.random.Generator) -> Bred:
        return self.space.sample(rng), ()

    def absorb(self, state: SearchState, result: Evaluation) -> SearchState:
        return advance(state, [result], fittest_first((*state.population, result))[:1])

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        return self.space.sample(rng)
