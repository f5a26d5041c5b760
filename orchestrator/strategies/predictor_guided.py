"""A search that asks a predictor first: many candidates are predicted, few are evaluated.

Each generation the predictor is fitted anew to everything evaluated so far and rates the candidates, and the most
worthwhile by the acquisition function are evaluated. No function is evaluated twice at the same weights, until the
space has no other.

In a benchmark table the candidates are usually the whole space (`exhaustive`) or come from an evolution on the
predictor. In a few-shot search they are the children of the living (`offspring`): the predictor screens them, with
signals that the workers measure beforehand. There, where its forecasts do not rank what the workers find, it steps
aside until they do: its children are then evaluated as they come, and still forecast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from across.orchestrator.forecasts import recent_kendall_taus
from across.orchestrator.state import Evaluation, Forecast, Proposal, SearchState
from across.orchestrator.strategies.base import Bred, advance, elites, known_functions, propose_distinct
from across.orchestrator.strategies.guidance.acquisition import (
    AcquisitionConfig,
    UpperBoundConfig,
    choose_batch,
)
from across.orchestrator.strategies.guidance.candidates import (
    CandidatesConfig,
    CandidateSource,
    OffspringConfig,
)
from across.orchestrator.strategies.guidance.guide import Guide, Signals, ranked_signals
from across.orchestrator.strategies.guidance.knowledge import (
    Forgetful,
    Knowledge,
    PretrainingCache,
    SizeKnowledge,
)
from across.search_spaces.base import Config, Genotype, SearchSpace
from across.search_spaces.constrained import Constrained
from across.workers.evaluators.zero_cost import SignalsConfig
from across.workers.predictors import PredictorConfig
from across.workers.predictors.across import AcrossConfig
from across.workers.predictors.base import Values, best_first

NUM_RECENT = 3
"""Generations over which a predictor's rank correlation is averaged."""


class PredictorGuidedConfig(Config):
    """Settings of a predictor-guided search."""

    type: Literal["predictor_guided"] = "predictor_guided"
    predictor: PredictorConfig = AcrossConfig()
    candidates: CandidatesConfig = OffspringConfig()
    acquisition: AcquisitionConfig = UpperBoundConfig()
    batch_size: int = Field(default=12, ge=1)
    """New individuals a generation."""
    num_elites: int = Field(default=4, ge=0)
    """The fittest, which live on."""
    num_initial: int = Field(default=16, ge=1)
    """Individuals of the first generation."""
    num_initial_from_earlier: int = Field(default=12, ge=0)
    """How many of them are the candidates of the best mean rank on the earlier tasks; the others are random."""
    num_unscreened: int = Field(default=0, ge=0)
    """Of a batch, those that are drawn from the candidates whatever the predictor says of them."""
    reach: float = Field(default=0.0, ge=0)
    """Distance of encodings within which a chosen candidate keeps others out of its batch; √2 is one changed gene."""
    max_experience: int = Field(default=1000, ge=1)
    """Functions that the predictor learns from, the newest."""
    signals: SignalsConfig | None = None
    """Signals that the workers measure of the children in a few-shot search, by the first task source; None: none."""
    earlier_runs: tuple[Path, ...] = ()
    """Runs of the same space on other tasks, which count as earlier tasks; copied when the search begins."""
    min_kendall_tau: float = Field(default=0.0, ge=-1, le=1)
    """Of the last generations, their mean: below it children are not screened; -1: they always are.

    It takes three children or more a generation.
    """
    num_threads: int = Field(default=2, ge=1)
    """Of the predictor, in the driver: bits depend on it."""

    @model_validator(mode="after")
    def _measures_children_alone(self) -> Self:
        if self.signals is not None and not isinstance(self.candidates, OffspringConfig):
            raise ValueError(
                f"signals: workers measure them of children, and candidates of the type {self.candidates.type} are"
                " many more: delete signals, or use candidates of the type offspring"
            )
        return self

    @field_validator("earlier_runs")
    @classmethod
    def _runs_have_names_of_their_own(cls, runs: tuple[Path, ...]) -> tuple[Path, ...]:
        names = [run.name for run in runs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"the folders of the runs must have different names (got {', '.join(twice)} twice)"
            )
        return runs

    def build(self, space: SearchSpace) -> PredictorGuided:
        sizes = SizeKnowledge(Constrained(space, 0))
        return PredictorGuided(self, space, self.candidates.build(space), sizes)


