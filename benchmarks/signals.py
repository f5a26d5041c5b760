"""What do the low-fidelity signals of a genotype cost, beside its full few-shot evaluation?

    python benchmarks/signals.py [--full] [--json FILE]

Genotypes drawn from three spaces, the same for everything that is measured; one process with one thread on the CPU,
or one GPU. Tasks are 5-way 1-shot with 15 queries a class on images of Omniglot's size. `few_shot` is the fitness that
the signals stand for: 20 tasks in chunks of 4, K = 5 steps each. Each group below is a `SignalUnit` of its own, so
that what signals share counts in every group; `zero_cost` is all of them in one unit, as a search would ask for them.

    gradients   grad_norm, snip, fisher, plain, l2_norm     with_grasp  the same with grasp
    jacobian    jacob_cov, naswot, epe_nas                  synflow, zen, one_shot, few_steps: each alone

Metrics: `ms_per_genotype`, the median over the rounds of the mean over the genotypes, and `share_of_few_shot`, the
median of the rounds' ratios. All take turns in every round, so that a busy machine slows all of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from across.search_spaces import CellConfig, LayerwiseConfig, NasBench201Config, SpaceConfig
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import EvaluationUnit, SignalUnit, Unit
from across.workers.evaluators.zero_cost import ZERO_COST_SIGNALS, SignalsConfig
from across.workers.model import Model
from across.workers.supernet_worker import ComputeSettings, SupernetWorker
from across.workers.tasks.glyphs import GlyphsConfig
from benchmarks.report import Measurement, make_parser, show, write_json

NUM_TASKS, TASKS_PER_CHUNK, NUM_STEPS = 20, 4, 5
SPACES: dict[str, SpaceConfig] = {
    "layerwise": LayerwiseConfig(widths=(16, 32)),
    "cell": CellConfig(),
    "nas_bench_201": NasBench201Config(cells_per_stage=1),
}
GRADIENTS = ("grad_norm", "snip", "fisher", "plain", "l2_norm")
GROUPS: dict[str, tuple[str, ...]] = {
    "gradients": GRADIENTS,
    "with_grasp": (*GRADIENTS, "grasp"),
    "jacobian": ("jacob_cov", "naswot", "epe_nas"),
    "synflow": ("synflow",),
    "zen": ("zen",),
    "one_shot": ("one_shot",),
    "few_steps": ("few_steps",),
    "zero_cost": ZERO_COST_SIGNALS,
}


@dataclass(frozen=True)
class Contestant:
    """A worker and what it computes for each genotype."""

    name: str
    worker: SupernetWorker
    units: Sequence[Sequence[Unit]]

    def milliseconds(self, model: Model) -> float:
        """A genotype, on average."""
        weights = model.initial_vector(0)
        start = time.perf_counter()
        for units in self.units:
            for unit in units:
                self.worker.run(unit, weights)
        return 1000 * (time.perf_counter() - start) / len(self.units)


def make_contestants(model: Model, device: str, num_genotypes: int) -> list[Contestant]:
    """The full evaluation, then the groups of signals, all on the same genotypes and tasks."""
    source = GlyphsConfig(image_size=28).build()
    rng = np.random.default_rng(0)
    genotypes = [model.space.sample(rng) for _ in range(num_genotypes)]
    settings = ComputeSettings(device)
    seeds = range(NUM_TASKS)
    chunks = [tuple(seeds[start : start + TASKS_PER_CHUNK]) for start in seeds[::TASKS_PER_CHUNK]]
    evaluations = [
        [EvaluationUnit("", genotype, 0, "validation", chunk, 0) for chunk in chunks]
        for genotype in genotypes
    ]
    contestants = [Contestant("few_shot", SupernetWorker(model, [source], settings), evaluations)]
    for name, names in GROUPS.items():
        signals = SignalsConfig.model_validate({"names": names})
        tasks = tuple(seeds[: signals.num_seeds])
        units = [[SignalUnit("", genotype, 0, "validation", tasks, 0)] for genotype in genotypes]
        contestants.append(Contestant(name, SupernetWorker(model, [source], settings, signals), units))
    return contestants


def measure(space: str, device: str, *, num_genotypes: int, num_rounds: int) -> Iterator[Measurement]:
    spec = GlyphsConfig(image_size=28).build().spec
    model = Model(SPACES[space].build(spec.input_shape), (spec,), InnerLoopConfig(num_steps=NUM_STEPS))
    contestants = make_contestants(model, device, num_genotypes)
    for contestant in contestants:  # the tasks are drawn, and paths made, before any time is taken
        contestant.milliseconds(model)
    rounds = [[each.milliseconds(model) for each in contestants] for _ in range(num_rounds)]
    full, *_ = times = list(zip(*rounds, strict=True))
    place = "gpu" if device == "cuda" else "cpu"
    for contestant, own in zip(contestants, times, strict=True):
        case = f"{place}/{space}/{contestant.name}"
        yield Measurement(case, "ms_per_genotype", median(own), "ms", num_rounds)
        if contestant.name != "few_shot":
            share = median(ours / theirs for ours, theirs in zip(own, full, strict=True))
            yield Measurement(case, "share_of_few_shot", share, "", num_rounds)


def main() -> None:
    parser = make_parser("the cost of low-fidelity signals", full="more genotypes and rounds")
    arguments = parser.parse_args()
    num_genotypes, num_rounds = (16, 9) if arguments.full else (3, 3)
    lines: list[Measurement] = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for space in SPACES:
            lines += show(measure(space, device, num_genotypes=num_genotypes, num_rounds=num_rounds))
    write_json(arguments.json, lines)


if __name__ == "__main__":
    main()
