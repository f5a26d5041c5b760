"""Meta-gradients against plain autograd task by task, and against finite differences."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch
from torch import Tensor

from across.search_spaces.base import SearchSpace
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import TaskBatch
from across.workers.episode import Episode, prepare_episode
from across.workers.meta_learning import ShardGradient, meta_gradient, reptile_gradient
from tests.plain_meta_learning import PlainLearner
from tests.test_adaptation import CELL, LAYERWISE, PATHS, TEXTS, make_episode

PATH = "conv_3x3:4|sep_conv_3x3:3"


def configure(**settings: object) -> InnerLoopConfig:
    return InnerLoopConfig.model_validate({"num_steps": 3, **settings})


def cut(episode: Episode, tasks: slice) -> Episode:
    """The episode with some of its tasks."""
    batch = episode.batch
    return replace(
        episode,
        batch=TaskBatch(
            batch.spec,
            batch.support_inputs[tasks],
            batch.support_targets[tasks],
            batch.query_inputs[tasks],
            batch.query_targets[tasks],
        ),
    )


def check_loss(shard: ShardGradient, plain: PlainLearner, vector: Tensor, episode: Episode) -> None:
    losses = [
        plain.query_loss(plain.adapted(vector, episode.batch, task), episode.batch, task).item()
        for task in range(episode.num_tasks)
    ]
    assert shard.loss == pytest.approx(sum(losses) / len(losses))


@pytest.mark.parametrize("second_order", [True, False], ids=["second order", "first order"])
@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
@pytest.mark.parametrize("algorithm", ["maml", "anil"])
@pytest.mark.parametrize(("space", "text"), PATHS, ids=TEXTS)
def test_meta_gradients_equal_plain_ones(
    space: SearchSpace, text: str, algorithm: str, batch_norm: str, second_order: bool
) -> None:
    inner_loop = configure(algorithm=algorithm, batch_norm=batch_norm)
    episode, plain, vector = make_episode(space, text, inner_loop)
    shard = meta_gradient(episode, second_order=second_order)
    expected = plain.meta_gradient(vector, episode.batch, second_order=second_order)
    torch.testing.assert_close(shard.gradient, expected)
    check_loss(shard, plain, vector, episode)


@pytest.mark.parametrize("second_order", [True, False], ids=["second order", "first order"])
@pytest.mark.parametrize("algorithm", ["maml", "anil"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_learned_rates_and_the_multi_step_loss_equal_plain_ones(
    algorithm: str, second_order: bool, memory_format: torch.memory_format
) -> None:
    inner_loop = configure(algorithm=algorithm, learn_inner_lrs=True)
    episode, plain, vector = make_episode(LAYERWISE, PATH, inner_loop, memory_format)
    step_weights = (0.2, 0.3, 0.5)
    shard = meta_gradient(episode, second_order=second_order, multi_step_weights=step_weights)
    expected = plain.meta_gradient(
        vector, episode.batch, second_order=second_order, step_weights=step_weights
    )
    torch.testing.assert_close(shard.gradient, expected)
    check_loss(shard, plain, vector, episode)


def test_second_order_differs_from_first_order() -> None:
    episode, _, _ = make_episode(LAYERWISE, PATH, configure())
    second, first = (meta_gradient(episode, second_order=flag).gradient for flag in (True, False))
    assert (second - first).norm() > 0.01 * first.norm()


def test_the_meta_gradient_is_that_of_finite_differences() -> None:
    """Along random directions of the weights and of the learned rates together."""
    inner_loop = configure(learn_inner_lrs=True)
    episode, plain, vector = make_episode(LAYERWISE, PATH, inner_loop)
    gradient = meta_gradient(episode, second_order=True).gradient
    positions = torch.tensor(plain.model.index.positions(plain.model.active(plain.path)))

    def loss_at(moved: Tensor) -> float:
        there = prepare_episode(plain.model, plain.path, moved, episode.batch, episode.memory_format)
        return meta_gradient(there, second_order=True).loss * episode.num_tasks

    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        direction = torch.randn(len(positions), generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        step = torch.zeros_like(vector).index_copy(0, positions, 1e-5 * direction)
        difference = (loss_at(vector + step) - loss_at(vector - step)) / 2e-5
        assert difference == pytest.approx(float(gradient @ direction), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(("space", "text"), PATHS, ids=TEXTS)
def test_reptile_s_gradient_is_the_way_that_the_tasks_went(space: SearchSpace, text: str) -> None:
    episode, plain, vector = make_episode(space, text, configure(algorithm="reptile"))
    shard = reptile_gradient(episode)
    torch.testing.assert_close(shard.gradient, plain.reptile_gradient(vector, episode.batch))
    check_loss(shard, plain, vector, episode)


@pytest.mark.parametrize("algorithm", ["maml", "anil", "reptile"])
def test_other_chunks_of_tasks_agree(algorithm: str) -> None:
    episode, _, _ = make_episode(LAYERWISE, PATH, configure(algorithm=algorithm))

    def gradient(tasks: slice) -> Tensor:
        part = cut(episode, tasks)
        if algorithm == "reptile":
            return reptile_gradient(part).gradient
        return meta_gradient(part, second_order=True).gradient

    whole = gradient(slice(None))
    torch.testing.assert_close(gradient(slice(0, 2)) + gradient(slice(2, 3)), whole)
    torch.testing.assert_close(sum(gradient(slice(task, task + 1)) for task in range(3)), whole)


def test_float32_agrees_with_float64() -> None:
    episode, plain, vector = make_episode(LAYERWISE, PATH, configure())
    batch = replace(
        episode.batch,
        support_inputs=episode.batch.support_inputs.float(),
        query_inputs=episode.batch.query_inputs.float(),
    )
    narrow = prepare_episode(plain.model, plain.path, vector.float(), batch, episode.memory_format)
    wide = meta_gradient(episode, second_order=True)
    torch.testing.assert_close(
        meta_gradient(narrow, second_order=True).gradient.double(), wide.gradient, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("algorithm", ["maml", "anil"])
def test_what_lies_before_a_node_of_zeros_has_no_gradient(algorithm: str) -> None:
    text = "normal:(sep_conv_3x3~0,skip~1)|reduction:(none~0,none~1)"
    episode, _, _ = make_episode(CELL, text, configure(algorithm=algorithm))
    shard = meta_gradient(episode, second_order=True)
    gradients = dict(
        zip(
            episode.path.weights,
            torch.split(shard.gradient, [prod(shape) for shape in episode.path.weights.values()]),
            strict=True,
        )
    )
    assert any(name.startswith("cell0") for name in gradients)
    assert all(not gradient.any() for name, gradient in gradients.items() if not name.startswith("head"))
    assert gradients["head0.bias"].any()
