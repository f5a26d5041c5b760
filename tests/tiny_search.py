"""The smallest search that does everything, and a driver process for it that dies on command.

    python -m tests.tiny_search RUN_DIR ADDRESS CHANGES [PLACE COUNT [before|after]]

CHANGES are settings of the config, as JSON. PLACE is `module:qualified.name`: the driver kills itself with SIGKILL
around its COUNT-th call.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from across.orchestrator.config.run_config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 5,
    "space": {"type": "layerwise", "num_layers": 2, "widths": [2, 4], "readout": "mean"},
    "tasks": {"type": "glyphs", "image_size": 12, "num_ways": 3, "num_queries": 3},
    "inner_loop": {"num_steps": 2, "learn_inner_lrs": True},
    "meta_learning": {
        "steps_per_generation": 2,
        "warmup_steps": 1,
        "meta_batch_size": 4,
        "tasks_per_shard": 2,
        "checkpoint_seconds": 1e-6,
    },
    "strategy": {"type": "genetic", "population_size": 4, "num_elites": 1},
    "evaluation": {"num_tasks": 4, "tasks_per_chunk": 2},
    "search": {"num_generations": 3},
    "test": {"num_tasks": 6, "num_finalists": 2},
    "compute": {"device": "cpu"},
    "workers": {"num_workers": 2, "cpus_per_worker": 0.5},
}

SCREENED: dict[str, Any] = {
    "type": "predictor_guided",
    "batch_size": 4,
    "num_elites": 2,
    "num_initial": 6,
    "candidates": {"type": "offspring", "num_children": 10},
}
"""A strategy for it whose children a predictor screens."""


def tiny_config(**changes: Any) -> RunConfig:
    """`TINY` with other settings; a section that names its type replaces the whole section."""
    document = {**TINY}
    for name, value in changes.items():
        is_partial = isinstance(value, dict) and "type" not in value
        document[name] = {**document.get(name, {}), **value} if is_partial else value
    return RunConfig.model_validate(document)


def run_driver(
    run_dir: Path, address: str, *kill: str, timeout: float = 120, **changes: Any
) -> subprocess.CompletedProcess[str]:
    """A driver of the tiny search in a process of its own, to its end."""
    command = [sys.executable, "-m", "tests.tiny_search", str(run_dir), address, json.dumps(changes), *kill]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def die_around(place: str, count: int, when: str) -> None:
    """Make this process kill itself around the `count`-th call of the function at `place`."""
    module_name, qualified_name = place.split(":")
    owner: Any = importlib.import_module(module_name)
    *owners, name = qualified_name.split(".")
    for each in owners:
        owner = getattr(owner, each)
    original: Callable[..., Any] = getattr(owner, name)
    num_calls = 0

    @functools.wraps(original)
    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == count and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if num_calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


def main() -> None:
    from across.orchestrator.search import run_search

    run_dir, address, changes, *kill = sys.argv[1:]
    if kill:
        place, count, when = kill
        die_around(place, int(count), when)
    run_search(tiny_config(**json.loads(changes)), run_dir=Path(run_dir), address=address)


if __name__ == "__main__":
    main()
