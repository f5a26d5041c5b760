"""`across tables`: tabular benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from across.orchestrator.cli.outcomes import explained

if TYPE_CHECKING:
    from across.search_spaces.tables import BenchmarkTable

TABLES_FOLDER = Path("data/tables")


@click.group()
def tables() -> None:
    """Import and inspect tabular benchmarks."""


@tables.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    default=TABLES_FOLDER,
    show_default=True,
    help="The folder for the tables.",
)
@click.option("--force", is_flag=True, help="Replace tables that are there already.")
@explained()
def import_(file: Path, into: Path, force: bool) -> None:
    """Turn an official file into tables.

    FILE is transnas-bench_v10141024.pth or NAS-Bench-201-v1_1-096897.pth (or v1_0-e61699), as its authors publish it.
    Nothing in it is run. It is read as a whole: that takes minutes, and about seven times its size in memory.
    """
    from across.orchestrator.table_import import import_table

    for path in import_table(file, into, replace=force):
        click.echo(path)


@tables.command()
@click.argument("file", type=click.Path(path_type=Path))
@explained()
def show(file: Path) -> None:
    """Show what a table holds."""
    from rich.console import Console
    from rich.table import Table

    from across.search_spaces.tables import open_table

    table = open_table(file)
    console = Console()
    console.print(f"{table.space}, {len(table.strings):,} networks such as {table.strings[0]}", markup=False)
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("task", "metric", "epochs", "best of each network", "cost"):
        grid.add_column(name, no_wrap=True)
    for task in table.tasks:
        for metric in table.metrics(task):
            grid.add_row(*_row(table, task, metric))
    console.print(grid)
    for name, entries in (("info", table.info_names), ("proxies", _proxies(table))):
        if entries:
            console.print(f"{name}: {', '.join(entries)}", markup=False)


def _row(table: BenchmarkTable, task: str, metric: str) -> tuple[str, ...]:
    """A metric that searches maximise unless told otherwise is marked with an asterisk."""
    epochs = table.epochs(task, metric)
    return (
        task,
        metric + (" *" if metric == table.default_metric(task) else ""),
        _ranges(epochs) if epochs else "final",
        "yes" if table.has_best(task, metric) else "",
        "yes" if table.has_seconds(task, metric) else "",
    )


def _ranges(numbers: tuple[int, ...]) -> str:
    """Such as `1-12, 200`."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    return ", ".join(
        str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)
    )


def _proxies(table: BenchmarkTable) -> list[str]:
    return sorted({name for scores in table.scored_by.values() for name in scores})
