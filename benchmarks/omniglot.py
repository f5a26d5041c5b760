"""What does a search bring on real data? Omniglot, 5-way 1-shot, in a given wall-clock time.

    python benchmarks/omniglot.py [--full | --minutes M --seeds N] [--rivals ARM ...]
                                  [--data DIR] [--run-dir DIR] [--plot FILE]
    python benchmarks/omniglot.py --config configs/omniglot_5way1shot.yaml [--data DIR] ...

Arms, one after the other on the whole machine, the same time each:

- `across`: the search of configs/omniglot_two_cores.yaml takes the first part of the time; then the network that it
  found goes on alone, from the supernet's weights.
- `guided`: the same, but a predictor screens the children of the search, four for each that is evaluated.
- `fixed_32`, `fixed_64`: no search; 4CONV, the network whose surroundings are searched, with 32 filters and with the
  64 of the literature, is meta-trained by the same engine with the same settings.
- `random`: no search either; a member of the searched space, drawn uniformly for each seed, is meta-trained.

Time is that of all generations: meta-learning and evaluation on validation tasks. A short trial, whose time counts
too, measures the pace of the network to be trained, so that the cosine of the outer learning rate ends with the
time. Generations are whole, so an arm takes a few seconds more (see `seconds`); below 6 minutes they are made
smaller in proportion.

Accuracy after adaptation, on the same 600 held-out tasks for all arms and seeds, with its 95 % interval over the
tasks. `difference/fixed_32`: across minus fixed_32 on the same task, over all tasks and seeds; `.../by_seed` is the
more cautious interval, Student's t over the means of the seeds.

Everything lies in --run-dir: the same command again goes on where it was interrupted. Quick: one seed, a minute an
arm; --full: three seeds, 6 minutes. With --config that search alone is run, to its own end.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console

from across.orchestrator.config.loading import load_config
from across.orchestrator.config.run_config import RunConfig, build_model, build_sources, build_space
from across.orchestrator.progress import make_progress
from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.search import SearchOutcome, load_run, run_search
from across.orchestrator.units import chunks, test_seeds
from across.search_spaces.base import Genotype
from across.workers.base import EvaluationResult, EvaluationUnit
from across.workers.supernet_worker import ComputeSettings, SupernetWorker
from benchmarks.learning_curves import (
    Arm,
    accuracy_of,
    curve_of,
    difference_of,
    generations,
    plot_curves,
    seconds_of,
)
from benchmarks.report import Measurement, make_parser, show, write_json

SEARCH_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "omniglot_two_cores.yaml"
BENCHMARK = "omniglot/5way1shot"
SEARCH_SHARE = 1 / 4
"""Of the time; the rest trains the network that was found."""
FULL_MINUTES = 6.0
NUM_STRETCH_STEPS = 100
"""Outer steps between two looks at the validation tasks in training without a search, at `FULL_MINUTES`."""
TRIAL_SHARE = 5
"""A stretch of the trial is this part of one of the training."""
TASKS_PER_SHARD = 8
"""In training without a search: one path, so that the meta-batch falls into as many equal shards as there are cores."""
NUM_TEST_TASKS = 600
TEST_SEED = 0
"""Of the held-out tasks, whatever the seed of a search."""
GUIDED: Mapping[str, object] = {
    "type": "predictor_guided",
    "batch_size": 8,
    "num_elites": 4,
    "num_initial": 12,
    "candidates": {"type": "offspring", "num_children": 32},
    "signals": {"names": ["naswot", "synflow", "few_steps"]},
}
"""The population of the config's genetic algorithm, bred by it, from four times as many children."""
RIVALS = ("fixed_32", "fixed_64", "random", "guided")
CONTINUATION_SEED = 1000
"""Added to the seed of the search: what goes on meets tasks that the search has not seen."""


def config_with(options: Namespace, settings: Mapping[str, object]) -> RunConfig:
    """The search's config with other settings; without MLflow, and with next to no test of its own."""
    common = {
        "tasks.root": options.data,
        "tracking.enabled": False,
        "test.num_tasks": 2,
        "test.num_finalists": 1,
    }
    overrides = {**common, **settings}
    return load_config(
        SEARCH_CONFIG, [f"{key}={json.dumps(value, default=str)}" for key, value in overrides.items()]
    )


def run_or_resume(config: RunConfig, run_dir: Path) -> SearchOutcome:
    """The search in `run_dir`, shown on stderr."""
    commits = RunDirectory.open(run_dir).commits() if RunDirectory.exists(run_dir) else ()
    title = f"{run_dir.parent.name}/{run_dir.name}"
    shown = make_progress(
        Console(stderr=True),
        total_generations=config.search.num_generations,
        max_seconds=config.search.max_seconds,
        title=title,
        commits=commits,
    )
    return run_search(config, run_dir=run_dir, progress=shown)


