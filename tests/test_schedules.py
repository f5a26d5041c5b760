"""The outcome of a schedule follows from indices alone, and its cost in time from what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from across.orchestrator.schedules import Generations, Lineages, Schedule, SteadyState
from across.orchestrator.state import Evaluation, Proposal
from across.orchestrator.strategies import StrategyConfig
from across.orchestrator.virtual_clock import Simulation, simulate
from across.search_spaces import LayerwiseConfig

SPACE = LayerwiseConfig(num_layers=6, reductions=()).build((1, 8, 8))
NUM = 240


def strategy(name: str = "regularized_evolution", **settings: Any) -> Any:
    sizes = {} if name == "random" else {"population_size": 8}
    return TypeAdapter[Any](StrategyConfig).validate_python({"type": name, **sizes, **settings}).build(SPACE)


def generations() -> Schedule:
    return Generations(strategy(), seed=3)


def steady_state(lag: int = 12) -> Schedule:
    return SteadyState(strategy(), SPACE, seed=3, lag=lag)


def lineages(interval: int = 4) -> Schedule:
    return Lineages(strategy(), SPACE, seed=3, num_lineages=12, migration_interval=interval)


every_schedule = pytest.mark.parametrize("make", [generations, steady_state, lineages])


def evaluate(proposal: Proposal) -> Evaluation:
    return Evaluation(proposal, float(sum(proposal.genotype)), metrics={"flops": 1.0})


def run(
    schedule: Schedule, num_workers: int, *, num: int = NUM, spread: float = 1.0, clock: int = 0
) -> Simulation:
    durations = np.random.default_rng(clock).lognormal(0.0, spread, size=100_000)
    return simulate(
        schedule,
        evaluate,
        lambda each: float(durations[each.index]),
        num_workers=num_workers,
        num_proposals=num,
    )


def found(simulation: Simulation) -> list[Proposal]:
    return sorted((each.proposal for each in simulation.evaluations), key=lambda each: each.index)


@every_schedule
def test_the_outcome_is_the_same_for_any_number_of_workers_at_any_pace(
    make: Callable[[], Schedule],
) -> None:
    expected = found(run(make(), 1))
    assert [each.index for each in expected] == list(range(NUM))
    for num_workers, clock in ((2, 1), (7, 2), (12, 3), (50, 4)):
        assert found(run(make(), num_workers, clock=clock)) == expected


@pytest.mark.parametrize(
    "name", ["random", "regularized_evolution", "genetic", "reinforce", "nsga2", "nsga3"]
)
def test_strategies_that_go_one_by_one_are_the_same_in_any_order_of_arrival(name: str) -> None:
    def make() -> Schedule:
        return SteadyState(strategy(name), SPACE, seed=1, lag=10)

    assert found(run(make(), 1, num=80)) == found(run(make(), 9, num=80, clock=5))


@every_schedule
def test_evolution_gets_somewhere(make: Callable[[], Schedule]) -> None:
    fitness = [sum(each.genotype) for each in found(run(make(), 4))]
    assert np.mean(fitness[-40:]) > np.mean(fitness[:8]) + 3


def test_a_steady_state_sees_results_up_to_its_lag_and_no_later_one() -> None:
    schedule = steady_state(lag=12)
    first = schedule.propose(NUM)
    assert [each.index for each in first] == list(range(12))
    for each in first[1:]:
        schedule.receive(evaluate(each))
    assert schedule.propose(NUM) == []  # proposal 12 needs result 0
    schedule.receive(evaluate(first[0]))
    assert [each.index for each in schedule.propose(NUM)] == list(range(12, 24))


def test_parents_of_a_steady_state_are_at_least_its_lag_older() -> None:
    for each in found(run(steady_state(lag=12), 30)):
        assert all(parent <= each.index - 12 for parent in each.parents)


def test_a_straggler_holds_up_one_lineage_until_its_neighbour_waits_for_it() -> None:
    schedule = lineages(interval=4)
    straggler, *others = schedule.propose(NUM)
    waiting, steps = others, dict.fromkeys(range(12), 1)
    while waiting:
        each = waiting.pop()
        schedule.receive(evaluate(each))
        for new in schedule.propose(NUM):
            steps[new.index % 12] += 1
            waiting.append(new)
    assert straggler.index == 0
    # Lineage 0 is at its step 0. Lineage 1 takes what it had then at step 4, and at step 8 waits for that of step 4.
    # It has left its own of step 8 by then, so lineage 2 gets to step 16. All others have done their 20 steps.
    assert [steps[lineage] for lineage in range(12)] == [1, 8, 16, *[20] * 9]


def test_migration_brings_the_neighbours_best() -> None:
    assert found(run(lineages(interval=4), 3)) != found(run(lineages(interval=1000), 3))
    parents = [
        (each.index % 12, parent % 12)
        for each in found(run(lineages(interval=4), 3))
        for parent in each.parents
    ]
    foreign = {(child - parent) % 12 for child, parent in parents}
    assert {0, 1} <= foreign  # own ones, and those of the lineage before


def test_utilisation_counts_the_idle_time() -> None:
    schedule = Generations(strategy(num_offspring=8), seed=0)
    simulation = simulate(schedule, evaluate, lambda each: 1.0 + each.index, num_workers=8, num_proposals=8)
    assert simulation.seconds == 8.0
    assert simulation.utilisation == pytest.approx(sum(range(1, 9)) / (8 * 8))
    alone = simulate(
        Generations(strategy(), seed=0), evaluate, lambda each: 2.0, num_workers=1, num_proposals=24
    )
    assert alone.utilisation == pytest.approx(1.0)
    assert alone.seconds == 48.0


def test_nothing_begins_that_would_end_after_the_budget() -> None:
    simulation = simulate(
        steady_state(), evaluate, lambda each: 1.0, num_workers=5, num_proposals=NUM, max_seconds=7.5
    )
    assert len(simulation.evaluations) == 5 * 7
    assert simulation.seconds == 7.0


def test_a_steady_state_keeps_workers_busier_than_generations() -> None:
    used = {make: run(make(), 8, num=2000, spread=0.5).utilisation for make in (generations, steady_state)}
    assert used[steady_state] > used[generations] + 0.2
