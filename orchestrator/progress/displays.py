"""What a search shows while it runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from across.orchestrator.progress.formats import format_fitness, format_rate, format_seconds, format_share
from across.orchestrator.progress.generation_summary import (
    GenerationSummary,
    finite_values,
    summarize_generation,
    summarize_generations,
)
from across.orchestrator.progress.pace import Clock, Pace
from across.orchestrator.state import Commit, table_ranks

_NUM_ROWS = 8
_REFRESH_SECONDS = 0.1
_HEARTBEAT_SECONDS = 30.0


class Progress(Protocol):
    """Where the loop reports to; a context manager.

    Nothing runs behind the loop's back: clocks move when it calls, several times a second. While nothing finishes,
    it calls `advance` with zeros.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def phase(self, name: str, num_units: int) -> None:
        """A phase of `num_units` units begins: meta-learning, evaluating or testing."""

    def advance(self, num_units: int, num_tasks: int, workers_busy: int, workers_total: int) -> None:
        """What has finished since the last call, and the workers as they are now."""

    def generation_done(self, commit: Commit) -> None:
        """A commit is in the journal."""

    def message(self, text: str) -> None:
        """Tell the user something that stays visible."""


def make_progress(
    console: Console,
    *,
    total_generations: int,
    title: str,
    max_seconds: float | None = None,
    commits: Sequence[Commit] = (),
    clock: Clock = time.monotonic,
) -> Progress:
    """The display that suits `console`; `commits` are those of a search that is resumed."""
    pace = Pace(clock, total_generations, max_seconds)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console, pace, title=title, commits=commits)
    return PlainProgress(console, pace, title=title, commits=commits)


