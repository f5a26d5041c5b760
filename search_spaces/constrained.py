"""A search space within limits on parameters and multiply-adds: nothing outside them is ever proposed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from across.search_spaces.architecture import Architecture
from across.search_spaces.base import ConstraintError, Genotype, InputShape, InvalidGenotypeError, SearchSpace

NUM_ATTEMPTS = 200
"""Random draws before an operator falls back on something less random."""
NUM_OTHERS = 20
"""Samples among which a mutation looks for a different architecture when no neighbour is allowed."""
NUM_DESCENT_STEPS = 1000
"""Mutations on the way from the smallest architecture seen into the limits."""

MAX_REMEMBERED = 2**16


@dataclass(frozen=True)
class Cost:
    """What one architecture with its head costs."""

    num_params: int
    flops: int
    """Multiply-adds on one image."""


def cost_with_head(architecture: Architecture, num_outputs: int) -> Cost:
    """What `architecture` costs with a linear head; without one where it has no outputs."""
    head_inputs = architecture.feature_dim
    return Cost(
        num_params=architecture.num_params + (head_inputs + 1) * num_outputs,
        flops=architecture.flops + head_inputs * num_outputs,
    )


@dataclass(frozen=True)
class Constrained:
    """`space` without the architectures that cost more than a limit; a limit of None is no limit.

    `num_outputs` is the size of the linear head that the counts include, for instance the number of ways.
    """

    space: SearchSpace
    num_outputs: int
    max_params: int | None = None
    max_flops: int | None = None
    _costs: dict[Genotype, Cost] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `cost` found before: an operator asks for the same genotypes again and again."""

    @property
    def input_shape(self) -> InputShape:
        """Channels, height and width of the images."""
        return self.space.input_shape

    @property
    def encoding_dim(self) -> int:
        """Length of `encode`'s vector."""
        return self.space.encoding_dim

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype drawn uniformly from those within the limits.

        Where these are rarer than about one in `NUM_ATTEMPTS`, random mutations lead from the smallest draw
        into the limits instead. Raises `ConstraintError` when that fails too.
        """
        draws = []
        for _ in range(NUM_ATTEMPTS):
            genotype = self.space.sample(rng)
            if self.allows(genotype):
                return genotype
            draws.append(genotype)
        return self._descend(min(draws, key=self._excess), rng)

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """One gene changed; where no such neighbour is within the limits, another genotype within them."""
        child = self._first_allowed(lambda: self.space.mutate(parent, rng))
        if child is None:
            others = (self.sample(rng) for _ in range(NUM_OTHERS))
            child = next((other for other in others if self.canonical(other) != self.canonical(parent)), None)
        if child is None:
            raise ConstraintError(
                f"{self.to_string(parent)} cannot be mutated, because no other architecture was found with "
                f"{self._limits()}: raise the limits"
            )
        return child

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """The neighbours in the space that are within the limits; none where `genotype` is surrounded."""
        return [neighbour for neighbour in self.space.neighbours(genotype) if self.allows(neighbour)]

    def crossover(self, mother: Genotype, father: Genotype, rng: np.random.Generator) -> Genotype:
        """Uniform crossover; one of the parents where no mixture was found within the limits."""
        child = self._first_allowed(lambda: self.space.crossover(mother, father, rng))
        if child is None:
            child = mother if rng.integers(2) == 0 else father
            self.validate(child)
        return child

    def validate(self, genotype: Genotype) -> None:
        """Raise `InvalidGenotypeError` unless `genotype` belongs to the space and is within the limits."""
        self.space.validate(genotype)
        if not self.allows(genotype):
            cost = self.cost(genotype)
            raise InvalidGenotypeError(
                f"{self.space.to_string(genotype)} has {cost.num_params:,} parameters and {cost.flops:,} "
                f"multiply-adds with its head of {self.num_outputs} outputs; allowed are {self._limits()}"
            )

    def canonical(self, genotype: Genotype) -> Genotype:
        """The representative of genotypes that compute the same function."""
        return self.space.canonical(genotype)

    def architecture(self, genotype: Genotype) -> Architecture:
        """The graph that `genotype` stands for."""
        return self.space.architecture(genotype)

    def super_architecture(self) -> Architecture:
        """The graph of all candidates of the whole space."""
        return self.space.super_architecture()

    def encode(self, genotype: Genotype) -> NDArray[np.float32]:
        """A vector for predictors, shape (encoding_dim,)."""
        return self.space.encode(genotype)

    def to_string(self, genotype: Genotype) -> str:
        """The space's string."""
        return self.space.to_string(genotype)

    def from_string(self, text: str) -> Genotype:
        """The genotype of a string; raises `InvalidGenotypeError`, also for one beyond the limits."""
        genotype = self.space.from_string(text)
        self.validate(genotype)
        return genotype

    def cost(self, genotype: Genotype) -> Cost:
        """Parameters and multiply-adds that the limits apply to."""
        if genotype not in self._costs:
            if len(self._costs) >= MAX_REMEMBERED:
                self._costs.clear()
            self._costs[genotype] = cost_with_head(self.space.architecture(genotype), self.num_outputs)
        return self._costs[genotype]

    def allows(self, genotype: Genotype) -> bool:
        """Whether a genotype of the space is within the limits."""
        return self._excess(genotype) <= 1

    def _excess(self, genotype: Genotype) -> float:
        """The greatest ratio of a count to its limit."""
        cost = self.cost(genotype)
        counts = ((cost.num_params, self.max_params), (cost.flops, self.max_flops))
        return max((count / limit for count, limit in counts if limit is not None), default=0.0)

    def _first_allowed(self, draw: Callable[[], Genotype]) -> Genotype | None:
        """The first of `NUM_ATTEMPTS` draws that is within the limits."""
        return next((drawn for drawn in (draw() for _ in range(NUM_ATTEMPTS)) if self.allows(drawn)), None)

    def _descend(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        """Accept random mutations that cost no more until one is within the limits."""
        for _ in range(NUM_DESCENT_STEPS):
            try:
                neighbour = self.space.mutate(genotype, rng)
            except InvalidGenotypeError:  # the space holds no other
                break
            if self._excess(neighbour) <= self._excess(genotype):
                genotype = neighbour
            if self.allows(genotype):
                return genotype
        cost = self.cost(genotype)
        raise ConstraintError(
            f"no architecture was found with {self._limits()}, a head of {self.num_outputs} outputs included. The "
            f"smallest seen, {self.space.to_string(genotype)}, has {cost.num_params:,} parameters and "
            f"{cost.flops:,} multiply-adds: raise the limits, or give the space narrower or cheaper choices"
        )

    def _limits(self) -> str:
        limits = {"max_params": self.max_params, "max_flops": self.max_flops}
        return " and ".join(f"{name} {limit:,}" for name, limit in limits.items() if limit is not None)


def unconstrained(space: SearchSpace) -> SearchSpace:
    """The space itself, without limits."""
    return space.space if isinstance(space, Constrained) else space
