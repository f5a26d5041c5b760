"""Features of T tasks in one go against T plain modules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from across.search_spaces import (
    CellConfig,
    LayerwiseConfig,
    NasBench201Config,
    SpaceConfig,
    TransNasMacroConfig,
    TransNasMicroConfig,
)
from across.search_spaces.architecture import Architecture, BatchNorm, Edge, Node
from across.search_spaces.base import SearchSpace
from across.search_spaces.network import Network
from across.search_spaces.supernet import features, fold_tasks

NUM_TASKS, NUM_IMAGES = 3, 4
CONFIGS: dict[str, SpaceConfig] = {
    "layerwise": LayerwiseConfig(widths=(2, 4), num_layers=3, reductions=(0, 2)),
    "layerwise, mean": LayerwiseConfig(widths=(3,), num_layers=2, readout="mean"),
    "cell": CellConfig(channels=4, layout="NR", num_nodes=2),
    "cell of odd images": CellConfig(channels=2, layout="RN", num_nodes=1),
    "nas_bench_201": NasBench201Config(channels=2, cells_per_stage=1),
    "nas_bench_201 of odd images": NasBench201Config(channels=2, cells_per_stage=1),
    "transnas_micro": TransNasMicroConfig(channels=2),
    "transnas_macro": TransNasMacroConfig(channels=2),
}
IMAGE_SIZES = {"odd": 9, "transnas": 16}
SPACES: dict[str, SearchSpace] = {
    name: config.build((2, size, size))
    for name, config in CONFIGS.items()
    for size in [next((size for word, size in IMAGE_SIZES.items() if word in name), 8)]
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


def sampled_paths(space: SearchSpace, num: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space.architecture(space.sample(rng)) for _ in range(num)]


def random_weights(architecture: Architecture, *, num_tasks: int = NUM_TASKS) -> dict[str, Tensor]:
    """Weights of each task, (T, *shape), scales of both signs included."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(num_tasks, *shape, generator=generator, dtype=torch.float64)
        for name, shape in architecture.parameters.items()
    }


def random_images(architecture: Architecture) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    shape = (NUM_TASKS, NUM_IMAGES, *architecture.input_shape)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def features_of(
    architecture: Architecture,
    weights: dict[str, Tensor],
    images: Tensor,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    num_reference: int | None = None,
) -> Tensor:
    folded = fold_tasks(images, memory_format)
    return features(architecture, weights, folded, num_tasks=images.shape[0], num_reference=num_reference)


def features_one_by_one(architecture: Architecture, weights: dict[str, Tensor], images: Tensor) -> Tensor:
    network = Network(architecture).double()
    results = []
    for task in range(images.shape[0]):
        network.load_parameters({name: weight[task] for name, weight in weights.items()})
        results.append(network(images[task]))
    return torch.stack(results)


def test_every_registered_space_is_tested() -> None:
    assert {type(config) for config in CONFIGS.values()} == set(get_args(get_args(SpaceConfig)[0]))


@every_space
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("with_gradients", [True, False])
def test_features_of_many_tasks_equal_those_of_a_plain_module_a_task(
    space: SearchSpace, memory_format: torch.memory_format, with_gradients: bool
) -> None:
    for architecture in sampled_paths(space, 12):
        weights, images = random_weights(architecture), random_images(architecture)
        with torch.set_grad_enabled(with_gradients):
            ours = features_of(architecture, weights, images, memory_format=memory_format)
        torch.testing.assert_close(ours, features_one_by_one(architecture, weights, images).detach())
        assert ours.shape == (NUM_TASKS, NUM_IMAGES, architecture.feature_dim)


@every_space
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_weights_without_a_task_axis_are_shared(
    space: SearchSpace, memory_format: torch.memory_format
) -> None:
    for architecture in sampled_paths(space, 6):
        weights, images = random_weights(architecture, num_tasks=1), random_images(architecture)
        shared = {name: weight[0] for name, weight in weights.items()}
        repeated = {name: weight.expand(NUM_TASKS, *weight.shape[1:]) for name, weight in weights.items()}
        torch.testing.assert_close(
            features_of(architecture, shared, images, memory_format=memory_format),
            features_one_by_one(architecture, repeated, images).detach(),
        )


@every_space
def test_gradients_stay_with_their_task(space: SearchSpace) -> None:
    architecture = next(path for path in sampled_paths(space, 9) if path.parameters)
    weights, images = random_weights(architecture), random_images(architecture)
    leaves = {name: weight.requires_grad_() for name, weight in weights.items()}
    value = features_of(architecture, leaves, images)[1].square().sum()
    for gradient in torch.autograd.grad(value, list(leaves.values())):
        assert gradient[[0, 2]].abs().sum() == 0.0