class PlainProgress:
    """One line a generation, and a heartbeat at most every 30 seconds in between."""

    def __init__(self, console: Console, pace: Pace, *, title: str, commits: Sequence[Commit]) -> None:
        self._console, self._pace, self._title = console, pace, title
        self._generations = list(summarize_generations(commits))
        self._last_line = pace.clock()

    def __enter__(self) -> Self:
        done, total = len(self._generations), self._pace.total_generations
        self.message(f"{self._title}: {total} generations" + (f", {done} done already" if done else ""))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None

    def phase(self, name: str, num_units: int) -> None:
        self._pace.start_phase(name, num_units)

    def advance(self, num_units: int, num_tasks: int, workers_busy: int, workers_total: int) -> None:
        self._pace.advance(num_units, num_tasks)
        self._pace.workers_busy, self._pace.workers_total = workers_busy, workers_total
        if self._pace.clock() - self._last_line >= _HEARTBEAT_SECONDS:
            self.message(f"{self._place(1)}: {phase_line(self._pace)}, {self._left()}")

    def generation_done(self, commit: Commit) -> None:
        self._pace.finish_generation()
        if commit.kind == "generation":
            self._generations.append(summarize_generation(commit, self._generations))
            line = _generation_line(self._generations[-1])
            self.message(f"{self._place(0)}: {line}, {self._left()}")
        else:
            self.message(_test_line(commit))

    def message(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._last_line = self._pace.clock()

    def _place(self, offset: int) -> str:
        total = self._pace.total_generations
        number = len(self._generations) + offset
        return f"generation {number}/{total}" if number <= total else f"after generation {total}/{total}"

    def _left(self) -> str:
        return f"{format_seconds(self._pace.seconds_left(self._generations))} left"


class LiveProgress:
    """Bars for the search and its phase, the fitness so far, and a table of the last generations."""

    def __init__(self, console: Console, pace: Pace, *, title: str, commits: Sequence[Commit]) -> None:
        self._pace, self._title = pace, title
        self._generations = list(summarize_generations(commits))
        self._live = Live(self, console=console, auto_refresh=False)
        self._last_refresh = float("-inf")

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._live.stop()

    def phase(self, name: str, num_units: int) -> None:
        self._pace.start_phase(name, num_units)
        self._refresh()

    def advance(self, num_units: int, num_tasks: int, workers_busy: int, workers_total: int) -> None:
        self._pace.advance(num_units, num_tasks)
        self._pace.workers_busy, self._pace.workers_total = workers_busy, workers_total
        if self._pace.clock() - self._last_refresh >= _REFRESH_SECONDS:
            self._refresh()

    def generation_done(self, commit: Commit) -> None:
        self._pace.finish_generation()
        if commit.kind == "generation":
            before = self._generations[-1:]
            self._generations.append(summarize_generation(commit, self._generations))
            if self._generations[-1].is_unscreened and not any(each.is_unscreened for each in before):
                self.message("the predictor stands aside until its forecasts rank better")
        else:
            self.message(_test_line(commit))
        self._refresh()

    def message(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def __rich__(self) -> RenderableType:
        pace, done = self._pace, len(self._generations)
        total = pace.total_generations
        bars = Table.grid(padding=(0, 2))
        for width in (16, 24, 44):
            bars.add_column(min_width=width)
        left = format_seconds(pace.seconds_left(self._generations))
        elapsed = format_seconds(pace.elapsed_seconds)
        bars.add_row(
            f"generation {done}/{total}",
            ProgressBar(total=max(1, total), completed=done, width=24),
            f"{elapsed} elapsed, {left} left",
        )
        bars.add_row(
            pace.phase or "starting",
            ProgressBar(total=1.0, completed=pace.phase_fraction, width=24),
            _units_and_workers(pace),
        )
        parts: list[RenderableType] = [bars]
        if self._generations:
            parts += [Text(), _fitness_text(self._generations), Text(), generation_table(self._generations)]
        return Panel(
            Group(*parts), title=Text(self._title), title_align="left", border_style="dim", expand=False
        )

    def _refresh(self) -> None:
        self._last_refresh = self._pace.clock()
        self._live.refresh()


def generation_table(generations: Sequence[GenerationSummary]) -> Table:
    """The last generations, one row each."""
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    for name in ("gen", "best", "mean", "best so far", "loss", "tasks/s", "busy", "failed", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in generations[-_NUM_ROWS:]:
        is_record = one.best is not None and one.best == one.best_so_far
        table.add_row(
            str(one.generation),
            Text(format_fitness(one.best), style="bold" if is_record else ""),
            format_fitness(one.mean),
            format_fitness(one.best_so_far),
            format_fitness(one.loss),
            format_rate(one.tasks_per_second),
            format_share(one.utilisation),
            str(one.num_failed),
            format_seconds(one.wall_seconds),
        )
    return table


def phase_line(pace: Pace) -> str:
    """The phase under way in one line."""
    return f"{pace.phase or 'starting'} {_units_and_workers(pace)}"


def _units_and_workers(pace: Pace) -> str:
    return (
        f"{pace.num_units_done}/{pace.num_units} units, {format_rate(pace.tasks_per_second())} tasks/s, "
        f"{pace.workers_busy}/{pace.workers_total} workers busy"
    )


def _fitness_text(generations: Sequence[GenerationSummary]) -> Text:
    last = generations[-1]
    num_failed = sum(one.num_failed for one in generations)
    num_worker_failures = sum(one.num_worker_failures for one in generations)
    return Text.assemble(
        ("best so far ", "dim"),
        (format_fitness(last.best_so_far), "bold green"),
        ("   best ", "dim"),
        format_fitness(last.best),
        ("   mean ", "dim"),
        format_fitness(last.mean),
        (f"   failures: {num_failed} genotypes, {num_worker_failures} workers", "dim"),
    )


def _generation_line(summary: GenerationSummary) -> str:
    parts = [
        f"best {format_fitness(summary.best)}",
        f"mean {format_fitness(summary.mean)}",
        f"best so far {format_fitness(summary.best_so_far)}",
        f"{format_rate(summary.tasks_per_second)} tasks/s",
        f"{summary.num_workers} workers {format_share(summary.utilisation)} busy",
        f"{summary.num_failed} failed",
        format_seconds(summary.wall_seconds),
    ]
    if summary.loss is not None:
        parts.insert(3, f"loss {format_fitness(summary.loss)}")
    if summary.kendall_tau is not None:
        parts.append(f"forecasts' τ {summary.kendall_tau:.2f}")
    if summary.is_unscreened:
        parts.append("the predictor stood aside")
    return ", ".join(parts)


def _test_line(commit: Commit) -> str:
    """The score of the best by validation: choosing by the test would flatter."""
    ranks = table_ranks(commit.evaluations[0]) if commit.evaluations else {}
    if ranks:
        places = ", ".join(f"{rank:,.0f} for {task}" for task, rank in ranks.items())
        return f"rank in the table: {places}, by the best of {len(commit.evaluations)} genotypes"
    scores = finite_values(evaluation.fitness for evaluation in commit.evaluations)
    best = format_fitness(scores[0] if scores else None)
    return f"test tasks: {best} by the best of {len(commit.evaluations)} genotypes"
