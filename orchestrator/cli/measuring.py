"""`across evaluate`: the held-out accuracy of one genotype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from across.orchestrator.cli.interruption import take_signals
from across.orchestrator.cli.outcomes import explained
from across.orchestrator.cli.runs import address_option, best_genotype, find_run, notation

if TYPE_CHECKING:
    from across.orchestrator.config.run_config import RunConfig


@click.command()
@click.argument("run")
@click.option("--genotype", metavar="STRING", help="The architecture; the run's best one without it.")
@click.option(
    "--num-tasks", type=click.IntRange(min=2), default=600, show_default=True, help="Of unseen classes."
)
@address_option
@explained()
def evaluate(run: str, genotype: str | None, num_tasks: int, address: str | None) -> None:
    """Measure a genotype on held-out classes.

    It is adapted from the last weights of RUN, a run directory or a name in runs/. In a search of a benchmark table it
    is looked up.
    """
    from rich.console import Console

    from across.orchestrator.progress import make_progress
    from across.orchestrator.search import evaluate_genotype, load_run
    from across.orchestrator.statistics import mean_and_interval
    from across.orchestrator.worker_pool.cluster import connect

    place = find_run(run)
    directory, config = load_run(place)
    settings, commits = directory.settings(), directory.commits()
    if genotype is not None:
        notation(settings).from_string(genotype)
    if config.table is not None:
        for line in _look_up(config, genotype or best_genotype(settings, commits)):
            click.echo(line)
        return
    if config.workers.num_workers != 0:
        connect(address)
    take_signals()
    progress = make_progress(
        Console(stderr=True),
        total_generations=config.search.num_generations,
        title=f"evaluating {config.name}",
        commits=commits,
    )
    scores = evaluate_genotype(
        place, genotype=genotype, num_tasks=num_tasks, address=address, progress=progress
    )
    mean, half_width = mean_and_interval(scores)
    click.echo(genotype or best_genotype(settings, commits))
    click.echo(f"{mean:.4f} ± {half_width:.4f} (95 % interval, {len(scores):,} tasks of unseen classes)")


def _look_up(config: RunConfig, genotype: str) -> Iterator[str]:
    """The genotype, and what the table says of it."""
    from across.orchestrator.cli.summary import score_in_table
    from across.orchestrator.problem import TabularProblem, build_problem

    problem = build_problem(config)
    assert isinstance(problem, TabularProblem)
    yield genotype
    for one in score_in_table(problem.benchmark, problem.space.from_string(genotype)):
        rank = f"rank {one.rank:,} of {one.num_networks:,}"
        yield f"{one.task}: {one.metric} {one.score:.4f}, {rank}"
