"""The mirror in a real SQLite store: complete, every metric once, one run, and never in the way of a search."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from across.orchestrator.run_directory import RunDirectory, fingerprint
from across.orchestrator.state import Commit
from across.orchestrator.tracking.commit_metrics import best_so_far, metrics_of
from across.orchestrator.tracking.config import TrackingConfig, store_uri
from across.orchestrator.tracking.tracker import Tracker
from across.search_spaces.base import Genotype
from tests.example_commits import example_commit
from tests.killable import start_child

CONFIG = {"seed": 1, "strategy": {"kind": "genetic", "note": "x" * 7000}} | {
    f"option_{i}": i for i in range(150)
}


def to_string(genotype: Genotype) -> str:
    return "|".join(map(str, genotype))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for the module; each test has a run of its own in it."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "omniglot", CONFIG, {"torch": "2.13.0"})


def commit_generations(run: RunDirectory, count: int) -> tuple[Commit, ...]:
    for number in range(len(run.commits()), count):
        run.commit(example_commit(number))
    return run.commits()


def tracker_of(run: RunDirectory, uri: str, timeout_seconds: float = 60) -> Tracker:
    return Tracker(TrackingConfig(uri=uri, timeout_seconds=timeout_seconds), run, to_string)


def the_one_run(client: MlflowClient, run: RunDirectory) -> Run:
    experiment = client.get_experiment_by_name("across")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`across.run_uid` = '{run.run_uid}'")
    assert len(found) == 1
    return found[0]


def assert_complete(uri: str, run: RunDirectory) -> Run:
    """Every metric of every commit exactly once, with the journal's time, under one run."""
    client = MlflowClient(tracking_uri=uri)
    mirrored = the_one_run(client, run)
    run_id = mirrored.info.run_id
    commits = run.commits()
    expected = Counter(
        (name, commit.number, round(commit.timestamp * 1000), value)
        for commit, best in zip(commits, best_so_far(commits), strict=True)
        for name, value in metrics_of(commit, best).items()
    )
    found = Counter(
        (metric.key, metric.step, metric.timestamp, metric.value)
        for name in mirrored.data.metrics
        for metric in client.get_metric_history(run_id, name)
    )
    assert found == expected
    assert mirrored.data.tags["across.num_mirrored_commits"] == str(len(commits))
    assert mirrored.data.tags["across.fingerprint"] == fingerprint(commits)
    names = [f"populations/{commit.kind}_{commit.number:04d}.json" for commit in commits]
    assert [file.path for file in client.list_artifacts(run_id, "populations")] == sorted(names)
    return mirrored


def test_a_mirror_holds_everything(store: str, run: RunDirectory, tmp_path: Path) -> None:
    commits = commit_generations(run, 3)
    run.commit(replace(example_commit(3), kind="test"))
    tracker = tracker_of(run, store)
    assert tracker.run_id is None
    assert tracker.mirror(commits)
    picture = tmp_path / "progress.png"
    picture.write_bytes(b"first")
    assert tracker.log_artifact(picture, "plots")
    picture.write_bytes(b"second")
    assert tracker.log_artifact(picture, "plots")
    assert tracker.finish(run.commits(), "FINISHED")

    mirrored = assert_complete(store, run)
    assert mirrored.info.run_id == tracker.run_id
    assert (mirrored.info.run_name, mirrored.info.status) == ("omniglot", "FINISHED")
    assert mirrored.data.params["strategy.kind"] == "genetic"
    assert mirrored.data.params["strategy.note"] == "x" * 6000
    assert len(mirrored.data.params) == 153
    assert mirrored.data.tags["across.run_directory"] == str(run.path)
    assert mirrored.data.tags["across.environment.torch"] == "2.13.0"
    artifacts = (
        Path(store.removeprefix("sqlite:///")).parent / "mlartifacts" / mirrored.info.run_id / "artifacts"
    )
    assert (artifacts / "plots/progress.png").read_bytes() == b"second"
    population = json.loads((artifacts / "populations/generation_0002.json").read_text())
    assert [item["index"] for item in population["individuals"]] == [8, 9, 10, 11]


def test_a_resumed_search_goes_on_in_the_same_run(store: str, run: RunDirectory) -> None:
    first = tracker_of(run, store)
    assert first.mirror(commit_generations(run, 2))
    assert first.set_status("KILLED")
    second = tracker_of(run, store)
    assert second.set_status("RUNNING")
    assert second.mirror(commit_generations(run, 4))
    assert second.run_id == first.run_id
    assert assert_complete(store, run).info.status == "RUNNING"


def test_a_replay_changes_nothing(store: str, run: RunDirectory) -> None:
    tracker = tracker_of(run, store)
    commits = commit_generations(run, 3)
    assert tracker.mirror(commits)
    assert tracker.mirror_all(commits)
    assert tracker_of(run, store).mirror_all(commits)
    assert_complete(store, run)


