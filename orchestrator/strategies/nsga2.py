"""NSGA-II: Deb et al., 2002, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II".

Binary tournaments by rank and then by crowding, children of the space's own crossover and mutation, survival of the
best fronts. Deviations: no two of a generation compute the same function; failures do not survive while others do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from pydantic import Field
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from across.orchestrator.objectives import Costs, HasObjectives, Objective, costs
from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.strategies.base import Bred, advance, propose_distinct, successful
from across.search_spaces.base import Genotype, SearchSpace

Survival: TypeAlias = Callable[[Costs, int, np.random.Generator], list[int]]
"""(costs, number, rng) -> the rows that survive, the best first."""


class BreedingConfig(HasObjectives):
    """What NSGA-II and NSGA-III have in common."""

    population_size: int = Field(default=24, ge=2)
    """Individuals that live, and children a generation."""
    crossover_probability: float = Field(default=0.9, ge=0, le=1)
    mutation_probability: float = Field(default=0.8, ge=0, le=1)
    """Chance that a child of two parents mutates; the child of one always does."""


class Nsga2Config(BreedingConfig):
    """Settings of NSGA-II."""

    type: Literal["nsga2"] = "nsga2"

    def build(self, space: SearchSpace) -> MultiObjective:
        return MultiObjective(self, space, survive_by_crowding)


@dataclass(frozen=True)
class MultiObjective:
    """Evolution of a front; `SearchState.population` holds the survivors, the best first."""

    config: BreedingConfig
    space: SearchSpace
    survive: Survival = field(repr=False)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What is traded against what."""
        return self.config.objectives

    def num_new(self, state: SearchState) -> int:
        return self.config.population_size

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        living = [each.proposal for each in state.population]
        return propose_distinct(state, self.space, living, num, lambda: self.breed(state, rng), rng)

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        return advance(state, results, self._survivors(state, results))

    def breed(self, state: SearchState, rng: np.random.Generator) -> Bred:
        if len(state.population) < 2:
            return self.space.sample(rng), ()
        mother = self._win_tournament(state, rng)
        if rng.random() >= self.config.crossover_probability:
            return self.space.mutate(mother.genotype, rng), (mother.index,)
        father = self._win_tournament(state, rng)
        child: Genotype = self.space.crossover(mother.genotype, father.genotype, rng)
        if rng.random() < self.config.mutation_probability:
            child = self.space.mutate(child, rng)
        return child, tuple(dict.fromkeys((mother.index, father.index)))

    def absorb(self, state: SearchState, result: Evaluation) -> SearchState:
        return advance(state, [result], self._survivors(state, (*state.population, result)))

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        return self.space.sample(rng)

    def _survivors(self, state: SearchState, results: Sequence[Evaluation]) -> list[Evaluation]:
        succeeded = successful(results)
        if not succeeded:
            return []
        matrix = costs(succeeded, self.objectives)
        rng = np.random.default_rng((state.generation, state.next_index))  # for ties alone
        return [succeeded[row] for row in self.survive(matrix, self.config.population_size, rng)]

    def _win_tournament(self, state: SearchState, rng: np.random.Generator) -> Proposal:
        """The better of two: survivors are in order."""
        return state.population[int(rng.integers(len(state.population), size=2).min())].proposal


def survive_by_crowding(matrix: Costs, num: int, rng: np.random.Generator) -> list[int]:
    """By rank, then by crowding distance, the least crowded first."""
    population = Population.new("F", matrix, "position", np.arange(len(matrix)))
    survivors = RankAndCrowding().do(
        Problem(n_obj=matrix.shape[1]), population, n_survive=min(num, len(matrix)), random_state=rng
    )
    ordered = sorted(
        survivors, key=lambda each: (each.get("rank"), -each.get("crowding"), each.get("position"))
    )
    return [int(each.get("position")) for each in ordered]
