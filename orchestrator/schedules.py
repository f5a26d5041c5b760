"""When the next individual is proposed, and from what: in generations, in a steady state, in lineages.

A schedule takes results in any order of arrival and proposes as soon as it may. What a proposal is made from follows
from its index alone, so the outcome is the same for any number of workers, whatever they take:

- generations: from all results of the generations before;
- steady state with lag W: proposal i from the results up to i - W, absorbed in order. A straggler holds up everything
  that comes W or more proposals after it;
- lineages: proposal i from the results i - W, i - 2W, ... alone, so a straggler holds up one of W lineages. At every
  M-th step a lineage also takes what its neighbour in a ring had M steps before: long enough ago to be in already,
  mostly.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, Protocol, TypeAlias

import numpy as np
from pydantic import Field

from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.strategies.base import Bred, SteadyStrategy, Strategy, draw_new
from across.search_spaces.base import Config, Genotype, SearchSpace
from across.workers.base import Purpose

_Stop: TypeAlias = tuple[int, int]
"""A lineage and one of its steps."""


class GenerationsConfig(Config):
    """As many individuals at a time as the strategy's generation has."""

    type: Literal["generations"] = "generations"


class OneByOneConfig(Config):
    """What the schedules without generations have in common."""

    commit_size: int = Field(default=32, ge=1)
    """Individuals of one commit, which counts as a generation; the outcome does not depend on it, the end does."""


class SteadyStateConfig(OneByOneConfig):
    """Individual i is made from the results up to i - lag."""

    type: Literal["steady_state"] = "steady_state"
    lag: int = Field(ge=1)
    """At least the number of workers, else some have nothing to do; 2.5 times as many keep them busy."""

    def build(
        self, strategy: SteadyStrategy, space: SearchSpace, *, seed: int, first: Sequence[Genotype]
    ) -> Schedule:
        return SteadyState(strategy, space, seed=seed, lag=self.lag, first=first)


class LineagesConfig(OneByOneConfig):
    """Searches side by side that exchange their best round a ring."""

    type: Literal["lineages"] = "lineages"
    num_lineages: int = Field(ge=1)
    """At least the number of workers."""
    migration_interval: int = Field(default=20, ge=1)
    """Individuals of a lineage from one exchange to the next."""

    def build(
        self, strategy: SteadyStrategy, space: SearchSpace, *, seed: int, first: Sequence[Genotype]
    ) -> Schedule:
        return Lineages(
            strategy,
            space,
            seed=seed,
            num_lineages=self.num_lineages,
            migration_interval=self.migration_interval,
            first=first,
        )


ScheduleConfig: TypeAlias = Annotated[
    GenerationsConfig | SteadyStateConfig | LineagesConfig, Field(discriminator="type")
]
"""Any schedule, told apart by `type`."""


class Schedule(Protocol):
    """Proposes individuals, and learns what became of them."""

    def propose(self, limit: int) -> list[Proposal]:
        """All new individuals of indices below `limit` that may be evaluated from now on, in the order of indices.

        What they are does not depend on the limit, nor on how often it is asked.
        """

    def receive(self, result: Evaluation) -> None:
        """One individual has been evaluated."""


class Generations:
    """Everything of a generation is proposed at once, and nothing more until all of it is in."""

    def __init__(self, strategy: Strategy, *, seed: int) -> None:
        self._strategy = strategy
        self._seed = seed
        self._state = SearchState()
        self._asked: list[Proposal] = []
        self._results: dict[int, Evaluation] = {}

    def propose(self, limit: int) -> list[Proposal]:
        """A generation that begins below `limit` is proposed whole."""
        if len(self._results) < len(self._asked) or self._state.next_index >= limit:
            return []
        rng = np.random.default_rng((self._seed, self._state.generation, Purpose.PROPOSALS))
        self._asked = self._strategy.ask(self._state, rng, self._strategy.num_new(self._state))
        living = {each.proposal.index: each for each in self._state.population}
        self._results = {each.index: living[each.index] for each in self._asked if each.index in living}
        return [each for each in self._asked if each.index not in living]

    def receive(self, result: Evaluation) -> None:
        self._results[result.proposal.index] = result
        if len(self._results) == len(self._asked):
            ordered = [self._results[each.index] for each in self._asked]
            self._state = self._strategy.tell(self._state, ordered)


