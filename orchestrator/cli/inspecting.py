"""`across status` and `across validate`: look, without starting anything."""

from __future__ import annotations

from pathlib import Path

import click

from across.orchestrator.cli.outcomes import complain, explained
from across.orchestrator.cli.runs import find_run, run_folders, run_status, runs_dir_option, set_option


@click.command()
@click.argument("run", required=False)
@runs_dir_option
@explained()
def status(run: str | None, runs_dir: Path) -> None:
    """List the runs, or show one.

    RUN is a run directory or a name in the runs folder.
    """
    from rich.console import Console

    from across.orchestrator.progress import render_status, render_status_table
    from across.orchestrator.run_directory.durable_files import RunDirectoryError

    console = Console()
    if run is not None:
        console.print(render_status(run_status(find_run(run, runs_dir))))
        return
    statuses = []
    for folder in run_folders(runs_dir):
        try:
            statuses.append(run_status(folder))
        except RunDirectoryError as error:  # one damaged run does not hide the others
            complain(str(error))
    console.print(render_status_table(statuses))


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@set_option
@explained()
def validate(config: Path, overrides: tuple[str, ...]) -> None:
    """Check a config and show what it is.

    The data is opened too, and decoded if that has not been done before.
    """
    from rich.console import Console
    from rich.table import Table

    from across.orchestrator.cli.description import describe
    from across.orchestrator.config.checks import validate_config
    from across.orchestrator.config.loading import load_config

    loaded = load_config(config, overrides)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in describe(loaded, validate_config(loaded, origin=str(config))):
        table.add_row(name, text)
    Console().print(table)
