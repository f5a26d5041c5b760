"""What does a search bring on real data? Omniglot, 5-way 1-shot, in a given wall-clock time.

    python benchmarks/omniglot.py [--minutes M] [--seeds N] [--full] [--data DIR] [--run-dir DIR]
                                  [--plot FILE] [--json FILE]
    python benchmarks/omniglot.py --config configs/omniglot_5way1shot.yaml [--data DIR] ...

Two arms, the same time each, one after the other on the whole machine:

- `across`: the search of configs/omniglot_two_cores.yaml takes the first part of the time; then the network that it
  found goes on from the supernet's weights by itself.
- `fixed`: no search; 4CONV with 64 filters is meta-trained by the same engine with the same settings.

Time is that of the generations: meta-learning, evaluation on validation tasks, everything in between. A short trial
run, whose time counts too, measures the pace of the network to be trained, so that the cosine of the outer learning
rate ends with the time. Accuracy: after adaptation, on the same 600 held-out tasks for all arms and seeds; ± is the
95 % interval over tasks. `difference`: of both arms on the same task, over all tasks and seeds; `difference_by_seed`
the more cautious one, Student's t over the seeds' means.

Everything lies in --run-dir: the same command again goes on where it was interrupted. Quick: one seed, a minute;
--full: three seeds, 25 minutes. With --config only that search is run, to its own end.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import matplotlib as mpl
import scipy.stats
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.report import Measurement, make_parser, show, write_json
from orchestrator.config import RunConfig, build_model, build_sources, build_space
from orchestrator.config_loading import load_config
from orchestrator.engine import chunks
from orchestrator.evaluating import test_seeds
from orchestrator.progress import make_progress
from orchestrator.run_directory import RunDirectory
from orchestrator.search import SearchOutcome, load_run, run_search
from orchestrator.state import Commit
from orchestrator.statistics import mean_and_interval
from workers.base import EvaluationResult, EvaluationUnit
from workers.supernet_worker import ComputeSettings, SupernetWorker

ROOT = Path(__file__).resolve().parents[1]
SEARCH_CONFIG = ROOT / "configs" / "omniglot_two_cores.yaml"
SEARCH_SHARE = 0.4
"""Of the time; the rest trains the network that was found."""
FULL_MINUTES = 25.0
NUM_TEST_TASKS = 600
TEST_SEED = 0
"""Of the held-out tasks, whatever the seed of a search."""
STRETCH = {"meta_learning.steps_per_generation": 100, "evaluation.num_tasks": 100}
"""Meta-training without a search looks at the validation tasks after so many steps."""
TRIAL = {"meta_learning.steps_per_generation": 20, "evaluation.num_tasks": 20, "search.num_generations": 2}
"""The same mixture, to measure its pace."""


@dataclass(frozen=True)
class Run:
    """What an arm did with one seed: its run directories in order, and what it ended with."""

    case: str
    parts: tuple[SearchOutcome, ...]
    scores: tuple[float, ...]
    """Accuracy on each of the held-out tasks."""

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Seconds so far and best validation accuracy of each generation."""
        commits = [commit for part in self.parts for commit in generations(part)]
        seconds = accumulate(commit.timings.wall_seconds for commit in commits)
        return [(second, best_fitness(commit)) for second, commit in zip(seconds, commits, strict=True)]


def generations(outcome: SearchOutcome) -> list[Commit]:
    return [commit for commit in outcome.commits if commit.kind == "generation"]


def best_fitness(commit: Commit) -> float:
    return max((each.rank_key for each in commit.evaluations), default=float("-inf"))


def seconds_of(outcome: SearchOutcome) -> float:
    return sum(commit.timings.wall_seconds for commit in generations(outcome))


def config_with(arguments: Namespace, seed: int, settings: Mapping[str, object]) -> RunConfig:
    """The config of the search with other settings; tracking is off, and the test is done here."""
    common = {
        "seed": seed,
        "tasks.root": arguments.data,
        "test.num_tasks": 2,
        "test.num_finalists": 1,
        "tracking.enabled": False,
    }
    overrides = [f"{key}={value}" for key, value in {**common, **settings}.items()]
    return load_config(SEARCH_CONFIG, overrides)


def search(config: RunConfig, run_dir: Path) -> SearchOutcome:
    """Run, or resume, and show it on stderr."""
    commits = RunDirectory.open(run_dir).commits() if RunDirectory.exists(run_dir) else ()
    name = f"{run_dir.parent.name}/{run_dir.name}"
    shown = make_progress(
        Console(stderr=True), total_generations=config.search.num_generations, title=name, commits=commits
    )
    return run_search(config, run_dir=run_dir, progress=shown)


def meta_train(
    arguments: Namespace, seed: int, run_dir: Path, settings: Mapping[str, object], *, seconds: float
) -> tuple[SearchOutcome, ...]:
    """One genotype for `seconds` in all: a trial for the pace, then a cosine as long as the rest of the time."""
    settings = {"meta_learning.warmup_steps": 0, "meta_learning.population_path_probability": 1.0, **settings}
    trial = search(config_with(arguments, seed, {**settings, **TRIAL}), run_dir.with_name(f"{run_dir.name}_trial"))
    step_seconds = generations(trial)[-1].timings.wall_seconds / TRIAL["meta_learning.steps_per_generation"]
    left = max(step_seconds, seconds - seconds_of(trial))
    steps = {
        "meta_learning.optimizer.schedule": "cosine",
        "meta_learning.optimizer.total_steps": max(1, round(left / step_seconds)),
        "search.max_seconds": left,
        "search.num_generations": 1_000_000,
    }
    training = search(config_with(arguments, seed, {**settings, **STRETCH, **steps}), run_dir)
    return training, trial
