"""How many few-shot tasks a second can be learned: Across against `higher` and a plain autograd loop.

    python benchmarks/adaptation.py [--full] [--json FILE]

Work: the 4CONV network with 32 channels, 5-way 1-shot, K = 5 gradient steps on the support set, then the loss of 75
query images (first order: what fitness costs), or the gradient of that loss with respect to the initial weights
through all steps (`second_order`: what meta-training costs). Images of Omniglot's size, with --full of
mini-ImageNet's too. Every contestant starts from the same weights and gets the same tasks, and their losses and
meta-gradients are compared before any time is taken.

Two cores, both busy. Across: two processes of one thread each, as its worker pool runs, each a `SupernetWorker`
that takes chunks of tasks. Rivals, task by task in torch's default memory format: the better of one process with
two threads and two processes with one. All processes have the machine's environment; the worker itself tells
glibc's allocator to keep freed memory, and computes channels-last. Contestants take turns in every round, so that
a busy machine slows all of them; rates are medians over the rounds, ratios medians of the rounds' ratios.

`higher` is measured where it is installed: pip install --no-deps higher==0.2.1
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.adaptation_contestants import SIZES, Contestant, Learner, Outcome, Workload, make_learner
from benchmarks.report import Measurement, make_parser, show, write_json

_learners: dict[tuple[str, int, Workload], Learner] = {}


def learn_in_process(contestant: Contestant, workload: Workload, seeds: Sequence[int]) -> Outcome:
    """Runs in a process of the contestant's camp, which keeps its learners."""
    torch.set_num_threads(contestant.num_threads)
    key = (contestant.name, contestant.tasks_per_chunk, workload)
    if key not in _learners:
        _learners[key] = make_learner(contestant, workload)
    return _learners[key].learn(seeds)


@dataclass(frozen=True)
class Team:
    """A contestant's processes."""

    contestant: Contestant
    workload: Workload
    processes: Sequence[ProcessPoolExecutor]

    def learn(self, seeds: Sequence[int]) -> Outcome:
        """All processes at once, each on an equal part of the tasks."""
        parts = [seeds[i :: len(self.processes)] for i in range(len(self.processes))]
        futures = [
            process.submit(learn_in_process, self.contestant, self.workload, part)
            for process, part in zip(self.processes, parts, strict=True)
        ]
        outcomes = [future.result() for future in futures]
        loss = sum(o.loss * len(part) for o, part in zip(outcomes, parts, strict=True)) / len(seeds)
        return Outcome(loss, torch.stack([outcome.gradient for outcome in outcomes]).sum(0))

    def seconds(self, num_tasks: int) -> float:
        start = time.perf_counter()
        self.learn(range(num_tasks))
        return time.perf_counter() - start


@contextmanager
def two_camps() -> Iterator[dict[bool, list[ProcessPoolExecutor]]]:
    """Two processes for Across and two for its rivals, who so keep the default allocator."""
    camps = {
        is_across: [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(2)]
        for is_across in (True, False)
    }
    try:
        yield camps
    finally:
        for processes in camps.values():
            for process in processes:
                process.shutdown()


def contestants_on(device: str, *, full: bool) -> list[Contestant]:
    rivals = ["plain", *(["higher"] if find_spec("higher") else [])]
    if device == "cpu":
        chunks = [Contestant("across", 2, 1, tasks) for tasks in ((4, 1, 2, 8) if full else (4,))]
        return chunks + [Contestant(name, *size) for name in rivals for size in ((1, 2), (2, 1))]
    chunks = [Contestant("across", 1, 1, tasks) for tasks in ((64, 1, 4, 16, 256) if full else (64, 16))]
    return chunks + [Contestant(name, 1, 1) for name in rivals]


def check_results(teams: Sequence[Team], num_tasks: int) -> None:
    """Raise unless all contestants find the same losses and meta-gradients, up to the rounding of float32."""
    outcomes = [team.learn(range(num_tasks)) for team in teams]
    first = outcomes[0]
    for team, outcome in zip(teams, outcomes, strict=True):
        name = f"{team.contestant.name}{team.workload.suffix}"
        difference = (outcome.gradient - first.gradient).norm() / first.gradient.norm().clamp(min=1e-30)
        if abs(outcome.loss - first.loss) > 2e-3 * first.loss or difference > 2e-2:
            raise SystemExit(
                f"{name} computes something else: {outcome.loss} against {first.loss}, {difference:.2e}"
            )


def measure(teams: Sequence[Team], *, num_rounds: int, num_tasks: int) -> Iterator[Measurement]:
    """Rates of all contestants, and how many times faster Across is than each rival's better variant."""
    workload = teams[0].workload
    check_results(teams, num_tasks)
    rounds = [[num_tasks / team.seconds(num_tasks) for team in teams] for _ in range(num_rounds)]
    rates: list[Sequence[float]] = list(zip(*rounds, strict=True))
    best: dict[str, Sequence[float]] = {}
    for team, of_team in zip(teams, rates, strict=True):
        name = team.contestant.name
        if team is not teams[0] and name == "across":
            case = f"{workload.place}/across/tasks_{team.contestant.tasks_per_chunk}{workload.suffix}"
            yield Measurement(case, "tasks_per_second", median(of_team), "1/s", num_rounds)
        elif name not in best or median(of_team) > median(best[name]):
            best[name] = of_team
    for name, of_team in best.items():
        case = f"{workload.place}/{name}{workload.suffix}"
        yield Measurement(case, "tasks_per_second", median(of_team), "1/s", num_rounds)
        if name != "across":
            ratio = median(ours / theirs for ours, theirs in zip(best["across"], of_team, strict=True))
            case = f"{workload.place}/across{workload.suffix}"
            yield Measurement(case, f"times_faster_than_{name}", ratio, "", num_rounds)


def main() -> None:
    parser = make_parser(
        "few-shot tasks learned a second", full="more rounds, images of 84x84, other chunk sizes"
    )
    arguments = parser.parse_args()
    if find_spec("higher") is None:
        print("higher is not installed (pip install --no-deps higher==0.2.1): measured without it")
    lines: list[Measurement] = []
    with two_camps() as camps:
        for workload in workloads(full=arguments.full):
            teams = [
                Team(contestant, workload, camps[contestant.name == "across"][: contestant.num_processes])
                for contestant in contestants_on(workload.device, full=arguments.full)
            ]
            num_tasks = 64 if workload.device == "cuda" else 16 if workload.images == "omniglot" else 8
            lines += show(measure(teams, num_rounds=15 if arguments.full else 5, num_tasks=num_tasks))
    write_json(arguments.json, lines)


def workloads(*, full: bool) -> Iterator[Workload]:
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for images in SIZES if full else ["omniglot"]:
            for second_order in (False, True):
                yield Workload(images, second_order, device)


if __name__ == "__main__":
    main()
