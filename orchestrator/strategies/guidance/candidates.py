"""Where the genotypes come from among which a predictor chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Protocol, Self, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from across.errors import AcrossError
from across.orchestrator.state import SearchState
from across.orchestrator.strategies.base import Bred, SteadyStrategy, draw_new, fittest_first, successful
from across.orchestrator.strategies.genetic import GeneticConfig
from across.search_spaces.base import Config, Genotype, SearchSpace
from across.search_spaces.constrained import Constrained, unconstrained
from across.workers.predictors.base import Values

MAX_ENUMERATED, NUM_POOLED = 100_000, 5_000
Worth: TypeAlias = Callable[[Sequence[Genotype]], Values]
"""What a predictor thinks of genotypes, (N,)."""


class SpaceNotEnumerableError(AcrossError):
    """All genotypes of a space were asked for that is too large for it."""


class CandidateSource(Protocol):
    """Proposes genotypes of functions that are not known yet."""

    @property
    def pool(self) -> tuple[Genotype, ...]:
        """What a predictor learns from before the first score; empty where that is the candidates of the moment."""

    def candidates(
        self, state: SearchState, rng: np.random.Generator, known: set[Genotype], worth: Worth
    ) -> list[Bred]:
        """Genotypes with their parents; none whose canonical genotype is `known`.

        `worth` can be asked once there is a history.
        """


class ExhaustiveConfig(Config):
    """Every genotype of the space: for spaces of up to some ten thousand."""

    type: Literal["exhaustive"] = "exhaustive"

    def build(self, space: SearchSpace) -> Exhaustive:
        return Exhaustive(every_genotype(space), space)


@dataclass(frozen=True)
class Exhaustive:
    """All of `pool` that is not known."""

    pool: tuple[Genotype, ...]
    space: SearchSpace

    def candidates(
        self, state: SearchState, rng: np.random.Generator, known: set[Genotype], worth: Worth
    ) -> list[Bred]:
        return [(each, ()) for each in self.pool if self.space.canonical(each) not in known]


class InnerEvolutionConfig(Config):
    """Evolution with the prediction as fitness, as in DELE (arXiv 2302.00932, section 4.4)."""

    type: Literal["evolution"] = "evolution"
    population_size: int = Field(default=20, ge=2)
    num_parents: int = Field(default=5, ge=1)
    num_steps: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _parents_are_some_of_the_population(self) -> Self:
        if self.num_parents > self.population_size:
            raise ValueError(
                f"num_parents must be at most population_size, {self.population_size} (got {self.num_parents})"
            )
        return self

    def build(self, space: SearchSpace) -> InnerEvolution:
        return InnerEvolution(self, space)


@dataclass(frozen=True)
class InnerEvolution:
    """All genotypes that an evolution on the predictor comes across; before the first score its pool."""

    config: InnerEvolutionConfig
    space: SearchSpace

    @cached_property
    def pool(self) -> tuple[Genotype, ...]:
        """The whole space where it is small, else a fixed sample of it."""
        try:
            return every_genotype(self.space)
        except SpaceNotEnumerableError:
            rng = np.random.default_rng(0)
            return tuple(dict.fromkeys(self.space.sample(rng) for _ in range(NUM_POOLED)))

    def candidates(
        self, state: SearchState, rng: np.random.Generator, known: set[Genotype], worth: Worth
    ) -> list[Bred]:
        if not state.history:  # nothing to evolve from yet
            return [(each, ()) for each in self.pool if self.space.canonical(each) not in known]
        best = fittest_first(successful(state.history))[: self.config.num_parents]
        parents: list[Bred] = [(each.proposal.genotype, (each.proposal.index,)) for each in best]
        found: dict[Genotype, Bred] = {}
        taken = set(known)
        for _ in range(self.config.num_steps):
            children = [self._child(parents, rng, taken) for _ in range(self.config.population_size)]
            new = [child for child in children if self.space.canonical(child[0]) not in known]
            found |= {child[0]: child for child in new}
            if not found:
                break
            pool = list(found.values())
            order = np.argsort(-worth([genotype for genotype, _ in pool]), kind="stable")
            parents = [pool[int(row)] for row in order[: self.config.num_parents]]
        return list(found.values())

    def _child(self, parents: list[Bred], rng: np.random.Generator, taken: set[Genotype]) -> Bred:
        def draw() -> Bred:
            if not parents:
                return self.space.sample(rng), ()
            genotype, indices = parents[int(rng.integers(len(parents)))]
            return self.space.mutate(genotype, rng), indices

        child = draw_new(self.space, draw, rng, taken)
        taken.add(self.space.canonical(child[0]))
        return child


class OffspringConfig(Config):
    """Children of the living, more of them than are evaluated: the predictor screens them beforehand."""

    type: Literal["offspring"] = "offspring"
    breeder: GeneticConfig = GeneticConfig()
    """How children are made; population and elites are those of the predictor-guided strategy."""
    num_children: int = Field(default=48, ge=2)
    """Proposed each generation."""

    def build(self, space: SearchSpace) -> Offspring:
        breeds_from_two = self.breeder.model_copy(update={"population_size": 2})
        return Offspring(self, space, breeds_from_two.build(space))


@dataclass(frozen=True)
class Offspring:
    """Distinct children, in the order in which they were bred."""

    config: OffspringConfig
    space: SearchSpace
    breeder: SteadyStrategy

    @property
    def pool(self) -> tuple[Genotype, ...]:
        return ()

    def candidates(
        self, state: SearchState, rng: np.random.Generator, known: set[Genotype], worth: Worth
    ) -> list[Bred]:
        children, taken = [], set(known)
        for _ in range(self.config.num_children):
            child = draw_new(self.space, lambda: self.breeder.breed(state, rng), rng, taken)
            if self.space.canonical(child[0]) not in taken:
                taken.add(self.space.canonical(child[0]))
                children.append(child)
        return children


CandidatesConfig: TypeAlias = Annotated[
    ExhaustiveConfig | InnerEvolutionConfig | OffspringConfig, Field(discriminator="type")
]
"""Any source of candidates, told apart by `type`."""


def every_genotype(space: SearchSpace) -> tuple[Genotype, ...]:
    """All genotypes of a small space, within its limits; raises `SpaceNotEnumerableError`."""
    enumerate_all = getattr(unconstrained(space), "enumerate", None)
    if enumerate_all is None:
        raise SpaceNotEnumerableError(
            "candidates: this space cannot be enumerated: use the type offspring or evolution"
        )
    genotypes = []
    for number, genotype in enumerate(enumerate_all()):
        if number == MAX_ENUMERATED:
            raise SpaceNotEnumerableError(
                f"candidates: this space has more than {MAX_ENUMERATED:,} genotypes: use the type offspring or"
                " evolution"
            )
        if not isinstance(space, Constrained) or space.allows(genotype):
            genotypes.append(genotype)
    return tuple(genotypes)
