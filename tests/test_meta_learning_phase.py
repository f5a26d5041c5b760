"""What the meta-learning phase asks of the workers: paths, tasks and loss weights of each shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from across.orchestrator import meta_learning_phase
from across.orchestrator.engine import Engine
from across.orchestrator.meta_learning_phase import (
    MetaLearningPhase,
    kept_if_interrupted,
    meta_learn,
    multi_step_weights,
)
from across.orchestrator.state import Evaluation, MetaLearningSummary, Proposal, SearchState
from across.orchestrator.worker_pool.errors import PoolExhaustedError
from across.search_spaces.base import Genotype
from across.workers.base import MetaUnit
from across.workers.outer_optimizer import MetaState
from tests.in_process_engine import in_process_engine
from tests.tiny_search import tiny_config

LIVING = [(0, 0, 0, 0), (1, 1, 1, 1)]


@contextmanager
def engine_with(run_dir: Path, inner_loop: dict[str, Any], **meta_learning: Any) -> Iterator[Engine]:
    config = tiny_config(meta_learning=meta_learning, inner_loop=inner_loop)
    with in_process_engine(config, run_dir) as (engine, _):
        yield engine


def shards(engine: Engine, step: int, living: Sequence[Genotype]) -> list[MetaUnit]:
    return meta_learning_phase._shards(engine, step, living)


@pytest.mark.parametrize("num_inner_steps", [1, 2, 5])
def test_multi_step_weights_fade_into_the_last_step(num_inner_steps: int) -> None:
    all_weights = [multi_step_weights(num_inner_steps, step, 40) for step in range(40)]
    assert all_weights[0] == pytest.approx((1 / num_inner_steps,) * num_inner_steps)
    assert all(len(weights) == num_inner_steps for weights in all_weights)
    assert all(fsum(weights) == pytest.approx(1) for weights in all_weights)
    assert all(weight >= 0 for weights in all_weights for weight in weights)
    last = [weights[-1] for weights in all_weights]
    assert last == sorted(last)
    assert last[20] == pytest.approx((1 + 1 / num_inner_steps) / 2)
    assert last[-1] > 0.97


def test_only_the_last_step_counts_once_the_others_have_faded() -> None:
    assert multi_step_weights(5, 40, 40) == multi_step_weights(5, 1000, 40) == ()
    assert multi_step_weights(5, 0, 0) == ()


def test_path_probability_1_takes_the_living(tmp_path: Path) -> None:
    with engine_with(tmp_path / "run", {}, population_path_probability=1, meta_batch_size=100) as engine:
        paths = [unit.genotype for unit in shards(engine, 3, LIVING)]
    assert len(paths) == 50
    assert set(paths) == set(LIVING)
    assert 10 < paths.count(LIVING[0]) < 40


def test_path_probability_0_takes_any(tmp_path: Path) -> None:
    with engine_with(tmp_path / "run", {}, population_path_probability=0, meta_batch_size=100) as engine:
        paths = [unit.genotype for unit in shards(engine, 3, LIVING)]
    assert len(set(paths)) > 40


def test_path_probability_in_between_takes_some_of_each(tmp_path: Path) -> None:
    with engine_with(tmp_path / "run", {}, population_path_probability=0.5, meta_batch_size=200) as engine:
        paths = [unit.genotype for unit in shards(engine, 3, LIVING)]
    assert 30 < sum(path in LIVING for path in paths) < 70


def test_without_living_every_path_is_uniform(tmp_path: Path) -> None:
    with engine_with(tmp_path / "run", {}, population_path_probability=1, meta_batch_size=800) as engine:
        paths = np.array([unit.genotype for unit in shards(engine, 3, [])])
    for gene, cardinality in enumerate((8, 2, 8, 2)):
        counts = np.bincount(paths[:, gene], minlength=cardinality)
        assert counts.min() > 0.6 * len(paths) / cardinality


def test_failures_lend_no_path() -> None:
    failed = Evaluation(Proposal(0, LIVING[0]), None, failure="it failed")
    fine = Evaluation(Proposal(1, LIVING[1]), 0.5)
    assert meta_learning_phase._living(SearchState(population=(failed, fine))) == (LIVING[1],)


def test_meta_batch_is_cut_by_the_config_alone(tmp_path: Path) -> None:
    with engine_with(tmp_path / "run", {}, meta_batch_size=7, tasks_per_shard=3) as engine:
        units = shards(engine, 5, LIVING)
        assert shards(engine, 5, LIVING) == units
        later = shards(engine, 6, LIVING)
    assert [len(unit.seeds) for unit in units] == [3, 3, 1]
    assert {unit.weights_version for unit in units} == {5}
    seeds, next_seeds = ({seed for unit in each for seed in unit.seeds} for each in (units, later))
    assert len(seeds) == 7
    assert not seeds & next_seeds
    assert len({unit.key for unit in units + later}) == 6


def test_sources_take_turns(tmp_path: Path) -> None:
    glyphs = {"type": "glyphs", "image_size": 12, "num_queries": 3}
    config = tiny_config(
        tasks=[{**glyphs, "num_ways": 3}, {**glyphs, "num_ways": 2}],
        meta_learning={"meta_batch_size": 3, "tasks_per_shard": 1},
    )
    with in_process_engine(config, tmp_path / "run") as (engine, _):
        assert [[unit.source for unit in shards(engine, step, [])] for step in (0, 1)] == [
            [0, 1, 0],
            [1, 0, 1],
        ]


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [("maml", [False, False, True]), ("anil", [False, False, True]), ("first_order_maml", [False] * 3)],
)
def test_second_order_begins_after_the_first_order_steps(
    tmp_path: Path, algorithm: str, expected: list[bool]
) -> None:
    with engine_with(tmp_path / "run", {"algorithm": algorithm}, first_order_steps=2) as engine:
        assert [shards(engine, step, [])[0].second_order for step in range(3)] == expected


def test_units_carry_the_loss_weights_of_their_step(tmp_path: Path) -> None:
    with engine_with(tmp_path / "run", {"num_steps": 3}, multi_step_loss_steps=10) as engine:
        weights = [shards(engine, step, [])[0].multi_step_weights for step in (0, 5, 10)]
    assert weights == [multi_step_weights(3, 0, 10), multi_step_weights(3, 5, 10), ()]


def meta_learn_from_scratch(engine: Engine, *, num_steps_before_dying: int = 0) -> MetaLearningPhase:
    """The first generation's three outer steps."""
    start = MetaState.start(engine.model.initial_vector(engine.config.seed))
    phase = MetaLearningPhase(start, MetaLearningSummary(), found=MetaLearningSummary())
    for _ in range(num_steps_before_dying):
        phase = meta_learning_phase._take_step(engine, phase, ())
        phase = meta_learning_phase._saved(engine, 0, phase)
    return meta_learn(engine, 0, SearchState(), start)


