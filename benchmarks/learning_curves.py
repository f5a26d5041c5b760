"""Accuracy by wall-clock time: what an arm of a benchmark did, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student

from across.orchestrator.plots.style import BLUE, ORANGE, PURPLE, RED, TEAL, picture
from across.orchestrator.search import SearchOutcome
from across.orchestrator.state import Commit
from across.orchestrator.statistics import mean_and_interval
from benchmarks.report import Measurement

COLOURS = {"across": BLUE, "fixed_32": ORANGE, "fixed_64": TEAL, "random": PURPLE, "guided": RED}


@dataclass(frozen=True)
class Arm:
    """What an arm did with one seed."""

    case: str
    phases: dict[str, SearchOutcome]
    """`search`, `trial`, `training`: those that the arm has, in order."""
    architecture: str
    scores: tuple[float, ...]
    """Accuracy on each of the held-out tasks."""

    @property
    def seconds(self) -> float:
        return sum(map(seconds_of, self.phases.values()))

    def curve(self, phase: str) -> list[tuple[float, float]]:
        """Of each generation of `phase`: the arm's seconds so far, and the best validation accuracy."""
        if phase not in self.phases:
            return []
        names = list(self.phases)
        before = sum(seconds_of(self.phases[name]) for name in names[: names.index(phase)])
        commits = generations(self.phases[phase])
        seconds = accumulate((commit.timings.wall_seconds for commit in commits), initial=before)
        best = (max(each.rank_key for each in commit.evaluations) for commit in commits)
        return list(zip(list(seconds)[1:], best, strict=True))


def generations(outcome: SearchOutcome) -> list[Commit]:
    return [commit for commit in outcome.commits if commit.kind == "generation"]


def seconds_of(outcome: SearchOutcome) -> float:
    return sum(commit.timings.wall_seconds for commit in generations(outcome))


def curve_of(arm: Arm) -> Iterator[Measurement]:
    for phase in arm.phases:
        for seconds, accuracy in arm.curve(phase):
            yield Measurement(f"{arm.case}/{phase}/{seconds:.0f}s", "validation_accuracy", accuracy, "", 1)


def plot_curves(path: Path, arms: Sequence[Arm], *, title: str) -> None:
    """Validation accuracy by time; dotted: the best of many genotypes while they are searched."""
    with picture(path, height=4.0) as figure:
        axes = figure.subplots()
        labelled: set[str] = set()
        for arm in arms:
            name = arm.case.split("/")[2]
            for phase, style in (("search", ":"), ("training", "-")):
                minutes = [seconds / 60 for seconds, _ in arm.curve(phase)]
                accuracies = [accuracy for _, accuracy in arm.curve(phase)]
                label = f"{name}, {phase}"
                is_new = bool(minutes) and label not in labelled
                axes.plot(
                    minutes, accuracies, style, color=COLOURS.get(name, BLUE), label=label if is_new else None
                )
                labelled.add(label)
        axes.set(xlabel="minutes", ylabel="accuracy on validation tasks", title=title)
        axes.legend(loc="lower right")


def accuracy_of(arm: Arm) -> Iterator[Measurement]:
    accuracy, half_width = mean_and_interval(arm.scores)
    yield Measurement(arm.case, "accuracy", accuracy, "", len(arm.scores))
    yield Measurement(arm.case, "accuracy_half_width_95", half_width, "", len(arm.scores))
    yield Measurement(arm.case, "seconds", arm.seconds, "s", 1)


def difference_of(case: str, pairs: Sequence[tuple[Arm, Arm]]) -> Iterator[Measurement]:
    """The first minus the second arm of each seed, task by task."""
    by_seed = [[ours - theirs for ours, theirs in zip(a.scores, b.scores, strict=True)] for a, b in pairs]
    differences = [each for of_seed in by_seed for each in of_seed]
    mean, half_width = mean_and_interval(differences)
    num = len(differences)
    yield Measurement(case, "accuracy", mean, "", num)
    yield Measurement(case, "accuracy_half_width_95", half_width, "", num)
    if len(pairs) > 1:
        error = stdev(map(fmean, by_seed)) / sqrt(len(pairs))
        half_width = float(student.ppf(0.975, len(pairs) - 1)) * error
        yield Measurement(f"{case}/by_seed", "accuracy_half_width_95", half_width, "", len(pairs))
