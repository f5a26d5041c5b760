"""The command line: its options, its messages and exit codes; never a traceback for what users can mend."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from across.orchestrator.cli import across
from across.orchestrator.cli.outcomes import explained, resumable
from across.orchestrator.config.loading import parse_config
from across.orchestrator.config.resolution import resolve
from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.run_directory.durable_files import RunDirectoryError
from across.orchestrator.run_directory.sealed_json import seal
from across.orchestrator.worker_pool.errors import PoolExhaustedError
from tests.example_commits import example_commit, example_weights

REPOSITORY = Path(__file__).resolve().parents[1]

SMALL = """
name: small
space: {type: layerwise, num_layers: 2, widths: [2, 4, 8], readout: mean}
tasks: {type: glyphs, image_size: 12, num_ways: 3, num_queries: 3}
inner_loop: {algorithm: first_order_maml, num_steps: 2}
meta_learning: {steps_per_generation: 2, meta_batch_size: 4, tasks_per_shard: 2}
strategy: {type: genetic, population_size: 4, num_elites: 1}
evaluation: {num_tasks: 4}
search: {num_generations: 2}
test: {num_tasks: 4, num_finalists: 1}
workers: {num_workers: 2, cpus_per_worker: 0.5}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the config small.yaml."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> RunDirectory:
    """runs/small: the search of small.yaml after its first generation."""
    config = resolve(parse_config(yaml.safe_load(SMALL), origin="small.yaml"), has_gpus=False)
    run = RunDirectory.create(folder / "runs/small", config.model_dump(mode="json"), {"device": "cpu"})
    run.commit(example_commit(0), example_weights(0))
    return run


def invoke(*arguments: str) -> Result:
    """The command's result; an exception that it lets through fails the test with its traceback."""
    result = CliRunner().invoke(across, arguments, prog_name="across", env={"COLUMNS": "120"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def error_of(*arguments: str, code: int = 2) -> str:
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr


def commands(group: click.Group = across, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command with its name, those within groups too."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_the_options_are_those_that_are_documented() -> None:
    options = {name: [parameter.opts[0] for parameter in command.params] for name, command in commands()}

    assert options == {
        "search": ["config", "--set", "--run-dir", "--address"],
        "resume": ["run", "--set", "--address"],
        "status": ["run", "--runs-dir"],
        "validate": ["config", "--set"],
        "evaluate": ["run", "--genotype", "--num-tasks", "--address"],
        "mirror": ["run"],
        "ui": ["--port", "--runs-dir"],
        "fetch": ["dataset", "--into"],
        "tables import": ["file", "--into", "--force"],
        "tables show": ["file"],
    }


@pytest.mark.parametrize("name", ["", "tables", *(name for name, _ in commands())])
def test_help(name: str) -> None:
    result = invoke(*name.split(), "--help")

    assert result.exit_code == 0
    assert "Usage: across" in result.stdout


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh Python has loaded after `code`."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    return set(output.stdout.splitlines()[-1].split())


def test_the_command_line_loads_nothing_heavy(run: RunDirectory) -> None:
    heavy = {"torch", "ray", "mlflow", "matplotlib"}

    assert not modules_after("import across.orchestrator.cli") & (heavy | {"numpy", "pydantic"})
    status = "from across.orchestrator.cli import across; across(['status', 'small'], standalone_mode=False)"
    assert not modules_after(status) & heavy


def test_status_lists_the_runs(run: RunDirectory) -> None:
    (run.path.parent / "broken").mkdir()
    (run.path.parent / "broken/config.yaml").write_text("seed: 1\n")

    result = invoke("status")

    assert result.exit_code == 0
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith("small")]
    assert row[:3] == ["small", "interrupted", "1/2"]
    assert result.stderr.startswith("error: runs/broken is no run of across")


def test_status_of_one_run(run: RunDirectory) -> None:
    best = max(run.commits()[0].evaluations, key=lambda evaluation: evaluation.rank_key)

    with run.lock():
        while_locked = invoke("status", "small").stdout
    output = invoke("status", str(run.path)).stdout

    assert "running" in while_locked
    assert "interrupted" in output
    assert f"{best.fitness:.4f}" in output
    assert "3x3" in output.split("best architecture")[1].splitlines()[0]


def test_status_without_runs(folder: Path) -> None:
    assert invoke("status").stdout == "no runs\n"


def test_a_finished_run_that_gets_more_generations_is_not_finished(run: RunDirectory) -> None:
    run.commit(example_commit(1), example_weights(1))
    run.commit(replace(example_commit(2), kind="test"))
    assert "finished" in invoke("status", "small").stdout

    run.add_segment(3, {"search.num_generations": 5})

    output = invoke("status", "small").stdout
    assert "interrupted" in output
    assert "2/5" in output


@pytest.mark.parametrize("command", ["status", "resume", "evaluate", "mirror"])
def test_what_is_no_run(run: RunDirectory, command: str) -> None:
    assert error_of(command, "smal") == (
        "error: no run smal: no such folder, here or in runs; did you mean small?\n"
    )
    assert "there are small" in error_of(command, "other")
    assert "is no run of across: it holds no config.yaml and no journal" in error_of(command, "runs")


@pytest.mark.parametrize("command", ["status", "resume", "mirror"])
def test_a_run_that_was_edited(run: RunDirectory, command: str) -> None:
    file = run.path / "config.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 1"))

    assert "config.yaml" in error_of(command, "small")
    assert "edited" in error_of(command, "small")


