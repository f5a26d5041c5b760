"""A search that asks a predictor first: many candidates are predicted, few are evaluated.

Each generation the predictor is fitted anew to everything evaluated so far and rates the candidates, and the most
worthwhile by the acquisition function are evaluated. No function is evaluated twice at the same weights.

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
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from orchestrator.forecasts import recent_kendall_taus
from orchestrator.state import Evaluation, Forecast, Proposal, SearchState
from orchestrator.strategies.base import Bred, advance, elites, known_functions, propose_distinct
from orchestrator.strategies.guidance.acquisition import AcquisitionConfig, UpperBoundConfig, choose_batch
from orchestrator.strategies.guidance.candidates import CandidatesConfig, CandidateSource, OffspringConfig
from orchestrator.strategies.guidance.guide import Guide, Signals, ranked_signals
from orchestrator.strategies.guidance.knowledge import Forgetful, Knowledge, PretrainingCache, SizeKnowledge
from search_spaces.base import Config, Genotype, SearchSpace
from search_spaces.constrained import Constrained
from workers.evaluators.zero_cost import SignalsConfig
from workers.predictors import PredictorConfig
from workers.predictors.across import AcrossConfig
from workers.predictors.base import Candidates, Values, best_first

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
    """Signals that the workers measure of every candidate in a few-shot search; None: none."""
    earlier_runs: tuple[Path, ...] = ()
    """Runs of the same space on other tasks, which count as earlier tasks; copied when the search begins."""
    min_kendall_tau: float = Field(default=0.0, ge=-1, le=1)
    """Of the last generations, their mean: below it children are not screened; -1: they always are."""
    num_threads: int = Field(default=2, ge=1)
    """Of the predictor, in the driver: bits depend on it."""

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
        """The candidates of the next generation: genotypes of functions that are not known."""
        living = elites(state, self.config.num_elites)
        known = known_functions(state, self.space) | {self.space.canonical(each.genotype) for each in living}

        def worth(genotypes: Sequence[Genotype]) -> Values:
            if not state.history:
                return np.zeros(len(genotypes))
            return self._guide.predict(state, self._guide.describe(genotypes)).mean

        return self.source.candidates(state, rng, known, worth)

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
        survivors, signals = elites(state, self.config.num_elites), ranked_signals(measured)
        picks = self._picks(state, rng, num, [genotype for genotype, _ in considered], signals)
        chosen = [
            Proposal(
                state.next_index + position,
                considered[pick.row][0],
                considered[pick.row][1],
                birth=state.generation,
                forecast=pick.forecast,
                signals=signals.get(considered[pick.row][0], {}),
            )
            for position, pick in enumerate(picks)
        ]
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
        signals: Signals,
    ) -> list[_Pick]:
        if not genotypes:
            return []
        candidates = self._guide.describe(genotypes, signals)
        functions = _numbered([self.space.canonical(genotype) for genotype in genotypes])
        order = rng.permutation(len(genotypes)) if self.source.pool else np.arange(len(genotypes))
        if not state.history:
            best = self._best_on_earlier_tasks(candidates, functions, num)
            return [_Pick(row) for row in _distinct([*best, *order], functions)[:num]]
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

    def _best_on_earlier_tasks(
        self, candidates: Candidates, functions: NDArray[np.intp], num: int
    ) -> list[int]:
        """Rows of the best by their mean rank on the earlier tasks, none where there are no such."""
        if not candidates.earlier:
            return []
        return _distinct(best_first(candidates.earlier), functions)[
            : min(num, self.config.num_initial_from_earlier)
        ]

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


def _numbered(functions: Sequence[Genotype]) -> NDArray[np.intp]:
    """The same number for the same function, (N,)."""
    numbers = {function: number for number, function in enumerate(dict.fromkeys(functions))}
    return np.array([numbers[function] for function in functions], dtype=np.intp)


def _distinct(rows: Iterable[int], functions: NDArray[np.intp]) -> list[int]:
    """The first row of each function, in order."""
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(int(functions[row]), int(row))
    return list(first.values())
