"""`across mirror` and `across ui`: MLflow's copy of the runs."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import click

from across.errors import AcrossError
from across.orchestrator.cli.outcomes import STOPPED, complain, explained
from across.orchestrator.cli.runs import find_run, notation, run_status, runs_dir_option

HOST = "127.0.0.1"
RUNS_PAGE = "#/experiments?workflowType=machine_learning"
"""Runs and their metrics; MLflow would open on traces of language models."""
_SQLITE = "sqlite:///"
_SERVER_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven idle processes otherwise, which outlive a SIGTERM
}


class UserInterfaceError(AcrossError):
    """MLflow's interface cannot be opened; says why."""


@click.command()
@click.argument("run")
@explained()
def mirror(run: str) -> None:
    """Rebuild a run's copy in MLflow.

    All of the journal of RUN is sent; what has arrived before is not stored twice.
    """
    from pydantic import TypeAdapter

    from across.orchestrator.objectives import objectives_of
    from across.orchestrator.run_directory import RunDirectory
    from across.orchestrator.strategies import StrategyConfig
    from across.orchestrator.tracking.config import TrackingConfig
    from across.orchestrator.tracking.tracker import Tracker

    place = find_run(run)
    directory = RunDirectory.open(place)
    settings, commits, phase = directory.settings(), directory.commits(), run_status(place).phase
    config = TrackingConfig.model_validate(settings["tracking"] | {"enabled": True})
    strategy = TypeAdapter[StrategyConfig](StrategyConfig).validate_python(settings["strategy"])
    tracker = Tracker(config, directory, notation(settings).to_string, objectives_of(strategy))
    has_arrived = tracker.mirror_all(commits)
    if phase != "running":
        has_arrived &= tracker.finish(commits, "FINISHED" if phase == "finished" else "KILLED")
    for picture in sorted((place / "plots").glob("*.png")):
        has_arrived &= tracker.log_artifact(picture, "pictures")
    if not has_arrived:
        complain(f"{tracker.uri} did not take all of it; repeat the command when it answers")
        raise SystemExit(STOPPED)
    click.echo(f"{len(commits)} commits of {place.name} are in {tracker.uri} as run {tracker.run_id}")


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@runs_dir_option
@explained()
def ui(port: int, runs_dir: Path) -> None:
    """Open MLflow's user interface.

    It shows the store that searches in the runs folder write to unless their config names another, on this machine
    only.
    """
    from across.orchestrator.tracking.config import TrackingConfig, artifact_location, store_uri

    uri = store_uri(TrackingConfig(), runs_dir)
    if uri.startswith(("http://", "https://")):
        click.echo(f"The runs are on a tracking server: open {uri} in a browser.")
        return
    _check_store(uri)
    _check_port(port)
    click.echo(f"MLflow shows {uri} on http://{HOST}:{port}/{RUNS_PAGE} (Ctrl-C ends it)")
    sys.stdout.flush()
    arguments = ["--backend-store-uri", uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    location = artifact_location(uri, runs_dir)
    if location is not None:
        arguments += ["--default-artifact-root", location]
    command = [sys.executable, "-m", "mlflow", "server", *arguments]
    os.execve(sys.executable, command, {**_SERVER_SETTINGS, **os.environ})


def _check_store(uri: str) -> None:
    path = Path(uri.removeprefix(_SQLITE))
    if uri.startswith(_SQLITE) and not path.exists():
        raise UserInterfaceError(
            f"there is no {path}: it is made by the first search; --runs-dir names another folder"
        )


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserInterfaceError(
                f"port {port} cannot be used ({error.strerror}): choose one with --port"
            ) from error
