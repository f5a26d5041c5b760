"""The command line. With `progress`, the only place that writes to the terminal.

Commands import what they compute with when they run: torch, Ray and MLflow take seconds to load.
"""

from __future__ import annotations

import click

from across.orchestrator.cli.fetching import fetch
from across.orchestrator.cli.inspecting import status, validate
from across.orchestrator.cli.interruption import exit_code, leave, take_signals, was_interrupted
from across.orchestrator.cli.measuring import evaluate
from across.orchestrator.cli.mirroring import mirror, ui
from across.orchestrator.cli.searching import resume, search
from across.orchestrator.cli.tables import tables


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="across-nas", prog_name="across")
def across() -> None:
    """Search neural architectures across tasks."""


for _command in (search, resume, status, validate, evaluate, mirror, ui, fetch, tables):
    across.add_command(_command)


def main() -> None:
    """The entry point of the command `across`."""
    take_signals()
    try:
        across(prog_name="across")
    except SystemExit:
        if was_interrupted():
            leave(exit_code())
        raise
