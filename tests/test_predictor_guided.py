"""A predictor-guided search sees what it has queried, chooses well, and says when its predictor is of no use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from across.orchestrator.config import ConfigError
from across.orchestrator.config.checks import validate_config
from across.orchestrator.config.run_config import RunConfig
from across.orchestrator.forecasts import kendall_tau, newest
from across.orchestrator.run_directory.pretraining import Pretraining
from across.orchestrator.schedules import Generations
from across.orchestrator.search import SearchOutcome, resume_search, run_search
from across.orchestrator.state import Evaluation, Forecast, Proposal, SearchState
from across.orchestrator.strategies.guidance.acquisition import (
    ExpectedImprovementConfig,
    MeanConfig,
    ThompsonConfig,
    UpperBoundConfig,
    choose_batch,
)
from across.orchestrator.strategies.guidance.candidates import SpaceNotEnumerableError
from across.orchestrator.strategies.guidance.experience import experience
from across.orchestrator.strategies.guidance.guide import Guide, Signals, ranked_signals
from across.orchestrator.strategies.guidance.knowledge import Forgetful, SizeKnowledge, TableKnowledge
from across.orchestrator.strategies.predictor_guided import PredictorGuided, PredictorGuidedConfig
from across.orchestrator.tracking.commit_metrics import metrics_of
from across.search_spaces import LayerwiseConfig, TransNasMicroConfig
from across.search_spaces.base import Genotype
from across.search_spaces.constrained import Constrained
from across.search_spaces.tables.table import BenchmarkTable, Epoch
from across.workers.evaluators.tabular import Scores, TableConfig, TabularBenchmark, ranks
from across.workers.predictors.across import AcrossConfig
from across.workers.predictors.base import Candidates, Prediction
from across.workers.predictors.dele import Dele
from tests.test_table_search import table_config
from tests.tiny_search import tiny_config

SPACE = LayerwiseConfig(num_layers=4, reductions=(), widths=(4, 8)).build((1, 8, 8))
EXHAUSTIVE: dict[str, Any] = {
    "candidates": {"type": "exhaustive"},
    "batch_size": 5,
    "num_elites": 0,
    "num_initial": 12,
    "num_initial_from_earlier": 8,
    "num_threads": 1,
}
EARLIER = ("class_object", "room_layout", "jigsaw", "segmentsemantic", "normal", "autoencoder")


@pytest.fixture(scope="module")
def micro(shared_data: Path) -> TabularBenchmark:
    config = TableConfig(
        file=shared_data / "transnas_bench_101" / "micro.npz", tasks=("class_scene",), earlier_tasks=EARLIER
    )
    return config.build(TransNasMicroConfig().build((3, 256, 256)))


def informed(benchmark: TabularBenchmark, seed: int = 0, **settings: Any) -> PredictorGuided:
    config = PredictorGuidedConfig.model_validate({**EXHAUSTIVE, **settings})
    knowledge = TableKnowledge(benchmark)
    return config.build(benchmark.space).informed(knowledge, seed=seed, cache=Forgetful())


@dataclass(frozen=True, eq=False)
class Watched(BenchmarkTable):
    """A table that notes for which tasks it is asked for results."""

    asked: list[str] = field(default_factory=list)

    def values(self, task: str, metric: str | None = None, *, epoch: Epoch = "final") -> Scores:
        self.asked.append(task)
        return super().values(task, metric, epoch=epoch)


@dataclass
class Counting:
    """Values that note which of them are looked up."""

    values: Scores
    looked_up: list[int] = field(default_factory=list)

    def __getitem__(self, row: int) -> float:
        self.looked_up.append(row)
        return float(self.values[row])


def queried(
    benchmark: TabularBenchmark, strategy: PredictorGuided, num: int, values: Scores | Counting
) -> list[int]:
    """Rows in the order in which a search asks for their `values`."""
    schedule, rows = Generations(strategy, seed=0), list[int]()
    while len(rows) < num:
        for proposal in schedule.propose(10**6):
            rows.append(benchmark.row(proposal.genotype))
            schedule.receive(Evaluation(proposal, float(values[rows[-1]])))
    return rows[:num]


def test_sees_no_value_of_the_target_but_those_that_it_queried(micro: TabularBenchmark) -> None:
    values, num = micro.fitness(), 37
    rows = queried(micro, informed(micro), num, values)
    forged = np.random.default_rng(0).permutation(values) + 100.0
    forged[rows] = values[rows]
    counted = Counting(forged)
    table = Watched(**{each.name: getattr(micro.table, each.name) for each in fields(micro.table)})
    watched = TabularBenchmark(micro.config, micro.space, table)
    assert queried(watched, informed(watched), num, counted) == rows
    assert counted.looked_up[:num] == rows
    assert len(set(counted.looked_up)) == len(counted.looked_up) < num + 5  # the batch in which it ended
    assert set(table.asked) == set(EARLIER)


def test_knowledge_never_holds_the_target(micro: TabularBenchmark) -> None:
    target, knowledge = micro.fitness(), TableKnowledge(micro)
    genotypes = [micro.space.from_string(string) for string in micro.table.strings]
    columns = {**knowledge.signals(genotypes), **knowledge.earlier(genotypes)}
    assert columns.keys() >= {"zen", "params", "flops", *EARLIER}
    assert not any(np.array_equal(values, target) for values in columns.values())
    with pytest.raises(ValidationError, match="earlier_tasks must not be among the tasks"):
        TableConfig(file=micro.config.file, tasks=("jigsaw",), earlier_tasks=("jigsaw",))


def test_equivalent_cells_are_not_queried_twice(micro: TabularBenchmark) -> None:
    rows = queried(micro, informed(micro), 60, micro.fitness())
    functions = [micro.space.canonical(micro.space.from_string(micro.table.strings[row])) for row in rows]
    assert len(set(functions)) == 60


def test_finds_better_networks_than_chance_and_with_transfer_better_ones(micro: TabularBenchmark) -> None:
    values = micro.fitness()
    places = ranks(values[:, None])[:, 0]
    alone = TabularBenchmark(micro.config.model_copy(update={"earlier_tasks": ()}), micro.space, micro.table)
    with_transfer = places[queried(micro, informed(micro), 50, values)].min()
    without = places[queried(alone, informed(alone), 50, values)].min()
    assert with_transfer <= 10  # random search expects 80
    assert without <= 60


@pytest.mark.parametrize("candidates", [{"type": "exhaustive"}, {"type": "evolution", "num_steps": 5}])
def test_batches_are_new_and_forecast(micro: TabularBenchmark, candidates: Mapping[str, Any]) -> None:
    strategy, values = informed(micro, candidates=candidates), micro.fitness()
    state, first = SearchState(), True
    for _ in range(3):
        asked = strategy.ask(state, np.random.default_rng(state.generation), strategy.num_new(state))
        assert [each.forecast is None for each in asked] == [first] * len(asked)
        first = False
        results = [Evaluation(each, float(values[micro.row(each.genotype)])) for each in asked]
        state = strategy.tell(state, results)
    assert [each.proposal.index for each in state.history] == list(range(12 + 5 + 5))


def test_a_search_of_a_table_with_earlier_tasks_is_journaled_and_resumed(
    shared_data: Path, tmp_path: Path
) -> None:
    strategy = {"type": "predictor_guided", **EXHAUSTIVE}
    table = {"earlier_tasks": list(EARLIER)}
    config = table_config(shared_data, strategy=strategy, table=table, search={"num_generations": 4})
    whole = run_search(config, run_dir=tmp_path / "whole")
    run_search(with_generations(config, 2), run_dir=tmp_path / "part")
    resumed = resume_search(tmp_path / "part", changes=config)
    assert proposals(resumed) == proposals(whole)
    metrics = metrics_of(whole.commits[-2], 0.0)
    assert -1 <= metrics["predictor/kendall_tau"] <= 1
    assert metrics["predictor/num_screened"] == 5


def with_generations(config: RunConfig, num: int) -> RunConfig:
    return config.model_copy(update={"search": config.search.model_copy(update={"num_generations": num})})


def proposals(outcome: SearchOutcome) -> list[Proposal]:
    generations = [commit for commit in outcome.commits if commit.kind == "generation"]
    return [each.proposal for commit in generations for each in commit.evaluations]


def evaluated(
    index: int, genotype: Genotype, fitness: float | None, version: int = 0, **more: Any
) -> Evaluation:
    return Evaluation(Proposal(index, genotype, **more), fitness, weights_version=version)


def sampled(num: int) -> list[Genotype]:
    rng, found = np.random.default_rng(1), dict[Genotype, Genotype]()
    while len(found) < num:
        genotype = SPACE.sample(rng)
        found.setdefault(SPACE.canonical(genotype), genotype)
    return list(found.values())


def test_experience_takes_the_effect_of_the_weights_out() -> None:
    genotypes, rng = sampled(40), np.random.default_rng(0)
    quality = rng.normal(size=40)
    history = [
        evaluated(row, genotypes[row], float(quality[row] + 10 * version), version)
        for version in range(5)
        for row in range(8 * version - (2 if version else 0), 8 * version + 8)
    ]
    known = experience(history, SPACE, max_functions=100)
    assert len(known.scores) == 40
    assert np.corrcoef(known.scores, quality)[0, 1] > 0.8
    assert np.ptp(known.scores) < 10  # the versions differ by 40


def test_experience_at_one_version_is_fitness_itself_and_failures_are_the_worst() -> None:
    genotypes = sampled(3)
    history = [
        evaluated(0, genotypes[0], 0.5),
        evaluated(1, genotypes[1], None),
        evaluated(2, genotypes[2], 0.25),
    ]
    assert experience(history, SPACE, max_functions=9).scores.tolist() == [0.5, 0.25, 0.25]
    assert len(experience(history, SPACE, max_functions=2).scores) == 2
    assert experience([history[1]], SPACE, max_functions=9).scores.tolist() == [0.0]


def test_kendall_tau_is_of_the_newest_alone() -> None:
    genotypes = sampled(5)
    old = evaluated(0, genotypes[0], 9.0, birth=0, forecast=Forecast(-5.0, 1.0, 7))
    born = [
        evaluated(row, genotypes[row], fitness, birth=1, forecast=Forecast(float(row), 1.0, 7))
        for row, fitness in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.3))
    ]
    assert kendall_tau(newest([old, *born])) == pytest.approx(2 / 3)
    assert kendall_tau(born[:2]) is None
    assert kendall_tau([replace(each, fitness=1.0) for each in born]) is None


@pytest.mark.parametrize(("sign", "aside"), [(1.0, False), (-1.0, True)])
def test_steps_aside_when_its_forecasts_are_wrong_and_comes_back(sign: float, aside: bool) -> None:
    strategy = PredictorGuidedConfig(batch_size=6, num_elites=0, num_initial=6).build(SPACE)
    genotypes = sampled(24)
    state = SearchState()
    for generation in range(4):
        own = range(6 * generation, 6 * generation + 6)
        results = [
            evaluated(
                row,
                genotypes[row],
                float(row),
                birth=generation,
                forecast=Forecast(sign * row, 1.0, 48) if generation else None,
            )
            for row in own
        ]
        state = strategy.tell(state, results)
    assert strategy.stands_aside(state) == aside
    asked = strategy.ask(state, np.random.default_rng(0), 6)
    considered = {each.forecast.num_considered for each in asked if each.forecast}
    assert considered == ({1} if aside else {48})
    always = PredictorGuidedConfig(batch_size=6, num_elites=0, num_initial=6, min_kendall_tau=-1).build(SPACE)
    assert not always.stands_aside(state)


def test_a_batch_takes_one_of_a_function_and_spreads_out() -> None:
    prediction = Prediction(np.array([3.0, 2.9, 2.8, 1.0]), np.array([1.0, 1.0, 1.0, 1.0]))
    functions = np.array([0, 0, 1, 2])
    encodings = np.array([[0.0], [0.0], [0.1], [9.0]], dtype=np.float32)
    acquisition = UpperBoundConfig(width=2.0).build(0.0, np.random.default_rng(0))
    assert choose_batch(acquisition, prediction, encodings, functions, 3, reach=0.0) == [0, 2, 3]
    assert choose_batch(acquisition, prediction, encodings, functions, 2, reach=1.0) == [0, 3]
    assert choose_batch(acquisition, prediction, encodings, functions, 9, reach=0.0) == [0, 2, 3]


def test_acquisition_functions() -> None:
    prediction = Prediction(np.array([1.0, 0.5]), np.array([0.1, 2.0]))
    rng = np.random.default_rng(0)
    assert MeanConfig().build(0.0, rng)(prediction).tolist() == [1.0, 0.5]
    assert UpperBoundConfig(width=1.0).build(0.0, rng)(prediction).tolist() == [1.1, 2.5]
    improvement = ExpectedImprovementConfig().build(1.0, rng)(prediction)
    draws = rng.normal(prediction.mean, prediction.std, (200_000, 2))
    assert improvement == pytest.approx(np.maximum(draws - 1.0, 0).mean(axis=0), rel=0.03)
    thompson = ThompsonConfig().build(0.0, rng)
    drawn = np.stack([thompson(prediction) for _ in range(20_000)])
    assert drawn.mean(axis=0) == pytest.approx(prediction.mean, abs=0.05)
    assert drawn.std(axis=0) == pytest.approx(prediction.std, rel=0.05)


@pytest.mark.parametrize("acquisition", [{"type": "thompson"}, {"type": "expected_improvement"}])
def test_what_a_search_asks_for_follows_from_its_state(
    micro: TabularBenchmark, acquisition: Mapping[str, Any]
) -> None:
    settings: dict[str, Any] = {"acquisition": acquisition, "reach": 2.0}
    rows = [queried(micro, informed(micro, **settings), 27, micro.fitness()) for _ in range(2)]
    assert rows[0] == rows[1]
    assert rows[0] != queried(micro, informed(micro), 27, micro.fitness())


def test_inner_evolution_begins_at_random(micro: TabularBenchmark) -> None:
    """Where nothing is known yet, an evolution would only go round its own parents."""
    strategy = informed(micro, candidates={"type": "evolution"}, num_initial=200, num_initial_from_earlier=0)
    first = [each.genotype for each in strategy.ask(SearchState(), np.random.default_rng(0), 200)]
    differing = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairwise(first)]
    assert np.mean(differing) > 4  # of six genes, 4.5 for genotypes drawn uniformly


def test_a_guide_learns_from_the_signals_that_it_is_given() -> None:
    """Not from those of the same genotypes that it was given before."""
    genotypes, rng = sampled(30), np.random.default_rng(0)
    history = tuple(
        evaluated(row, genotypes[row], float(row), signal_scores={"naswot": float(row)}) for row in range(10)
    )
    state = replace(SearchState(), history=history)
    rising = {genotype: {"naswot": float(row)} for row, genotype in enumerate(genotypes)}
    noise = {genotype: {"naswot": float(rng.normal())} for genotype in genotypes}

    def guide() -> Guide:
        knowledge = SizeKnowledge(Constrained(SPACE, 0))
        return Guide(AcrossConfig(), SPACE, (), knowledge, 0, Forgetful(), 100, 1, ("naswot", "params"))

    def means(asked: Guide, signals: Signals) -> list[float]:
        return list(asked.predict(state, asked.describe(genotypes[10:], signals)).mean)

    used = guide()
    assert means(used, rising) != means(used, noise)
    assert means(used, noise) == means(guide(), noise)


def test_exact_sizes_are_not_replaced_by_ranks() -> None:
    genotypes, knowledge = sampled(3), SizeKnowledge(Constrained(SPACE, 0))
    guide = Guide(AcrossConfig(), SPACE, (), knowledge, 0, Forgetful(), 100, 1, ("naswot", "params"))
    described = guide.describe(genotypes, {genotypes[0]: {"naswot": 0.5, "params": 0.5}})
    assert described.signals["params"].tolist() == knowledge.signals(genotypes)["params"].tolist()
    assert described.signals["naswot"][0] == 0.5
    assert np.isnan(described.signals["naswot"][1:]).all()


def test_signals_are_ranked_among_those_that_have_them() -> None:
    signals: dict[Genotype, dict[str, float]] = {
        (0,): {"a": 3.0},
        (1,): {"a": 1.0, "b": 2.0},
        (2,): {"a": 2.0},
    }
    ranked = ranked_signals(signals)
    assert ranked[(1,)]["a"] < ranked[(2,)]["a"] == 0.0 < ranked[(0,)]["a"]
    assert ranked[(1,)]["b"] == 0.0
    assert "b" not in ranked[(0,)]


def test_pretraining_is_kept_and_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    kept = Pretraining(tmp_path / "predictor")
    assert kept.load("a") is None
    kept.save("a", {"x": np.arange(3, dtype=np.float32)})
    found = kept.load("a")
    assert found is not None
    assert found["x"].tolist() == [0, 1, 2]
    (tmp_path / "predictor" / "a.safetensors").write_bytes(b"torn")
    assert kept.load("a") is None


def test_what_was_learned_of_the_signals_is_kept_in_the_run(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 1 is not made again on resume, and what is proposed is the same with it and without."""
    num_pretrained = 0
    pretrain = Dele.pretrain

    def counting(self: Dele, pool: Candidates) -> None:
        nonlocal num_pretrained
        num_pretrained += 1
        pretrain(self, pool)

    monkeypatch.setattr(Dele, "pretrain", counting)
    predictor = {"type": "dele", "signals": ["zen"], "num_pretraining_epochs": 1, "num_epochs": 2}
    strategy = {"type": "predictor_guided", **EXHAUSTIVE, "predictor": predictor}
    config = table_config(shared_data, strategy=strategy, search={"num_generations": 4})
    whole = run_search(config, run_dir=tmp_path / "whole")
    part = run_search(with_generations(config, 2), run_dir=tmp_path / "part")
    assert num_pretrained == 2
    (kept,) = (part.run_dir / "predictor").iterdir()
    copytree(part.run_dir, tmp_path / "lost")
    (tmp_path / "lost" / "predictor" / kept.name).unlink()
    for name, num_expected in (("part", 2), ("lost", 3)):
        resumed = resume_search(tmp_path / name, changes=config)
        assert num_pretrained == num_expected
        assert proposals(resumed) == proposals(whole)


