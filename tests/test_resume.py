"""A driver that is killed anywhere and started again ends with the very search that nobody killed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from across.orchestrator.run_directory import RunDirectory, fingerprint
from across.orchestrator.search import SearchOutcome, run_search
from across.orchestrator.tracking.tracker import Tracker
from tests.tiny_search import run_driver, tiny_config

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PLACES = {
    "after the config": ("across.orchestrator.run_directory:RunDirectory.create", "1", "after"),
    "in the warm-up": ("across.orchestrator.run_directory:RunDirectory.save_checkpoint", "2", "after"),
    "in mid-generation": ("across.orchestrator.run_directory:RunDirectory.spool", "7", "after"),
    "before the weights": ("across.orchestrator.run_directory:RunDirectory.commit", "2", "before"),
    "between weights and journal": (
        "across.orchestrator.run_directory.journal:Journal.append",
        "2",
        "before",
    ),
    "after the journal": ("across.orchestrator.run_directory.journal:Journal.append", "2", "after"),
    "before the mirror": ("across.orchestrator.tracking.tracker:Tracker.mirror", "3", "before"),
    "after the mirror": ("across.orchestrator.tracking.tracker:Tracker.mirror", "3", "after"),
    "in the final test": ("across.orchestrator.run_directory:RunDirectory.spool", "24", "after"),
    "after the last commit": ("across.orchestrator.run_directory.journal:Journal.append", "4", "after"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: Cluster, runs: Path) -> SearchOutcome:
    return run_search(tiny_config(), run_dir=runs / "undisturbed")


@pytest.mark.parametrize("place", PLACES)
def test_killed_driver_resumes_to_the_same_search(
    place: str, undisturbed: SearchOutcome, ray_cluster: Cluster, runs: Path
) -> None:
    run_dir = runs / place.replace(" ", "_")
    killed = run_driver(run_dir, ray_cluster.address, *PLACES[place])
    assert killed.returncode == -9, killed.stderr
    before = RunDirectory.open(run_dir)
    num_committed = len(before.commits())
    num_spooled = len(before.spooled(num_committed))
    checkpoint = before.load_checkpoint(num_committed)
    num_shards = checkpoint.extra["num_shards"] if checkpoint else 0

    outcome = run_search(tiny_config(), run_dir=run_dir)

    assert outcome.fingerprint == undisturbed.fingerprint
    if (num_spooled or num_shards) and num_committed < len(outcome.commits):
        resumed = outcome.commits[num_committed].timings
        assert resumed.num_units_reused == num_spooled + num_shards, "finished units were computed again"
    assert (run_dir / "plots" / "progress.png").stat().st_mtime >= outcome.commits[-1].timestamp
    assert_mirrored_once(outcome)


def assert_mirrored_once(outcome: SearchOutcome) -> None:
    """One MLflow run, which holds each generation's best fitness exactly once."""
    run = RunDirectory.open(outcome.run_dir)
    config = tiny_config()
    uri = Tracker(config.tracking, run, str).uri
    client = MlflowClient(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`across.run_uid` = '{run.run_uid}'")
    assert len(found) == 1
    history = client.get_metric_history(found[0].info.run_id, "fitness/best")
    generations = [each for each in outcome.commits if each.kind == "generation"]
    assert sorted((each.step, each.value) for each in history) == [
        (number, max(evaluation.rank_key for evaluation in commit.evaluations))
        for number, commit in enumerate(generations)
    ]
    assert found[0].info.status == "FINISHED"
    assert fingerprint(run.commits()) == outcome.fingerprint
