"""The loop: meta-learn, ask, evaluate, tell, commit, mirror, until the search has finished."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from across.orchestrator.config.run_config import RunConfig
from across.orchestrator.engine import Engine
from across.orchestrator.evaluation_phase import EvaluatedGeneration, evaluate_generation, measure_finalists
from across.orchestrator.finalists import choose_finalists
from across.orchestrator.meta_learning_phase import kept_if_interrupted, meta_learn, meta_state_from
from across.orchestrator.one_by_one_phase import evaluate_stretch, replay
from across.orchestrator.plots.gallery import Gallery
from across.orchestrator.proposal_phase import propose
from across.orchestrator.schedules import GenerationsConfig, Schedule
from across.orchestrator.state import (
    Commit,
    Evaluation,
    MetaLearningSummary,
    SearchState,
    Timings,
    is_finished,
    is_over,
)
from across.orchestrator.strategies.base import SteadyStrategy, Strategy, advance
from across.orchestrator.tracking.tracker import Tracker
from across.workers.outer_optimizer import MetaState


def search_until_finished(
    engine: Engine, tracker: Tracker, gallery: Gallery, start: MetaState
) -> tuple[Commit, ...]:
    """Run the search of `engine` from where its journal ends; the whole journal.

    `start` is the meta-learned state before the first commit.
    """
    commits = list(engine.run.commits())
    state = fold(engine.config, engine.strategy, commits)
    schedule = _schedule(engine, commits)
    meta = _restore_meta_state(engine, commits) or start
    tracker.mirror(commits)
    length = dict(engine.config.search)
    while not is_finished(commits, **length):
        clock = _Clock.start(engine)
        if not is_over(commits, **length):
            phase = meta_learn(engine, len(commits), state, meta)
            clock.end_meta_learning()
            meta = phase.meta
            state = replace(state, weights_version=meta.step)
            engine.pool.publish(meta.step, meta.weights)
            with kept_if_interrupted(engine, len(commits), phase):
                evaluated = _evaluate(engine, len(commits), state, schedule, clock)
            timings = clock.timings(evaluated, phase.computed, num_shards_reused=phase.found.num_shards)
            state = tell(engine.config, engine.strategy, state, evaluated.evaluations)
            commit = _commit("generation", commits, state, evaluated, phase.summary, timings, tracker)
            commits.append(engine.run.commit(commit, meta.tensors() if engine.problem.model else None))
        else:
            engine.pool.publish(meta.step, meta.weights)
            finalists = choose_finalists(
                commits,
                engine.space,
                num_finalists=engine.config.test.num_finalists,
                num_generations=engine.config.test.num_last_generations,
            )
            evaluated = measure_finalists(engine, len(commits), state, finalists)
            timings = clock.timings(evaluated, MetaLearningSummary())
            commit = _commit("test", commits, state, evaluated, MetaLearningSummary(), timings, tracker)
            commits.append(engine.run.commit(commit))
        engine.progress.generation_done(commits[-1])
        tracker.mirror(commits)
        gallery.update(commits)
    return tuple(commits)


def fold(config: RunConfig, strategy: Strategy, commits: Sequence[Commit]) -> SearchState:
    """The state after `commits`."""
    state = SearchState()
    for commit in commits:
        if commit.kind == "generation":
            state = replace(state, weights_version=commit.weights_version)
            state = tell(config, strategy, state, commit.evaluations)
    return state


def tell(
    config: RunConfig, strategy: Strategy, state: SearchState, results: Sequence[Evaluation]
) -> SearchState:
    """The state after one more commit; without generations the schedule knows what the strategy knows."""
    if isinstance(config.schedule, GenerationsConfig):
        return strategy.tell(state, results)
    return advance(state, results, population=results)


def _evaluate(
    engine: Engine, commit_number: int, state: SearchState, schedule: Schedule | None, clock: _Clock
) -> EvaluatedGeneration:
    """One generation, or as many individuals as a commit has."""
    stretch = engine.config.schedule
    if schedule is None or isinstance(stretch, GenerationsConfig):
        proposals = propose(engine, commit_number, state)
        clock.end_proposing()
        return evaluate_generation(engine, commit_number, state, proposals)
    return evaluate_stretch(engine, commit_number, schedule, state.next_index + stretch.commit_size)


def _schedule(engine: Engine, commits: Sequence[Commit]) -> Schedule | None:
    """Where the journal ends, if the search goes without generations."""
    config, strategy = engine.config.schedule, engine.strategy
    if isinstance(config, GenerationsConfig):
        return None
    assert isinstance(strategy, SteadyStrategy), "the config was validated"
    schedule = config.build(strategy, engine.space, seed=engine.config.seed, first=engine.initial_genotypes)
    replay(schedule, commits)
    return schedule


def _restore_meta_state(engine: Engine, commits: Sequence[Commit]) -> MetaState | None:
    generations = [commit for commit in commits if commit.kind == "generation"]
    if not generations or engine.problem.model is None:
        return None
    last = generations[-1]
    return meta_state_from(last.weights_version, engine.run.load_weights(last.number))


def _commit(
    kind: str,
    commits: Sequence[Commit],
    state: SearchState,
    evaluated: EvaluatedGeneration,
    summary: MetaLearningSummary,
    timings: Timings,
    tracker: Tracker,
) -> Commit:
    return Commit(
        number=len(commits),
        kind="test" if kind == "test" else "generation",
        evaluations=evaluated.evaluations,
        next_index=state.next_index,
        weights_version=state.weights_version,
        weights_digest="",
        meta_learning=summary,
        timings=timings,
        timestamp=time.time(),
        mlflow_run_id=tracker.run_id,
    )


@dataclass
class _Clock:
    """Where a generation's time goes."""

    engine: Engine
    started: float
    meta_learned: float
    proposed: float
    busy_before: float
    failures_before: int

    @classmethod
    def start(cls, engine: Engine) -> _Clock:
        now, statistics = time.perf_counter(), engine.pool.statistics
        return cls(engine, now, now, now, statistics.busy_seconds, statistics.num_failures)

    def end_meta_learning(self) -> None:
        self.meta_learned = self.proposed = time.perf_counter()

    def end_proposing(self) -> None:
        self.proposed = time.perf_counter()

    def timings(
        self, evaluated: EvaluatedGeneration, computed: MetaLearningSummary, *, num_shards_reused: int = 0
    ) -> Timings:
        now, statistics = time.perf_counter(), self.engine.pool.statistics
        config = self.engine.config.meta_learning
        return Timings(
            wall_seconds=now - self.started,
            meta_learning_seconds=self.meta_learned - self.started,
            proposal_seconds=self.proposed - self.meta_learned,
            evaluation_seconds=now - self.proposed,
            worker_busy_seconds=statistics.busy_seconds - self.busy_before,
            num_workers=statistics.num_workers,
            num_units_computed=evaluated.num_computed + computed.num_shards,
            num_units_reused=evaluated.num_reused + num_shards_reused,
            num_tasks=evaluated.num_tasks + computed.num_steps * config.meta_batch_size,
            num_worker_failures=statistics.num_failures - self.failures_before,
        )
