"""Units on the actor's body: pure functions of unit and weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from across.search_spaces import LayerwiseConfig
from across.search_spaces.network import Network
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import (
    EvaluationResult,
    EvaluationUnit,
    MetaResult,
    MetaUnit,
    Split,
    TaskBatch,
    TaskSource,
    TaskSpec,
    Unit,
    UnitResult,
)
from across.workers.model import Model
from across.workers.supernet_worker import MAX_CACHED_BYTES, ComputeSettings, SupernetWorker
from across.workers.tasks.glyphs import GlyphsConfig
from tests.plain_meta_learning import PlainLearner

REPOSITORY = Path(__file__).resolve().parents[1]
PATH = "conv_3x3:4|sep_conv_3x3:8"
OTHER_PATH = "dil_conv_3x3:8|avg_pool_3x3"
INNER_LOOP = InnerLoopConfig(num_steps=2)


@dataclass
class CountingSource:
    """A task source that remembers what was asked of it."""

    source: TaskSource
    asked: list[tuple[Split, tuple[int, ...]]]

    @property
    def spec(self) -> TaskSpec:
        return self.source.spec

    def sample(self, split: Split, seeds: Sequence[int]) -> TaskBatch:
        self.asked.append((split, tuple(seeds)))
        return self.source.sample(split, seeds)


def make_model(inner_loop: InnerLoopConfig) -> tuple[Model, TaskSource]:
    source = GlyphsConfig(num_ways=3, num_shots=2, num_queries=3, image_size=12).build()
    space = LayerwiseConfig(widths=(4, 8), num_layers=2).build(source.spec.input_shape)
    return Model(space, (source.spec,), inner_loop), source


def make_worker(inner_loop: InnerLoopConfig = INNER_LOOP) -> tuple[SupernetWorker, Model, CountingSource]:
    model, source = make_model(inner_loop)
    counting = CountingSource(source, [])
    return SupernetWorker(model, [counting], ComputeSettings("cpu")), model, counting


def evaluation_unit(
    model: Model, text: str = PATH, *, version: int = 0, first_seed: int = 0
) -> EvaluationUnit:
    seeds = (first_seed, first_seed + 1, first_seed + 2)
    return EvaluationUnit("e", model.space.from_string(text), 0, "validation", seeds, version)


def meta_unit(model: Model, text: str = PATH, *, version: int = 0, second_order: bool = True) -> MetaUnit:
    return MetaUnit("m", model.space.from_string(text), 0, (5, 6, 7), version, second_order=second_order)


def digest(result: UnitResult) -> str:
    """All of a result's bits but its duration."""
    if isinstance(result, MetaResult):
        bits = b"" if result.gradient is None else result.gradient.tobytes()
        return sha256(repr(replace(result, seconds=0.0, gradient=None)).encode() + bits).hexdigest()
    return sha256(repr(replace(result, seconds=0.0)).encode()).hexdigest()


def units_and_weights(model: Model) -> tuple[list[Unit], NDArray[np.float32]]:
    units: list[Unit] = [evaluation_unit(model), meta_unit(model), meta_unit(model, second_order=False)]
    return units, model.initial_vector(0)


def digests() -> list[str]:
    worker, model, _ = make_worker()
    units, weights = units_and_weights(model)
    return [digest(worker.run(unit, weights)) for unit in units]


def test_a_unit_computed_again_after_others_gives_the_same_bits() -> None:
    worker, model, _ = make_worker()
    units, weights = units_and_weights(model)
    first = [digest(worker.run(unit, weights)) for unit in units]
    others: list[Unit] = [
        evaluation_unit(model, OTHER_PATH, first_seed=9),
        meta_unit(model, OTHER_PATH, version=1),
    ]
    for other in others:
        worker.run(other, model.initial_vector(1))
    assert [digest(worker.run(unit, weights)) for unit in reversed(units)] == first[::-1]
    assert len(set(first)) == len(first)


