"""Genetic algorithm over architectures, the evolutionary half of AT-NAS (arXiv 2110.05842).

The paper's operators are not published in detail. Here: parents win tournaments, uniform crossover, mutation of a
single gene, elitism, and no two individuals of a generation that compute the same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.strategies.base import (
    Bred,
    advance,
    elites,
    fittest_first,
    propose_distinct,
    successful,
    win_tournament,
)
from across.search_spaces.base import Config, Genotype, SearchSpace


class GeneticConfig(Config):
    """Settings of the genetic algorithm."""

    type: Literal["genetic"] = "genetic"
    population_size: int = Field(default=16, ge=2)
    num_elites: int = Field(default=4, ge=0)
    """The fittest, which live on into the next generation."""
    tournament_size: int = Field(default=3, ge=1)
    crossover_probability: float = Field(default=0.5, ge=0, le=1)
    """Chance of two parents rather than one."""
    mutation_probability: float = Field(default=0.8, ge=0, le=1)
    """Chance that a child of two parents mutates; the child of one always does."""

    @model_validator(mode="after")
    def _has_room_for_children(self) -> Self:
        if self.num_elites >= self.population_size:
            raise ValueError(
                f"num_elites must be below population_size, {self.population_size} (got {self.num_elites})"
            )
        return self

    def build(self, space: SearchSpace) -> Genetic:
        return Genetic(self, space)


@dataclass(frozen=True)
class Genetic:
    """Tournament selection, crossover, mutation, elitism."""

    config: GeneticConfig
    space: SearchSpace

    def num_new(self, state: SearchState) -> int:
        return self.config.population_size - len(elites(state, self.config.num_elites))

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        survivors = elites(state, self.config.num_elites)
        return propose_distinct(state, self.space, survivors, num, lambda: self._breed(state, rng), rng)

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        return advance(state, results, population=results)

    def breed(self, state: SearchState, rng: np.random.Generator) -> Bred:
        if len(state.population) < self.config.population_size:
            return self.space.sample(rng), ()
        return self._breed(state, rng)

    def absorb(self, state: SearchState, result: Evaluation) -> SearchState:
        """The newcomer replaces the least fit."""
        living = fittest_first((*state.population, result))
        return advance(state, [result], living[: self.config.population_size])

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        return self.space.sample(rng)

    def _breed(self, state: SearchState, rng: np.random.Generator) -> Bred:
        population = successful(state.population)
        if not population:
            return self.space.sample(rng), ()
        mother = win_tournament(population, self.config.tournament_size, rng).proposal
        if rng.random() >= self.config.crossover_probability:
            return self.space.mutate(mother.genotype, rng), (mother.index,)
        father = win_tournament(population, self.config.tournament_size, rng).proposal
        child = self.space.crossover(mother.genotype, father.genotype, rng)
        if rng.random() < self.config.mutation_probability:
            child = self.space.mutate(child, rng)
        parents = (mother.index,) if father.index == mother.index else (mother.index, father.index)
        return child, parents
