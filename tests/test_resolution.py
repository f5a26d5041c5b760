"""Automatic choices are made once, and kept."""

from __future__ import annotations

from typing import Any

import pytest

from across.orchestrator.config.resolution import TASKS_PER_CHUNK, describe_environment, resolve, resolve_as
from tests.tiny_search import tiny_config

OPEN: dict[str, Any] = {"compute": {"device": "auto"}, "evaluation": {"tasks_per_chunk": None}}


@pytest.mark.parametrize(
    ("has_gpus", "gpus_per_worker", "device"),
    [(True, None, "cuda"), (True, 0.5, "cuda"), (True, 0, "cpu"), (False, None, "cpu"), (False, 1, "cpu")],
)
def test_device_follows_the_cluster(has_gpus: bool, gpus_per_worker: float | None, device: str) -> None:
    config = tiny_config(**OPEN, workers={"gpus_per_worker": gpus_per_worker})
    resolved = resolve(config, has_gpus=has_gpus)
    assert resolved.compute.device == device
    assert resolved.evaluation.tasks_per_chunk == TASKS_PER_CHUNK[device]


@pytest.mark.parametrize("has_gpus", [True, False])
def test_what_is_said_is_kept(has_gpus: bool) -> None:
    config = tiny_config(
        compute={"device": "cpu"},
        evaluation={"tasks_per_chunk": 3},
        meta_learning={"optimizer": {"total_steps": 99}},
    )
    assert resolve(config, has_gpus=has_gpus) == config


@pytest.mark.parametrize(
    ("meta_learning", "total_steps"),
    [
        ({"warmup_steps": 1, "steps_per_generation": 2}, 7),
        ({"warmup_steps": 0, "steps_per_generation": 0}, 1),
    ],
)
def test_schedule_ends_with_the_search(meta_learning: dict[str, int], total_steps: int) -> None:
    config = tiny_config(meta_learning=meta_learning, search={"num_generations": 3})
    assert resolve(config, has_gpus=False).meta_learning.optimizer.total_steps == total_steps


def test_only_open_settings_change() -> None:
    config = tiny_config(**OPEN)
    resolved = resolve(config, has_gpus=False)
    untouched = set(type(config).model_fields) - {"compute", "evaluation", "meta_learning"}
    assert all(getattr(resolved, name) == getattr(config, name) for name in untouched)
    assert resolve(resolved, has_gpus=True) == resolved


@pytest.mark.parametrize("has_gpus", [True, False])
def test_the_same_config_resolves_to_the_run_under_way(has_gpus: bool) -> None:
    started = resolve(tiny_config(**OPEN), has_gpus=has_gpus)
    assert resolve_as(tiny_config(**OPEN), started) == started


def test_a_longer_search_keeps_the_schedule_that_it_began_with() -> None:
    started = resolve(tiny_config(), has_gpus=False)
    longer = resolve_as(tiny_config(search={"num_generations": 30}), started)
    assert longer.meta_learning.optimizer.total_steps == started.meta_learning.optimizer.total_steps
    assert longer.search.num_generations == 30


def test_what_was_lowered_on_a_resume_stays_lowered() -> None:
    """A restarted job is given its first config again."""
    started = resolve(tiny_config(**OPEN), has_gpus=True)
    lowered = resolve_as(tiny_config(**OPEN | {"evaluation": {"tasks_per_chunk": 2}}), started)
    assert lowered.evaluation.tasks_per_chunk == 2
    assert resolve_as(tiny_config(**OPEN), lowered) == lowered


def test_what_is_said_on_resume_is_not_overruled() -> None:
    """Whether it may change is for others to judge."""
    started = resolve(tiny_config(**OPEN), has_gpus=True)
    assert resolve_as(tiny_config(compute={"device": "cpu"}), started).compute.device == "cpu"


def test_environment_names_the_device_and_the_libraries() -> None:
    environment = describe_environment("NVIDIA H200")
    assert environment["device"] == "NVIDIA H200"
    assert {"python", "torch", "numpy", "ray"} <= environment.keys()
    assert all(environment.values())