@dataclass(frozen=True)
class PredictorGuided:
    """Fit, predict, choose. `SearchState.population` holds what was evaluated last, elites included."""

    config: PredictorGuidedConfig
    space: SearchSpace
    source: CandidateSource
    knowledge: Knowledge
    seed: int = 0
    """Of the predictor."""
    cache: PretrainingCache = field(default_factory=Forgetful)

    def informed(self, knowledge: Knowledge, *, seed: int, cache: PretrainingCache) -> PredictorGuided:
        """The same strategy, with what the search knows from the start."""
        return replace(self, knowledge=knowledge, seed=seed, cache=cache)

    def num_new(self, state: SearchState) -> int:
        return self.config.batch_size if state.history else self.config.num_initial

    def ask(self, state: SearchState, rng: np.random.Generator, num: int) -> list[Proposal]:
        return self.choose(state, rng, num, self.consider(state, rng), {})

    def tell(self, state: SearchState, results: Sequence[Evaluation]) -> SearchState:
        return advance(state, results, population=results)

    def sample_path(self, rng: np.random.Generator) -> Genotype:
        return self.space.sample(rng)

    def consider(self, state: SearchState, rng: np.random.Generator) -> list[Bred]:
        """The candidates of the next generation: genotypes of functions that are not known.

        No more than are needed where no predictor chooses between them.
        """
        living = elites(state, self.config.num_elites)
        known = known_functions(state, self.space) | {self.space.canonical(each.genotype) for each in living}

        def worth(genotypes: Sequence[Genotype]) -> Values:
            return self._guide.predict(state, self._guide.describe(genotypes)).mean

        considered = self.source.candidates(state, rng, known, worth)
        if not state.history:
            rows = self._first_rows([genotype for genotype, _ in considered], rng)
            return [considered[row] for row in rows]
        return considered[: self.num_new(state)] if self.stands_aside(state) else considered

    def choose(
        self,
        state: SearchState,
        rng: np.random.Generator,
        num: int,
        considered: Sequence[Bred],
        measured: Signals,
    ) -> list[Proposal]:
        """The survivors, then `num` of the candidates, about which the workers measured some signals.

        Where there are too few candidates, random genotypes make up for it.
        """
        survivors, scores = elites(state, self.config.num_elites), ranked_signals(measured)
        picks = self._picks(state, rng, num, [genotype for genotype, _ in considered], scores)
        chosen = []
        for position, pick in enumerate(picks):
            genotype, parents = considered[pick.row]
            chosen.append(
                Proposal(
                    state.next_index + position,
                    genotype,
                    parents,
                    birth=state.generation,
                    forecast=pick.forecast,
                    signals=dict(measured.get(genotype, {})),
                    signal_scores=scores.get(genotype, {}),
                )
            )
        return propose_distinct(
            replace(state, next_index=state.next_index + len(chosen)),
            self.space,
            [*survivors, *chosen],
            num - len(chosen),
            lambda: (self.space.sample(rng), ()),
            rng,
            known_functions(state, self.space),
        )

    def stands_aside(self, state: SearchState) -> bool:
        """Whether the latest forecasts ranked what the workers found too badly to be trusted."""
        if self.source.pool:  # not bred, so there are none as they come
            return False
        taus = recent_kendall_taus(state.history, state.generation, NUM_RECENT)
        return len(taus) == NUM_RECENT and sum(taus) / NUM_RECENT < self.config.min_kendall_tau

    def _picks(
        self,
        state: SearchState,
        rng: np.random.Generator,
        num: int,
        genotypes: Sequence[Genotype],
        signal_scores: Signals,
    ) -> list[_Pick]:
        if not genotypes:
            return []
        if not state.history:
            return [_Pick(row) for row in range(len(genotypes))][:num]
        candidates = self._guide.describe(genotypes, signal_scores)
        functions = self._functions(genotypes)
        order = self._order(len(genotypes), rng)
        prediction = self._guide.predict(state, candidates)
        screened: list[int] = []
        if not self.stands_aside(state):
            acquisition = self.config.acquisition.build(self._guide.best(state, candidates), rng)
            num_screened, reach = max(0, num - self.config.num_unscreened), self.config.reach
            screened = choose_batch(
                acquisition, prediction, candidates.encodings, functions, num_screened, reach=reach
            )
        mean, std = prediction.mean, prediction.std
        return [
            _Pick(
                row,
                Forecast(float(mean[row]), float(std[row]), len(genotypes) if row in screened else 1),
            )
            for row in _distinct([*screened, *order], functions)[:num]
        ]

    def _first_rows(self, genotypes: Sequence[Genotype], rng: np.random.Generator) -> list[int]:
        """Candidates to begin with: those of the best mean rank on the earlier tasks, then any."""
        functions, earlier = self._functions(genotypes), self.knowledge.earlier(genotypes)
        best = _distinct(best_first(earlier), functions) if earlier else []
        order = self._order(len(genotypes), rng)
        num_best, num = self.config.num_initial_from_earlier, self.config.num_initial
        return _distinct([*best[:num_best], *order], functions)[:num]

    def _functions(self, genotypes: Sequence[Genotype]) -> NDArray[np.intp]:
        """The same number for the same function, (N,)."""
        numbers: dict[Genotype, int] = {}
        functions = [numbers.setdefault(self.space.canonical(each), len(numbers)) for each in genotypes]
        return np.array(functions, dtype=np.intp)

    def _order(self, num: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """In which candidates come that no predictor has chosen: children as they were bred."""
        return rng.permutation(num) if self.source.pool else np.arange(num)

    @cached_property
    def _guide(self) -> Guide:
        return Guide(
            self.config.predictor,
            self.space,
            self.source.pool,
            self.knowledge,
            self.seed,
            self.cache,
            self.config.max_experience,
            self.config.num_threads,
            self.config.signals.names if self.config.signals else (),
        )


class _Pick(NamedTuple):
    """A candidate that is to be evaluated."""

    row: int
    forecast: Forecast | None = None


def _distinct(rows: Iterable[int], functions: NDArray[np.intp]) -> list[int]:
    """The first row of each function, in order."""
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(int(functions[row]), int(row))
    return list(first.values())
