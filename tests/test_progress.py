"""The numbers of a generation, the pace of a search, and what the displays and reports say."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from across.orchestrator.progress import (
    LiveProgress,
    PlainProgress,
    RunStatus,
    SearchSummary,
    make_progress,
    render_status,
    render_status_table,
    render_summary,
    summarize_generations,
)
from across.orchestrator.progress.formats import format_fitness, format_rate, format_seconds
from across.orchestrator.progress.pace import Pace
from across.orchestrator.state import Commit, Evaluation, Forecast, MetaLearningSummary, Proposal, Timings


class FakeTime:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def commit(
    fitness: Sequence[float | None],
    *,
    number: int = 0,
    kind: str = "generation",
    losses: tuple[float, ...] = (),
    wall_seconds: float = 10.0,
) -> Commit:
    evaluations = tuple(
        Evaluation(Proposal(10 * number + i, (i,), birth=number), value) for i, value in enumerate(fitness)
    )
    return Commit(
        number=number,
        kind="test" if kind == "test" else "generation",
        evaluations=evaluations,
        next_index=10 * (number + 1),
        weights_version=0,
        weights_digest="",
        meta_learning=MetaLearningSummary(losses=losses),
        timings=Timings(
            wall_seconds=wall_seconds,
            worker_busy_seconds=15.0,
            num_workers=2,
            num_tasks=500,
            num_worker_failures=3,
        ),
        timestamp=0.0,
    )


def plain_console() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=60), stream


def rendered(renderable: RenderableType, *, width: int = 120) -> str:
    console, stream = Console(file=io.StringIO(), width=width), io.StringIO()
    console.file = stream
    console.print(renderable)
    return stream.getvalue()


def test_a_generation_is_summarized_without_its_failures() -> None:
    first, second = summarize_generations(
        [commit([0.5, None, 0.9, nan], losses=(2.0, 1.0)), commit([0.6, 0.8], number=1, wall_seconds=20.0)]
    )
    assert (first.best, first.mean, first.worst, first.num_failed) == (0.9, 0.7, 0.5, 2)
    assert (first.loss, first.accuracy) == (1.5, None)
    assert (first.tasks_per_second, first.utilisation) == (50.0, 0.75)
    assert (second.generation, second.best, second.best_so_far) == (2, 0.8, 0.9)
    assert second.utilisation == 0.375


def test_non_finite_fitness_never_becomes_the_best() -> None:
    summaries = summarize_generations([commit([nan, inf, 0.2]), commit([None, nan], number=1)])
    assert [one.best for one in summaries] == [0.2, None]
    assert [one.best_so_far for one in summaries] == [0.2, 0.2]
    assert summaries[1].mean is None


def test_test_commits_are_no_generations() -> None:
    summaries = summarize_generations([commit([0.5]), commit([0.99], number=1, kind="test")])
    assert [one.best_so_far for one in summaries] == [0.5]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.21, "4.2 s"),
        (42.0, "42 s"),
        (59.7, "1:00"),
        (723, "12:03"),
        (3723, "1:02:03"),
        (183840, "2 d 03:04"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize("value", [None, nan, inf, -inf])
def test_missing_numbers_are_a_dash(value: float | None) -> None:
    assert format_fitness(value) == format_rate(value) == format_seconds(value) == "–"


def test_time_left_comes_from_the_recent_generations() -> None:
    clock = FakeTime()
    pace = Pace(clock, total_generations=10)
    done = summarize_generations(
        [commit([0.5], wall_seconds=1000.0)]
        + [commit([0.5], number=i, wall_seconds=10.0) for i in range(1, 6)]
    )
    clock.now += 4.0
    assert pace.seconds_left(done) == pytest.approx(6.0 + 3 * 10.0)
    clock.now += 100.0
    assert pace.seconds_left(done) == pytest.approx(30.0)


def test_time_left_of_the_first_generation_comes_from_its_phase() -> None:
    clock = FakeTime()
    pace = Pace(clock, total_generations=3)
    pace.start_phase("evaluating", 10)
    clock.now += 8.0
    assert pace.seconds_left(()) is None
    pace.advance(4, 40)
    assert pace.seconds_left(()) == pytest.approx(12.0 + 2 * 20.0)


def test_time_left_ends_with_the_time_that_the_search_has() -> None:
    clock = FakeTime()
    pace = Pace(clock, total_generations=100, max_seconds=25.0)
    done = summarize_generations([commit([0.5], wall_seconds=10.0)])
    pace.start_phase("evaluating", 10)
    clock.now += 4.0
    assert pace.seconds_left(done) == pytest.approx(25.0 - 10.0 - 4.0)
    pace.advance(2, 40)
    assert pace.seconds_left(done) == pytest.approx(16.0), "the generation under way is finished"

    over = summarize_generations([commit([0.5], number=i, wall_seconds=10.0) for i in range(3)])
    pace.start_phase("testing", 4)
    clock.now += 2.0
    pace.advance(1, 10)
    assert pace.seconds_left(over) == pytest.approx(6.0)


def test_time_left_after_the_last_generation_is_that_of_the_phase() -> None:
    clock = FakeTime()
    pace = Pace(clock, total_generations=1)
    done = summarize_generations([commit([0.5])])
    assert pace.seconds_left(done) == 0.0
    pace.start_phase("testing", 4)
    clock.now += 3.0
    pace.advance(1, 10)
    assert pace.seconds_left(done) == pytest.approx(9.0)


def test_the_rate_forgets_what_is_long_past() -> None:
    clock = FakeTime()
    pace = Pace(clock, total_generations=1)
    assert pace.tasks_per_second() is None
    clock.now += 10.0
    pace.advance(1, 1000)
    assert pace.tasks_per_second() == pytest.approx(100.0)
    clock.now += 40.0
    pace.advance(1, 60)
    assert pace.tasks_per_second() == pytest.approx(2.0)


def test_the_display_suits_the_console() -> None:
    plain, _ = plain_console()
    terminal = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(make_progress(plain, total_generations=2, title="x"), PlainProgress)
    assert isinstance(make_progress(terminal, total_generations=2, title="x"), LiveProgress)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_predictor_that_stands_aside_says_so(is_terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=200, force_terminal=is_terminal)

    def forecast(number: int, num_considered: int) -> Commit:
        plain = commit([0.1, 0.2, 0.3], number=number)
        forecasts = [Forecast(mean, 1.0, num_considered) for mean in (3.0, 2.0, 1.0)]
        return replace(
            plain,
            evaluations=tuple(
                replace(each, proposal=replace(each.proposal, forecast=own))
                for each, own in zip(plain.evaluations, forecasts, strict=True)
            ),
        )

    with make_progress(console, total_generations=2, title="screened", clock=FakeTime()) as progress:
        progress.generation_done(forecast(0, num_considered=48))
        assert "aside" not in stream.getvalue()
        progress.generation_done(forecast(1, num_considered=1))
    assert ("stands aside until" if is_terminal else "the predictor stood aside") in stream.getvalue()
    assert is_terminal or "forecasts' τ -1.00" in stream.getvalue()


def test_plain_progress_prints_one_unbroken_line_a_generation() -> None:
    console, stream = plain_console()
    with make_progress(console, total_generations=3, title="quickstart", clock=FakeTime()) as progress:
        generations: list[list[float | None]] = [[0.5, None], [0.25, 0.75], [nan, None]]
        for number, fitness in enumerate(generations):
            progress.phase("evaluating", 2)
            progress.advance(2, 100, 2, 2)
            progress.generation_done(commit(fitness, number=number, losses=(1.25,)))
        progress.generation_done(commit([0.625], number=3, kind="test"))
    title, first, second, third, test = stream.getvalue().splitlines()
    assert title == "quickstart: 3 generations"
    assert first.startswith(
        "generation 1/3: best 0.5000, mean 0.5000, best so far 0.5000, loss 1.2500, 50 tasks/s"
    )
    assert "2 workers 75% busy, 1 failed, 10 s, 20 s left" in first
    assert second.startswith("generation 2/3: best 0.7500, mean 0.5000, best so far 0.7500")
    assert third.startswith("generation 3/3: best –, mean –, best so far 0.7500")
    assert "0.6250" in test


def test_plain_progress_beats_at_most_every_half_minute() -> None:
    console, stream = plain_console()
    clock = FakeTime()
    earlier = [commit([0.5])]
    with make_progress(console, total_generations=2, title="x", commits=earlier, clock=clock) as progress:
        progress.phase("meta-learning", 100)
        for _ in range(95):
            clock.now += 1.0
            progress.advance(1, 6, 1, 2)
    title, *beats = stream.getvalue().splitlines()
    assert title == "x: 2 generations, 1 done already"
    assert [beat.split(",")[0] for beat in beats] == [
        f"generation 2/2: meta-learning {done}/100 units" for done in (30, 60, 90)
    ]
    assert "6.0 tasks/s, 1/2 workers busy" in beats[0]


def test_messages_are_not_taken_for_markup() -> None:
    console, stream = plain_console()
    make_progress(console, total_generations=1, title="x").message("worker [red]1[/red] died")
    assert stream.getvalue() == "worker [red]1[/red] died\n"


def test_live_progress_shows_the_state_of_the_search() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=110, color_system=None)
    clock = FakeTime()
    earlier = [commit([0.1 + i / 100], number=i) for i in range(10)]
    with make_progress(
        console, total_generations=20, title="my search", commits=earlier, clock=clock
    ) as progress:
        progress.phase("evaluating", 64)
        clock.now += 2.0
        progress.advance(32, 500, 1, 2)
        progress.generation_done(commit([0.5, None, nan], number=10))
        progress.phase("meta-learning", 7)
        progress.advance(3, 0, 2, 2)
    frame = stream.getvalue().rpartition("╭─ my search")[2]
    assert "generation 11/20" in frame
    assert "meta-learning" in frame
    assert "3/7 units, 250 tasks/s, 2/2 workers busy" in frame
    assert "1:30 left" in frame
    assert "best so far 0.5000" in frame
    assert "failures: 2 genotypes, 33 workers" in frame
    rows = [
        line.split()[1] for line in frame.splitlines() if line.startswith("│") and line.split()[1].isdigit()
    ]
    assert rows == [str(generation) for generation in range(4, 12)]


def test_live_progress_leaves_the_terminal_as_it_was_after_an_error() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True)
    with (
        pytest.raises(KeyboardInterrupt),
        make_progress(console, total_generations=2, title="x"),
    ):
        raise KeyboardInterrupt
    assert stream.getvalue().rstrip("\n").endswith("\x1b[?25h")


def test_the_summary_tells_the_result_and_what_to_type_next() -> None:
    text = rendered(
        render_summary(
            SearchSummary(
                run_dir=Path("runs/my [red]run"),
                best_genotype="conv_3x3:32|skip",
                num_params=32944,
                flops=1234567,
                fitness=0.91234,
                fingerprint="ab12cd",
                test_accuracy=0.98765,
                test_interval=0.00321,
                num_test_tasks=600,
                pictures=(Path("runs/x/plots/progress.png"),),
            )
        )
    )
    for value in (
        "conv_3x3:32|skip",
        "32,944",
        "1,234,567",
        "0.9123",
        "0.9877 ± 0.0032",
        "600 tasks",
        "ab12cd",
    ):
        assert value in text
    assert "runs/x/plots/progress.png" in text
    assert "across resume 'runs/my [red]run'" in text
    assert "across evaluate 'runs/my [red]run'" in text
    assert "across ui" in text


def test_the_summary_of_an_untested_search_has_no_accuracy() -> None:
    text = rendered(render_summary(SearchSummary(Path("runs/x"), "skip", 0, 0, fitness=None, fingerprint="")))
    assert "accuracy" not in text
    assert "–" in text


def test_a_long_genotype_is_folded_and_not_cut() -> None:
    genotype = "sep_conv_3x3~0," * 20
    text = rendered(render_summary(SearchSummary(Path("runs/x"), genotype, 1, 1, 0.5, "")), width=60)
    assert genotype in "".join(text.split()).replace("bestarchitecture", "")


def test_the_table_lists_every_run() -> None:
    generations = summarize_generations([commit([0.5]), commit([0.25], number=1)])
    text = rendered(
        render_status_table(
            [
                RunStatus(Path("runs/first"), "running", 30, generations, age_seconds=12.0),
                RunStatus(Path("runs/second"), "interrupted", 20, (), age_seconds=7200.0),
            ]
        )
    )
    _, first, second = text.splitlines()
    assert first.split() == ["first", "running", "2/30", "0.5000", "12", "s", "ago"]
    assert second.split() == ["second", "interrupted", "0/20", "–", "2:00:00", "ago"]
    assert rendered(render_status_table([])) == "no runs\n"


def test_one_run_is_shown_in_detail() -> None:
    generations = summarize_generations([commit([0.5, None]), commit([0.75, 0.25], number=1)])
    status = RunStatus(
        Path("runs/x"), "finished", 2, generations, 5.0, best_genotype="a|b", fingerprint="ff00"
    )
    text = rendered(render_status(status))
    for value in (
        "finished",
        "2/2",
        "0.7500",
        "a|b",
        "50 tasks/s",
        "2, 75% busy",
        "1 genotypes, 6 workers",
        "ff00",
    ):
        assert value in text
    assert "–" in rendered(render_status(RunStatus(Path("runs/y"), "interrupted", 2, (), 5.0)))
