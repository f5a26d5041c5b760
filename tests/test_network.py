"""The plain module against results worked out by hand."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from across.search_spaces import CellConfig, LayerwiseConfig
from across.search_spaces.architecture import Architecture, Edge, FactorizedReduction, Layer, Node, Pool
from across.search_spaces.network import Network, ParameterMismatchError


def network_of(layer: Layer, shape: tuple[int, int, int]) -> Network:
    edge = Edge(0, 1, "edge", "any", (layer,))
    return Network(Architecture(shape, (Node("image"), Node("output")), (edge,), "flatten"))


def cell_network(text: str, layout: str = "N") -> Network:
    space = CellConfig(channels=4, layout=layout, num_nodes=1, readout="flatten").build((1, 6, 6))
    return Network(space.architecture(space.from_string(text)))


def batch_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


def randomize(network: Network) -> dict[str, Tensor]:
    """Random weights, scales and shifts included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return {name: parameter.detach() for name, parameter in network.architecture_parameters().items()}


def test_padding_does_not_count_in_an_average() -> None:
    network = network_of(Pool("average", 3, stride=1, padding=1), (1, 4, 4))
    torch.testing.assert_close(network(torch.full((1, 1, 4, 4), 5.0)), torch.full((1, 16), 5.0))


def test_factorized_reduction_of_an_odd_size_pads_the_far_edge() -> None:
    network = network_of(FactorizedReduction(1, 2), (1, 3, 3))
    network.load_parameters(
        {"edge.0.weight": torch.ones(1, 1, 1, 1), "edge.0.shifted_weight": torch.ones(1, 1, 1, 1)}
    )
    image = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    assert network(image).tolist() == [[1, 3, 7, 9, 5, 0, 0, 0]]


def test_a_layerwise_network_equals_its_formula() -> None:
    space = LayerwiseConfig(widths=(3, 6), num_layers=3, reductions=(0, 2)).build((2, 8, 8))
    network = Network(space.architecture(space.from_string("conv_3x3:6|sep_conv_5x5:3|max_pool_3x3")))
    p = randomize(network)
    x = torch.rand(4, 2, 8, 8)
    h = batch_norm(
        functional.conv2d(x, p["layer0.conv_3x3.0.weight"], padding=1), *scale_shift(p, "layer0.conv_3x3.1")
    )
    h = functional.max_pool2d(h.relu(), 2)
    h = functional.conv2d(h, p["layer1.sep_conv_5x5.0.weight"], padding=2, groups=6)
    h = functional.conv2d(h, p["layer1.sep_conv_5x5.1.weight"])
    h = batch_norm(h, *scale_shift(p, "layer1.sep_conv_5x5.2")).relu()
    h = functional.max_pool2d(functional.max_pool2d(h, 3, stride=1, padding=1), 2)
    torch.testing.assert_close(network(x), h.flatten(1))


def scale_shift(parameters: dict[str, Tensor], place: str) -> tuple[Tensor, Tensor]:
    return parameters[f"{place}.scale"], parameters[f"{place}.shift"]


def test_a_reduction_cell_equals_its_formula() -> None:
    network = cell_network("normal:(skip~0,skip~1)|reduction:(dil_conv_3x3~0,avg_pool_3x3~1)", layout="R")
    p = randomize(network)
    x = torch.rand(3, 1, 6, 6)
    stem = batch_norm(functional.conv2d(x, p["stem.0.weight"], padding=1), *scale_shift(p, "stem.1"))
    inputs = []
    for i in range(2):
        place = f"cell0.input{i}.preprocess"
        h = functional.conv2d(stem.relu(), p[f"{place}.1.weight"])
        inputs.append(batch_norm(h, *scale_shift(p, f"{place}.2")))
    place = "cell0.node0.input0.dil_conv_3x3"
    h = functional.conv2d(inputs[0].relu(), p[f"{place}.1.weight"], stride=2, padding=2, dilation=2, groups=4)
    h = batch_norm(functional.conv2d(h, p[f"{place}.2.weight"]), *scale_shift(p, f"{place}.3"))
    pooled = functional.avg_pool2d(inputs[1], 3, stride=2, padding=1, count_include_pad=False)
    torch.testing.assert_close(network(x), (h + pooled).flatten(1))


def test_none_adds_nothing() -> None:
    network = cell_network("normal:(none~0,skip~1)|reduction:(skip~0,skip~1)")
    p = randomize(network)
    x = torch.rand(3, 1, 6, 6)
    stem = batch_norm(functional.conv2d(x, p["stem.0.weight"], padding=1), *scale_shift(p, "stem.1"))
    h = functional.conv2d(stem.relu(), p["cell0.input1.preprocess.1.weight"])
    torch.testing.assert_close(
        network(x), batch_norm(h, *scale_shift(p, "cell0.input1.preprocess.2")).flatten(1)
    )
    assert not any("input0" in name for name in p), "the unused input is not part of the network"


def test_a_network_of_nothing_but_none_has_zero_features() -> None:
    network = cell_network("normal:(none~0,none~1)|reduction:(none~0,none~1)", layout="NRN")
    features = network(torch.rand(3, 1, 6, 6))
    assert features.shape == (3, network.architecture.feature_dim) == (3, 4 * 3 * 3)
    assert not features.any()


def test_evaluation_mode_uses_the_statistics_of_the_batch_too() -> None:
    network = cell_network("normal:(sep_conv_3x3~0,skip~1)|reduction:(skip~0,skip~1)", layout="NR")
    x = torch.rand(3, 1, 6, 6)
    torch.testing.assert_close(network.eval()(x), network.train()(x))


def test_leading_slices_are_loaded() -> None:
    space = LayerwiseConfig(widths=(2, 4), num_layers=2).build((1, 8, 8))
    narrow = Network(space.architecture(space.from_string("conv_3x3:2|conv_3x3:4")))
    shapes = space.super_architecture().parameters
    everything = {name: torch.randn(shape) for name, shape in shapes.items()}
    narrow.load_parameters(everything)
    loaded = narrow.architecture_parameters()
    assert torch.equal(loaded["layer1.conv_3x3.0.weight"], everything["layer1.conv_3x3.0.weight"][:4, :2])
    assert torch.equal(loaded["layer0.conv_3x3.1.shift"], everything["layer0.conv_3x3.1.shift"][:2])


def test_missing_and_small_parameters_are_all_named_and_nothing_is_loaded() -> None:
    network = cell_network("normal:(sep_conv_3x3~0,skip~1)|reduction:(skip~0,skip~1)")
    parameters = {name: torch.zeros_like(value) for name, value in network.architecture_parameters().items()}
    del parameters["stem.1.scale"]
    parameters["stem.1.shift"] = torch.zeros(3)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    with pytest.raises(ParameterMismatchError) as error:
        network.load_parameters(parameters)
    assert "stem.1.scale of shape (4,) is needed (got none)" in str(error.value)
    assert "stem.1.shift of shape (4,) is needed (got (3,))" in str(error.value)
    assert all(torch.equal(before[name], value) for name, value in network.named_parameters())
