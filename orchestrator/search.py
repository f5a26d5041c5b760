"""The ways into a search: start it, resume it, measure what it found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from across.orchestrator.config import ConfigError
from across.orchestrator.config.loading import changed_settings, check_resume_overrides, parse_config
from across.orchestrator.config.resolution import describe_environment, resolve, resolve_as
from across.orchestrator.config.run_config import RunConfig
from across.orchestrator.engine import Engine, Pool, compute
from across.orchestrator.finalists import choose_finalists
from across.orchestrator.loop import fold, search_until_finished
from across.orchestrator.objectives import objectives_of
from across.orchestrator.plots.gallery import Gallery
from across.orchestrator.problem import Problem, build_problem
from across.orchestrator.progress import Progress, make_progress
from across.orchestrator.resuming import (
    check_device,
    journal_changes,
    read_earlier_runs,
    take_earlier_runs,
    take_initial_population,
    take_initial_weights,
)
from across.orchestrator.run_directory import RunDirectory, fingerprint
from across.orchestrator.state import Commit, Evaluation, Proposal, SearchState, is_finished
from across.orchestrator.strategies.guidance.earlier_searches import EarlierSearches
from across.orchestrator.strategies.predictor_guided import PredictorGuided
from across.orchestrator.tracking.tracker import Tracker
from across.orchestrator.worker_pool.cluster import connect, living_nodes, wait_for_nodes
from across.orchestrator.worker_pool.in_process import InProcessPool
from across.orchestrator.worker_pool.pool import WorkerPool
from across.search_spaces.base import Genotype, SearchSpace
from across.workers.base import EvaluationResult
from across.workers.outer_optimizer import MetaState
from across.workers.supernet_worker import ComputeSettings

RUNS_FOLDER = Path("runs")


@dataclass(frozen=True)
class SearchOutcome:
    """What a search has come to."""

    run_dir: Path
    state: SearchState
    commits: tuple[Commit, ...]
    best: Evaluation | None
    """The finalist of the best mean validation fitness, with its scores on held-out test tasks."""
    is_finished: bool
    fingerprint: str
    """Equal for searches whose every population, fitness value and weight is equal."""


def run_search(
    config: RunConfig,
    *,
    run_dir: Path | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> SearchOutcome:
    """Search as `config` says, in a new run directory (`runs/NAME`), or in that of the same config: resume.

    Raises `ConfigError`, `TaskDataError`, `RunDirectoryError`, `ClusterError` for what the user can mend, and a
    `PoolError` when the search stopped in a resumable state.
    """
    run_dir = (run_dir or RUNS_FOLDER / config.name).absolute()
    if RunDirectory.exists(run_dir):
        _, stored = load_run(run_dir)
        wanted = resolve_as(config, stored)
        return resume_search(run_dir, changes=wanted, address=address, progress=progress)
    problem = _build(config)  # what is wrong with the data is said before anything starts
    read_earlier_runs(config, problem.space)
    _join(config, address)
    config = resolve(take_initial_population(config, problem.space), has_gpus=_has_gpus(config))
    with _pool(config, problem) as pool:
        device = pool.wait_for_worker().device
        run = RunDirectory.create(run_dir, json.loads(config.model_dump_json()), describe_environment(device))
        with run.lock():
            return _search(run, config, problem, pool, progress)


def resume_search(
    run_dir: Path,
    *,
    changes: RunConfig | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> SearchOutcome:
    """Go on where the run's journal ends. `changes` is its config with other settings that may change."""
    run, started = load_run(run_dir)
    config = started if changes is None else check_resume_overrides(started, changes)
    problem = _build(config)
    with run.lock():
        if is_finished(run.commits(), **dict(config.search)):
            _complete(run, started, config, problem)
            return _outcome(run, config, problem)
        _join(config, address)
        with _pool(config, problem) as pool:
            check_device(run, config, pool.wait_for_worker().device)
            journal_changes(run, started, config)
            return _search(run, config, problem, pool, progress)


def load_run(run_dir: Path) -> tuple[RunDirectory, RunConfig]:
    """The run at `run_dir` and its config as it stands, with what was changed on resume."""
    run = RunDirectory.open(run_dir.absolute())
    return run, parse_config(run.settings(), origin=str(run.path / "config.yaml"))


def evaluate_genotype(
    run_dir: Path,
    *,
    genotype: str | None = None,
    num_tasks: int = 600,
    address: str | None = None,
    progress: Progress | None = None,
) -> tuple[float, ...]:
    """Scores on held-out test tasks at the run's last weights; of its best genotype, unless one is named.

    Raises `InvalidGenotypeError` for a string that is not of the run's space.
    """
    run, config = load_run(run_dir)
    problem = _build(config)
    commits = [commit for commit in run.commits() if commit.kind == "generation"]
    if not commits:
        raise ConfigError([f"{run.path}: no generation is committed yet: `across resume {run.path}` first"])
    chosen = _choose(genotype, problem.space, commits, config)
    config = config.model_copy(update={"test": config.test.model_copy(update={"num_tasks": num_tasks})})
    problem = build_problem(config)
    version = commits[-1].weights_version
    units = problem.units(Proposal(0, chosen), "test", problem.seeds("test", version), version)
    _join(config, address)
    if config.workers.num_workers:  # any number gives the same scores
        config = config.model_copy(
            update={"workers": config.workers.model_copy(update={"num_workers": None})}
        )
    with _pool(config, problem) as pool, _shown(progress, config, ()) as shown:
        if problem.model is not None:
            pool.publish(version, run.load_weights(commits[-1].number)["weights"])
        shown.phase("testing", len(units))
        results = {}
        for result in compute(pool, units, shown):
            assert isinstance(result, EvaluationResult)
            results[result.key] = result
    failure = next((result.failure for result in results.values() if result.failure), None)
    if failure:
        raise ConfigError([f"{problem.space.to_string(chosen)}: {failure}"])
    return tuple(score for unit in units for score in results[unit.key].scores)