def test_a_run_of_another_version(run: RunDirectory) -> None:
    document = {
        "run_uid": run.run_uid,
        "environment": run.environment,
        "config": {**run.config, "strategy": {"type": "genetic", "num_parents": 3}},
    }
    (run.path / "config.yaml").write_text(yaml.safe_dump(seal(document)))

    assert "strategy.num_parents: unknown key" in error_of("resume", "small")


def test_resuming_what_another_process_runs(run: RunDirectory) -> None:
    with run.lock():
        for arguments in (("resume", "small"), ("search", "small.yaml")):
            assert f"process {os.getpid()} on {socket.gethostname()} runs this search" in error_of(*arguments)


def test_what_may_not_change_on_resume(run: RunDirectory) -> None:
    frozen = "strategy.population_size: cannot change in a search that has started (4 there, 8 here)\n"
    for arguments in (("resume", "small"), ("search", "small.yaml")):
        message = error_of(*arguments, "--set", "strategy.population_size=8")
        assert message.startswith(f"error: {frozen}")
        assert "evaluation.tasks_per_chunk" in message
    assert error_of("resume", "small", "--set", "serch.num_generations=8") == (
        "error: --set: serch: unknown key; did you mean search?\n"
    )
    assert run.segments() == ()


def test_validate_shows_what_would_be_searched() -> None:
    result = invoke(
        "validate", str(REPOSITORY / "configs/quickstart.yaml"), "--set", "search.num_generations=7"
    )

    assert result.exit_code == 0, result.stderr
    assert "layerwise" in result.stdout
    assert "endless classes" in result.stdout
    assert "7 generations" in result.stdout


@pytest.mark.parametrize("command", ["search", "validate"])
def test_bad_configs(folder: Path, command: str) -> None:
    assert error_of(command, "smal.yaml") == (
        "error: smal.yaml: there is no such file; did you mean small.yaml?\n"
    )
    assert error_of(command, "small.yaml", "--set", "seed=-1", "--set", "tasks.num_ways=1") == (
        "error: --set: seed: must be at least 0 (got -1)\n"
        "       --set: tasks.num_ways: must be at least 2 (got 1)\n"
    )
    assert "missing data: " in error_of(
        command, "small.yaml", "--set", "tasks={type: omniglot, root: nowhere}"
    )
    assert "constraints: no architecture" in error_of(
        command, "small.yaml", "--set", "constraints.max_flops=1"
    )
    assert "strategy.genotype: 'skip'" in error_of(
        command, "small.yaml", "--set", "strategy={type: fixed, genotype: skip}"
    )
    assert not (folder / "runs").exists()


def test_broken_images(folder: Path) -> None:
    for split in ("train", "validation", "test"):
        for name in range(3):
            path = folder / f"images/{split}/{split}{name}"
            path.mkdir(parents=True)
            for number in range(4):
                (path / f"{number}.png").write_bytes(b"no image")
    source = "tasks={type: image_folder, root: images, num_ways: 3, num_queries: 3}"

    assert "not a readable image" in error_of("validate", "small.yaml", "--set", source)
    assert "num_ways = 9 needs as many classes (has 3)" in error_of(
        "validate", "small.yaml", "--set", source, "--set", "tasks.num_ways=9"
    )


def test_evaluating_a_genotype_of_another_space(run: RunDirectory) -> None:
    assert "'skip|fly' is no architecture" in error_of("evaluate", "small", "--genotype", "skip|fly")


def test_mirror_rebuilds_the_mlflow_run(run: RunDirectory) -> None:
    from mlflow import MlflowClient

    for _ in range(2):
        result = invoke("mirror", "small")
        assert result.exit_code == 0, result.stderr

    uri = f"sqlite:///{run.path.parent / 'mlflow.db'}"
    assert uri in result.stdout
    client = MlflowClient(uri)
    (found,) = client.search_runs([client.get_experiment_by_name("across").experiment_id])  # type: ignore[union-attr]
    assert found.info.status == "KILLED"
    assert len(client.get_metric_history(found.info.run_id, "fitness/best")) == 1