def test_a_fresh_process_gives_the_same_bits() -> None:
    command = "from tests.test_supernet_worker import digests; print(*digests())"
    printed = subprocess.run(
        [sys.executable, "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == digests()


def test_scores_and_losses_are_those_of_plain_autograd() -> None:
    worker, model, source = make_worker()
    unit, weights = evaluation_unit(model), model.initial_vector(0)
    result = worker.run(unit, weights)
    assert isinstance(result, EvaluationResult)
    batch = source.source.sample("validation", unit.seeds)
    plain = PlainLearner(model, model.path(unit.genotype, 0))
    vector = torch.tensor(weights)
    losses = [plain.query_loss(plain.adapted(vector, batch, task), batch, task).item() for task in range(3)]
    architecture, num_ways = model.space.architecture(unit.genotype), batch.spec.num_ways
    num_body = sum(parameter.numel() for parameter in Network(architecture).parameters())
    assert result.metrics == {
        "loss": pytest.approx(sum(losses) / 3, rel=1e-4),
        "params": num_body + (architecture.feature_dim + 1) * num_ways,
        "flops": architecture.flops + architecture.feature_dim * num_ways,
    }
    assert len(result.scores) == 3
    assert all(score * 9 == pytest.approx(round(score * 9)) for score in result.scores)


def test_a_meta_unit_gives_the_sum_over_its_tasks_in_active_order() -> None:
    worker, model, source = make_worker()
    unit, weights = meta_unit(model), model.initial_vector(0)
    result = worker.run(unit, weights)
    assert isinstance(result, MetaResult)
    assert result.gradient is not None
    plain = PlainLearner(model, model.path(unit.genotype, 0))
    batch = source.source.sample("train", unit.seeds)
    expected = plain.meta_gradient(torch.tensor(weights), batch, second_order=True)
    torch.testing.assert_close(torch.tensor(result.gradient), expected, rtol=1e-3, atol=1e-4)
    assert result.num_tasks == 3
    assert result.failure is None


def test_reptile_units_use_the_learned_displacement() -> None:
    worker, model, source = make_worker(InnerLoopConfig(num_steps=2, algorithm="reptile"))
    unit, weights = meta_unit(model), model.initial_vector(0)
    result = worker.run(unit, weights)
    assert isinstance(result, MetaResult)
    plain = PlainLearner(model, model.path(unit.genotype, 0))
    expected = plain.reptile_gradient(torch.tensor(weights), source.source.sample("train", unit.seeds))
    torch.testing.assert_close(torch.tensor(result.gradient), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["maml", "reptile"])
def test_a_diverged_shard_has_no_gradient_and_says_so(algorithm: str) -> None:
    inner_loop = InnerLoopConfig.model_validate({"num_steps": 4, "inner_lr": 1e30, "algorithm": algorithm})
    worker, model, _ = make_worker(inner_loop)
    result = worker.run(meta_unit(model), model.initial_vector(0))
    assert isinstance(result, MetaResult)
    assert result.gradient is None
    assert result.failure is not None
    assert "diverged" in result.failure


def test_a_chunk_of_evaluation_tasks_is_sampled_once_for_all_individuals() -> None:
    worker, model, source = make_worker()
    weights = model.initial_vector(0)
    for text in (PATH, OTHER_PATH, PATH):
        worker.run(evaluation_unit(model, text), weights)
    assert source.asked == [("validation", (0, 1, 2))]


def test_the_cache_of_chunks_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, model, source = make_worker()
    num_bytes = 3 * (3 * 2 + 3 * 3) * 12 * 12 * 4  # of three tasks' support and query images
    monkeypatch.setitem(MAX_CACHED_BYTES, "cpu", 4 * num_bytes)
    weights = model.initial_vector(0)
    text = "avg_pool_3x3|avg_pool_3x3"
    for number in range(5):
        worker.run(evaluation_unit(model, text, first_seed=10 * number), weights)
    worker.run(evaluation_unit(model, text, first_seed=10), weights)
    assert len(source.asked) == 5
    worker.run(evaluation_unit(model, text, first_seed=0), weights)
    assert len(source.asked) == 6


def test_chunks_of_an_old_version_are_forgotten() -> None:
    worker, model, source = make_worker()
    weights = model.initial_vector(0)
    for version in (0, 1, 0):
        worker.run(evaluation_unit(model, version=version), weights)
    assert len(source.asked) == 3


def test_a_new_version_of_the_weights_is_used_and_the_old_one_can_return() -> None:
    worker, model, _ = make_worker()
    old, new = model.initial_vector(0), model.initial_vector(1)
    first = worker.run(meta_unit(model, version=0), old)
    second = worker.run(meta_unit(model, version=1), new)
    assert isinstance(first, MetaResult)
    assert isinstance(second, MetaResult)
    assert first.loss != second.loss
    assert digest(worker.run(meta_unit(model, version=0), old)) == digest(first)


@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
@pytest.mark.parametrize("algorithm", ["maml", "first_order_maml", "anil", "reptile"])
def test_the_nodes_one_copy_of_the_weights_is_never_written(algorithm: str, batch_norm: str) -> None:
    """On a CPU the workers compute with mapped memory: a write would be seen by others, or end the process."""
    inner_loop = InnerLoopConfig.model_validate(
        {
            "num_steps": 2,
            "algorithm": algorithm,
            "batch_norm": batch_norm,
            "learn_inner_lrs": algorithm != "reptile",
        }
    )
    worker, model, _ = make_worker(inner_loop)
    weights = model.initial_vector(0)
    weights.flags.writeable = False
    before = weights.copy()
    units: list[Unit] = [
        meta_unit(model),
        meta_unit(model, second_order=False),
        evaluation_unit(model, OTHER_PATH),
    ]
    for unit in units:
        worker.run(unit, weights)
    assert (weights == before).all()