def _join(config: RunConfig, address: str | None) -> None:
    if config.workers.num_workers != 0:
        connect(address)
        wait_for_nodes(config.workers.start_timeout_seconds)


def _has_gpus(config: RunConfig) -> bool:
    if config.workers.num_workers == 0:
        import torch

        return torch.cuda.is_available()
    return any(node.gpus for node in living_nodes())


def _search(
    run: RunDirectory, config: RunConfig, problem: Problem, pool: Pool, progress: Progress | None
) -> SearchOutcome:
    """The loop, with everything that it needs around it."""
    strategy, model = config.strategy.build(problem.space), problem.model
    if isinstance(strategy, PredictorGuided):
        earlier_runs = take_earlier_runs(run, config, problem.space)
        knowledge = EarlierSearches(problem.knowledge, problem.space, earlier_runs)
        strategy = strategy.informed(knowledge, seed=config.seed, cache=run.pretraining)
    tracker, gallery = _show_cases(run, config, problem.space)
    take_initial_weights(run, config, model)
    start = MetaState.start(model.initial_vector(config.seed) if model else np.zeros(0, np.float32))
    with _shown(progress, config, run.commits()) as shown:
        engine = Engine(config, problem, strategy, pool, run, shown)
        try:
            tracker.set_status("RUNNING")
            commits = search_until_finished(engine, tracker, gallery, start)
        except BaseException as error:
            pool.close()
            tracker.finish(
                run.commits(), "FAILED" if isinstance(error, Exception) else "KILLED", patience_seconds=3
            )
            raise
    tracker.finish(commits, "FINISHED")
    return _outcome(run, config, problem)


def _show_cases(run: RunDirectory, config: RunConfig, space: SearchSpace) -> tuple[Tracker, Gallery]:
    """Where the search is shown: MLflow and the pictures."""
    objectives = objectives_of(config.strategy)
    tracker = Tracker(config.tracking, run, space.to_string, objectives)
    num_last_generations = config.test.num_last_generations
    gallery = Gallery(
        run.path / "plots",
        space,
        tracker,
        num_last_generations=num_last_generations,
        objectives=objectives,
    )
    return tracker, gallery


def _complete(run: RunDirectory, started: RunConfig, config: RunConfig, problem: Problem) -> None:
    """Make up for what a process that died after the last commit had still to show."""
    without_effect = [key for key in changed_settings(started, config) if key.startswith("test.")]
    if without_effect:
        raise ConfigError(
            [
                f"{run.path} is finished, and {', '.join(without_effect)} would change nothing: `across evaluate"
                f" {run.path} --num-tasks N` measures again; a greater search.num_generations goes on"
            ]
        )
    commits = run.commits()
    tracker, gallery = _show_cases(run, config, problem.space)
    if gallery.is_behind(commits):
        gallery.draw(commits)
    tracker.finish(commits, "FINISHED")


def _outcome(run: RunDirectory, config: RunConfig, problem: Problem) -> SearchOutcome:
    commits = run.commits()
    measured = [commit for commit in commits if commit.kind == "test" and commit.evaluations]
    return SearchOutcome(
        run.path,
        fold(config, config.strategy.build(problem.space), commits),
        commits,
        best=measured[-1].evaluations[0] if measured else None,
        is_finished=is_finished(commits, **dict(config.search)),
        fingerprint=fingerprint(commits),
    )


def _build(config: RunConfig) -> Problem:
    problem = build_problem(config)
    config.strategy.build(problem.space)
    return problem


def _pool(config: RunConfig, problem: Problem) -> Pool:
    settings = ComputeSettings(
        device=config.compute.device,
        num_threads=config.compute.threads_per_worker,
        allow_tf32=config.compute.allow_tf32,
    )
    if settings.device == "cuda" and not _has_gpus(config):
        raise ConfigError(
            [
                f"{config.name} computes on GPUs (compute.device: cuda), and no node has one: use a machine that"
                " has, or join a cluster with --address"
            ]
        )
    if config.workers.num_workers == 0:
        return InProcessPool(*problem.worker(settings), config.workers)
    gpus = 0.0 if settings.device == "cpu" else config.workers.gpus_per_worker or 1.0
    workers = config.workers.model_copy(update={"gpus_per_worker": gpus})
    return WorkerPool(*problem.worker(settings), workers)


@contextmanager
def _shown(progress: Progress | None, config: RunConfig, commits: tuple[Commit, ...]) -> Iterator[Progress]:
    """`progress`, or one that shows nothing."""
    if progress is None:
        quiet = Console(quiet=True)
        total = config.search.num_generations
        progress = make_progress(quiet, total_generations=total, title=config.name)
    with progress:
        yield progress


def _choose(genotype: str | None, space: SearchSpace, commits: list[Commit], config: RunConfig) -> Genotype:
    if genotype is not None:
        chosen = space.from_string(genotype)
        space.validate(chosen)
        return chosen
    best = choose_finalists(commits, space, num_finalists=1, num_generations=config.test.num_last_generations)
    if not best:
        raise ConfigError(
            ["no genotype of the last generations could be evaluated: name one with --genotype"]
        )
    return best[0].genotype
