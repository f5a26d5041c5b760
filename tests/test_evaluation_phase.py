"""From proposals to units and back, with one real worker in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest

from across.orchestrator import evaluation_phase
from across.orchestrator.engine import Engine
from across.orchestrator.evaluation_phase import EvaluatedGeneration, evaluate_generation
from across.orchestrator.problem import build_problem
from across.orchestrator.state import Evaluation, Proposal, SearchState
from across.orchestrator.units import chunks, task_seeds, unit_key
from across.orchestrator.units import test_seeds as held_out_seeds
from across.workers.base import EvaluationResult, EvaluationUnit, Purpose
from tests.in_process_engine import InProcessPool, in_process_engine
from tests.tiny_search import tiny_config

PROPOSALS = [Proposal(0, (0, 0, 0, 0)), Proposal(1, (7, 0, 1, 1)), Proposal(2, (1, 1, 1, 0))]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Engine, InProcessPool]]:
    """Five validation tasks in chunks of two; three versions of the same weights."""
    config = tiny_config(evaluation={"num_tasks": 5, "tasks_per_chunk": 2})
    with in_process_engine(config, tmp_path / "run") as (engine, pool):
        pool.weights |= {3: pool.weights[0], 4: pool.weights[0]}
        yield engine, pool


@pytest.fixture
def engine(parts: tuple[Engine, InProcessPool]) -> Engine:
    return parts[0]


def units_of(engine: Engine, proposal: Proposal, version: int) -> list[EvaluationUnit]:
    seeds = engine.problem.seeds("validation", version)
    return engine.problem.units(proposal, "validation", seeds, version)


def evaluate(engine: Engine, version: int, *population: Evaluation) -> EvaluatedGeneration:
    state = SearchState(population=population, weights_version=version)
    return evaluate_generation(engine, 0, state, PROPOSALS)


def test_chunks_keep_order_and_lose_nothing() -> None:
    assert list(chunks((1, 2, 3, 4, 5), 2)) == [(1, 2), (3, 4), (5,)]
    assert list(chunks((1, 2), 5)) == [(1, 2)]
    assert list(chunks((), 5)) == []


def test_task_seeds_are_distinct_and_plain_integers(engine: Engine) -> None:
    seeds = task_seeds(engine.rng(0, Purpose.VALIDATION_TASKS), 100)
    assert len(set(seeds)) == 100
    assert all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds)


def test_keys_differ_where_anything_differs() -> None:
    contents = [
        ((1, 2), 0, "validation", (3, 4), 5),
        ((1,), 0, "validation", (2, 3, 4), 5),
        ((1, 2), 1, "validation", (3, 4), 5),
        ((1, 2), 0, "test", (3, 4), 5),
        ((1, 2), 0, "validation", (4, 3), 5),
        ((1, 2), 0, "validation", (3,), 5),
        ((1, 2), 0, "validation", (3, 4), 6),
    ]
    assert len({unit_key(*content) for content in contents}) == len(contents)
    assert unit_key((1, 2), 0, "validation", [3, 4], 5) == unit_key(*contents[0])


def test_units_are_cut_by_the_config_alone(engine: Engine) -> None:
    units = units_of(engine, PROPOSALS[1], 3)
    assert [len(unit.seeds) for unit in units] == [2, 2, 1]
    assert {(unit.genotype, unit.source, unit.split, unit.weights_version) for unit in units} == {
        ((7, 0, 1, 1), 0, "validation", 3)
    }
    assert len({unit.key for unit in units}) == 3


def test_every_source_gets_every_seed(tmp_path: Path) -> None:
    glyphs = {"type": "glyphs", "image_size": 12, "num_queries": 3}
    config = tiny_config(tasks=[{**glyphs, "num_ways": 3}, {**glyphs, "num_ways": 2}])
    with in_process_engine(config, tmp_path / "run") as (engine, _):
        units = units_of(engine, PROPOSALS[0], 0)
        assert len(evaluate(engine, 0).evaluations[0].scores) == 8
    assert [(unit.source, len(unit.seeds)) for unit in units] == [(0, 2), (0, 2), (1, 2), (1, 2)]
    assert [unit.seeds for unit in units[:2]] == [unit.seeds for unit in units[2:]]


def test_evaluations_are_joined_in_unit_order_whatever_arrives_first(
    parts: tuple[Engine, InProcessPool],
) -> None:
    engine, pool = parts
    evaluated = evaluate(engine, 3)
    assert (evaluated.num_computed, evaluated.num_reused, evaluated.num_tasks) == (9, 0, 15)
    for proposal, found in zip(PROPOSALS, evaluated.evaluations, strict=True):
        results = [pool.worker.run(unit, pool.weights[3]) for unit in units_of(engine, proposal, 3)]
        scores = [score for each in results if isinstance(each, EvaluationResult) for score in each.scores]
        assert (found.proposal, found.scores, found.weights_version) == (proposal, tuple(scores), 3)
        assert found.fitness == pytest.approx(sum(scores) / 5)
        architecture = engine.space.architecture(proposal.genotype)
        assert found.metrics.keys() == {"loss", "params", "flops"}
        assert found.metrics["params"] > architecture.num_params > 0  # the head counts too
        assert found.failure is None


def test_finished_units_are_not_computed_again(parts: tuple[Engine, InProcessPool]) -> None:
    engine, pool = parts
    undisturbed = evaluate(engine, 0)
    finished = list(engine.run.spooled(0).values())
    engine.run.clear_spool()
    engine.run.spool(0, finished[:4])
    pool.computed.clear()
    evaluated = evaluate(engine, 0)
    assert evaluated.evaluations == undisturbed.evaluations
    assert (evaluated.num_computed, evaluated.num_reused) == (5, 4)
    assert {unit.key for unit in pool.computed} == {each.key for each in finished[4:]}


def test_results_at_other_weights_are_not_used(engine: Engine) -> None:
    evaluate(engine, 3)
    assert evaluate(engine, 4).num_reused == 0


def test_equal_genotypes_share_their_units(parts: tuple[Engine, InProcessPool]) -> None:
    engine, pool = parts
    twins = [Proposal(4, (1, 1, 1, 1)), Proposal(5, (1, 1, 1, 1))]
    first, second = evaluate_generation(engine, 0, SearchState(), twins).evaluations
    assert len(pool.computed) == 3
    assert [first.proposal, second.proposal] == twins
    assert first.scores == second.scores


def test_survivor_keeps_its_fitness_as_long_as_the_weights_stay(
    parts: tuple[Engine, InProcessPool],
) -> None:
    engine, pool = parts
    known = Evaluation(PROPOSALS[0], 0.5, (0.5,) * 5, weights_version=3)
    evaluated = evaluate(engine, 3, known)
    assert evaluated.evaluations[0] is known
    assert (evaluated.num_computed, evaluated.num_reused, len(pool.computed)) == (6, 1, 6)


def test_survivor_is_evaluated_again_when_the_weights_have_moved(engine: Engine) -> None:
    stale = Evaluation(PROPOSALS[0], 7.0, (7.0,) * 5, weights_version=3)
    found = evaluate(engine, 4, stale).evaluations[0]
    assert found.weights_version == 4
    assert found.scores != stale.scores


def test_task_set_moves_with_the_weights_only(engine: Engine) -> None:
    first, again, later = (
        {seed for unit in units_of(engine, proposal, version) for seed in unit.seeds}
        for proposal, version in ((PROPOSALS[0], 3), (PROPOSALS[1], 3), (PROPOSALS[0], 4))
    )
    assert first == again
    assert not first & later


def test_fewer_test_tasks_are_the_first_of_more() -> None:
    many = held_out_seeds(7, 600)
    assert held_out_seeds(7, 40) == many[:40]
    assert held_out_seeds(8, 600)[:40] != many[:40]


def join(*results: EvaluationResult) -> Evaluation:
    return evaluation_phase.join_results(build_problem(tiny_config()), PROPOSALS[0], results, 3)


def test_fitness_is_the_mean_over_tasks_not_over_chunks() -> None:
    joined = join(
        EvaluationResult("a", (1.0, 0.5, 0.0), {"loss": 4.0}), EvaluationResult("b", (0.0,), {"loss": 8.0})
    )
    assert joined == Evaluation(PROPOSALS[0], 0.375, (1.0, 0.5, 0.0, 0.0), {"loss": 5.0}, 3)


def test_mean_is_exact_in_any_order() -> None:
    scores = [0.1 * position for position in range(50)]
    forwards = join(*(EvaluationResult(str(score), (score,)) for score in scores))
    backwards = join(*(EvaluationResult(str(score), (score,)) for score in reversed(scores)))
    assert forwards.fitness == backwards.fitness


def test_one_failed_unit_fails_the_genotype() -> None:
    good = EvaluationResult("a", (1.0,), {"loss": 0.1})
    failed = EvaluationResult("b", (), failure="KeyError: 'x'")
    expected = Evaluation(PROPOSALS[0], None, weights_version=3, failure="KeyError: 'x'")
    assert join(good, failed) == join(failed, good) == expected


@pytest.mark.parametrize("score", [nan, inf, -inf])
def test_fitness_that_is_not_finite_is_a_failure(score: float) -> None:
    joined = join(EvaluationResult("a", (1.0, score), {"loss": 0.1}))
    assert (joined.fitness, joined.scores, joined.metrics) == (None, (), {})
    assert joined.failure == "the fitness is not finite"


@pytest.mark.parametrize("loss", [nan, inf])
def test_metric_that_is_not_finite_is_left_out(loss: float) -> None:
    good = EvaluationResult("a", (1.0,), {"loss": 0.1, "margin": 2.0})
    joined = join(good, replace(good, key="b", metrics={"loss": loss, "margin": 4.0}))
    assert (joined.fitness, joined.metrics) == (1.0, {"margin": 3.0})
