"""Counts and shapes of architectures, against plain PyTorch modules and published figures."""

from math import prod

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from across.search_spaces import CellConfig, LayerwiseConfig
from across.search_spaces.architecture import (
    Architecture,
    Conv,
    Edge,
    FactorizedReduction,
    Layer,
    Node,
    Pool,
    Zero,
    output_shape,
    parameter_shapes,
)
from across.search_spaces.base import SearchSpace
from across.search_spaces.network import Network

SPACES: dict[str, SearchSpace] = {
    "layerwise": LayerwiseConfig().build((3, 21, 19)),
    "layerwise mean": LayerwiseConfig(num_layers=5, reductions=(1, 3), readout="mean").build((1, 12, 12)),
    "cell": CellConfig().build((1, 13, 18)),
    "cell flatten": CellConfig(layout="RRN", channels=5, num_nodes=4, readout="flatten").build((3, 9, 9)),
}


def four_conv(filters: int, input_shape: tuple[int, int, int]) -> Network:
    space = LayerwiseConfig(widths=(filters,)).build(input_shape)
    return Network(space.architecture(space.from_string("|".join([f"conv_3x3:{filters}"] * 4))))


def counted_multiply_adds(network: Network, input_shape: tuple[int, int, int]) -> int:
    """Counted while an image passes, from the modules that it meets."""
    counts = []

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        counts.append(output[0].numel() * module.weight[0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.rand(2, *input_shape))
    return sum(counts)


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
def test_counts_and_shapes_equal_those_of_the_plain_module(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        architecture = space.architecture(space.sample(rng))
        network = Network(architecture)
        assert architecture.num_params == sum(parameter.numel() for parameter in network.parameters())
        assert architecture.flops == counted_multiply_adds(network, space.input_shape)
        assert network(torch.rand(2, *space.input_shape)).shape == (2, architecture.feature_dim)
        named = {
            name: tuple(parameter.shape) for name, parameter in network.architecture_parameters().items()
        }
        assert list(named.items()) == list(architecture.parameters.items())


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
def test_edges_are_ordered_by_target_and_join_equal_shapes(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(15):
        architecture = space.architecture(space.sample(rng))
        targets = [edge.target for edge in architecture.edges]
        assert targets == sorted(targets)
        assert all(edge.source < edge.target for edge in architecture.edges)
        assert len({edge.name for edge in architecture.edges}) == len(architecture.edges)
        sources = {edge.source for edge in architecture.edges}
        assert sources == set(range(len(architecture.nodes) - 1)), "a node does not reach the output"


def test_four_conv_has_the_published_size() -> None:
    """MAML's mini-ImageNet network is published with 32,901 weights: 128 more, the biases of its convolutions."""
    body = four_conv(32, (3, 84, 84)).architecture
    assert body.feature_dim == 800
    assert body.num_params + 5 * (800 + 1) == 32_901 - 4 * 32
    # 84 -> 42 -> 21 -> 10: each convolution runs before its pooling.
    assert body.flops == 9 * 32 * (3 * 84**2 + 32 * (42**2 + 21**2 + 10**2))


def test_four_conv_on_omniglot_ends_in_64_features() -> None:
    network = four_conv(64, (1, 28, 28))
    assert network.architecture.feature_dim == 64
    assert network.architecture.node_shapes == ((1, 28, 28), (64, 14, 14), (64, 7, 7), (64, 3, 3), (64, 1, 1))


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize(
    "layer",
    [
        Conv(4, 6, kernel_size=5, stride=2),
        Conv(4, 4, kernel_size=3, dilation=2, depthwise=True),
        FactorizedReduction(4, 7),
        Pool("max", 3, stride=2, padding=1),
        Pool("average", 3, stride=1, padding=1),
        Zero(2),
    ],
)
def test_layer_shapes_equal_those_of_the_module(layer: Layer, size: int) -> None:
    shape = (4, size, size + 1)
    edge = Edge(0, 1, "edge", "any", (layer,))
    network = Network(Architecture(shape, (Node("image"), Node("output")), (edge,), "flatten"))
    assert network(torch.rand(2, *shape)).shape == (2, prod(output_shape(layer, shape)))
    shapes = [tuple(parameter.shape) for parameter in network.parameters()]
    assert shapes == list(parameter_shapes(layer).values())