def meta_train(
    options: Namespace, run_dir: Path, settings: Mapping[str, object], *, seconds: float
) -> dict[str, SearchOutcome]:
    """A trial of two short stretches for the pace, then training with a cosine as long as the rest of the time."""
    trial_steps = scaled(NUM_STRETCH_STEPS // TRIAL_SHARE, options.minutes, least=4)
    num_steps = TRIAL_SHARE * trial_steps
    trial_dir = run_dir.with_name(f"{run_dir.name}_trial")
    stretches = {
        "meta_learning.warmup_steps": 0,
        "meta_learning.steps_per_generation": trial_steps,
        "meta_learning.tasks_per_shard": TASKS_PER_SHARD,
        "evaluation.num_tasks": trial_steps,
        **settings,
    }
    trial = run_or_resume(config_with(options, {**stretches, "search.num_generations": 2}), trial_dir)
    stretch_seconds = TRIAL_SHARE * generations(trial)[-1].timings.wall_seconds
    left = max(stretch_seconds, seconds - seconds_of(trial))
    length = {
        "meta_learning.steps_per_generation": num_steps,
        "evaluation.num_tasks": num_steps,
        "search.max_seconds": left,
        "search.num_generations": 1 + round(2 * left / stretch_seconds),
        "meta_learning.optimizer.total_steps": round(num_steps * left / stretch_seconds),
    }
    training = run_or_resume(config_with(options, {**stretches, **length}), run_dir)
    return {"trial": trial, "training": training}


def scaled(count: int, minutes: float, *, least: int) -> int:
    """`count`, or its share where the time is shorter than `FULL_MINUTES`."""
    return max(least, round(count * min(1.0, minutes / FULL_MINUTES)))


def measure_across(
    options: Namespace, seed: int, name: str = "across", strategy: Mapping[str, object] | None = None
) -> Arm:
    """The search of the config, or with another `strategy`, and the training of what it found."""
    budget, minutes = 60 * options.minutes, options.minutes
    folder = options.run_dir / f"seed{seed}"
    plan = load_config(SEARCH_CONFIG).meta_learning
    search = run_or_resume(
        config_with(
            options,
            {
                "seed": seed,
                **({"strategy": strategy} if strategy else {}),
                "search.max_seconds": SEARCH_SHARE * budget,
                "meta_learning.warmup_steps": scaled(plan.warmup_steps, minutes, least=0),
                "meta_learning.steps_per_generation": scaled(plan.steps_per_generation, minutes, least=5),
            },
        ),
        folder / f"{name}_search",
    )
    assert search.best is not None, "no genotype could be evaluated"
    _, config = load_run(search.run_dir)
    genotype = search.best.proposal.genotype
    found = build_space(config, build_sources(config)).to_string(genotype)
    settings = {
        "seed": seed + CONTINUATION_SEED,
        "strategy": {"type": "fixed", "genotype": found},
        "initial_weights": search.run_dir,
    }
    left = budget - seconds_of(search)
    phases = {"search": search, **meta_train(options, folder / name, settings, seconds=left)}
    scores = held_out_scores(phases["training"], genotype)
    return Arm(f"{BENCHMARK}/{name}/seed{seed}", phases, found, scores)


def measure_fixed(options: Namespace, seed: int, filters: int) -> Arm:
    run_dir = options.run_dir / f"seed{seed}" / f"fixed_{filters}"
    four_conv = {
        "seed": seed,
        "space": {"type": "layerwise", "operations": ["conv_3x3"], "widths": [filters]},
        "constraints": {},
        "strategy": {"type": "fixed", "genotype": "|".join([f"conv_3x3:{filters}"] * 4)},
    }
    phases = meta_train(options, run_dir, four_conv, seconds=60 * options.minutes)
    best = phases["training"].best
    assert best is not None, "4CONV could not be evaluated"
    scores = held_out_scores(phases["training"], best.proposal.genotype)
    return Arm(f"{BENCHMARK}/fixed_{filters}/seed{seed}", phases, f"4CONV, {filters} filters", scores)


def measure_random(options: Namespace, seed: int) -> Arm:
    config = config_with(options, {})
    space = build_space(config, build_sources(config))
    genotype = space.sample(np.random.default_rng(seed))
    drawn = space.to_string(genotype)
    settings = {"seed": seed, "strategy": {"type": "fixed", "genotype": drawn}}
    run_dir = options.run_dir / f"seed{seed}" / "random"
    phases = meta_train(options, run_dir, settings, seconds=60 * options.minutes)
    scores = held_out_scores(phases["training"], genotype)
    return Arm(f"{BENCHMARK}/random/seed{seed}", phases, drawn, scores)


def held_out_scores(outcome: SearchOutcome, genotype: Genotype) -> tuple[float, ...]:
    """Accuracy of `genotype` on each held-out task at the run's last weights."""
    run, config = load_run(outcome.run_dir)
    sources = build_sources(config)
    model = build_model(config, build_space(config, sources), sources)
    last = generations(outcome)[-1]
    weights = run.load_weights(last.number)["weights"]
    worker = SupernetWorker(model, sources, ComputeSettings(config.compute.device))
    scores: list[float] = []
    for seeds in chunks(test_seeds(TEST_SEED, NUM_TEST_TASKS), config.evaluation.tasks_per_chunk or 4):
        result = worker.run(EvaluationUnit("", genotype, 0, "test", seeds, last.weights_version), weights)
        assert isinstance(result, EvaluationResult)
        scores += result.scores
    return tuple(scores)


def measure_config(options: Namespace) -> Arm:
    """The search of another config as it stands, with its own test of the best finalist."""
    config = load_config(options.config, [f"tasks.root={json.dumps(str(options.data))}"])
    outcome = run_or_resume(config, options.run_dir / config.name)
    assert outcome.best is not None, "no finalist could be evaluated"
    _, resolved = load_run(outcome.run_dir)
    found = build_space(resolved, build_sources(resolved)).to_string(outcome.best.proposal.genotype)
    case = f"{BENCHMARK}/{config.name}/seed{config.seed}"
    return Arm(case, {"search": outcome}, found, outcome.best.scores)


def report(arm: Arm) -> list[Measurement]:
    """Shown as soon as the arm is done."""
    print(f"{arm.case}: {arm.architecture}")
    return show(accuracy_of(arm))


def main() -> None:
    parser = make_parser("a search against 4CONV on Omniglot", full="three seeds, 6 minutes an arm")
    parser.add_argument("--minutes", type=float, help="wall-clock time of an arm (1; with --full 6)")
    parser.add_argument("--seeds", type=int, help="number of seeds (1; with --full 3)")
    parser.add_argument("--rivals", nargs="*", default=RIVALS, choices=RIVALS, help="arms beside across")
    parser.add_argument("--data", type=Path, default=Path("data/omniglot"), help="folder of the two archives")
    parser.add_argument("--run-dir", type=Path, help="default: runs/omniglot_M_minutes")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the learning curves as PNG")
    parser.add_argument("--config", type=Path, metavar="FILE", help="run this search alone")
    options = parser.parse_args()
    options.minutes = options.minutes or (FULL_MINUTES if options.full else 1.0)
    run_dir = options.run_dir or Path("runs") / f"omniglot_{options.minutes:g}_minutes"
    options.data, options.run_dir = options.data.absolute(), run_dir.absolute()
    inner_loop = load_config(options.config or SEARCH_CONFIG).inner_loop
    print(f"batch norm: {inner_loop.batch_norm}; classes: held out", flush=True)
    arms: list[Arm] = [measure_config(options)] if options.config else []
    lines: list[Measurement] = [line for arm in arms for line in report(arm)]
    rivals: dict[str, Callable[[Namespace, int], Arm]] = {
        **{f"fixed_{filters}": partial(measure_fixed, filters=filters) for filters in (32, 64)},
        "random": measure_random,
        "guided": partial(measure_across, name="guided", strategy=GUIDED),
    }
    rivals = {name: measure for name, measure in rivals.items() if name in options.rivals}
    pairs: dict[str, list[tuple[Arm, Arm]]] = {name: [] for name in rivals}
    for seed in range(0 if options.config else options.seeds or (3 if options.full else 1)):
        across = measure_across(options, seed)
        lines += report(across)
        arms.append(across)
        for name, measure in rivals.items():
            rival = measure(options, seed)
            lines += report(rival)
            arms.append(rival)
            pairs[name].append((across, rival))
    for name, of_rival in pairs.items():
        lines += show(difference_of(f"{BENCHMARK}/difference/{name}", of_rival)) if of_rival else []
    write_json(options.json, [*lines, *(point for arm in arms for point in curve_of(arm))])
    if options.plot:
        plot_curves(options.plot, arms, title="Omniglot, 5-way 1-shot")


if __name__ == "__main__":
    main()
