"""Local search: White et al., 2020, "Exploring the Loss Landscape in Neural Architecture Search" (arXiv 2005.02960).

Algorithm 1: evaluate the neighbours of the best genotype, move to the best of them, and stop in a local optimum.
Deviations: `num_neighbours` at a time are evaluated, in random order, and the search moves on as soon as one of them is
better (with all of a neighbourhood at a time it is the published schedule); from a local optimum it starts anew at a
random genotype, until the budget is spent; no function is evaluated twice at the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.strategies.base import (
    Bred,
    advance,
    fittest_first,
    known_functions,
    propose_distinct,
)
from across.search_spaces.base import Config, Genotype, SearchSpace


class LocalSearchConfig(Config):
    """Settings of local search."""

    type: Literal["local_search"] = "local_search"
    num_neighbours: int = Field(default=8, ge=1)
    """Neighbours a generation."""

    def build(self, space: SearchSpace) -> LocalSearch:
        return LocalSearch(self, space)


@dataclass(frozen=True)
class LocalSearch:
    """A walk uphill; `SearchState.population` is where it stands, and empty before a new start."""

    config: LocalSearchConfig
    space: SearchSpace

    def num_new(self, state: SearchState) -> int:
        if not state.population:
            return 1
        return min(self.config.num_neighbours, len(self._open_neighbours(state)))

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        standing = [each.proposal for each in state.population]
        parents = tuple(each.index for each in standing)
        open_ones = self._open_neighbours(state) if standing else []
        order = iter(rng.permutation(len(open_ones)))

        def draw() -> Bred:
            position = next(order, None)
            return (self.space.sample(rng), ()) if position is None else (open_ones[position], parents)

        known = known_functions(state, self.space)
        return propose_distinct(state, self.space, standing, num, draw, rng, known)

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        best = fittest_first(results)[0]
        after = advance(state, results, population=[best])
        is_stuck = best.fitness is None or not self._open_neighbours(after)
        return advance(state, results, population=()) if is_stuck else after

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        return self.space.sample(rng)

    def _open_neighbours(self, state: SearchState) -> list[Genotype]:
        """Neighbours of where the search stands that were not evaluated at the present weights."""
        known = known_functions(state, self.space)
        neighbours = self.space.neighbours(state.population[0].proposal.genotype)
        return [each for each in neighbours if self.space.canonical(each) not in known]
