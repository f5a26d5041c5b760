"""One genotype and no search: the same engine is then plain meta-training of a given network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.strategies.base import advance
from across.search_spaces.base import Config, Genotype, SearchSpace


class FixedConfig(Config):
    """The genotype, as its space writes it."""

    type: Literal["fixed"] = "fixed"
    genotype: str

    def build(self, space: SearchSpace) -> Fixed:
        """Raises `InvalidGenotypeError` if the genotype is not of `space`."""
        genotype = space.from_string(self.genotype)
        space.validate(genotype)
        return Fixed(genotype)


@dataclass(frozen=True)
class Fixed:
    """A population of one, for ever."""

    genotype: Genotype

    def num_new(self, state: SearchState) -> int:
        return 0 if state.population else 1

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        if state.population:
            return [each.proposal for each in state.population]
        return [Proposal(state.next_index, self.genotype, birth=state.generation)]

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        return advance(state, results, population=results)

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        return self.genotype
