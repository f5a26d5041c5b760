"""Regularized evolution: Real et al., 2019, "Regularized Evolution for Image Classifier Architecture Search",
Algorithm 1.

Deviations: `num_offspring` children are made from the same population and replace as many of the oldest at once, so
that workers can evaluate them side by side; with 1 it is the published schedule. No two individuals of a generation
compute the same function. Failures have no children.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.strategies.base import Bred, advance, propose_distinct, successful, win_tournament
from across.search_spaces.base import Config, Genotype, SearchSpace


class RegularizedEvolutionConfig(Config):
    """Settings of regularized evolution."""

    type: Literal["regularized_evolution"] = "regularized_evolution"
    population_size: int = Field(default=16, ge=2)
    sample_size: int = Field(default=5, ge=1)
    """Individuals drawn with replacement, of which the fittest is the parent."""
    num_offspring: int = Field(default=8, ge=1)
    """Children a generation; as many of the oldest die."""

    @model_validator(mode="after")
    def _fits_the_population(self) -> Self:
        for name in ("sample_size", "num_offspring"):
            if getattr(self, name) > self.population_size:
                raise ValueError(
                    f"{name} must be at most population_size, {self.population_size}"
                    f" (got {getattr(self, name)})"
                )
        return self

    def build(self, space: SearchSpace) -> RegularizedEvolution:
        return RegularizedEvolution(self, space)


@dataclass(frozen=True)
class RegularizedEvolution:
    """A population that forgets its oldest; `SearchState.population` is ordered by age, the oldest first."""

    config: RegularizedEvolutionConfig
    space: SearchSpace

    def num_new(self, state: SearchState) -> int:
        return self.config.num_offspring if state.population else self.config.population_size

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        survivors = [each.proposal for each in state.population[num:]]
        return propose_distinct(state, self.space, survivors, num, lambda: self._breed(state, rng), rng)

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        return advance(state, results, population=results)

    def breed(self, state: SearchState, rng: np.random.Generator) -> Bred:
        if len(state.population) < self.config.population_size:
            return self.space.sample(rng), ()
        return self._breed(state, rng)

    def absorb(self, state: SearchState, result: Evaluation) -> SearchState:
        return advance(state, [result], (*state.population, result)[-self.config.population_size :])

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        return self.space.sample(rng)

    def _breed(self, state: SearchState, rng: np.random.Generator) -> Bred:
        parents = successful(state.population)
        if not parents:
            return self.space.sample(rng), ()
        parent = win_tournament(parents, self.config.sample_size, rng).proposal
        return self.space.mutate(parent.genotype, rng), (parent.index,)
