"""The outer optimizer against torch's, and what is its own: laziness, order, clipping."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from across.workers.outer_optimizer import MetaState, OuterOptimizerConfig, PathGradient, Vector, outer_step

SIZE = 50
EVERYWHERE = np.arange(SIZE)


def start(size: int = SIZE) -> MetaState:
    return MetaState.start(np.random.default_rng(0).standard_normal(size, dtype=np.float32))


def gradient_of(step: int, size: int = SIZE) -> Vector:
    return np.random.default_rng((1, step)).standard_normal(size, dtype=np.float32)


def shard(gradient: Vector, positions: NDArray[np.int64] = EVERYWHERE, num_tasks: int = 1) -> PathGradient:
    return PathGradient(positions, gradient, num_tasks)


def sgd(*, max_gradient_norm: float | None = None) -> OuterOptimizerConfig:
    """Gradient descent that subtracts the very gradient."""
    return OuterOptimizerConfig(type="sgd", outer_lr=1.0, max_gradient_norm=max_gradient_norm)


def assert_states_equal(left: MetaState, right: MetaState) -> None:
    assert left.step == right.step
    theirs = right.tensors()
    assert {name: values.tobytes() for name, values in left.tensors().items()} == {
        name: values.tobytes() for name, values in theirs.items()
    }


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_equals_torch_where_every_parameter_moves(name: str, schedule: str) -> None:
    config = OuterOptimizerConfig.model_validate(
        {"type": name, "outer_lr": 0.02, "schedule": schedule, "min_outer_lr": 1e-3, "total_steps": 100}
        | {"max_gradient_norm": 5.0}  # about two thirds of a gradient's
    )
    state = start()
    parameter = torch.nn.Parameter(torch.tensor(state.weights))
    optimizer: torch.optim.Optimizer = (
        torch.optim.Adam([parameter], lr=0.02) if name == "adam" else torch.optim.SGD([parameter], lr=0.02)
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100, eta_min=1e-3)
    for step in range(100):
        state = outer_step(state, [shard(gradient_of(step))], config)
        parameter.grad = torch.tensor(gradient_of(step))
        torch.nn.utils.clip_grad_norm_([parameter], 5.0)
        optimizer.step()
        if schedule == "cosine":
            scheduler.step()
    np.testing.assert_allclose(state.weights, parameter.detach().numpy(), rtol=1e-5, atol=1e-5)
    assert np.abs(state.weights - start().weights).max() > 0.1
    assert state.step == 100
    assert (state.num_updates == 100).all()


def test_each_parameter_counts_its_own_updates() -> None:
    """torch's Adam passes over parameters without a gradient, with a step count for each: so do elements here."""
    config = OuterOptimizerConfig(outer_lr=0.02, max_gradient_norm=None)
    state = start()
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in state.weights]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    rng, num_updates = np.random.default_rng(2), np.zeros(SIZE, dtype=np.int32)
    for step in range(60):
        touched = np.flatnonzero(
            rng.random(SIZE) < EVERYWHERE / SIZE
        )  # the first never, the last nearly always
        gradient = gradient_of(step)[touched]
        before, state = state, outer_step(state, [shard(gradient, touched)], config)
        num_updates[touched] += 1
        untouched = np.setdiff1d(EVERYWHERE, touched)
        for name, values in state.tensors().items():
            assert values[untouched].tobytes() == before.tensors()[name][untouched].tobytes(), name
        optimizer.zero_grad(set_to_none=True)
        for position, value in zip(touched, gradient, strict=True):
            parameters[position].grad = torch.tensor(value)
        optimizer.step()
    weights = np.array([each.item() for each in parameters])
    np.testing.assert_allclose(state.weights, weights, rtol=1e-5, atol=1e-5)
    assert state.num_updates.tolist() == num_updates.tolist()
    assert state.num_updates[0] == 0


def test_first_step_of_a_late_parameter_is_as_long_as_any_first_step() -> None:
    config = OuterOptimizerConfig(outer_lr=0.25, max_gradient_norm=None)
    state = MetaState.start(np.zeros(2, dtype=np.float32))
    for _ in range(20):
        state = outer_step(state, [shard(np.ones(1, np.float32), np.array([0]))], config)
    state = outer_step(state, [shard(np.full(1, -3, np.float32), np.array([1]))], config)
    assert state.weights[1] == pytest.approx(0.25)


