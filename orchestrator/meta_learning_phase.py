"""The meta-learning phase of a generation: outer steps over the actors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from across.orchestrator.engine import Engine
from across.orchestrator.state import MetaLearningSummary, SearchState
from across.orchestrator.units import chunks, task_seeds, unit_key
from across.search_spaces.base import Genotype
from across.workers.base import MetaResult, MetaUnit, Purpose
from across.workers.outer_optimizer import MetaState, PathGradient, outer_step

_summary_adapter = TypeAdapter(MetaLearningSummary)


@dataclass(frozen=True)
class MetaLearningPhase:
    """Where the phase stands: the meta-learned state and what happened on the way."""

    meta: MetaState
    summary: MetaLearningSummary
    found: MetaLearningSummary
    """The part of it that an interrupted attempt had computed."""
    num_saved_steps: int = 0
    """Outer steps that the checkpoint holds."""

    @property
    def computed(self) -> MetaLearningSummary:
        """The steps and shards of this process alone."""
        return replace(
            self.summary,
            num_steps=self.summary.num_steps - self.found.num_steps,
            num_shards=self.summary.num_shards - self.found.num_shards,
        )


def meta_learn(engine: Engine, commit_number: int, state: SearchState, meta: MetaState) -> MetaLearningPhase:
    """This generation's outer steps, from a checkpoint of an interrupted attempt where there is one."""
    if engine.problem.model is None:
        return MetaLearningPhase(meta, MetaLearningSummary(), found=MetaLearningSummary())
    config = engine.config.meta_learning
    num_steps = config.steps_per_generation + (config.warmup_steps if state.generation == 0 else 0)
    phase = _from_checkpoint(engine, commit_number, meta) or MetaLearningPhase(
        meta, MetaLearningSummary(), found=MetaLearningSummary()
    )
    num_shards = -(-config.meta_batch_size // config.tasks_per_shard)
    engine.progress.phase("meta-learning", (num_steps - phase.summary.num_steps) * num_shards)
    saved_at = time.monotonic()
    while phase.summary.num_steps < num_steps:
        is_warmup = state.generation == 0 and phase.summary.num_steps < config.warmup_steps
        with kept_if_interrupted(engine, commit_number, phase):
            phase = _take_step(engine, phase, () if is_warmup else _living(state))
        if time.monotonic() - saved_at > config.checkpoint_seconds:
            phase = _saved(engine, commit_number, phase)
            saved_at = time.monotonic()
    return phase


@contextmanager
def kept_if_interrupted(engine: Engine, commit_number: int, phase: MetaLearningPhase) -> Iterator[None]:
    """Save what of `phase` is in no checkpoint when the block is left by an error or by Ctrl-C."""
    try:
        yield
    except BaseException:
        if phase.summary.num_steps > phase.num_saved_steps:
            _saved(engine, commit_number, phase)
        raise


def _saved(engine: Engine, commit_number: int, phase: MetaLearningPhase) -> MetaLearningPhase:
    """The phase, kept in the spool: a commit that is computed again starts from there."""
    extra = _summary_adapter.dump_python(phase.summary, mode="json")
    engine.run.save_checkpoint(commit_number, phase.meta.step, phase.meta.tensors(), extra)
    return replace(phase, num_saved_steps=phase.summary.num_steps)


def meta_state_from(step: int, tensors: dict[str, NDArray[Any]]) -> MetaState:
    """The inverse of `MetaState.tensors`."""
    return MetaState(step, **tensors)


def _from_checkpoint(engine: Engine, commit_number: int, meta: MetaState) -> MetaLearningPhase | None:
    checkpoint = engine.run.load_checkpoint(commit_number)
    if checkpoint is None or checkpoint.step < meta.step:
        return None
    found = _summary_adapter.validate_python(checkpoint.extra)
    meta = meta_state_from(checkpoint.step, checkpoint.tensors)
    return MetaLearningPhase(meta, found, found=found, num_saved_steps=found.num_steps)


def _living(state: SearchState) -> tuple[Genotype, ...]:
    return tuple(each.proposal.genotype for each in state.population if each.fitness is not None)


def _take_step(engine: Engine, phase: MetaLearningPhase, living: Sequence[Genotype]) -> MetaLearningPhase:
    """One outer step: shards to the actors, their gradients added in shard order."""
    meta, summary = phase.meta, phase.summary
    units = _shards(engine, meta.step, living)
    engine.pool.publish(meta.step, meta.weights)
    # A step ends with its last shard: the long ones go first. Nothing depends on the order but time.
    longest_first = sorted(units, key=lambda unit: -_num_operations(engine, unit))
    results = {result.key: result for result in engine.compute(longest_first)}
    shards = [(unit, results[unit.key]) for unit in units]
    gradients, losses, accuracies = [], [], []
    for unit, result in shards:
        assert isinstance(result, MetaResult)
        if result.gradient is not None and isfinite(result.loss):
            path = engine.model.path(unit.genotype, unit.source)
            positions = engine.model.index.positions(engine.model.active(path))
            gradients.append(PathGradient(positions, result.gradient, result.num_tasks))
            losses.append(result.loss)
            accuracies.append(result.accuracy)
    optimizer = engine.config.meta_learning.optimizer
    return replace(
        phase,
        meta=outer_step(meta, gradients, optimizer),
        summary=replace(
            summary,
            num_steps=summary.num_steps + 1,
            num_shards=summary.num_shards + len(units),
            num_dropped_shards=summary.num_dropped_shards + len(units) - len(gradients),
            losses=(*summary.losses, *([float(np.mean(losses))] if losses else [])),
            accuracies=(*summary.accuracies, *([float(np.mean(accuracies))] if accuracies else [])),
            outer_lr=optimizer.learning_rate(meta.step),
        ),
    )


def _shards(engine: Engine, step: int, living: Sequence[Genotype]) -> list[MetaUnit]:
    """One meta-batch: a path for each shard, from the living (with the configured chance) or uniform."""
    config = engine.config.meta_learning
    rng = engine.rng(step, Purpose.PATHS)
    seeds = task_seeds(engine.rng(step, Purpose.TRAIN_TASKS), config.meta_batch_size)
    second_order = engine.config.inner_loop.is_second_order and step >= config.first_order_steps
    weights = multi_step_weights(engine.config.inner_loop.num_steps, step, config.multi_step_loss_steps)
    units = []
    for number, chunk in enumerate(chunks(seeds, config.tasks_per_shard)):
        path = _draw_path(engine, rng, living)
        source = (step + number) % len(engine.model.specs)
        key = unit_key(path, source, "train", chunk, step)
        units.append(MetaUnit(key, path, source, chunk, step, weights, second_order))
    return units


def _num_operations(engine: Engine, unit: MetaUnit) -> int:
    """What a shard costs, up to a factor: multiply-adds on one image of each task."""
    return engine.model.path(unit.genotype, unit.source).architecture.flops * len(unit.seeds)


def _draw_path(engine: Engine, rng: np.random.Generator, living: Sequence[Genotype]) -> Genotype:
    if living and rng.random() < engine.config.meta_learning.population_path_probability:
        return living[int(rng.integers(len(living)))]
    return engine.strategy.sample_path(rng)


def multi_step_weights(num_inner_steps: int, step: int, num_outer_steps: int) -> tuple[float, ...]:
    """Weights of the query losses after each inner step at outer step `step`.

    Even at first; over `num_outer_steps` all but the last fade linearly to zero and the last takes what they lose
    (Antoniou et al., 2019, section 4, "multi-step loss optimization"). Empty once only the last one counts.
    """
    if step >= num_outer_steps:
        return ()
    fading = (1 - step / num_outer_steps) / num_inner_steps
    return (fading,) * (num_inner_steps - 1) + (1 - fading * (num_inner_steps - 1),)
