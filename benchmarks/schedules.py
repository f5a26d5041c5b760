"""How busy do schedules keep many workers, and what does it cost the search? By a virtual clock.

    python benchmarks/schedules.py [--full] [--data DIR] [--json FILE]

Cases `utilisation/SCHEDULE/sigma_S`: 1,000 simulated workers, durations log-normal with a median of 1 and a standard
deviation S of their logarithm; random search, whose proposals cost nothing. `utilisation` is the share of all workers'
time until the last evaluation in which they worked, the filling at the start and the emptying at the end included.
Generations have as many individuals as there are workers; the steady state has the lag and the lineages the number that
the case names; lineages exchange their best every `MIGRATION_INTERVAL` steps.

Cases `quality/SCHEDULE/PROPOSALS`: `mean_rank`, on the micro space of TransNAS-Bench-101 (class_scene), of the best
network after so many proposals of regularized evolution, with lags and lineages for `QUALITY_WORKERS` workers; means
over the seeds.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from across.orchestrator.schedules import Generations, Lineages, Schedule, SteadyState
from across.orchestrator.state import Evaluation, Proposal
from across.orchestrator.virtual_clock import simulate
from across.search_spaces import NasBench201Config
from across.search_spaces.base import SearchSpace
from benchmarks.report import Measurement, make_parser, show, write_json
from benchmarks.table_searches import Question, build_strategy

NUM_WORKERS = 1000
SIGMAS = (0.1, 0.25, 0.5, 1.0)
MIGRATION_INTERVAL = 20
QUALITY_WORKERS = 10
QUALITY_PROPOSALS = 300
MICRO = "transnas_bench_101/micro.npz"


def make_schedules(name: str, space: SearchSpace, *, num_workers: int, seed: int) -> dict[str, Schedule]:
    """By name; lags and lineages in proportion to the workers."""
    offspring = {"num_offspring": num_workers} if name == "regularized_evolution" else {}
    whole = build_strategy(name, space, population_size=num_workers, **offspring)
    strategy: Any = build_strategy(name, space)
    schedules: dict[str, Schedule] = {"generations": Generations(whole, seed=seed)}
    for factor in (2.0, 2.5):
        lag = round(factor * num_workers)
        schedules[f"steady_state_lag_{lag}"] = SteadyState(strategy, space, seed=seed, lag=lag)
    num_lineages = 2 * num_workers
    schedules[f"lineages_{num_lineages}"] = Lineages(
        strategy,
        space,
        seed=seed,
        num_lineages=num_lineages,
        migration_interval=MIGRATION_INTERVAL,
    )
    return schedules


def utilisation(options: Namespace) -> Iterator[Measurement]:
    space = NasBench201Config().build((3, 32, 32))
    num_proposals = NUM_WORKERS * (100 if options.full else 20)
    for sigma in SIGMAS:
        durations = np.random.default_rng(0).lognormal(0.0, sigma, size=num_proposals)
        made = make_schedules("random", space, num_workers=NUM_WORKERS, seed=0)
        for name, schedule in made.items():
            simulation = simulate(
                schedule,
                lambda proposal: Evaluation(proposal, 0.0),
                lambda proposal, durations=durations: float(durations[proposal.index]),  # type: ignore[misc]
                num_workers=NUM_WORKERS,
                num_proposals=num_proposals,
            )
            case = f"utilisation/{name}/sigma_{sigma:g}"
            yield Measurement(case, "utilisation", 100 * simulation.utilisation, "%", num_proposals)


def quality(options: Namespace) -> Iterator[Measurement]:
    question = Question(options.data / MICRO, ("class_scene",))
    ranks: dict[str, list[float]] = {}

    def evaluate(proposal: Proposal) -> Evaluation:
        return Evaluation(proposal, float(question.values[question.benchmark.row(proposal.genotype)]))

    num_seeds = 100 if options.full else 10
    for seed in range(num_seeds):
        made = make_schedules(
            "regularized_evolution",
            question.space,
            num_workers=QUALITY_WORKERS,
            seed=seed,
        )
        for name, schedule in made.items():
            found = simulate(
                schedule,
                evaluate,
                lambda proposal: 1.0,
                num_workers=QUALITY_WORKERS,
                num_proposals=QUALITY_PROPOSALS,
            ).evaluations
            rows = [question.benchmark.row(each.proposal.genotype) for each in found]
            ranks.setdefault(name, []).append(min(question.ranks[rows]))
    for name, found_ranks in ranks.items():
        yield Measurement(
            f"quality/{name}/{QUALITY_PROPOSALS}", "mean_rank", fmean(found_ranks), "", num_seeds
        )


def main() -> None:
    parser = make_parser(__doc__.splitlines()[0], full="100 evaluations a worker, 100 seeds")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder of the condensed tables"
    )
    options = parser.parse_args()
    lines = show(utilisation(options)) + show(quality(options))
    write_json(options.json, lines)


if __name__ == "__main__":
    main()
