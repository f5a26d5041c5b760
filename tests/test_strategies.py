"""What holds for every strategy, and what makes each one the algorithm that it is named after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from across.orchestrator.state import (
    Commit,
    Evaluation,
    MetaLearningSummary,
    Proposal,
    SearchState,
    Timings,
    commit_from_json,
    commit_to_json,
)
from across.orchestrator.strategies import StrategyConfig
from across.orchestrator.strategies.base import Strategy, fittest_first, win_tournament
from across.orchestrator.strategies.fixed import FixedConfig
from across.orchestrator.strategies.genetic import GeneticConfig
from across.orchestrator.strategies.random import RandomConfig
from across.orchestrator.strategies.regularized_evolution import RegularizedEvolutionConfig
from across.search_spaces import LayerwiseConfig
from across.search_spaces.base import Genotype, InvalidGenotypeError, SearchSpace
from across.search_spaces.constrained import Constrained
from across.workers.base import Purpose

REPOSITORY = Path(__file__).resolve().parents[1]
Measure = Callable[[Genotype], float | None]

SPACE = LayerwiseConfig(num_layers=6, reductions=()).build((1, 8, 8))
SMALL = LayerwiseConfig(
    operations=("conv_3x3", "max_pool_3x3", "avg_pool_3x3", "skip"), widths=(4,), num_layers=2
).build((1, 8, 8))
TWO = LayerwiseConfig(operations=("conv_3x3", "skip"), widths=(4,), num_layers=1).build((1, 8, 8))
TARGET = SPACE.canonical(SPACE.sample(np.random.default_rng(42)))

SECTIONS: dict[str, dict[str, Any]] = {
    "genetic": {"population_size": 8, "num_elites": 2},
    "regularized_evolution": {"population_size": 8, "sample_size": 3, "num_offspring": 4},
    "local_search": {"num_neighbours": 8},
    "reinforce": {"population_size": 8},
    "successive_halving": {"population_size": 9, "fidelities": [1, 3, None]},
    "predictor_guided": {
        "batch_size": 6,
        "num_elites": 2,
        "num_initial": 8,
        "candidates": {"type": "offspring", "num_children": 16},
        "max_experience": 40,
        "num_threads": 1,
    },
    "nsga2": {"population_size": 8},
    "nsga3": {"population_size": 8},
    "random": {"population_size": 8},
    "fixed": {"genotype": "|".join(["conv_3x3:16"] * 6)},
}
BASELINES = {"random", "fixed", "successive_halving"}
every_strategy = pytest.mark.parametrize("name", SECTIONS)
every_sampler = pytest.mark.parametrize("name", SECTIONS.keys() - {"fixed"})
every_population = pytest.mark.parametrize(
    "name", SECTIONS.keys() - {"fixed", "local_search", "predictor_guided"}
)
every_search = pytest.mark.parametrize("name", SECTIONS.keys() - BASELINES)


def build(name: str, space: SearchSpace = SPACE, **settings: Any) -> Strategy:
    config: TypeAdapter[Any] = TypeAdapter(StrategyConfig)
    strategy: Strategy = config.validate_python({"type": name, **SECTIONS[name], **settings}).build(space)
    return strategy


def likeness(genotype: Genotype) -> float:
    """The toy's fitness: how many genes are those of a hidden genotype."""
    return float(sum(gene == wanted for gene, wanted in zip(SPACE.canonical(genotype), TARGET, strict=True)))


def ask(strategy: Strategy, state: SearchState, seed: int = 0) -> list[Proposal]:
    rng = np.random.default_rng((seed, state.generation, Purpose.PROPOSALS))
    return strategy.ask(state, rng, strategy.num_new(state))


def evaluate(proposals: Sequence[Proposal], measure: Measure, version: int = 0) -> tuple[Evaluation, ...]:
    return tuple(
        Evaluation(
            each,
            fitness,
            scores=() if fitness is None else (fitness,),
            metrics={} if fitness is None else {"flops": float(sum(each.genotype))},
            weights_version=version,
            failure="it failed" if fitness is None else None,
        )
        for each in proposals
        for fitness in [measure(each.genotype)]
    )


def run(strategy: Strategy, num_generations: int, measure: Measure = likeness, seed: int = 0) -> list[Commit]:
    state, commits = SearchState(), []
    for number in range(num_generations):
        state = replace(state, weights_version=10 * number)
        results = evaluate(ask(strategy, state, seed), measure, state.weights_version)
        state = strategy.tell(state, results)
        commits.append(
            Commit(
                number,
                "generation",
                results,
                state.next_index,
                state.weights_version,
                "",
                MetaLearningSummary(),
                Timings(),
                0.0,
            )
        )
    return commits


