"""A search of a table is a search like any other: journaled, resumed, the same for any number of workers."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from across.orchestrator.cli import across
from across.orchestrator.cli.summary import summarize
from across.orchestrator.config import ConfigError, RunConfig
from across.orchestrator.config.checks import validate_config
from across.orchestrator.config.loading import parse_config
from across.orchestrator.objectives import fronts, objectives_of
from across.orchestrator.run_directory import RunDirectory, fingerprint
from across.orchestrator.search import run_search
from across.orchestrator.state import simulated_seconds
from across.orchestrator.strategies.local_search import LocalSearchConfig
from across.workers.evaluators.tabular import TabularWorker
from tests.test_strategies import SECTIONS

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

ROOT = Path(__file__).resolve().parents[1]


def table_config(shared_data: Path, **changes: Any) -> RunConfig:
    document: dict[str, Any] = {
        "name": "table",
        "seed": 3,
        "space": {"type": "transnas_micro"},
        "table": {"file": shared_data / "transnas_bench_101" / "micro.npz", "tasks": ["class_scene"]},
        "strategy": {"type": "genetic", "population_size": 20},
        "search": {"num_generations": 6},
        "test": {"num_finalists": 2},
        "workers": {"num_workers": 0},
        "tracking": {"enabled": False},
        "compute": {"device": "cpu"},
    }
    for name, value in changes.items():
        is_partial = isinstance(value, dict) and "type" not in value
        document[name] = {**document.get(name, {}), **value} if is_partial else value
    return parse_config(document, origin="table.yaml")


def test_a_table_is_searched_journaled_and_ranked(shared_data: Path, tmp_path: Path) -> None:
    outcome = run_search(table_config(shared_data), run_dir=tmp_path / "run")
    assert outcome.is_finished
    assert outcome.best is not None
    fitness = [max(each.rank_key for each in commit.evaluations) for commit in outcome.commits]
    assert outcome.best.scores[0] == max(fitness)
    assert 1 <= outcome.best.metrics["rank/class_scene"] <= 400
    assert {"params", "flops"} <= outcome.commits[0].evaluations[0].metrics.keys()
    assert not list((tmp_path / "run" / "weights").iterdir())  # nothing was learned
    again = run_search(table_config(shared_data), run_dir=tmp_path / "again")
    assert again.fingerprint == outcome.fingerprint


@pytest.mark.parametrize("name", sorted(SECTIONS.keys() - {"fixed"}))
def test_every_strategy_searches_a_table(shared_data: Path, tmp_path: Path, name: str) -> None:
    strategy = {"type": name, **SECTIONS[name]}
    table: dict[str, Any] = {}
    if name == "successive_halving":
        strategy["fidelities"] = [12, None]
        table = {
            "file": shared_data / "nas_bench_201" / "nas_bench_201.npz",
            "tasks": ["cifar10"],
            "fidelities": {12: {"metric": "valid_accuracy_12ep"}},
        }
    space = {"type": "nas_bench_201" if table else "transnas_micro"}
    document = table_config(shared_data, table=table).model_dump(mode="json")
    config = parse_config(document | {"strategy": strategy, "space": space}, origin="x")
    outcome = run_search(config, run_dir=tmp_path / "run")
    assert outcome.is_finished
    assert outcome.best is not None


def test_a_run_can_start_from_what_another_found(shared_data: Path, tmp_path: Path) -> None:
    others = {"tasks": ["class_object", "jigsaw"], "fitness": "mean_rank"}
    known = run_search(table_config(shared_data, table=others), run_dir=tmp_path / "others")
    assert known.best is not None
    config = table_config(
        shared_data, initial_population={"run": str(tmp_path / "others"), "num_genotypes": 5}
    )
    outcome = run_search(config, run_dir=tmp_path / "run")
    first = [each.proposal.genotype for each in outcome.commits[0].evaluations]
    assert first[0] == known.best.proposal.genotype
    assert len(set(first)) == 20
    plain = run_search(table_config(shared_data), run_dir=tmp_path / "plain")
    drawn = [each.proposal.genotype for each in plain.commits[0].evaluations]
    assert first[5:] == [genotype for genotype in drawn if genotype not in first[:5]][:15]
    stored = RunDirectory.open(tmp_path / "run").settings()["initial_population"]
    assert len(stored["genotypes"]) == 5  # a resume does not depend on the other run
    again = run_search(config, run_dir=tmp_path / "run")
    assert again.fingerprint == outcome.fingerprint


def test_a_run_of_another_space_is_no_start(shared_data: Path, tmp_path: Path) -> None:
    other = table_config(
        shared_data,
        space={"type": "nas_bench_201"},
        table={"file": shared_data / "nas_bench_201" / "nas_bench_201.npz", "tasks": ["cifar10"]},
        search={"num_generations": 1},
    )
    run_search(other, run_dir=tmp_path / "other")
    config = table_config(shared_data, initial_population=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"initial_population: .*other: "):
        run_search(config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_simulated_time_ends_a_search(shared_data: Path, tmp_path: Path) -> None:
    table = {
        "file": shared_data / "nas_bench_201" / "nas_bench_201.npz",
        "tasks": ["cifar10"],
        "reward": {"metric": "valid_accuracy_12ep"},
        "test": {"metric": "test_accuracy"},
    }
    config = table_config(
        shared_data,
        space={"type": "nas_bench_201"},
        table=table,
        search={"num_generations": 1000, "max_simulated_seconds": 6000.0},
    )
    commits = run_search(config, run_dir=tmp_path / "run").commits
    assert simulated_seconds(commits[:-2]) < 6000 <= simulated_seconds(commits)
    assert commits[-1].kind == "test"


def test_a_front_is_in_mlflow_in_a_picture_and_has_a_knee(shared_data: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    settings = {
        "strategy": {"type": "nsga2", "population_size": 12},
        "tracking": {"enabled": True, "uri": store},
        "search": {"num_generations": 5},
    }
    document = table_config(shared_data).model_dump(mode="json") | settings
    config = parse_config(document, origin="front.yaml")
    outcome = run_search(config, run_dir=tmp_path / "run")
    objectives = objectives_of(config.strategy)
    summaries = [each for each in fronts(outcome.commits, objectives) if each is not None]
    assert len(summaries) == 5  # none after the test
    assert outcome.best is not None

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    shares = [each.value for each in client.get_metric_history(run.info.run_id, "front/hypervolume")]
    assert shares == [each.hypervolume for each in summaries]
    assert shares == sorted(shares)
    assert shares[-1] > shares[0]
    assert run.data.metrics["test/rank/class_scene"] == outcome.best.metrics["rank/class_scene"]
    document = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/fronts/generation_0004.json")
    assert [each["index"] for each in document["members"]] == [
        each.proposal.index for each in summaries[-1].members
    ]
    assert (tmp_path / "run" / "plots" / "front.png").stat().st_size > 10_000

    summary = summarize(outcome, config)
    assert summary is not None
    member = document["members"][document["knee"]]
    assert summary.knee.startswith(f"{member['string']} (fitness ")
    assert [score.task for score in summary.table_scores] == ["class_scene"]


def test_the_command_line_searches_and_looks_up(shared_data: Path, tmp_path: Path) -> None:
    config = tmp_path / "table.yaml"
    config.write_text(table_config(shared_data).model_dump_json())
    run = str(tmp_path / "run")
    for command, expected in (
        (["validate", str(config)], "4,096 genotypes"),
        (["search", str(config), "--run-dir", run], "of 4,096"),
        (["search", str(config), "--run-dir", run], "of 4,096"),
        (["status", run], "64-41414-"),
        (["evaluate", run], "class_scene: valid_top1 "),
        (["evaluate", run, "--genotype", "64-41414-0_00_000"], "class_scene: valid_top1 7.4841, rank "),
    ):
        shown = CliRunner().invoke(across, command, catch_exceptions=False)
        assert shown.exit_code == 0, shown.output
        assert expected in shown.output


def test_survivors_are_not_looked_up_again(shared_data: Path, tmp_path: Path) -> None:
    outcome = run_search(table_config(shared_data), run_dir=tmp_path / "run")
    second = outcome.commits[1]
    assert second.timings.num_units_computed == 16
    assert second.timings.num_units_reused == 4


STEADY_STATE = {"type": "steady_state", "lag": 12, "commit_size": 25}
LINEAGES = {"type": "lineages", "num_lineages": 6, "migration_interval": 3, "commit_size": 25}
ONE_BY_ONE = {
    "steady_state": {"schedule": STEADY_STATE, "search": {"num_generations": 8}},
    "lineages": {"schedule": LINEAGES, "search": {"num_generations": 8}},
}


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_without_generations_a_commit_is_a_stretch_of_indices(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    outcome = run_search(table_config(shared_data, **ONE_BY_ONE[name]), run_dir=tmp_path / "run")
    *stretches, test = outcome.commits
    indices = [each.proposal.index for commit in stretches for each in commit.evaluations]
    assert indices == list(range(200))
    assert [len(commit.evaluations) for commit in stretches] == [25] * 8
    assert test.kind == "test"
    fitness = [each.rank_key for commit in stretches for each in commit.evaluations]
    assert sum(fitness[-50:]) > sum(fitness[:50])


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_without_generations_an_interrupted_search_is_the_same(
    shared_data: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = table_config(shared_data, **ONE_BY_ONE[name])
    undisturbed = run_search(config, run_dir=tmp_path / "undisturbed")
    look_up = TabularWorker.run
    for _ in range(3):
        left = iter(range(45))

        def run(self: TabularWorker, *arguments: Any, left: Iterator[int] = left) -> Any:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return look_up(self, *arguments)

        monkeypatch.setattr(TabularWorker, "run", run)
        with pytest.raises(KeyboardInterrupt):
            run_search(config, run_dir=tmp_path / "run")
    monkeypatch.undo()
    assert 1 <= len(RunDirectory.open(tmp_path / "run").commits()) < 9
    assert run_search(config, run_dir=tmp_path / "run").fingerprint == undisturbed.fingerprint


def test_only_strategies_that_can_go_one_by_one(shared_data: Path) -> None:
    config = table_config(shared_data, schedule=STEADY_STATE)
    with pytest.raises(ConfigError, match="schedule: local_search goes in generations alone"):
        validate_config(config.model_copy(update={"strategy": LocalSearchConfig()}), origin="x.yaml")


@pytest.mark.ray
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_without_generations_any_number_of_workers_finds_the_same(
    shared_data: Path, tmp_path: Path, ray_cluster: Cluster, name: str
) -> None:
    alone = run_search(table_config(shared_data, **ONE_BY_ONE[name]), run_dir=tmp_path / "alone")
    for num_workers in (1, 3):
        workers = {"num_workers": num_workers, "cpus_per_worker": 0.5}
        config = table_config(shared_data, workers=workers, **ONE_BY_ONE[name])
        outcome = run_search(config, run_dir=tmp_path / str(num_workers))
        assert outcome.fingerprint == alone.fingerprint


@pytest.mark.ray
def test_workers_in_actors_find_the_same(shared_data: Path, tmp_path: Path, ray_cluster: Cluster) -> None:
    alone = run_search(table_config(shared_data), run_dir=tmp_path / "alone")
    for num_workers in (1, 3):
        config = table_config(shared_data, workers={"num_workers": num_workers, "cpus_per_worker": 0.5})
        outcome = run_search(config, run_dir=tmp_path / str(num_workers))
        assert outcome.fingerprint == alone.fingerprint


@pytest.mark.slow
def test_ten_thousand_evaluations_with_three_kills_are_the_same(shared_data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "strategy": {"type": "regularized_evolution", "population_size": 100, "num_offspring": 100},
        "search": {"num_generations": 100},
    }
    settings["strategy"]["sample_size"] = 10
    undisturbed = run_search(table_config(shared_data, **settings), run_dir=tmp_path / "undisturbed")
    assert undisturbed.state.next_index == 10_000
    config = tmp_path / "table.yaml"
    config.write_text(table_config(shared_data, **settings).model_dump_json())
    command = [
        sys.executable,
        "-m",
        "across",
        "search",
        str(config),
        "--run-dir",
        str(tmp_path / "killed"),
    ]
    rng, num_committed = random.Random(0), 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = num_committed + rng.randint(5, 25)
        journal = tmp_path / "killed" / "journal"
        while process.poll() is None and num_committed < wanted:
            time.sleep(0.005)
            num_committed = len(list(journal.glob("*.json"))) if journal.exists() else 0
        process.kill()
        process.wait()
        assert num_committed < 100
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    commits = RunDirectory.open(tmp_path / "killed").commits()
    assert fingerprint(commits) == undisturbed.fingerprint


def test_a_table_takes_no_settings_of_learning(shared_data: Path) -> None:
    with pytest.raises(
        ConfigError, match="inner_loop, evaluation: a search of a table adapts and learns nothing"
    ):
        table_config(shared_data, inner_loop={"num_steps": 2}, evaluation={"num_tasks": 3})


def test_the_config_of_a_run_is_one_that_can_be_read_again(shared_data: Path, tmp_path: Path) -> None:
    run_search(table_config(shared_data), run_dir=tmp_path / "run")
    stored = RunDirectory.open(tmp_path / "run").settings()
    parse_config(stored, origin="config.yaml")
    json.dumps(stored)
