"""What a strategy is, and the steps that several share."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.search_spaces.base import Genotype, SearchSpace

NUM_ATTEMPTS = 100
"""Draws for a genotype that is new to the generation, and as many random ones before a duplicate is accepted."""


class Strategy(Protocol):
    """Decides what to evaluate next. Immutable: all that it knows is in the `SearchState`."""

    def num_new(self, state: SearchState) -> int:
        """How many new individuals the next generation wants."""

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        """The next generation: the survivors, then `num` new individuals with indices from `state.next_index`.

        A survivor is the proposal that it was; it is evaluated again where the weights have moved on.
        """

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        """The state after a generation; `results` are in the order of the proposals."""

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        """A path for a shard of meta-learning that takes none of the living."""


Bred: TypeAlias = tuple[Genotype, tuple[int, ...]]
"""A genotype with the indices of its parents."""


@runtime_checkable
class SteadyStrategy(Strategy, Protocol):
    """One that can also go individual by individual, without generations."""

    def breed(self, state: SearchState, rng: np.random.Generator) -> Bred:
        """One new individual."""

    def absorb(self, state: SearchState, result: Evaluation) -> SearchState:
        """The state after one more evaluation."""


@runtime_checkable
class ScreeningStrategy(Strategy, Protocol):
    """One that considers more candidates than it proposes; `ask` is `choose` without measured signals."""

    def consider(self, state: SearchState, rng: np.random.Generator) -> list[Bred]:
        """Candidates for the next generation."""

    def choose(
        self,
        state: SearchState,
        rng: np.random.Generator,
        num: int,
        considered: Sequence[Bred],
        measured: Mapping[Genotype, Mapping[str, float]],
    ) -> list[Proposal]:
        """The survivors, then `num` of those that were considered; `measured` are their low-fidelity signals."""


def advance(
    state: SearchState, results: Sequence[Evaluation], population: Sequence[Evaluation]
) -> SearchState:
    """The state one generation on, with `population` as the living."""
    indices = [result.proposal.index for result in results]
    known = {(each.proposal.index, each.weights_version) for each in state.population}
    return replace(
        state,
        generation=state.generation + 1,
        next_index=max([state.next_index, *(index + 1 for index in indices)]),
        population=tuple(population),
        history=(
            *state.history,
            *(each for each in results if (each.proposal.index, each.weights_version) not in known),
        ),
    )


def fittest_first(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """By falling fitness; failures last; among equals the older individual first."""
    return sorted(evaluations, key=lambda each: (-each.rank_key, each.proposal.index))


def successful(population: Iterable[Evaluation]) -> list[Evaluation]:
    """`population` without the failures, which have no children and are nobody's elite."""
    return [each for each in population if each.fitness is not None]


def elites(state: SearchState, num: int) -> list[Proposal]:
    """The fittest `num` individuals, or fewer where fewer succeeded."""
    return [each.proposal for each in fittest_first(successful(state.population))[:num]]


def known_functions(state: SearchState, space: SearchSpace) -> set[Genotype]:
    """Canonical genotypes that were evaluated at the present weights."""
    return {
        space.canonical(each.proposal.genotype)
        for each in state.history
        if each.weights_version == state.weights_version
    }


def win_tournament(population: Sequence[Evaluation], size: int, rng: np.random.Generator) -> Evaluation:
    """The fittest of `size` individuals drawn with replacement."""
    entrants = [population[int(position)] for position in rng.integers(len(population), size=size)]
    return fittest_first(entrants)[0]


def propose_distinct(
    state: SearchState,
    space: SearchSpace,
    survivors: Sequence[Proposal],
    num: int,
    draw: Callable[[], Bred],
    rng: np.random.Generator,
    known: Iterable[Genotype] = (),
) -> list[Proposal]:
    """`survivors`, then `num` new proposals that `draw` makes.

    No two of the generation compute the same function, nor one of the canonical genotypes `known`, as long as others
    are found: where `draw` has none to offer, because the population has converged, uniform samples take over.
    """
    proposals = list(survivors)
    taken = {*known, *(space.canonical(proposal.genotype) for proposal in proposals)}
    for index in range(state.next_index, state.next_index + num):
        genotype, parents = draw_new(space, draw, rng, taken)
        taken.add(space.canonical(genotype))
        proposals.append(Proposal(index, genotype, parents, birth=state.generation))
    return proposals


def draw_new(
    space: SearchSpace, draw: Callable[[], Bred], rng: np.random.Generator, taken: Container[Genotype]
) -> Bred:
    """The first of many draws whose canonical genotype is not `taken`, else a uniform sample that is not."""
    drawn = (draw() for _ in range(NUM_ATTEMPTS))
    sampled = ((space.sample(rng), ()) for _ in range(NUM_ATTEMPTS))
    new = (each for each in chain(drawn, sampled) if space.canonical(each[0]) not in taken)
    return next(new, None) or draw()
