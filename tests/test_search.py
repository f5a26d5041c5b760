"""A search gives the same bits with any number of workers, whatever dies on the way."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING

import numpy as np
import pytest

from across.orchestrator.config import ConfigError
from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.search import SearchOutcome, evaluate_genotype, run_search
from across.orchestrator.state import reproducible_part
from across.orchestrator.worker_pool.cluster import ClusterError
from across.workers.base import EvaluationResult
from tests.dying_workers import dying_workers
from tests.tiny_search import tiny_config

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: Cluster, runs: Path) -> SearchOutcome:
    """One worker, nothing dies: what all others must equal."""
    return run_search(tiny_config(workers={"num_workers": 1}), run_dir=runs / "one_worker")


def assert_equal(outcome: SearchOutcome, expected: SearchOutcome) -> None:
    """Journals equal apart from clocks, weights equal to the bit."""
    assert [reproducible_part(each) for each in outcome.commits] == [
        reproducible_part(each) for each in expected.commits
    ]
    assert outcome.fingerprint == expected.fingerprint
    last = max(each.number for each in expected.commits if each.kind == "generation")
    ours, theirs = (RunDirectory.open(each.run_dir).load_weights(last) for each in (outcome, expected))
    assert {name: values.tobytes() for name, values in ours.items()} == {
        name: values.tobytes() for name, values in theirs.items()
    }


def test_search_commits_generations_and_measures_finalists(undisturbed: SearchOutcome) -> None:
    assert [commit.kind for commit in undisturbed.commits] == ["generation"] * 3 + ["test"]
    assert undisturbed.is_finished
    assert [commit.weights_version for commit in undisturbed.commits] == [3, 5, 7, 7]
    for commit in undisturbed.commits[:3]:
        assert len(commit.evaluations) == 4
        assert all(each.fitness is not None and len(each.scores) == 4 for each in commit.evaluations)
        assert all(each.weights_version == commit.weights_version for each in commit.evaluations)
        assert commit.timings.num_tasks == 4 * 4 + commit.meta_learning.num_steps * 4
    assert undisturbed.best is not None
    assert len(undisturbed.best.scores) == 6
    assert (undisturbed.run_dir / "plots" / "progress.png").exists()


def test_elites_survive_with_their_index(undisturbed: SearchOutcome) -> None:
    first, second = undisturbed.commits[:2]
    best = max(first.evaluations, key=lambda each: (each.rank_key, -each.proposal.index))
    assert second.evaluations[0].proposal == best.proposal
    assert second.evaluations[0].metrics != best.metrics  # evaluated again, at new weights


def test_children_know_their_parents(undisturbed: SearchOutcome) -> None:
    born = {each.proposal.index for each in undisturbed.commits[0].evaluations}
    children = [each.proposal for each in undisturbed.commits[1].evaluations[1:]]
    assert all(child.parents and set(child.parents) <= born and child.birth == 1 for child in children)


@pytest.mark.parametrize("num_workers", [2, 3])
def test_number_of_workers_does_not_matter(undisturbed: SearchOutcome, runs: Path, num_workers: int) -> None:
    config = tiny_config(workers={"num_workers": num_workers})
    assert_equal(run_search(config, run_dir=runs / f"{num_workers}_workers"), undisturbed)


def test_tracking_server_that_never_answers_does_not_matter(undisturbed: SearchOutcome, runs: Path) -> None:
    config = tiny_config(tracking={"uri": "http://127.0.0.1:9", "timeout_seconds": 1.0})
    assert_equal(run_search(config, run_dir=runs / "untracked"), undisturbed)


def test_other_seed_gives_another_search(undisturbed: SearchOutcome, runs: Path) -> None:
    outcome = run_search(tiny_config(seed=6), run_dir=runs / "other_seed")
    assert outcome.fingerprint != undisturbed.fingerprint


def test_finished_search_is_not_run_again(undisturbed: SearchOutcome) -> None:
    again = run_search(tiny_config(workers={"num_workers": 1}), run_dir=undisturbed.run_dir)
    assert again.commits == undisturbed.commits


def test_settings_of_the_test_are_refused_where_there_is_nothing_left_to_measure(
    undisturbed: SearchOutcome,
) -> None:
    config = tiny_config(workers={"num_workers": 1}, test={"num_tasks": 60})
    with pytest.raises(ConfigError, match=r"is finished, and test\.num_tasks would change nothing"):
        run_search(config, run_dir=undisturbed.run_dir)
    assert not RunDirectory.open(undisturbed.run_dir).segments()


def test_settings_that_do_not_fit_are_not_kept(undisturbed: SearchOutcome) -> None:
    longer = {"workers": {"num_workers": 99}, "search": {"num_generations": 4}}
    with pytest.raises(ClusterError, match="99 workers"):
        run_search(tiny_config(**longer), run_dir=undisturbed.run_dir)
    assert not RunDirectory.open(undisturbed.run_dir).segments()


def test_other_shards_on_resume_take_nothing_from_the_spool(undisturbed: SearchOutcome, runs: Path) -> None:
    """Other shards draw other paths, so that spooled results would be of other weights."""
    run_dir = runs / "other_shards"
    copytree(undisturbed.run_dir, run_dir)
    for path in (*run_dir.glob("journal/*"), *run_dir.glob("weights/*")):
        path.unlink()
    run = RunDirectory.open(run_dir)
    spooled = EvaluationResult("0" * 24, (1.0,))
    with run.lock():
        run.spool(0, [spooled])
        run.save_checkpoint(0, 1, {"weights": np.zeros(1, np.float32)}, {})
    config = tiny_config(meta_learning={"tasks_per_shard": 1}, workers={"num_workers": 1})
    outcome = run_search(config, run_dir=run_dir)
    assert outcome.commits[0].timings.num_units_reused == 0
    assert outcome.fingerprint != undisturbed.fingerprint


def test_killed_actors_do_not_matter(
    undisturbed: SearchOutcome, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(workers={"num_workers": 2, "max_attempts": 20})
    with dying_workers(monkeypatch) as killed:
        outcome = run_search(config, run_dir=runs / "killed_actors")
    assert killed
    assert_equal(outcome, undisturbed)


def test_evaluate_measures_the_best_and_any_other(undisturbed: SearchOutcome) -> None:
    assert undisturbed.best is not None
    scores = evaluate_genotype(undisturbed.run_dir, num_tasks=6)
    assert scores == undisturbed.best.scores
    other = evaluate_genotype(undisturbed.run_dir, genotype="skip|conv_3x3:4", num_tasks=4)
    assert len(other) == 4
    assert all(math.isfinite(score) for score in other)


def test_initial_weights_continue_another_run(undisturbed: SearchOutcome, runs: Path) -> None:
    assert undisturbed.best is not None
    genotype = "conv_3x3:4|conv_3x3:4"
    config = tiny_config(
        name="continued",
        initial_weights=undisturbed.run_dir,
        search={"num_generations": 1},
        meta_learning={"steps_per_generation": 0, "warmup_steps": 0},
        strategy={"type": "fixed", "genotype": genotype},
    )
    outcome = run_search(config, run_dir=runs / "continued")
    expected = evaluate_genotype(undisturbed.run_dir, genotype=genotype, num_tasks=6)
    assert outcome.best is not None
    assert outcome.best.scores == expected


def test_lost_node_and_new_node_do_not_matter(
    undisturbed: SearchOutcome, ray_cluster: Cluster, runs: Path
) -> None:
    run_dir = runs / "lost_node"
    config = tiny_config(workers={"num_workers": None, "cpus_per_worker": 1.0, "max_attempts": 20})
    node = ray_cluster.add_node(num_cpus=1)
    with ThreadPoolExecutor(1) as executor:
        search = executor.submit(run_search, config, run_dir=run_dir)
        while not (run_dir / "journal" / "000000.json").exists() and not search.done():
            time.sleep(0.05)
        ray_cluster.remove_node(node, allow_graceful=False)
        node = ray_cluster.add_node(num_cpus=1)
        outcome = search.result()
    ray_cluster.remove_node(node)
    assert_equal(outcome, undisturbed)