def state_after(strategy: Strategy, commits: Sequence[Commit]) -> SearchState:
    state = SearchState()
    for commit in commits:
        state = strategy.tell(replace(state, weights_version=commit.weights_version), commit.evaluations)
    return state


@cache
def mean_best(name: str) -> float:
    """The best fitness among 160 individuals, averaged over 20 seeds."""

    def best(seed: int) -> float:
        strategy, state = build(name), SearchState()
        while state.next_index < 160:
            state = strategy.tell(state, evaluate(ask(strategy, state, seed), likeness))
        return max(each.rank_key for each in state.history if each.proposal.index < 160)

    return fmean(best(seed) for seed in range(20))


def ask_in_json(documents: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Each strategy's next proposals and a path, from its journal as JSON to JSON."""
    answers: dict[str, Any] = {}
    for name, journal in documents.items():
        strategy = build(name)
        state = state_after(strategy, [commit_from_json(each) for each in journal])
        proposals = ask(strategy, replace(state, weights_version=10 * len(journal)))
        path = strategy.sample_path(np.random.default_rng(1))
        answers[name] = json.loads(json.dumps([[asdict(each) for each in proposals], path]))
    return answers


def test_every_strategy_is_tested() -> None:
    union = get_args(get_args(StrategyConfig)[0])
    assert {member.model_fields["type"].default for member in union} == SECTIONS.keys()


@every_strategy
def test_same_seed_gives_the_same_search(name: str) -> None:
    commits = run(build(name), 4)
    assert run(build(name), 4) == commits
    if name != "fixed":
        assert run(build(name), 4, seed=1) != commits


def test_resumes_from_json_in_a_fresh_process() -> None:
    journals = {name: [commit_to_json(each) for each in run(build(name), 4)] for name in SECTIONS}
    uninterrupted = {name: run(build(name), 5)[-1] for name in SECTIONS}
    script = (
        "import json, sys; from tests.test_strategies import ask_in_json;"
        "print(json.dumps(ask_in_json(json.load(sys.stdin))))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(journals, allow_nan=False),
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    answers = json.loads(process.stdout)
    assert answers == ask_in_json(journals)
    for name, (proposals, _) in answers.items():
        expected = [asdict(each.proposal) for each in uninterrupted[name].evaluations]
        assert proposals == json.loads(json.dumps(expected))


@every_strategy
def test_a_generation_is_survivors_and_the_new_ones_asked_for(name: str) -> None:
    strategy, state = build(name), SearchState()
    for _ in range(5):
        num = strategy.num_new(state)
        proposals = ask(strategy, state)
        living = {each.proposal.index: each.proposal for each in state.population}
        survivors, new = proposals[: len(proposals) - num], proposals[len(proposals) - num :]
        assert all(each == living[each.index] for each in survivors)
        assert [each.index for each in new] == list(range(state.next_index, state.next_index + num))
        assert all(each.birth == state.generation and set(each.parents) <= living.keys() for each in new)
        state = strategy.tell(state, evaluate(proposals, likeness))
        assert state.next_index == max(each.proposal.index for each in state.history) + 1


@pytest.mark.parametrize("name", SECTIONS.keys() - {"fixed", "successive_halving"})
@pytest.mark.parametrize("num", [0, 1, 5])
def test_asks_for_as_many_as_it_is_told(name: str, num: int) -> None:
    strategy = build(name)
    state = state_after(strategy, run(strategy, 1))
    proposals = strategy.ask(state, np.random.default_rng(0), num)
    assert sum(each.index >= state.next_index for each in proposals) == num


@every_strategy
def test_tell_keeps_every_evaluation(name: str) -> None:
    strategy = build(name)
    commits = run(strategy, 3)
    state = state_after(strategy, commits)
    assert state.generation == 3
    assert state.history == tuple(each for commit in commits for each in commit.evaluations)
    assert set(map(id, state.population)) <= set(map(id, commits[-1].evaluations))


@every_sampler
def test_no_two_of_a_generation_compute_the_same_function(name: str) -> None:
    for space in (SPACE, SMALL):
        for commit in run(build(name, space), 10, measure=lambda genotype: float(genotype[0] == 1)):
            genotypes = [space.canonical(each.proposal.genotype) for each in commit.evaluations]
            assert len(set(genotypes)) == len(genotypes)


@every_population
def test_a_whole_small_space_fits_into_a_generation(name: str) -> None:
    first = run(build(name, SMALL, population_size=16), 1, measure=lambda genotype: 0.0)[0]
    assert len({each.proposal.genotype for each in first.evaluations}) == 16


@pytest.mark.parametrize("name", SECTIONS.keys() - {"fixed", "local_search", "successive_halving"})
def test_a_space_smaller_than_the_population_repeats_itself(name: str) -> None:
    for commit in run(build(name, TWO), 4, measure=lambda genotype: float(genotype[0])):
        assert {each.proposal.genotype[0] for each in commit.evaluations} == {0, 1}
        assert len(commit.evaluations) >= 8


@every_strategy
def test_goes_on_when_everything_fails(name: str) -> None:
    commits = run(build(name), 4, measure=lambda genotype: None)
    assert [len(commit.evaluations) > 0 for commit in commits] == [True] * 4
    json.dumps([commit_to_json(each) for each in commits], allow_nan=False)


@every_sampler
def test_failures_have_no_children_and_are_nobodys_elite(name: str) -> None:
    def fails_often(genotype: Genotype) -> float | None:
        return None if genotype[0] % 2 else -1e9 - sum(genotype)

    commits = run(build(name), 6, measure=fails_often)
    json.dumps([commit_to_json(each) for each in commits], allow_nan=False)
    failed: set[int] = set()
    for commit in commits:
        assert not any(failed.intersection(each.proposal.parents) for each in commit.evaluations)
        if name != "regularized_evolution":  # where age alone decides who lives
            assert not any(each.proposal.index in failed for each in commit.evaluations)
        failed |= {each.proposal.index for each in commit.evaluations if each.fitness is None}
    assert failed


def test_failure_loses_to_any_fitness() -> None:
    failed = Evaluation(Proposal(0, (0,)), None, failure="it failed")
    poor = Evaluation(Proposal(1, (1,)), -1e300)
    good = Evaluation(Proposal(2, (2,)), 1.0)
    older = Evaluation(Proposal(3, (3,)), 1.0)
    assert fittest_first([failed, older, poor, good]) == [good, older, poor, failed]
    winners = [win_tournament([failed, poor], 2, np.random.default_rng(seed)) for seed in range(50)]
    assert winners.count(failed) < winners.count(poor)  # it wins where both entrants are itself


@every_search
def test_beats_random_search_at_equal_evaluations(name: str) -> None:
    assert mean_best(name) > mean_best("random") + 1


@every_strategy
def test_never_leaves_a_constrained_space(name: str) -> None:
    space = Constrained(SPACE, num_outputs=5, max_params=45_000)
    assert sum(space.allows(SPACE.sample(np.random.default_rng(seed))) for seed in range(100)) < 90
    strategy = build(name, space)
    for commit in run(strategy, 5):
        for each in commit.evaluations:
            space.validate(each.proposal.genotype)
    rng = np.random.default_rng(0)
    for _ in range(50):
        space.validate(strategy.sample_path(rng))


def test_random_search_draws_anew_and_keeps_the_fittest() -> None:
    first, second = run(build("random", num_elites=2), 2)
    assert (len(first.evaluations), len(second.evaluations)) == (8, 10)
    assert [each.proposal for each in second.evaluations[:2]] == [
        each.proposal for each in fittest_first(first.evaluations)[:2]
    ]
    assert all(not each.proposal.parents for each in second.evaluations)


def test_fixed_is_one_genotype_for_ever() -> None:
    commits = run(build("fixed"), 4)
    genotype = SPACE.from_string(SECTIONS["fixed"]["genotype"])
    assert [[each.proposal for each in commit.evaluations] for commit in commits] == [
        [Proposal(0, genotype)]
    ] * 4
    assert build("fixed").sample_path(np.random.default_rng(0)) == genotype


def test_fixed_refuses_a_genotype_of_another_space() -> None:
    with pytest.raises(InvalidGenotypeError, match="layerwise"):
        FixedConfig(genotype="conv_3x3:16").build(SPACE)


def test_genetic_elites_are_the_fittest() -> None:
    commits = run(build("genetic", num_elites=3), 6)
    for before, after in pairwise(commits):
        fittest = [each.proposal for each in fittest_first(before.evaluations)[:3]]
        assert [each.proposal for each in after.evaluations[:3]] == fittest
        assert len(after.evaluations) == 8
    best = [max(each.rank_key for each in commit.evaluations) for commit in commits]
    assert best == sorted(best)


@pytest.mark.parametrize(
    ("crossover", "mutation", "num_parents", "num_mutated"),
    [(0.0, 0.0, {1}, {1}), (1.0, 0.0, {1, 2}, {0}), (1.0, 1.0, {1, 2}, {0, 1}), (0.5, 0.5, {1, 2}, {0, 1})],
)
def test_genetic_children_are_made_of_their_parents(
    crossover: float, mutation: float, num_parents: set[int], num_mutated: set[int]
) -> None:
    strategy = build("genetic", crossover_probability=crossover, mutation_probability=mutation)
    first, second = run(strategy, 2)
    genotypes = {each.proposal.index: each.proposal.genotype for each in first.evaluations}
    children = [each.proposal for each in second.evaluations if each.proposal.birth == 1]
    assert {len(child.parents) for child in children} <= num_parents
    for child in children:
        genes = zip(child.genotype, *(genotypes[index] for index in child.parents), strict=True)
        assert sum(gene not in inherited for gene, *inherited in genes) in num_mutated


def test_genetic_favours_the_fit_as_parents() -> None:
    strategy = build("genetic", population_size=40, num_elites=0)
    first, second = run(strategy, 2)
    fitness = {each.proposal.index: each.rank_key for each in first.evaluations}
    parents = [index for each in second.evaluations for index in each.proposal.parents]
    assert fmean(fitness[index] for index in parents) > fmean(fitness.values()) + 0.5


def test_converged_genetic_population_is_filled_up_with_samples() -> None:
    settings: dict[str, Any] = {"num_elites": 2, "crossover_probability": 1.0, "mutation_probability": 0.0}
    strategy = build("genetic", **settings)
    twins = [Proposal(0, (0,) * 12), Proposal(1, (1, *(0,) * 11))]
    state = strategy.tell(SearchState(), evaluate(twins, likeness))
    proposals = ask(strategy, state)
    assert len({SPACE.canonical(each.genotype) for each in proposals}) == 8
    assert [each.parents for each in proposals[2:]] == [()] * 6


def test_regularized_evolution_forgets_the_oldest() -> None:
    indices = [
        [each.proposal.index for each in commit.evaluations]
        for commit in run(build("regularized_evolution", num_offspring=3), 4)
    ]
    assert indices == [list(range(start, start + 8)) for start in (0, 3, 6, 9)]


def test_regularized_evolution_with_one_child_is_algorithm_1() -> None:
    """Real et al., 2019, Algorithm 1; a child that computes what a living individual computes is drawn again."""
    population_size, sample_size, num_cycles, seed = 8, 3, 60, 5
    strategy = build("regularized_evolution", num_offspring=1)
    commits = run(strategy, 1 + num_cycles, seed=seed)
    proposals = {each.proposal.index: each.proposal for commit in commits for each in commit.evaluations}

    population = [proposals[index] for index in range(population_size)]
    history = list(population)
    for cycle in range(num_cycles):
        rng = np.random.default_rng((seed, cycle + 1, Purpose.PROPOSALS))
        others = {SPACE.canonical(each.genotype) for each in population[1:]}
        while True:
            sample = [population[i] for i in rng.integers(population_size, size=sample_size)]
            parent = max(sample, key=lambda each: (likeness(each.genotype), -each.index))
            genotype = SPACE.mutate(parent.genotype, rng)
            if SPACE.canonical(genotype) not in others:
                break
        child = Proposal(len(history), genotype, (parent.index,), birth=cycle + 1)
        history.append(child)
        population = [*population[1:], child]

    assert [proposals[index] for index in sorted(proposals)] == history
    assert [each.proposal for each in commits[-1].evaluations] == population


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (GeneticConfig, {"population_size": 4, "num_elites": 4}, r"num_elites must be below .* 4 \(got 4\)"),
        (RegularizedEvolutionConfig, {"population_size": 4, "sample_size": 5}, r"sample_size .* 4 \(got 5\)"),
        (RegularizedEvolutionConfig, {"population_size": 6}, r"num_offspring .* 6 \(got 8\)"),
        (RandomConfig, {"population_size": 0}, "population_size"),
    ],
)
def test_impossible_settings_are_refused(config: type[Any], settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**settings)