def test_wrong_settings_are_named(shared_data: Path) -> None:
    with pytest.raises(SpaceNotEnumerableError, match="use the type offspring or evolution"):
        PredictorGuidedConfig.model_validate({"candidates": {"type": "exhaustive"}}).build(SPACE)
    with pytest.raises(ConfigError, match=r"strategy.signals: a table's networks are not there to measure"):
        table_config(
            shared_data,
            strategy={"type": "predictor_guided", "signals": {"names": ["synflow"]}},
        )
    with pytest.raises(ValidationError, match="workers measure them of children, and candidates of the type"):
        PredictorGuidedConfig.model_validate({**EXHAUSTIVE, "signals": {"names": ["synflow"]}})


def test_one_strategy_serves_two_searches_at_once(micro: TabularBenchmark) -> None:
    """It is immutable: what it proposes follows from the state, whatever it was asked in between."""
    strategy, states = informed(micro), []
    for shift in (0.0, 1.0):
        asked = strategy.ask(SearchState(), np.random.default_rng(int(shift)), 12)
        values = np.roll(micro.fitness(), 7 * int(shift))
        results = [Evaluation(each, float(values[micro.row(each.genotype)])) for each in asked]
        states.append(strategy.tell(SearchState(), results))

    def ask(chosen: PredictorGuided, state: SearchState) -> list[Proposal]:
        return chosen.ask(state, np.random.default_rng(3), 5)

    together = [ask(strategy, state) for state in (*states, *states)]
    assert together == [ask(informed(micro), state) for state in (*states, *states)]
    assert together[0] != together[1]


