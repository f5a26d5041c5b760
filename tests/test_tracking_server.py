"""The mirror on a real MLflow server that is down at the start, dies in the middle and comes back."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.tracking.config import TrackingConfig
from across.orchestrator.tracking.tracker import Tracker
from tests.test_tracking import assert_complete, commit_generations, to_string

START_SECONDS = 120


class TrackingServer:
    """One `mlflow server` on this machine; what it holds survives its restarts."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    server = TrackingServer(tmp_path)
    yield server
    server.kill()


@pytest.mark.slow
def test_the_mirror_is_complete_whenever_the_server_was_down(
    server: TrackingServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDirectory.create(tmp_path / "run", {"seed": 1}, {})
    tracker = Tracker(TrackingConfig(uri=server.uri, timeout_seconds=30), run, to_string)
    picture = tmp_path / "progress.png"
    picture.write_bytes(b"picture")

    with caplog.at_level(logging.WARNING, "across.orchestrator.tracking.tracker"):
        assert not tracker.mirror(commit_generations(run, 1))
        assert not tracker.set_status("RUNNING")
        assert not tracker.log_artifact(picture, "plots")
        assert len(caplog.records) == 1
        server.start()
        mirror_patiently(tracker, run)
        assert_complete(server.uri, run)
        assert "answers again" in caplog.records[-1].message

        caplog.clear()
        server.kill()
        for count in (2, 3, 4):
            assert not tracker.mirror(commit_generations(run, count))
        assert len(caplog.records) == 1
        server.start()
        assert tracker.finish(commit_generations(run, 5), "FINISHED")

    mirrored = assert_complete(server.uri, run)
    assert mirrored.info.status == "FINISHED"
    plots = tmp_path.glob(f"artifacts/*/{mirrored.info.run_id}/artifacts/plots/progress.png")
    assert [path.read_bytes() for path in plots] == [b"picture"]


def mirror_patiently(tracker: Tracker, run: RunDirectory) -> None:
    """As the commits of a search do: again and again, through the pause after a failure."""
    deadline = time.monotonic() + START_SECONDS
    while not tracker.mirror(run.commits()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
