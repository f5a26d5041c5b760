"""What the command line says about searches: the summary at the end, the list of runs, one run's state."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from across.orchestrator.progress.displays import generation_table
from across.orchestrator.progress.formats import (
    MISSING,
    format_count,
    format_fitness,
    format_rate,
    format_seconds,
    format_share,
)
from across.orchestrator.progress.generation_summary import GenerationSummary

RunPhase: TypeAlias = Literal["running", "finished", "interrupted"]

_PHASE_STYLES: dict[RunPhase, str] = {"running": "blue", "finished": "green", "interrupted": "yellow"}


@dataclass(frozen=True)
class TableScore:
    """What a benchmark table says of one network on one task."""

    task: str
    metric: str
    score: float
    """Higher is better: a loss is turned around."""
    rank: int
    """Of the table's networks; 1 is the best."""
    num_networks: int


@dataclass(frozen=True)
class SearchSummary:
    """What a finished search found."""

    run_dir: Path
    best_genotype: str
    """In its space's own notation."""
    num_params: int
    flops: int
    """Multiply-adds on one image."""
    fitness: float | None
    fingerprint: str
    """Digest of the reproducible part of the journal: equal for equal searches."""
    test_accuracy: float | None = None
    test_interval: float | None = None
    """Half the width of the 95 % confidence interval of `test_accuracy`."""
    num_test_tasks: int = 0
    table_scores: tuple[TableScore, ...] = ()
    knee: str = ""
    """Of a front, with its objectives; empty where fitness is all."""
    pictures: tuple[Path, ...] = ()


@dataclass(frozen=True)
class RunStatus:
    """One run directory at a glance."""

    run_dir: Path
    phase: RunPhase
    total_generations: int
    generations: tuple[GenerationSummary, ...]
    """As `summarize_generations` gives them."""
    age_seconds: float
    """Since the last commit."""
    best_genotype: str = ""
    fingerprint: str = ""

    @property
    def best_fitness(self) -> float | None:
        """The best of all generations."""
        return self.generations[-1].best_so_far if self.generations else None


def render_summary(summary: SearchSummary) -> RenderableType:
    """The end of a search: what it found, where it lies, what to type next."""
    facts = _facts()
    facts.add_row("best architecture", Text(summary.best_genotype, style="bold"))
    facts.add_row("parameters", format_count(summary.num_params))
    facts.add_row("multiply-adds", format_count(summary.flops))
    facts.add_row("fitness", format_fitness(summary.fitness))
    if summary.num_test_tasks:
        facts.add_row("held-out accuracy", Text(_accuracy_text(summary), style="bold green"))
    if summary.knee:
        facts.add_row("knee of the front", Text(summary.knee))
    for one in summary.table_scores:
        rank = f"rank {one.rank:,} of {one.num_networks:,}"
        facts.add_row(one.task, Text(f"{one.metric} {one.score:.4f}, {rank}", style="bold green"))
    facts.add_row("fingerprint", summary.fingerprint or MISSING)
    facts.add_row("run", Text(str(summary.run_dir)))
    for picture in summary.pictures:
        facts.add_row("picture", Text(str(picture)))
    return Group(Text(), facts, Text(), _next_commands(summary.run_dir))


def render_status_table(runs: Sequence[RunStatus]) -> RenderableType:
    """One row a run."""
    if not runs:
        return Text("no runs")
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for name in ("generation", "best", "last commit"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            Text(run.run_dir.name),
            Text(run.phase, style=_PHASE_STYLES[run.phase]),
            f"{len(run.generations)}/{run.total_generations}",
            format_fitness(run.best_fitness),
            f"{format_seconds(run.age_seconds)} ago",
        )
    return table


def render_status(run: RunStatus) -> RenderableType:
    """One run in detail, with its last generations."""
    last = run.generations[-1] if run.generations else None
    num_failed = sum(one.num_failed for one in run.generations)
    num_worker_failures = sum(one.num_worker_failures for one in run.generations)
    facts = _facts()
    facts.add_row("run", Text(str(run.run_dir)))
    facts.add_row("state", Text(run.phase, style=_PHASE_STYLES[run.phase]))
    facts.add_row("generation", f"{len(run.generations)}/{run.total_generations}")
    facts.add_row("last commit", f"{format_seconds(run.age_seconds)} ago")
    facts.add_row("best fitness", format_fitness(run.best_fitness))
    facts.add_row("best architecture", Text(run.best_genotype or MISSING, style="bold"))
    facts.add_row("rate", f"{format_rate(last.tasks_per_second if last else None)} tasks/s")
    facts.add_row(
        "workers", f"{last.num_workers}, {format_share(last.utilisation)} busy" if last else MISSING
    )
    facts.add_row("failures", f"{num_failed} genotypes, {num_worker_failures} workers")
    facts.add_row("fingerprint", run.fingerprint or MISSING)
    parts: list[RenderableType] = [facts]
    if run.generations:
        parts += [Text(), generation_table(run.generations)]
    return Group(*parts)


def _facts() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _accuracy_text(summary: SearchSummary) -> str:
    interval = format_fitness(summary.test_interval)
    return (
        f"{format_fitness(summary.test_accuracy)} ± {interval} "
        f"(95 % interval, {summary.num_test_tasks:,} tasks of unseen classes)"
    )


def _next_commands(run_dir: Path) -> Table:
    run = shlex.quote(str(run_dir))
    table = _facts()
    for purpose, command in (
        ("resume", f"across resume {run}"),
        ("evaluate", f"across evaluate {run}"),
        ("look", "across ui"),
    ):
        table.add_row(purpose, Text(command, style="bold"))
    return table
