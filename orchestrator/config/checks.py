"""What a config describes beyond its keys: data that is there, architectures within the limits, genotypes.

Everything is built once on the driver, so that what the user can mend is said before any worker starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from across.orchestrator.config.errors import ConfigError
from across.orchestrator.config.run_config import RunConfig, TaskShapeError, build_sources, build_space
from across.orchestrator.problem import Problem, build_problem
from across.orchestrator.run_directory import RunDirectory, RunDirectoryError
from across.orchestrator.schedules import GenerationsConfig
from across.orchestrator.strategies.base import SteadyStrategy, Strategy
from across.orchestrator.strategies.fixed import FixedConfig
from across.orchestrator.strategies.guidance.candidates import SpaceNotEnumerableError
from across.orchestrator.strategies.predictor_guided import PredictorGuidedConfig
from across.search_spaces.base import ConstraintError, InvalidGenotypeError
from across.search_spaces.layerwise import InputTooSmallError
from across.search_spaces.tables import TableError
from across.workers.base import TaskDataError, TaskSource
from across.workers.predictors.dele import DeleConfig, EncoderError


@dataclass(frozen=True)
class SearchParts:
    """What a config stands for."""

    problem: Problem
    strategy: Strategy


def validate_config(config: RunConfig, *, origin: str, is_new: bool = True) -> SearchParts:
    """The parts of the search that `config` describes; one that `is_new` reads its `initial_weights` yet.

    Raises `ConfigError` with all problems of the data, or else all of the space and the strategy; its lines begin
    with `origin` and the key to look at.
    """
    problems: list[str] = []
    for place, run in _other_runs(config) if is_new else ():
        with _noted(problems, f"{origin}: {place}", RunDirectoryError):
            RunDirectory.open(run)
    for position, source in enumerate(config.tasks):
        key = "tasks" if len(config.tasks) == 1 else f"tasks.{position}"
        with _noted(problems, f"{origin}: {key}", TaskDataError):
            source.build()
    _raise_if_any(problems)
    sources: tuple[TaskSource, ...] = ()
    if config.table is None:
        with _noted(problems, origin, TaskShapeError):
            sources = build_sources(config)
        _raise_if_any(problems)
    with _noted(problems, f"{origin}: space", InputTooSmallError):
        space = build_space(config, sources)
    _raise_if_any(problems)
    with _noted(problems, f"{origin}: table", TableError):
        problem = build_problem(config)
    _raise_if_any(problems)
    with _noted(problems, f"{origin}: constraints", ConstraintError):
        space.sample(np.random.default_rng(config.seed))
    key = "strategy.genotype" if isinstance(config.strategy, FixedConfig) else "strategy"
    with _noted(problems, f"{origin}: {key}", InvalidGenotypeError, SpaceNotEnumerableError, EncoderError):
        strategy = config.strategy.build(space)
        if isinstance(config.strategy, PredictorGuidedConfig):
            config.strategy.predictor.build(space, seed=config.seed)
            problems += _unknown_signals(config, problem, f"{origin}: strategy.predictor.signals")
        if not isinstance(config.schedule, GenerationsConfig) and not isinstance(strategy, SteadyStrategy):
            problems.append(
                f"{origin}: schedule: {config.strategy.type} goes in generations alone: choose another strategy, or"
                " delete the section schedule"
            )
    _raise_if_any(problems)
    return SearchParts(problem, strategy)


def _other_runs(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """Runs that a new one reads, by the key that names them."""
    if config.initial_weights is not None:
        yield "initial_weights", config.initial_weights
    if config.initial_population is not None and config.initial_population.run is not None:
        yield "initial_population", config.initial_population.run
    if isinstance(config.strategy, PredictorGuidedConfig):
        for run in config.strategy.earlier_runs:
            yield "strategy.earlier_runs", run


def _unknown_signals(config: RunConfig, problem: Problem, place: str) -> list[str]:
    """What the predictor wants to see and nothing measures."""
    assert isinstance(config.strategy, PredictorGuidedConfig), "only it has a predictor"
    if not isinstance(config.strategy.predictor, DeleConfig):
        return []
    measured = config.strategy.signals.names if config.strategy.signals else ()
    genotype = problem.space.sample(np.random.default_rng(config.seed))
    earlier = [*problem.knowledge.earlier([genotype]), *(run.name for run in config.strategy.earlier_runs)]
    signals = {*measured, *problem.knowledge.signals([genotype])}
    known = sorted(signals | {f"earlier/{task}" for task in earlier})
    lacking = [name for name in config.strategy.predictor.signals or () if name not in known]
    return [f"{place}: no {', '.join(lacking)}; there are {', '.join(known)}"] if lacking else []


@contextmanager
def _noted(problems: list[str], place: str, *kinds: type[ValueError]) -> Iterator[None]:
    """Add each line of an error's text to `problems`."""
    try:
        yield
    except kinds as error:
        problems += [f"{place}: {line}" for line in str(error).splitlines()]


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        raise ConfigError(problems)
