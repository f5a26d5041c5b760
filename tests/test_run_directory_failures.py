"""The run directory on a disk that is full, and under a driver that is killed at any moment."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from across.orchestrator.run_directory import RunDirectory, RunDirectoryError
from across.workers.base import EvaluationResult
from tests.example_commits import example_commit, example_weights
from tests.killable import received, start_child

NUM_KILLS = 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB; only root can mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no space in `folder`."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        return ballast


def test_a_full_disk_stops_resumably(small_disk: Path) -> None:
    run = RunDirectory.create(small_disk / "run", {"seed": 1}, {})
    run.commit(example_commit(0), example_weights(0))
    run.spool(1, [EvaluationResult("a", (1.0,))])
    ballast = fill(small_disk)

    with pytest.raises(RunDirectoryError, match=r"no space left for .*free some, then `across resume`"):
        run.commit(example_commit(1), example_weights(1))
    with pytest.raises(RunDirectoryError, match=r"no space left for .*000001.json"):
        run.journal.append(example_commit(1))
    with pytest.raises(RunDirectoryError, match=r"no space left for .*checkpoint"):
        run.save_checkpoint(1, 1, example_weights(1), {})
    with pytest.raises(RunDirectoryError, match=r"no space left for .*000001.jsonl"):
        run.spool(1, [EvaluationResult(str(key), (1.0,) * 100) for key in range(100)])
    assert len(RunDirectory.open(run.path).commits()) == 1

    ballast.unlink()
    run.spool(1, [EvaluationResult("b", (1.0,))])
    assert {"a", "b"} <= run.spooled(1).keys()
    run.commit(example_commit(1), example_weights(1))
    assert len(RunDirectory.open(run.path).commits()) == 2
    assert not list(run.path.glob("**/.*.tmp"))


def commit_beyond_the_file_size_limit(path: Path, connection: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    run = RunDirectory.open(path)
    try:
        run.commit(example_commit(0), {"parameters": np.zeros(10_000, dtype=np.float32)})
    except RunDirectoryError as error:
        connection.send(str(error))


def test_a_file_size_limit_stops_resumably(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", {"seed": 1}, {})
    child, receiver = start_child(commit_beyond_the_file_size_limit, run.path)
    assert receiver.poll(60)
    assert "no space left for" in receiver.recv()
    child.join()
    assert run.commits() == ()
    run.commit(example_commit(0), example_weights(0))


def drive(path: Path, connection: Connection) -> None:
    """Resume and commit without end, telling how many commits there are."""
    run = RunDirectory.open(path)
    with run.lock():
        number = len(run.commits())
        if number > 0:
            run.load_weights(number - 1)
        connection.send(number)
        while True:
            for key in range(3):
                run.spool(number, [EvaluationResult(str(key), (1.0,))])
            run.save_checkpoint(number, 1, example_weights(number), {})
            run.commit(example_commit(number), example_weights(number))
            number += 1
            connection.send(number)


def kill_at_a_random_moment(path: Path, rng: np.random.Generator) -> int:
    """Run a driver for a while; returns the number of commits that it told of."""
    driver, receiver = start_child(drive, path)
    assert receiver.poll(60), "the driver does not start"
    count = int(receiver.recv())
    time.sleep(rng.uniform(0.0, 0.1))
    driver.kill()
    driver.join()
    return max([count, *(int(str(message)) for message in received(receiver))])


def test_a_driver_killed_at_any_moment_loses_nothing_committed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = RunDirectory.create(tmp_path / "run", {"seed": 1}, {})
    for _ in range(NUM_KILLS):
        told = kill_at_a_random_moment(run.path, rng)
        opened = RunDirectory.open(run.path)
        commits = opened.commits()
        assert len(commits) >= told
        assert [commit.evaluations for commit in commits] == [
            example_commit(number).evaluations for number in range(len(commits))
        ]
        if commits:
            opened.load_weights(len(commits) - 1)
    assert len(run.commits()) > NUM_KILLS // 2, "the drivers were killed before they did anything"