@every_space
def test_gradients_are_those_of_the_plain_module_in_every_layout(space: SearchSpace) -> None:
    """Values to first and second order on sampled paths: the fused operations against the composed ones."""
    for architecture in sampled_paths(space, 4):
        weights, images = random_weights(architecture), random_images(architecture)
        expected = _derivatives(architecture, weights, images, features_one_by_one_differentiably)
        for memory_format in MEMORY_FORMATS:
            ours = _derivatives(
                architecture, weights, images, partial(features_of, memory_format=memory_format)
            )
            for mine, other in zip(ours, expected, strict=True):
                # Deep networks of random scales have derivatives of 1e12, and some of their terms cancel.
                rounding = 1e-12 * other.detach().abs().max().item()
                torch.testing.assert_close(mine, other, rtol=1e-7, atol=max(1e-7, rounding))


def features_one_by_one_differentiably(
    architecture: Architecture, weights: dict[str, Tensor], images: Tensor
) -> Tensor:
    network = Network(architecture).double()
    names = [name for name, _ in network.named_parameters()]
    return torch.stack(
        [
            torch.func.functional_call(
                network,
                dict(zip(names, (weight[task] for weight in weights.values()), strict=True)),
                (images[task],),
            )
            for task in range(images.shape[0])
        ]
    )


def _derivatives(
    architecture: Architecture,
    weights: dict[str, Tensor],
    images: Tensor,
    function: Callable[[Architecture, dict[str, Tensor], Tensor], Tensor],
) -> list[Tensor]:
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    pixels = images.clone().requires_grad_()
    arguments = [*leaves.values(), pixels]
    output = function(architecture, leaves, pixels)
    first = torch.autograd.grad(output.sin().sum(), arguments, create_graph=True)
    second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), arguments)
    return [*first, *second]


def test_narrow_and_wide_paths_use_leading_slices_of_the_same_weights() -> None:
    space = LayerwiseConfig(operations=("conv_3x3",), widths=(2, 4), num_layers=2).build((1, 8, 8))
    everything = random_weights(space.super_architecture())
    narrow = space.architecture(space.from_string("conv_3x3:2|conv_3x3:4"))
    weights = {
        name: everything[name][:, *(slice(size) for size in shape)]
        for name, shape in narrow.parameters.items()
    }
    images = random_images(narrow)
    ours = features_of(narrow, weights, images)
    torch.testing.assert_close(ours, features_one_by_one(narrow, everything, images).detach())


@every_space
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("with_gradients", [True, False])
def test_reference_images_are_normalised_as_if_they_were_alone(
    space: SearchSpace, memory_format: torch.memory_format, with_gradients: bool
) -> None:
    for architecture in sampled_paths(space, 4):
        weights, images = random_weights(architecture), random_images(architecture)
        with torch.set_grad_enabled(with_gradients):
            both = features_of(architecture, weights, images, memory_format=memory_format, num_reference=2)
            alone = features_of(architecture, weights, images[:, :2], memory_format=memory_format)
        torch.testing.assert_close(both[:, :2], alone)


@every_space
@pytest.mark.parametrize("with_gradients", [True, False])
def test_other_images_do_not_see_each_other_through_reference_statistics(
    space: SearchSpace, with_gradients: bool
) -> None:
    for architecture in sampled_paths(space, 4):
        weights, images = random_weights(architecture), random_images(architecture)
        with torch.set_grad_enabled(with_gradients):
            both = features_of(architecture, weights, images, num_reference=2)
            last = features_of(architecture, weights, images[:, [0, 1, 3]], num_reference=2)
        torch.testing.assert_close(both[:, 3], last[:, 2])


@pytest.mark.parametrize("with_gradients", [True, False])
def test_reference_statistics_of_a_batch_norm_worked_out_by_hand(with_gradients: bool) -> None:
    edge = Edge(0, 1, "edge", "any", (BatchNorm(1),))
    architecture = Architecture((1, 1, 1), (Node("image"), Node("output")), (edge,), "flatten")
    weights = {"edge.0.scale": torch.tensor([[2.0]]), "edge.0.shift": torch.tensor([[0.5]])}
    images = torch.tensor([1.0, 3.0, 8.0]).view(1, 3, 1, 1, 1)
    with torch.set_grad_enabled(with_gradients):
        outputs = features_of(architecture, weights, images, num_reference=2)
    # The first two have mean 2 and variance 1.
    torch.testing.assert_close(outputs.flatten(), torch.tensor([-1.5, 2.5, 12.5]), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("num_tasks", [1, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_layout_of_folded_images_is_that_of_the_feature_maps(num_tasks: int, channels: int) -> None:
    """One channel is contiguous in both layouts: its strides must say which one is meant."""
    images = torch.randn(num_tasks, 2, channels, 4, 4)
    folded = fold_tasks(images, torch.channels_last)
    torch.testing.assert_close(folded, fold_tasks(images, torch.contiguous_format))
    weight = torch.randn(num_tasks * 8, channels, 3, 3)
    output = torch.conv2d(folded, weight, padding=1, groups=num_tasks)
    assert output.is_contiguous(memory_format=torch.channels_last)