class SteadyState:
    """Proposal i from the results up to i - lag."""

    def __init__(
        self,
        strategy: SteadyStrategy,
        space: SearchSpace,
        *,
        seed: int,
        lag: int,
        first: Sequence[Genotype] = (),
    ) -> None:
        self._line = _Line(strategy, space, seed, first)
        self._lag = lag
        self._waiting: dict[int, Evaluation] = {}

    def propose(self, limit: int) -> list[Proposal]:
        proposals = []
        while self._line.num_proposed < limit:
            if self._line.num_open == self._lag:
                oldest = self._waiting.pop(self._line.num_absorbed, None)
                if oldest is None:
                    break
                self._line.absorb(oldest)
            proposals.append(self._line.propose(self._line.num_proposed))
        return proposals

    def receive(self, result: Evaluation) -> None:
        """Kept until its turn: a proposal sees no result that came early."""
        self._waiting[result.proposal.index] = result


class Lineages:
    """`num_lineages` searches in a ring, which exchange their best now and then."""

    def __init__(
        self,
        strategy: SteadyStrategy,
        space: SearchSpace,
        *,
        seed: int,
        num_lineages: int,
        migration_interval: int,
        first: Sequence[Genotype] = (),
    ) -> None:
        self._lines = [_Line(strategy, space, seed, first) for _ in range(num_lineages)]
        self._interval = migration_interval
        self._emigrants: dict[_Stop, Evaluation | None] = {}
        """The best of a lineage before one of its steps, until its neighbour has taken it."""
        self._left: set[_Stop] = set()
        self._hosts: dict[_Stop, int] = {}
        """The lineage that waits for an emigrant."""
        self._ready = deque(range(num_lineages))

    def propose(self, limit: int) -> list[Proposal]:
        proposals, beyond = [], []
        while self._ready:
            lineage = self._ready.popleft()
            line = self._lines[lineage]
            index = line.num_proposed * len(self._lines) + lineage
            if index >= limit:
                beyond.append(lineage)
            elif self._has_migrated(lineage):
                proposals.append(line.propose(index))
        self._ready.extend(beyond)
        return sorted(proposals, key=lambda each: each.index)

    def receive(self, result: Evaluation) -> None:
        lineage = result.proposal.index % len(self._lines)
        self._lines[lineage].absorb(result)
        self._ready.append(lineage)

    def _has_migrated(self, lineage: int) -> bool:
        """Exchange what is due before the lineage's next step; False if it must wait for its neighbour."""
        line = self._lines[lineage]
        step = line.num_proposed
        if step % self._interval:
            return True
        if (lineage, step) not in self._left:
            self._left.add((lineage, step))
            self._emigrants[lineage, step] = line.best
            host = self._hosts.pop((lineage, step), None)
            if host is not None:
                self._ready.append(host)
        if step > 0:
            origin = (lineage - 1) % len(self._lines), step - self._interval
            if origin not in self._emigrants:
                self._hosts[origin] = lineage
                return False
            immigrant = self._emigrants.pop(origin)
            if immigrant is not None:
                line.welcome(immigrant)
        return True


class _Line:
    """One steady state: proposals from what was absorbed, distinct from the living and from what is open."""

    def __init__(
        self, strategy: SteadyStrategy, space: SearchSpace, seed: int, first: Sequence[Genotype]
    ) -> None:
        self._strategy = strategy
        self._first = first
        self._space = space
        self._seed = seed
        self._state = SearchState()
        self._open: dict[int, Genotype] = {}
        self._taken: Counter[Genotype] = Counter()
        """Canonical genotypes of the living and of what is open."""
        self.num_proposed = 0
        self.num_absorbed = 0
        self.best: Evaluation | None = None

    @property
    def num_open(self) -> int:
        return len(self._open)

    def propose(self, index: int) -> Proposal:
        rng = np.random.default_rng((self._seed, index, Purpose.PROPOSALS))

        def breed() -> Bred:
            return self._strategy.breed(self._state, rng)

        is_given = index < len(self._first)
        drawn = (self._first[index], ()) if is_given else draw_new(self._space, breed, rng, self._taken)
        genotype, parents = drawn
        self._open[index] = self._space.canonical(genotype)
        self._taken[self._open[index]] += 1
        self.num_proposed += 1
        return Proposal(index, genotype, parents)

    def absorb(self, result: Evaluation) -> None:
        """Take in the result of a proposal of this line."""
        self._release(self._open.pop(result.proposal.index))
        self.num_absorbed += 1
        self.welcome(result)

    def welcome(self, result: Evaluation) -> None:
        """Take in a result, this line's or another's."""
        before = self._state.population
        absorbed = self._strategy.absorb(self._state, result)
        self._state = replace(absorbed, history=())  # nothing that goes one by one reads it
        for each in self._state.population:
            self._taken[self._space.canonical(each.proposal.genotype)] += 1
        for each in before:
            self._release(self._space.canonical(each.proposal.genotype))
        if result.fitness is not None and (self.best is None or result.rank_key > self.best.rank_key):
            self.best = result

    def _release(self, canonical: Genotype) -> None:
        self._taken[canonical] -= 1
        if not self._taken[canonical]:
            del self._taken[canonical]