def test_a_signal_that_is_never_defined_is_unknown_to_the_predictor(tmp_path: Path) -> None:
    section: dict[str, Any] = {
        "type": "predictor_guided",
        "batch_size": 3,
        "num_elites": 1,
        "num_initial": 5,
        "candidates": {"type": "offspring", "num_children": 8},
        "predictor": {
            "type": "dele",
            "signals": ["epe_nas", "params"],
            "num_pretraining_epochs": 1,
            "num_epochs": 1,
        },
        "signals": {"names": ["epe_nas", "params"], "max_images": 2},  # epe_nas needs two images of a class
    }
    config = tiny_config(strategy=section, workers={"num_workers": 0})
    outcome = run_search(config, run_dir=tmp_path / "run")
    assert outcome.is_finished
    assert all("epe_nas" not in each.signals for each in proposals(outcome))


def test_a_predictors_unknown_signal_is_named(shared_data: Path) -> None:
    strategy: dict[str, Any] = {
        "type": "predictor_guided",
        "predictor": {"type": "dele", "signals": ["zen", "synflo"]},
    }
    with pytest.raises(
        ConfigError, match=r"strategy\.predictor\.signals: no synflo; there are .*params.*zen"
    ):
        validate_config(table_config(shared_data, strategy=strategy), origin="table.yaml")
    strategy["predictor"] = {"type": "dele", "signals": ["zen", "earlier/jigsaw", "earlier/nowhere"]}
    config = table_config(shared_data, strategy=strategy, table={"earlier_tasks": ["jigsaw"]})
    with pytest.raises(ConfigError, match=r"signals: no earlier/nowhere; there are earlier/jigsaw, .*zen"):
        validate_config(config, origin="table.yaml")