def test_mirror_without_a_server(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    assert "http://127.0.0.1:9 did not take all of it" in error_of("mirror", "small", code=1)


def test_ui_says_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"there is no {folder / 'runs/mlflow.db'}" in error_of("ui")
    (folder / "runs").mkdir()
    (folder / "runs/mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} cannot be used" in error_of("ui", "--port", str(port))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert "open http://tracking:5000" in invoke("ui").stdout


def test_fetch_says_what_is_wrong(folder: Path) -> None:
    assert "'imagenet' is not one of" in error_of("fetch", "imagenet")
    assert "cannot be made" in error_of("fetch", "omniglot", "--into", "small.yaml/data")


@pytest.mark.parametrize(
    "error",
    [PoolExhaustedError("unit 3 failed five times"), RunDirectoryError("no space left for runs/small")],
)
def test_a_search_that_can_go_on_exits_with_1(
    run: RunDirectory, error: ValueError, capsys: pytest.CaptureFixture[str]
) -> None:
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit) as caught, explained(), resumable(run.path):
        raise error

    assert caught.value.code == 1
    assert capsys.readouterr().err == f"error: {error}\nto resume: across resume {run.path}\n"


def test_ctrl_c_exits_with_130(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    for place, advice in (
        (run.path, f"to resume: across resume {run.path}"),
        (run.path / "none", "nothing had begun; the same command starts anew"),
    ):
        with pytest.raises(SystemExit) as caught, explained(), resumable(place):
            raise KeyboardInterrupt
        assert caught.value.code == 130
        assert capsys.readouterr().err == f"error: interrupted\n{advice}\n"


def test_our_own_mistakes_keep_their_traceback(run: RunDirectory) -> None:
    with pytest.raises(ValueError, match="operands"), explained(), resumable(run.path):
        raise ValueError("operands could not be broadcast")


WAITING = """
import time
from across.orchestrator.cli.interruption import exit_code, take_signals
take_signals()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("leaving", flush=True)
    time.sleep({pause})
raise SystemExit(exit_code())
"""


@pytest.fixture
def waiting() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes to be ended with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def start(script: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )


def lines_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"the process ended before it wrote {text}:\n{seen}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_its_echo_is_ignored(
    number: signal.Signals, waiting: list[subprocess.Popen[str]]
) -> None:
    waiting.append(process := start(WAITING.format(pause=0.2)))
    lines_until(process, "ready")
    process.send_signal(number)
    lines_until(process, "leaving")
    process.send_signal(number)

    assert process.wait(timeout=30) == 128 + number


def test_a_second_signal_ends_at_once(waiting: list[subprocess.Popen[str]]) -> None:
    waiting.append(process := start(WAITING.format(pause=60)))
    lines_until(process, "ready")
    process.send_signal(signal.SIGTERM)
    lines_until(process, "leaving")
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)

    assert process.wait(timeout=30) == 130


def across_process(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "across", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


@pytest.mark.slow
def test_ui_serves_the_runs_on_this_machine_only(
    run: RunDirectory, waiting: list[subprocess.Popen[str]]
) -> None:
    assert invoke("mirror", "small").exit_code == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    waiting.append(process := across_process("ui", "--port", str(port)))

    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.read() == b"OK"
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
    listening = Path("/proc/net/tcp").read_text().split()
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening
    process.terminate()
    process.wait(timeout=60)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_goes_on_with_the_same_command(
    folder: Path, number: signal.Signals, waiting: list[subprocess.Popen[str]]
) -> None:
    command = ("search", "small.yaml", "--address", "local", "--set", "search.num_generations=40")
    waiting.append(process := across_process(*command))
    lines_until(process, "generation 2/40: best")
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 128 + number
    assert f"to resume: across resume {folder / 'runs/small'}" in output
    assert "Traceback" not in output
    num_done = len(RunDirectory.open(folder / "runs/small").commits())
    assert 2 <= num_done < 40

    enough = ("--set", f"search.num_generations={num_done + 1}")
    again = subprocess.run(
        [sys.executable, "-m", "across", *command, *enough],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=300,
    )
    assert again.returncode == 0, again.stderr
    assert f"{num_done} done already" in again.stdout
    assert "held-out accuracy" in again.stdout
    assert "finished" in invoke("status", "small").stdout


def test_every_command_reports_errors_in_one_way() -> None:
    """A command without `explained` would show users a traceback."""
    for _, command in commands():
        assert command.callback is not None
        assert hasattr(command.callback, "__wrapped__"), command.name