def test_a_replay_restores_what_was_deleted(store: str, run: RunDirectory) -> None:
    tracker = tracker_of(run, store)
    commits = commit_generations(run, 2)
    assert tracker.mirror(commits)
    assert tracker.run_id is not None
    MlflowClient(tracking_uri=store).delete_run(tracker.run_id)
    again = tracker_of(run, store)
    assert again.mirror_all(commits)
    assert again.run_id != tracker.run_id
    assert_complete(store, run)


def test_catching_up_stops_in_time_and_goes_on_later(store: str, run: RunDirectory) -> None:
    commits = commit_generations(run, 3)
    tracker = tracker_of(run, store, timeout_seconds=1e-9)
    assert [tracker.mirror(commits) for _ in range(3)] == [False, False, False]
    assert tracker.finish(commits, "FINISHED")
    assert_complete(store, run)


def test_a_store_that_cannot_be_opened_is_told_once(
    run: RunDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "blocked"
    blocker.write_text("a file where the store's folder should be")
    uri = f"sqlite:///{blocker}/mlflow.db"
    tracker = tracker_of(run, uri)
    commits = commit_generations(run, 2)
    with caplog.at_level(logging.WARNING, "across.orchestrator.tracking.tracker"):
        assert not tracker.mirror(commits[:1])
        assert not tracker.set_status("RUNNING")
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert f"`across mirror {run.path}`" in caplog.text
        blocker.unlink()
        assert tracker.finish(commits, "FINISHED")
    assert "answers again" in caplog.records[-1].message
    assert assert_complete(uri, run).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sqlite:///{folder}/damaged.db", "file is not a database"),
        ("postgresql://me:secret@127.0.0.1:1/store", "Connection refused"),
        ("http://me:secret@127.0.0.1:1", "Connection refused"),
        ("nonsense://somewhere", "unsupported URI"),
    ],
)
def test_whatever_is_wrong_with_a_store_the_search_goes_on(
    run: RunDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture, uri: str, reason: str
) -> None:
    (tmp_path / "damaged.db").write_bytes(b"no database" * 100)
    assert not tracker_of(run, uri.format(folder=tmp_path)).mirror(commit_generations(run, 1))
    assert reason in caplog.text
    assert "secret" not in caplog.text


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        server.setblocking(False)
        yield server


def num_connections(server: socket.socket) -> int:
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_a_server_that_hangs_is_asked_once_in_a_while(
    run: RunDirectory, silent_server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    tracker = tracker_of(run, f"http://127.0.0.1:{silent_server.getsockname()[1]}", timeout_seconds=1)
    commits = commit_generations(run, 1)
    assert [tracker.mirror(commits) for _ in range(20)] == [False] * 20
    assert not tracker.log_artifact(run.path / "config.yaml")
    assert num_connections(silent_server) == 1
    assert not tracker.finish(commits, "KILLED")
    assert num_connections(silent_server) == 1


def test_nothing_is_sent_when_disabled(run: RunDirectory, tmp_path: Path) -> None:
    tracker = Tracker(TrackingConfig(enabled=False), run, to_string)
    assert tracker.mirror(commit_generations(run, 1))
    assert tracker.finish(run.commits(), "FINISHED")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["omniglot"]


def test_the_store_is_beside_the_runs_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri(TrackingConfig(), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert store_uri(TrackingConfig(), tmp_path) == "http://localhost:5000"
    assert store_uri(TrackingConfig(uri="http://other"), tmp_path) == "http://other"


def test_nothing_is_told_to_anyone() -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def mirror_until_killed(path: Path, uri: str, connection: Connection) -> None:
    run = RunDirectory.open(path)
    tracker = tracker_of(run, uri)
    connection.send("started")
    is_complete = tracker.set_status("RUNNING")
    connection.send("connected")
    is_complete &= tracker.mirror_all(run.commits())
    connection.send(is_complete)


@pytest.mark.slow
def test_a_driver_killed_within_the_mirror_leaves_no_trace(run: RunDirectory, tmp_path: Path) -> None:
    """Killed while it makes the store, while it makes the run, and between the pieces of the mirror."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    commit_generations(run, 12)
    rng = np.random.default_rng(0)
    for moment, longest in [("started", 3.0)] * 2 + [("connected", 0.4)] * 6:
        child, receiver = start_child(mirror_until_killed, run.path, uri)
        message = None
        while message != moment:
            assert receiver.poll(120)
            message = receiver.recv()
        time.sleep(rng.uniform(0.0, longest))
        child.kill()
        child.join()
    assert tracker_of(run, uri).mirror(run.commits())
    assert_complete(uri, run)
