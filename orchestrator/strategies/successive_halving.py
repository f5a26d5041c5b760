"""Successive halving over fidelities: Jamieson and Talwalkar, 2016, "Non-stochastic Best Arm Identification and
Hyperparameter Optimization" (arXiv 1502.07943).

A generation is a rung: many random genotypes at the lowest fidelity, the best 1/eta of them at the next, and so on;
after the last rung the next bracket begins. The best of a rung is a child of itself at the next fidelity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.strategies.base import (
    advance,
    fittest_first,
    known_functions,
    propose_distinct,
    successful,
)
from across.search_spaces.base import Config, Genotype, SearchSpace


class SuccessiveHalvingConfig(Config):
    """Settings of successive halving."""

    type: Literal["successive_halving"] = "successive_halving"
    fidelities: Annotated[tuple[Annotated[int, Field(ge=1)] | None, ...], Field(min_length=1)]
    """From cheap to dear: epochs of a table, or tasks of a few-shot search; null last is the full evaluation."""
    population_size: int = Field(default=27, ge=2)
    """Genotypes of the first rung."""
    eta: float = Field(default=3.0, gt=1)
    """One in so many goes on to the next rung."""

    @model_validator(mode="after")
    def _fidelities_ascend(self) -> Self:
        known = [fidelity for fidelity in self.fidelities if fidelity is not None]
        if known != sorted(set(known)) or None in self.fidelities[:-1]:
            raise ValueError(
                f"fidelities must ascend, and only the last may be null (got {list(self.fidelities)})"
            )
        return self

    def build(self, space: SearchSpace) -> SuccessiveHalving:
        return SuccessiveHalving(self, space)


@dataclass(frozen=True)
class SuccessiveHalving:
    """Brackets of rungs, one after the other; `SearchState.population` is the last rung."""

    config: SuccessiveHalvingConfig
    space: SearchSpace

    def num_new(self, state: SearchState) -> int:
        return len(self._promoted(state)) or self.config.population_size

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        promoted = self._promoted(state)
        if promoted:
            fidelity = self.config.fidelities[self._rung(state) + 1]
            return [
                Proposal(
                    state.next_index + position,
                    each.proposal.genotype,
                    (each.proposal.index,),
                    birth=state.generation,
                    fidelity=fidelity,
                )
                for position, each in enumerate(promoted[:num])
            ]
        known = known_functions(state, self.space)
        drawn = propose_distinct(state, self.space, (), num, lambda: (self.space.sample(rng), ()), rng, known)
        return [replace(proposal, fidelity=self.config.fidelities[0]) for proposal in drawn]

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        return advance(state, results, population=results)

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        return self.space.sample(rng)

    def _rung(self, state: SearchState) -> int:
        return self.config.fidelities.index(state.population[0].proposal.fidelity)

    def _promoted(self, state: SearchState) -> list[Evaluation]:
        """The best of the last rung, the fittest first; none before the first and after the last rung."""
        if not state.population or self._rung(state) + 1 == len(self.config.fidelities):
            return []
        num = max(1, int(len(state.population) / self.config.eta))
        return fittest_first(successful(state.population))[:num]
