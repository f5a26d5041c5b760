"""The run directory: what is written can be read, what was changed is noticed, and errors say what to do."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from across.orchestrator.run_directory import (
    JournalConflictError,
    RunDirectory,
    RunDirectoryError,
    RunInUseError,
    Segment,
    fingerprint,
)
from across.orchestrator.run_directory.saved_weights import weights_digest
from across.orchestrator.state import Timings
from across.workers.base import EvaluationResult
from tests.example_commits import example_commit, example_weights
from tests.killable import start_child

CONFIG = {"seed": 1, "strategy": {"kind": "genetic", "population_size": 4}, "outer_lr": 1e-05, "name": "012"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", CONFIG, {"torch": "2.13.0", "device": "cpu"})


def commit_generations(run: RunDirectory, count: int) -> None:
    for number in range(count):
        run.commit(example_commit(number), example_weights(number))


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_config_round_trip(run: RunDirectory) -> None:
    opened = RunDirectory.open(run.path)
    assert opened.config == CONFIG
    assert opened.environment == {"torch": "2.13.0", "device": "cpu"}
    assert opened.run_uid == run.run_uid


def test_a_second_run_in_the_same_folder_is_refused(run: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match="holds a run already: `across resume"):
        RunDirectory.create(run.path, CONFIG, {})


def test_creation_can_be_repeated_after_a_crash_before_config_yaml(run: RunDirectory) -> None:
    (run.path / "config.yaml").unlink()
    assert not RunDirectory.exists(run.path)
    assert RunDirectory.create(run.path, CONFIG, {}).config == CONFIG


def test_a_journal_without_config_is_never_taken_over(run: RunDirectory) -> None:
    commit_generations(run, 1)
    (run.path / "config.yaml").unlink()
    with pytest.raises(RunDirectoryError, match=r"a journal but no config.yaml"):
        RunDirectory.create(run.path, CONFIG, {})


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"nowhere is no run of across: there is no such folder"):
        RunDirectory.open(tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match=r"it holds no config.yaml and no journal"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("seed: 1", "seed: 2", "config.yaml is damaged or was edited"),
        ("seed: 1", "seed: [", "config.yaml is damaged or was edited"),
        ("format_version: 1", "format_version: 2", r"written by another version of across \(format 2"),
        ("checksum:", "sum:", "holds no format_version and checksum"),
    ],
)
def test_edited_config(run: RunDirectory, before: str, after: str, message: str) -> None:
    file = run.path / "config.yaml"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    with pytest.raises(RunDirectoryError, match=message):
        RunDirectory.open(run.path)


def test_commits_and_weights_round_trip(run: RunDirectory) -> None:
    written = tuple(run.commit(example_commit(number), example_weights(number)) for number in range(3))
    opened = RunDirectory.open(run.path)
    assert opened.commits() == written
    assert written[2].weights_digest == weights_digest(example_weights(2))
    loaded = opened.load_weights(2)
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        name: tensor.tolist() for name, tensor in example_weights(2).items()
    }


def test_the_newest_two_weights_are_kept(run: RunDirectory) -> None:
    commit_generations(run, 4)
    run.commit(replace(example_commit(4), kind="test"))
    assert sorted(path.name for path in (run.path / "weights").iterdir()) == [
        "000002.safetensors",
        "000003.safetensors",
    ]
    run.load_weights(3)


def test_weights_digest_depends_on_everything_but_the_order() -> None:
    tensors = {"a": np.arange(6, dtype=np.float32), "b": np.ones((), dtype=np.float32)}
    digest = weights_digest(tensors)
    assert digest == weights_digest({"b": tensors["b"], "a": tensors["a"]})
    others: list[dict[str, NDArray[Any]]] = [
        {**tensors, "a": tensors["a"].reshape(2, 3)},
        {**tensors, "a": tensors["a"].astype(np.float64)},
        {**tensors, "a": -tensors["a"]},
        {"c": tensors["a"], "b": tensors["b"]},
        {"a": tensors["a"]},
    ]
    assert digest not in {weights_digest(other) for other in others}
    transposed = tensors["a"].reshape(2, 3).T
    assert weights_digest({"a": transposed}) == weights_digest({"a": transposed.copy()})


def test_non_finite_values_are_valid_json_and_come_back(run: RunDirectory) -> None:
    evaluation = replace(
        example_commit(0).evaluations[0],
        scores=(math.nan, math.inf, -math.inf),
        fitness=None,
        failure="diverged",
    )
    run.commit(replace(example_commit(0), evaluations=(evaluation,)))
    json.loads((run.path / "journal/000000.json").read_text(), parse_constant=pytest.fail)
    scores = run.commits()[0].evaluations[0].scores
    assert math.isnan(scores[0])
    assert scores[1:] == (math.inf, -math.inf)


def test_fingerprint_ignores_who_computed_when(run: RunDirectory) -> None:
    commits = [example_commit(number) for number in range(3)]
    elsewhere = [
        replace(commit, timings=Timings(wall_seconds=1.0), timestamp=2.0, mlflow_run_id="x")
        for commit in commits
    ]
    assert fingerprint(commits) == fingerprint(elsewhere)
    assert fingerprint(commits) == fingerprint(commits[1:], start=fingerprint(commits[:1]))
    assert fingerprint(commits) != fingerprint(commits[:2])
    assert fingerprint(commits) != fingerprint([commits[1], commits[0], commits[2]])
    assert fingerprint(commits) != fingerprint([example_commit(number, seed=1) for number in range(3)])


def test_a_generation_is_committed_once(run: RunDirectory) -> None:
    commit_generations(run, 2)
    before = (run.path / "journal/000001.json").read_bytes()
    weights = (run.path / "weights/000001.safetensors").read_bytes()
    with pytest.raises(
        JournalConflictError, match=r"000001.json is there already: .* committed generation 1"
    ):
        run.commit(example_commit(1, seed=1), example_weights(7))
    assert (run.path / "journal/000001.json").read_bytes() == before
    assert (run.path / "weights/000001.safetensors").read_bytes() == weights


@pytest.mark.parametrize("has_links", [True, False])
def test_of_two_processes_that_both_saw_no_commit_one_loses(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not has_links:
        monkeypatch.setattr(os, "link", no_link)
    commit_generations(run, 1)
    monkeypatch.setattr(Path, "exists", lambda _: False)  # both processes looked before either wrote
    with pytest.raises(JournalConflictError, match="committed generation 0"):
        run.journal.append(example_commit(0))


def test_a_commit_without_its_predecessor_is_refused(run: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match=r"000004.json, the commit before it, is missing"):
        run.commit(example_commit(5))


@pytest.mark.parametrize("number", [1, 2])
def test_damaged_journal_files_are_named_with_what_to_do(run: RunDirectory, number: int) -> None:
    commit_generations(run, 3)
    file = run.path / f"journal/{number:06d}.json"
    whole = file.read_bytes()
    remedy = "delete it: commit 2 is then computed again" if number == 2 else "000001.json to 000002.json"
    file.write_bytes(whole[:-20])
    with pytest.raises(RunDirectoryError, match=rf"(?s){file.name} is cut short .*{remedy}"):
        run.commits()
    file.write_bytes(b"")
    with pytest.raises(RunDirectoryError, match=rf"(?s){file.name} is cut short .*{remedy}"):
        run.commits()
    file.write_bytes(whole.replace(b'"num_workers":2', b'"num_workers":3'))
    with pytest.raises(RunDirectoryError, match=rf"(?s){file.name} is damaged or was edited .*{remedy}"):
        run.commits()


def test_a_gap_in_the_journal_and_a_renamed_file(run: RunDirectory) -> None:
    commit_generations(run, 4)
    (run.path / "journal/000002.json").rename(run.path / "journal/000004.json")
    with pytest.raises(RunDirectoryError) as caught:
        run.commits()
    assert "000002.json is missing although later commits are there" in str(caught.value)
    assert "000004.json holds commit 2: it was renamed" in str(caught.value)


def test_leftovers_of_a_killed_writer_are_ignored_then_removed(run: RunDirectory) -> None:
    commit_generations(run, 1)
    leftover = run.path / "journal/.000001.json.0123.tmp"
    leftover.write_bytes(b"{")
    assert len(run.commits()) == 1
    assert leftover.exists()
    with run.lock():
        assert not leftover.exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_damaged_weights_say_what_is_left(run: RunDirectory, damage: str) -> None:
    commit_generations(run, 3)
    newest = run.weights_path(2)
    match damage:
        case "truncate":
            newest.write_bytes(newest.read_bytes()[:-100])
        case "flip":
            flip_byte(newest, -100)
        case "delete":
            newest.unlink()
    with pytest.raises(RunDirectoryError) as caught:
        run.load_weights(2)
    for words in (
        str(newest),
        "go back to commit 1",
        "delete weights/000002.safetensors, journal/000002.json",
    ):
        assert words in str(caught.value)
    flip_byte(run.weights_path(1), -100)
    with pytest.raises(RunDirectoryError, match="no intact weights of an earlier commit are left"):
        run.load_weights(2)


def test_going_back_one_commit_as_told(run: RunDirectory) -> None:
    commit_generations(run, 3)
    before = fingerprint(run.commits())
    run.weights_path(2).unlink()
    (run.path / "journal/000002.json").unlink()
    run.load_weights(1)
    run.commit(example_commit(2), example_weights(2))
    assert fingerprint(run.commits()) == before
    run.load_weights(2)


def test_segments_hold_in_order(run: RunDirectory) -> None:
    commit_generations(run, 2)
    run.add_segment(2, {"tasks_per_chunk": 4})
    run.add_segment(2, {"tasks_per_chunk": 4})
    run.add_segment(2, {"tasks_per_chunk": 2})
    run.commit(example_commit(2))
    run.add_segment(3, {"unit_timeout_seconds": 9.5})
    assert run.segments() == (
        Segment(2, {"tasks_per_chunk": 4}),
        Segment(2, {"tasks_per_chunk": 2}),
        Segment(3, {"unit_timeout_seconds": 9.5}),
    )
    assert len(run.commits()) == 3
    with pytest.raises(RunDirectoryError, match="settings cannot change from commit 2 on"):
        run.add_segment(2, {"tasks_per_chunk": 1})
    flip_byte(run.path / "journal/000002.settings.1.json", 10)
    with pytest.raises(RunDirectoryError, match=r"000002.settings.1.json is .*`across resume RUN --set"):
        run.segments()


def results(*keys: str) -> list[EvaluationResult]:
    return [EvaluationResult(key, (0.1 + 0.2, math.nan), {"accuracy": 1 / 3}, 0.5) for key in keys]


def test_spooled_results_come_back_until_their_commit(run: RunDirectory) -> None:
    run.spool(0, results("a", "b"))
    run.spool(0, results("c"))
    opened = RunDirectory.open(run.path)
    assert list(opened.spooled(0)) == ["a", "b", "c"]
    assert repr(opened.spooled(0)["c"]) == repr(results("c")[0])
    opened.spool(0, results("d"))
    assert opened.spooled(1) == {}
    run.commit(example_commit(0))
    assert run.spooled(0) == {}
    assert list((run.path / "spool").iterdir()) == []


def test_a_torn_or_damaged_spool_line_is_computed_again(run: RunDirectory) -> None:
    run.spool(0, results("a", "b", "c"))
    file = run.path / "spool/000000.jsonl"
    flip_byte(file, len(file.read_bytes()) // 2)
    file.write_bytes(file.read_bytes()[:-5])
    opened = RunDirectory.open(run.path)
    assert list(opened.spooled(0)) == ["a"]
    opened.spool(0, results("d"))
    assert list(opened.spooled(0)) == ["a", "d"]


def test_checkpoints_are_replaced_and_a_damaged_one_is_none(run: RunDirectory) -> None:
    assert run.load_checkpoint(0) is None
    run.save_checkpoint(0, 10, example_weights(1), {"losses": [1.0]})
    run.save_checkpoint(0, 20, example_weights(2), {"losses": [1.0, 0.5]})
    checkpoint = run.load_checkpoint(0)
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.extra) == (20, {"losses": [1.0, 0.5]})
    assert weights_digest(checkpoint.tensors) == weights_digest(example_weights(2))
    flip_byte(run.path / "spool/000000.checkpoint.safetensors", -100)
    with pytest.warns(UserWarning, match=r"checkpoint.safetensors is damaged .* computed again"):
        assert run.load_checkpoint(0) is None
    run.commit(example_commit(0))
    assert list((run.path / "spool").iterdir()) == []


def hold_lock(path: Path, connection: Connection) -> None:
    with RunDirectory.open(path).lock():
        connection.send("held")
        signal.pause()


def test_one_driver_a_run_and_a_dead_one_never_blocks(run: RunDirectory) -> None:
    holder, receiver = start_child(hold_lock, run.path)
    try:
        assert receiver.poll(60)
        with (
            pytest.raises(RunInUseError, match=rf"in use: process {holder.pid} on {os.uname().nodename} "),
            run.lock(),
        ):
            pass
    finally:
        holder.kill()
        holder.join()
    with run.lock():
        assert (run.path / "lock").read_text() == f"{os.getpid()}@{os.uname().nodename}\n"


def test_a_file_system_without_locks_does_not_stop_a_search(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_lock)
    with run.lock():
        commit_generations(run, 1)
    assert len(run.commits()) == 1
