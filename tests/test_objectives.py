"""What every objective keeps, and classification in numbers."""

from __future__ import annotations

import math

import pytest
import torch

from across.workers.base import TaskSpec
from across.workers.objectives import OBJECTIVES

SPEC = TaskSpec((1, 4, 4), num_ways=3, num_shots=1, num_queries=2, objective="classification")
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


@every_objective
def test_shapes_are_those_of_the_protocol(name: str) -> None:
    objective, num_tasks, num_images = OBJECTIVES[name], 2, 6
    features = torch.randn(num_tasks, num_images, 7)
    parameters = {
        own: torch.randn(num_tasks, *shape) for own, shape in objective.parameter_shapes(SPEC, 7).items()
    }
    outputs = objective.outputs(parameters, features)
    targets = torch.arange(num_images).remainder(3).repeat(num_tasks, 1)
    assert outputs.shape == (num_tasks, num_images, objective.num_outputs(SPEC))
    assert objective.loss(outputs, targets).shape == (num_tasks,)
    metrics = objective.metrics(outputs, targets)
    assert objective.score in metrics
    assert all(values.shape == (num_tasks,) for values in metrics.values())


@every_objective
def test_shared_parameters_are_those_of_every_task(name: str) -> None:
    objective = OBJECTIVES[name]
    features = torch.randn(2, 6, 7)
    shared = {own: torch.randn(shape) for own, shape in objective.parameter_shapes(SPEC, 7).items()}
    repeated = {own: value.expand(2, *value.shape) for own, value in shared.items()}
    torch.testing.assert_close(objective.outputs(shared, features), objective.outputs(repeated, features))


@every_objective
def test_a_smaller_head_is_a_leading_slice_of_a_larger_one(name: str) -> None:
    small, large = (OBJECTIVES[name].parameter_shapes(SPEC, width) for width in (3, 7))
    assert list(small) == list(large)
    for own, shape in small.items():
        assert all(size <= full for size, full in zip(shape, large[own], strict=True))


def test_cross_entropy_and_accuracy_worked_out_by_hand() -> None:
    objective = OBJECTIVES["classification"]
    outputs = torch.tensor([[[0.0, 0.0, 0.0], [math.log(2.0), 0.0, 0.0]], [[9.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    targets = torch.tensor([[0, 1], [0, 0]])
    expected = [(math.log(3.0) + math.log(4.0)) / 2, math.log(1.0 + 2.0 * math.exp(-9.0))]
    torch.testing.assert_close(objective.loss(outputs, targets).tolist(), expected)
    metrics = objective.metrics(outputs, targets)
    assert metrics["accuracy"].tolist() == [0.5, 1.0]
    torch.testing.assert_close(metrics["loss"].tolist(), expected)


def test_the_loss_of_a_task_does_not_depend_on_other_tasks() -> None:
    objective = OBJECTIVES["classification"]
    outputs = torch.randn(2, 4, 3, requires_grad=True)
    targets = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    (gradient,) = torch.autograd.grad(objective.loss(outputs, targets)[0], outputs)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_a_diverged_network_recognises_nothing() -> None:
    """The greatest of NaNs is class 0, which would be right by chance."""
    outputs = torch.full((1, 3, 3), math.nan)
    outputs[0, 2] = torch.tensor([0.0, 0.0, 1.0])
    metrics = OBJECTIVES["classification"].metrics(outputs, torch.tensor([[0, 1, 2]]))
    assert metrics["accuracy"].tolist() == [pytest.approx(1 / 3)]
