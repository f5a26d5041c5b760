"""`across fetch`: the originals of the data sets."""

from __future__ import annotations

from pathlib import Path

import click

from across.orchestrator.cli.outcomes import explained

DATA_FOLDER = Path("data")


@click.command()
@click.argument("dataset", type=click.Choice(["omniglot", "mini_imagenet"]))
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the files; data/DATASET, where the configs look, without it.",
)
@explained()
def fetch(dataset: str, into: Path | None) -> None:
    """Download a data set.

    The originals come from where their authors publish them, and are checked against their digests.
    """
    from across.orchestrator.dataset_download import fetch_mini_imagenet, fetch_omniglot

    fetchers = {"omniglot": fetch_omniglot, "mini_imagenet": fetch_mini_imagenet}
    click.echo(fetchers[dataset](into or DATA_FOLDER / dataset).message)
