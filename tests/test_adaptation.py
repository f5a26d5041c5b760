"""Inner steps worked out by hand, and against plain autograd task by task."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from across.search_spaces import CellConfig, LayerwiseConfig
from across.search_spaces.base import SearchSpace
from across.workers.adaptation import FastWeights, InnerLoopConfig, adapt, inner_steps
from across.workers.base import TaskSpec
from across.workers.episode import Episode, prepare_episode
from across.workers.evaluators.few_shot import evaluate_few_shot
from across.workers.model import Model
from tests.plain_meta_learning import PlainLearner, random_batch

SPEC = TaskSpec((1, 8, 8), num_ways=3, num_shots=2, num_queries=2, objective="classification")
LAYERWISE = LayerwiseConfig(widths=(3, 4), num_layers=2).build(SPEC.input_shape)
CELL = CellConfig(channels=2, layout="NR", num_nodes=1).build(SPEC.input_shape)
PATHS: list[tuple[SearchSpace, str]] = [
    (LAYERWISE, "conv_3x3:4|dil_conv_3x3:3"),
    (LAYERWISE, "sep_conv_5x5:4|max_pool_3x3"),
    (LAYERWISE, "skip|skip"),
    (CELL, "normal:(sep_conv_3x3~0,skip~1)|reduction:(dil_conv_5x5~0,avg_pool_3x3~1)"),
]
TEXTS = [text for _, text in PATHS]


def make_model(space: SearchSpace, inner_loop: InnerLoopConfig) -> tuple[Model, Tensor]:
    """A model and a vector in float64; a little noise makes shifts non-zero and learned rates differ."""
    model = Model(space, (SPEC,), inner_loop)
    noise = torch.randn(model.index.size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return model, torch.tensor(model.initial_vector(0)).double() + 0.02 * noise


def make_episode(
    space: SearchSpace,
    text: str,
    inner_loop: InnerLoopConfig,
    memory_format: torch.memory_format = torch.channels_last,
) -> tuple[Episode, PlainLearner, Tensor]:
    """Three tasks on one path, in the engine and in the plain implementation, and the vector."""
    model, vector = make_model(space, inner_loop)
    path = model.path(space.from_string(text), 0)
    episode = prepare_episode(model, path, vector, random_batch(SPEC, num_tasks=3), memory_format)
    return episode, PlainLearner(model, path), vector


def quadratic_losses(fast: dict[str, Tensor], targets: Tensor) -> Tensor:
    """½ Σ (w − c_t)² a task: its gradient is w − c_t."""
    return 0.5 * (fast["w"] - targets).square().sum(dim=1)


def test_steps_on_a_quadratic_loss_worked_out_by_hand() -> None:
    layout = FastWeights({"w": (2,)}, num_tasks=2)
    start = layout.replicate({"w": torch.tensor([1.0, 2.0])})
    losses = partial(quadratic_losses, targets=torch.tensor([[0.0, 0.0], [5.0, -2.0]]))
    # w − ½ (w − c) is the mean of w and c, and with a rate of 1 the second step reaches c.
    first, second = inner_steps(losses, start, layout, [0.5, 1.0], second_order=True)
    assert layout.views(first)["w"].tolist() == [[0.5, 1.0], [3.0, 0.0]]
    assert layout.views(second)["w"].tolist() == [[0.0, 0.0], [5.0, -2.0]]
    assert adapt(losses, start, layout, [0.5]).tolist() == first.tolist()


@pytest.mark.parametrize(("second_order", "derivative"), [(True, 0.25), (False, 1.0)])
def test_only_second_order_steps_are_differentiated(second_order: bool, derivative: float) -> None:
    """After two steps at rate ½, w_2 = w/4 + 3c/4; taking the gradients as constants, dw_2/dw = 1."""
    layout = FastWeights({"w": (1,)}, num_tasks=1)
    start = layout.replicate({"w": torch.tensor([1.0])})
    losses = partial(quadratic_losses, targets=torch.tensor([[4.0]]))
    *_, end = inner_steps(losses, start, layout, [0.5, 0.5], second_order=second_order)
    assert torch.autograd.grad(end.sum(), start)[0].item() == derivative


def test_the_vector_of_fast_weights_is_parameter_major() -> None:
    layout = FastWeights({"a": (2, 1), "b": (3,)}, num_tasks=2)
    vector = layout.replicate({"a": torch.tensor([[1.0], [2.0]]), "b": torch.tensor([3.0, 4.0, 5.0])})
    assert vector.tolist() == [1, 2, 1, 2, 3, 4, 5, 3, 4, 5]
    assert {name: view.shape for name, view in layout.views(vector).items()} == {"a": (2, 2, 1), "b": (2, 3)}
    assert layout.by_task(vector).tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]
    rates = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    torch.testing.assert_close(
        layout.spread(rates), torch.tensor([0.1, 0.1, 0.3, 0.3, 0.2, 0.2, 0.2, 0.4, 0.4, 0.4])
    )


@pytest.mark.parametrize(("space", "text"), PATHS, ids=TEXTS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_adaptation_equals_plain_autograd_a_task(
    space: SearchSpace, text: str, memory_format: torch.memory_format
) -> None:
    episode, plain, vector = make_episode(space, text, InnerLoopConfig(num_steps=4), memory_format)
    layout = episode.layout()
    support, _ = episode.inputs(episode.parameters)
    fast = adapt(
        partial(episode.support_losses, support),
        layout.replicate(episode.parameters),
        layout,
        episode.rates(None, layout),
    )
    for task in range(3):
        expected = plain.adapted(vector, episode.batch, task)
        for name, view in layout.views(fast).items():
            torch.testing.assert_close(view[task], expected[name].detach())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
@pytest.mark.parametrize("algorithm", ["maml", "anil"])
@pytest.mark.parametrize(("space", "text"), PATHS, ids=TEXTS)
def test_query_losses_after_adaptation_equal_plain_ones(
    space: SearchSpace, text: str, algorithm: str, batch_norm: str, memory_format: torch.memory_format
) -> None:
    inner_loop = InnerLoopConfig.model_validate(
        {"algorithm": algorithm, "batch_norm": batch_norm, "learn_inner_lrs": True, "num_steps": 3}
    )
    episode, plain, vector = make_episode(space, text, inner_loop, memory_format)
    expected = [
        plain.query_loss(plain.adapted(vector, episode.batch, task), episode.batch, task).item()
        for task in range(3)
    ]
    torch.testing.assert_close(evaluate_few_shot(episode)["loss"].tolist(), expected)