def test_phase_takes_its_steps_and_says_how_they_went(tmp_path: Path) -> None:
    with engine_with(tmp_path / "run", {}) as engine:
        phase = meta_learn_from_scratch(engine)
    summary = phase.summary
    assert (summary.num_steps, summary.num_shards, summary.num_dropped_shards) == (3, 6, 0)
    assert (len(summary.losses), len(summary.accuracies)) == (3, 3)
    assert phase.meta.step == 3
    assert 0 < phase.meta.num_updates.max() <= 3


def test_interrupted_phase_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    with engine_with(tmp_path / "undisturbed", {}) as engine:
        undisturbed = meta_learn_from_scratch(engine)
    for num_steps in (1, 2, 3):
        with engine_with(tmp_path / f"died_after_{num_steps}", {}) as engine:
            phase = meta_learn_from_scratch(engine, num_steps_before_dying=num_steps)
            assert engine.pool.statistics.num_units == 6, "no step is taken twice"
        assert phase.summary == undisturbed.summary
        assert (phase.found.num_steps, phase.computed.num_steps) == (num_steps, 3 - num_steps)
        assert (phase.found.num_shards, phase.computed.num_shards) == (2 * num_steps, 6 - 2 * num_steps)
        assert phase.meta.step == 3
        for name, values in phase.meta.tensors().items():
            expected = undisturbed.meta.tensors()[name]
            assert (values.dtype, values.tobytes()) == (expected.dtype, expected.tobytes()), name


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PoolExhaustedError("no workers")])
def test_what_interrupts_a_phase_leaves_its_last_step_in_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with engine_with(tmp_path / "run", {}, checkpoint_seconds=1e6) as engine:
        take_step, num_taken = meta_learning_phase._take_step, 0

        def interrupted_in_the_third(*args: Any) -> MetaLearningPhase:
            nonlocal num_taken
            num_taken += 1
            if num_taken == 3:
                raise error
            return take_step(*args)

        monkeypatch.setattr(meta_learning_phase, "_take_step", interrupted_in_the_third)
        with pytest.raises(type(error)):
            meta_learn_from_scratch(engine)
        checkpoint = engine.run.load_checkpoint(0)
    assert checkpoint is not None
    assert checkpoint.step == checkpoint.extra["num_steps"] == 2


def test_what_interrupts_an_evaluation_leaves_the_phase_before_it_in_a_checkpoint(tmp_path: Path) -> None:
    with engine_with(tmp_path / "run", {}, checkpoint_seconds=1e6) as engine:
        phase = meta_learn_from_scratch(engine)
        assert engine.run.load_checkpoint(0) is None
        with pytest.raises(KeyboardInterrupt), kept_if_interrupted(engine, 0, phase):
            raise KeyboardInterrupt
        checkpoint = engine.run.load_checkpoint(0)
    assert checkpoint is not None
    assert checkpoint.step == 3


def test_diverged_shards_are_dropped_and_counted(tmp_path: Path) -> None:
    with engine_with(tmp_path / "run", {"inner_lr": 3e38}, steps_per_generation=1, warmup_steps=0) as engine:
        start = MetaState.start(engine.model.initial_vector(engine.config.seed))
        phase = meta_learn(engine, 0, SearchState(), start)
    assert phase.summary.num_dropped_shards == phase.summary.num_shards == 2
    assert phase.summary.losses == phase.summary.accuracies == ()
    assert phase.meta.step == 1
    assert phase.meta.weights.tobytes() == start.weights.tobytes()