def test_each_element_is_averaged_over_the_tasks_that_used_it() -> None:
    gradients = [
        shard(np.array([2, 4], np.float32), np.array([0, 1]), num_tasks=2),
        shard(np.array([8, 9], np.float32), np.array([1, 2]), num_tasks=1),
    ]
    state = outer_step(MetaState.start(np.zeros(4, np.float32)), gradients, sgd())
    assert state.weights.tolist() == [-1, -4, -9, 0]
    assert state.num_updates.tolist() == [1, 1, 1, 0]


def test_shards_are_added_in_their_order() -> None:
    def weights_after(*values: float) -> list[float]:
        gradients = [shard(np.array([value], np.float32), np.array([0])) for value in values]
        after: list[float] = outer_step(
            MetaState.start(np.zeros(1, np.float32)), gradients, sgd()
        ).weights.tolist()
        return after

    assert weights_after(1e9, 1, -1e9) == [0]  # in float32 the 1 is lost
    assert weights_after(1e9, -1e9, 1) == [pytest.approx(-1 / 3)]


def test_long_gradients_are_scaled_down_and_short_ones_left_alone() -> None:
    state = MetaState.start(np.zeros(2, np.float32))
    gradient = [shard(np.array([30, 40], np.float32), np.array([0, 1]))]
    clipped = outer_step(state, gradient, sgd(max_gradient_norm=5)).weights
    np.testing.assert_allclose(clipped, [-3, -4], rtol=1e-6)
    assert outer_step(state, gradient, sgd(max_gradient_norm=50)).weights.tolist() == [-30, -40]
    assert outer_step(state, gradient, sgd()).weights.tolist() == [-30, -40]


def test_huge_gradients_are_scaled_down_like_any() -> None:
    """Their squares are beyond float32."""
    state = outer_step(start(), [shard(np.full(SIZE, 1e30, np.float32))], sgd(max_gradient_norm=10))
    assert np.linalg.norm(state.weights - start().weights) == pytest.approx(10)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_without_gradients_only_the_step_is_counted(name: str) -> None:
    config = OuterOptimizerConfig.model_validate({"type": name})
    state = outer_step(start(), [shard(gradient_of(0))], config)
    after = outer_step(state, [], config)
    assert after.step == 2
    assert_states_equal(after, MetaState(2, **state.tensors()))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_deterministic_and_leaves_the_former_state_alone(name: str) -> None:
    config = OuterOptimizerConfig.model_validate({"type": name})
    states = []
    for _ in range(2):
        state = start()
        frozen = {key: values.tobytes() for key, values in state.tensors().items()}
        after = outer_step(state, [shard(gradient_of(0))], config)
        after = outer_step(after, (shard(gradient_of(step)) for step in (1, 2)), config)
        assert {key: values.tobytes() for key, values in state.tensors().items()} == frozen
        states.append(after)
    assert_states_equal(*states)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_types_are_kept(name: str) -> None:
    config = OuterOptimizerConfig.model_validate({"type": name})
    state = outer_step(start(), [shard(gradient_of(0), num_tasks=3)], config)
    types = {key: values.dtype for key, values in state.tensors().items()}
    assert types.pop("num_updates") == np.int32
    assert set(types.values()) == {np.dtype(np.float32)}
    assert len(types) == 3


def test_cosine_falls_from_the_outer_to_the_least_learning_rate() -> None:
    config = OuterOptimizerConfig(outer_lr=0.1, min_outer_lr=0.01, schedule="cosine", total_steps=10)
    rates = [config.learning_rate(step) for step in range(15)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[5] == pytest.approx(0.055)
    assert rates[10:] == pytest.approx([0.01] * 5)
    assert all(later < earlier for earlier, later in pairwise(rates[:11]))


def test_constant_learning_rate_is_constant() -> None:
    config = OuterOptimizerConfig(outer_lr=1e-6)  # below the default end of a cosine
    assert {config.learning_rate(step) for step in range(5)} == {1e-6}


def test_a_cosine_cannot_rise() -> None:
    with pytest.raises(ValidationError, match=r"min_outer_lr must be at most outer_lr, 0\.001 \(got 0\.01\)"):
        OuterOptimizerConfig(outer_lr=1e-3, min_outer_lr=1e-2, schedule="cosine")
