"""`across search` and `across resume`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from across.orchestrator.cli.interruption import take_signals
from across.orchestrator.cli.outcomes import explained, resumable
from across.orchestrator.cli.runs import RUNS_FOLDER, address_option, find_run, set_option

if TYPE_CHECKING:
    from across.orchestrator.config.run_config import RunConfig
    from across.orchestrator.progress import Progress
    from across.orchestrator.search import SearchOutcome
    from across.orchestrator.state import Commit


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@set_option
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the run is kept; runs/NAME without it.",
)
@address_option
@explained()
def search(config: Path, overrides: tuple[str, ...], run_dir: Path | None, address: str | None) -> None:
    """Search as the file CONFIG says.

    Where the run directory holds a search of the same config already, it goes on with that.
    """
    from across.orchestrator.config.checks import validate_config
    from across.orchestrator.config.loading import check_resume_overrides, load_config
    from across.orchestrator.run_directory import RunDirectory

    loaded = load_config(config, overrides)
    place = (run_dir or RUNS_FOLDER / loaded.name).absolute()
    validate_config(loaded, origin=str(config), is_new=not RunDirectory.exists(place))
    with resumable(place):
        from across.orchestrator.config.resolution import resolve_as
        from across.orchestrator.search import load_run, run_search

        if RunDirectory.exists(place):
            _, stored = load_run(place)
            check_resume_overrides(stored, resolve_as(loaded, stored))
        progress = _prepare(loaded, place, address)
        outcome = run_search(loaded, run_dir=place, address=address, progress=progress)
    _show(outcome, loaded)


@click.command()
@click.argument("run")
@set_option
@address_option
@explained()
def resume(run: str, overrides: tuple[str, ...], address: str | None) -> None:
    """Go on with a search.

    RUN is a run directory or a name in runs/. What does not decide which search it is can be changed, such as
    --set workers.num_workers=2 or --set search.num_generations=50.
    """
    from across.orchestrator.config.checks import validate_config
    from across.orchestrator.config.loading import check_resume_overrides, with_overrides
    from across.orchestrator.search import load_run, resume_search

    place = find_run(run)
    _, config = load_run(place)
    changes = check_resume_overrides(config, with_overrides(config, overrides, origin=str(place)))
    validate_config(changes, origin=str(place), is_new=False)
    with resumable(place):
        progress = _prepare(changes, place, address)
        outcome = resume_search(place, changes=changes, address=address, progress=progress)
    _show(outcome, changes)


def _prepare(config: RunConfig, run_dir: Path, address: str | None) -> Progress:
    """Start Ray if anything is left to do and it is needed; what shows the search.

    Ray is started before the search does it, because it takes SIGTERM for itself, and here that is taken back.
    """
    from rich.console import Console

    from across.orchestrator.progress import make_progress
    from across.orchestrator.state import is_finished
    from across.orchestrator.worker_pool.cluster import connect

    commits = _commits(run_dir)
    if not is_finished(commits, **dict(config.search)):
        if config.workers.num_workers != 0:
            connect(address)
        take_signals()
    return make_progress(
        Console(),
        total_generations=config.search.num_generations,
        max_seconds=config.search.max_seconds,
        title=config.name,
        commits=commits,
    )


def _commits(run_dir: Path) -> tuple[Commit, ...]:
    """Those of a run that is there; raises `RunDirectoryError` if it is damaged or in use."""
    from across.orchestrator.run_directory import RunDirectory

    if not RunDirectory.exists(run_dir):
        return ()
    run = RunDirectory.open(run_dir)
    with run.lock():
        return run.commits()


def _show(outcome: SearchOutcome, config: RunConfig) -> None:
    """What the search found."""
    from rich.console import Console

    from across.orchestrator.cli.summary import summarize
    from across.orchestrator.progress import render_summary

    console = Console()
    summary = summarize(outcome, config)
    if summary is None:
        console.print("The search has ended, and no genotype could be measured.", markup=False)
    else:
        console.print(render_summary(summary))
