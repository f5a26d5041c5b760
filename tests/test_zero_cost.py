"""Signals against slow computations of their own: plain modules, plain autograd, one image after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import combinations
from pathlib import Path as FilePath

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from across.orchestrator.run_directory import RunDirectory
from across.orchestrator.worker_pool.config import WorkersConfig
from across.orchestrator.worker_pool.in_process import InProcessPool
from across.search_spaces import CellConfig, LayerwiseConfig, NasBench201Config
from across.search_spaces.base import SearchSpace
from across.search_spaces.network import Network
from across.workers.adaptation import InnerLoopConfig
from across.workers.base import EvaluationResult, SignalResult, SignalUnit, TaskBatch, TaskSpec, Unit
from across.workers.episode import Episode, prepare_episode
from across.workers.evaluators.zero_cost import (
    SIGNALS,
    ZERO_COST_SIGNALS,
    FewStepsConfig,
    SignalsConfig,
    compute_signals,
)
from across.workers.evaluators.zero_cost.data_free import NUM_ZEN_IMAGES, ZEN_SEED, ZEN_SHIFT
from across.workers.model import Model, Path
from across.workers.objectives import OBJECTIVES
from across.workers.objectives.classification import Classification
from across.workers.supernet_worker import ComputeSettings, SupernetWorker, make_supernet_worker
from across.workers.tasks.glyphs import GlyphsConfig
from tests.plain_meta_learning import PlainLearner, random_batch

SPEC = TaskSpec((2, 8, 8), num_ways=3, num_shots=2, num_queries=3, objective="classification")
NUM_IMAGES = 9
"""Every second one of the 15."""
ALL = SignalsConfig(names=SIGNALS, max_images=NUM_IMAGES, few_steps=FewStepsConfig(num_tasks=2))
SPACES: dict[str, tuple[SearchSpace, str]] = {
    "layerwise": (
        LayerwiseConfig(widths=(3, 6), num_layers=2).build(SPEC.input_shape),
        "conv_3x3:6|sep_conv_3x3:3",
    ),
    "cell": (
        CellConfig(channels=4, layout="NR", num_nodes=2).build(SPEC.input_shape),
        "normal:(sep_conv_3x3~0,none~1)(max_pool_3x3~1,skip~2)|reduction:(dil_conv_3x3~0,skip~1)"
        "(avg_pool_3x3~0,none~1)",
    ),
    "nas_bench_201": (
        NasBench201Config(channels=3, cells_per_stage=1).build(SPEC.input_shape),
        "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|",
    ),
}
every_space = pytest.mark.parametrize("name", SPACES)
NOTHING = "avg_pool_3x3|max_pool_3x3"
"""A layerwise genotype without weights, batch norms and ReLUs."""


def make_episode(
    name: str,
    *,
    text: str | None = None,
    num_tasks: int = 2,
    inner_loop: InnerLoopConfig | None = None,
    weights: Callable[[Tensor], Tensor] = lambda vector: vector,
) -> Episode:
    """In float64, with scales and shifts of any size."""
    space, default = SPACES[name]
    model = Model(space, (SPEC,), inner_loop or InnerLoopConfig(num_steps=3))
    noise = torch.randn(model.index.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vector = weights(torch.from_numpy(model.initial_vector(0)).double() + 0.2 * noise)
    path = model.path(space.from_string(text or default), 0)
    return prepare_episode(
        model, path, vector, random_batch(SPEC, num_tasks=num_tasks), torch.contiguous_format
    )


class PlainSubnet(nn.Module):
    """A network of PyTorch's own layers with its head."""

    def __init__(self, path: Path, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.body = Network(path.architecture).double()
        self.body.load_parameters(parameters)
        self.head = nn.Linear(path.architecture.feature_dim, SPEC.num_ways).double()
        with torch.no_grad():
            self.head.weight.copy_(parameters["head0.weight"])
            self.head.bias.copy_(parameters["head0.bias"])

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits

    @property
    def scored(self) -> list[Tensor]:
        return [layer.weight for layer in self.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


class FrozenNorm(nn.Module):
    """Batch norm that keeps the statistics of the first batch that it sees."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm
        self.statistics: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.statistics is None:
            self.statistics = x.detach().mean((0, 2, 3)), x.detach().var((0, 2, 3), unbiased=False)
        mean, variance = self.statistics
        return F.batch_norm(x, mean, variance, self.norm.weight, self.norm.bias, eps=self.norm.eps)


def replace_norms(network: nn.Module, make: Callable[[nn.BatchNorm2d], nn.Module]) -> nn.Module:
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, make(module))
    return network


def plain_subnet(episode: Episode) -> PlainSubnet:
    return PlainSubnet(episode.path, dict(episode.parameters))


def images_of(batch: TaskBatch, task: int = 0, num_images: int = NUM_IMAGES) -> tuple[Tensor, Tensor]:
    images = torch.cat([batch.support_inputs[task], batch.query_inputs[task]])
    targets = torch.cat([batch.support_targets[task], batch.query_targets[task]])
    chosen = [i * len(images) // num_images for i in range(num_images)]
    return images[chosen], targets[chosen]


def length(tensor: Tensor) -> float:
    return math.sqrt(sum(value**2 for value in tensor.flatten().tolist()))


def loss_gradients(network: PlainSubnet, images: Tensor, targets: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(F.cross_entropy(network(images), targets), network.scored))


@every_space
def test_scores_of_weights_and_gradients(name: str) -> None:
    episode = make_episode(name)
    found, network = compute_signals(episode, ALL), plain_subnet(episode)
    gradients = loss_gradients(network, *images_of(episode.batch))
    pairs = [
        pair
        for tensor, gradient in zip(network.scored, gradients, strict=True)
        for pair in zip(tensor.flatten().tolist(), gradient.flatten().tolist(), strict=True)
    ]
    assert found["grad_norm"] == pytest.approx(sum(map(length, gradients)))
    assert found["l2_norm"] == pytest.approx(sum(map(length, network.scored)))
    assert found["snip"] == pytest.approx(sum(abs(weight * slope) for weight, slope in pairs))
    assert found["plain"] == pytest.approx(sum(weight * slope for weight, slope in pairs), rel=1e-6)


@every_space
def test_grasp_against_finite_differences_of_the_gradient(name: str) -> None:
    episode = make_episode(name)
    network, (images, targets) = plain_subnet(episode), images_of(episode.batch)
    gradients = loss_gradients(network, images, targets)
    step = 1e-5
    slopes = []
    for sign in (1, -1):
        moved = deepcopy(network)
        with torch.no_grad():
            for weight, gradient in zip(moved.scored, gradients, strict=True):
                weight.add_(gradient, alpha=sign * step)
        slopes.append(loss_gradients(moved, images, targets))
    expected = -sum(
        float((weight.detach() * (above - below) / (2 * step)).sum())
        for weight, above, below in zip(network.scored, *slopes, strict=True)
    )
    assert compute_signals(episode, ALL)["grasp"] == pytest.approx(expected, rel=1e-4)


@every_space
def test_fisher_image_by_image_and_channel_by_channel(name: str) -> None:
    episode = make_episode(name)
    network, (images, targets) = plain_subnet(episode), images_of(episode.batch)
    activations: list[Tensor] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(lambda layer, inputs, output: activations.append(output))
    loss = F.cross_entropy(network(images), targets, reduction="sum")
    gradients = torch.autograd.grad(loss, activations)
    expected = 0.0
    for activation, gradient in zip(activations, gradients, strict=True):
        for channel in range(activation.shape[1]):
            products = [
                float((activation[image, channel] * gradient[image, channel]).sum().detach())
                for image in range(NUM_IMAGES)
            ]
            expected += sum(product**2 for product in products) / (2 * NUM_IMAGES)
    assert compute_signals(episode, ALL)["fisher"] == pytest.approx(expected)


def plain_jacobian(episode: Episode) -> Tensor:
    """Each image by itself through a network whose batch norms keep the batch's statistics."""
    network, (images, _) = replace_norms(plain_subnet(episode), FrozenNorm), images_of(episode.batch)
    network(images)
    rows = []
    for image in images:
        of_outputs = torch.autograd.functional.jacobian(network, image.unsqueeze(0))
        rows.append(of_outputs.sum(dim=(0, 1)).flatten())
    return torch.stack(rows)


def correlations_of(rows: Sequence[Tensor]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(np.corrcoef(np.stack([row.numpy() for row in rows])))


@every_space
def test_jacob_cov_from_the_jacobian_of_each_image_alone(name: str) -> None:
    episode = make_episode(name)
    eigenvalues = np.linalg.eigvals(correlations_of(list(plain_jacobian(episode)))).real
    expected = -sum(math.log(value + 1e-5) + 1 / (value + 1e-5) for value in eigenvalues)
    assert compute_signals(episode, ALL)["jacob_cov"] == pytest.approx(expected, rel=1e-6)


@every_space
def test_epe_nas_class_by_class(name: str) -> None:
    episode = make_episode(name)
    rows, (_, targets) = plain_jacobian(episode), images_of(episode.batch)
    expected = 0.0
    for number in range(SPEC.num_ways):
        own = [row for row, target in zip(rows, targets, strict=True) if target == number]
        assert len(own) > 1
        expected += abs(sum(math.log(abs(value) + 1e-5) for value in correlations_of(own).flat))
    assert compute_signals(episode, ALL)["epe_nas"] == pytest.approx(expected, rel=1e-6)


@every_space
def test_naswot_from_hamming_distances(name: str) -> None:
    episode = make_episode(name)
    network, (images, _) = plain_subnet(episode), images_of(episode.batch)
    codes: list[list[bool]] = [[] for _ in images]

    def append(module: nn.Module, inputs: object, output: Tensor) -> None:
        for code, values in zip(codes, output, strict=True):
            code += (values.flatten() > 0).tolist()

    for layer in network.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(append)
    network(images)
    kernel = np.full((NUM_IMAGES, NUM_IMAGES), float(len(codes[0])))
    for i, j in combinations(range(NUM_IMAGES), 2):
        distance = sum(mine != other for mine, other in zip(codes[i], codes[j], strict=True))
        kernel[i, j] = kernel[j, i] = len(codes[0]) - distance
    expected = math.log(np.linalg.det(kernel))
    assert compute_signals(episode, ALL)["naswot"] == pytest.approx(expected, rel=1e-6)


@every_space
def test_synflow_without_batch_norms(name: str) -> None:
    episode = make_episode(name)
    network = replace_norms(plain_subnet(episode), lambda norm: nn.Identity())
    assert isinstance(network, PlainSubnet)
    with torch.no_grad():
        for weight in network.scored:
            weight.abs_()
    gradients = torch.autograd.grad(
        network(torch.ones(1, *SPEC.input_shape, dtype=torch.float64)).sum(), network.scored
    )
    flow = sum(
        float((weight * slope).abs().sum().detach())
        for weight, slope in zip(network.scored, gradients, strict=True)
    )
    assert compute_signals(episode, ALL)["synflow"] == pytest.approx(math.log(flow))


@every_space
def test_zen_with_its_deviations_image_by_image(name: str) -> None:
    episode = make_episode(name)
    architecture = replace(episode.path.architecture, readout="flatten")
    generator = torch.Generator().manual_seed(ZEN_SEED)
    parameters = {
        parameter: torch.randn(shape, generator=generator) if len(shape) > 1 else torch.ones(shape)
        for parameter, shape in architecture.parameters.items()
    }
    images, noise = torch.randn((2, NUM_ZEN_IMAGES, *SPEC.input_shape), generator=generator)
    network = Network(architecture)
    network.load_parameters(
        {
            parameter: torch.zeros_like(value) if parameter.endswith("shift") else value
            for parameter, value in parameters.items()
        }
    )
    network.double()
    variances: list[float] = []
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [
        norm.register_forward_pre_hook(
            lambda norm, inputs: variances.append(
                float(inputs[0].detach().var((0, 2, 3), unbiased=False).mean())
            )
        )
        for norm in norms
    ]
    clean = network(images.double())
    for hook in hooks:
        hook.remove()
    shifted = network((images + ZEN_SHIFT * noise).double())
    distances = [float((a - b).norm().detach()) for a, b in zip(clean, shifted, strict=True)]
    expected = math.log(sum(distances) / NUM_ZEN_IMAGES) + sum(math.log(math.sqrt(v)) for v in variances)
    assert norms
    assert compute_signals(episode, ALL)["zen"] == pytest.approx(expected, abs=2e-3)


@every_space
def test_params_and_flops_count_the_head(name: str) -> None:
    episode = make_episode(name)
    found = compute_signals(episode, ALL)
    assert found["params"] == sum(parameter.numel() for parameter in plain_subnet(episode).parameters())
    architecture = episode.path.architecture
    assert found["flops"] == architecture.flops + architecture.feature_dim * SPEC.num_ways


@pytest.mark.parametrize("algorithm", ["maml", "anil"])
@pytest.mark.parametrize("learns_rates", [True, False])
def test_scores_after_no_and_after_few_steps(algorithm: str, learns_rates: bool) -> None:
    settings = {"num_steps": 3, "algorithm": algorithm, "learn_inner_lrs": learns_rates, "inner_lr": 0.5}
    episode = make_episode("layerwise", inner_loop=InnerLoopConfig.model_validate(settings))
    signals = SignalsConfig(
        names=("one_shot", "few_steps"), few_steps=FewStepsConfig(num_steps=2, num_tasks=2)
    )
    learner = PlainLearner(episode.model, episode.path)
    start = {name: value.clone().requires_grad_() for name, value in episode.parameters.items()}
    scores: dict[str, list[float]] = {"one_shot": [], "few_steps": []}
    for task in range(2):
        visited = learner.steps(
            start, start if learns_rates else None, episode.batch, task, second_order=False
        )
        for name, weights in (("one_shot", start), ("few_steps", visited[1])):
            recognised = learner.outputs(weights, episode.batch.query_inputs[task]).argmax(dim=1)
            scores[name].append(float((recognised == episode.batch.query_targets[task]).double().mean()))
    found = compute_signals(episode, signals)
    assert found == {name: pytest.approx(sum(values) / 2) for name, values in scores.items()}
    assert found["one_shot"] != found["few_steps"]


def test_channels_last_changes_nothing_but_the_rounding() -> None:
    episode = make_episode("cell")
    other = replace(episode, memory_format=torch.channels_last)
    assert compute_signals(other, ALL) == pytest.approx(compute_signals(episode, ALL), rel=1e-6)


def test_without_weights_and_relus_what_is_left_is_the_heads() -> None:
    found = compute_signals(make_episode("layerwise", text=NOTHING), ALL)
    assert set(SIGNALS) - found.keys() == {"naswot"}


def test_a_network_of_zeros_has_no_jacobian_and_no_distances() -> None:
    text = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    found = compute_signals(make_episode("nas_bench_201", text=text), ALL)
    assert set(SIGNALS) - found.keys() == {"jacob_cov", "epe_nas", "naswot", "zen", "synflow"}


class Regression(Classification):
    """Of as many numbers as there are ways."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(dim=(1, 2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_without_one_class_an_image_there_is_no_epe_nas(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OBJECTIVES, "regression", Regression())
    episode = make_episode("layerwise")
    spec = replace(SPEC, objective="regression")
    batch = replace(
        episode.batch,
        spec=spec,
        support_targets=(9 * torch.rand(2, 6, 3)).to(dtype),
        query_targets=(9 * torch.rand(2, 9, 3)).to(dtype),
    )
    path = Path(episode.path.architecture, 0, spec)
    found = compute_signals(replace(episode, path=path, batch=batch), SignalsConfig())
    assert set(ZERO_COST_SIGNALS) - found.keys() == {"epe_nas"}


def test_a_single_image_a_class_has_no_epe_nas() -> None:
    found = compute_signals(make_episode("layerwise"), SignalsConfig(max_images=3))
    assert set(ZERO_COST_SIGNALS) - found.keys() == {"epe_nas"}


def test_what_is_not_finite_is_absent() -> None:
    found = compute_signals(make_episode("cell", weights=lambda vector: vector * math.nan), SignalsConfig())
    assert found.keys() == {"zen", "params", "flops"}


def test_only_what_is_wanted_is_there_and_equal_to_all_together() -> None:
    episode = make_episode("layerwise")
    together = compute_signals(episode, ALL)
    assert together.keys() == set(SIGNALS)
    for name in SIGNALS:
        alone = compute_signals(episode, ALL.model_copy(update={"names": (name,)}))
        assert alone == {name: pytest.approx(together[name], rel=1e-9)}


def test_several_tasks_count_equally_and_each_by_itself() -> None:
    signals = SignalsConfig(num_tasks=3)
    episode = make_episode("layerwise", num_tasks=3)
    each = []
    for task in range(3):
        batch = episode.batch
        own = TaskBatch(
            SPEC,
            batch.support_inputs[task : task + 1],
            batch.support_targets[task : task + 1],
            batch.query_inputs[task : task + 1],
            batch.query_targets[task : task + 1],
        )
        each.append(compute_signals(replace(episode, batch=own), SignalsConfig()))
    means = {name: pytest.approx(sum(one[name] for one in each) / 3) for name in ZERO_COST_SIGNALS}
    assert compute_signals(episode, signals) == means
    assert len({one["snip"] for one in each}) == 3


def test_the_environment_of_autograd_and_randomness_is_left_alone() -> None:
    episode = make_episode("layerwise")
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    before = {name: value.clone() for name, value in episode.parameters.items()}
    compute_signals(episode, ALL)
    assert torch.rand(1) == expected
    assert all(torch.equal(episode.parameters[name], value) for name, value in before.items())
    assert not any(value.requires_grad for value in episode.parameters.values())


def test_unknown_names_are_refused_with_those_that_are_allowed() -> None:
    with pytest.raises(ValidationError, match=r"'grad_norm', 'snip'.*or 'few_steps'"):
        SignalsConfig.model_validate({"names": ["snap"]})
    with pytest.raises(ValidationError, match=r"names must be distinct \(got snip, snip\)"):
        SignalsConfig(names=("snip", "snip"))
    with pytest.raises(ValidationError, match="num_task"):
        SignalsConfig.model_validate({"num_task": 1})


GLYPHS = GlyphsConfig(num_ways=3, num_shots=2, num_queries=3, image_size=12)


def glyphs_model() -> Model:
    space = LayerwiseConfig(widths=(4, 8), num_layers=2).build(GLYPHS.build().spec.input_shape)
    return Model(space, (GLYPHS.build().spec,), InnerLoopConfig(num_steps=2))


def signal_unit(
    model: Model, *, text: str = "conv_3x3:4|sep_conv_3x3:8", seeds: tuple[int, ...] = (1, 2, 3, 4)
) -> SignalUnit:
    return SignalUnit(f"{text}-{seeds}", model.space.from_string(text), 0, "train", seeds, 0)


def test_a_worker_computes_signal_units_as_pure_functions() -> None:
    model = glyphs_model()
    worker = SupernetWorker(
        model, [GLYPHS.build()], ComputeSettings("cpu"), SignalsConfig(names=SIGNALS, num_tasks=2)
    )
    weights = model.initial_vector(0)
    weights.flags.writeable = False
    unit, other = signal_unit(model), signal_unit(model, text="conv_5x5:8|conv_3x3:8", seeds=(9, 8, 7, 6))
    first = worker.run(unit, weights)
    assert isinstance(first, SignalResult)
    assert first.failure is None
    assert first.signals.keys() == set(SIGNALS)
    assert first.seconds > 0
    assert all(type(value) is float and math.isfinite(value) for value in first.signals.values())
    different = worker.run(other, weights)
    assert isinstance(different, SignalResult)
    assert different.signals["snip"] != first.signals["snip"]
    again = worker.run(unit, weights)
    assert replace(again, seconds=0.0) == replace(first, seconds=0.0)


def test_signals_do_not_depend_on_the_tasks_behind_those_that_they_need() -> None:
    model = glyphs_model()
    worker = SupernetWorker(model, [GLYPHS.build()], ComputeSettings("cpu"), SignalsConfig())
    found = [worker.run(signal_unit(model, seeds=seeds), model.initial_vector(0)) for seeds in ((5,), (5, 6))]
    assert isinstance(found[0], SignalResult)
    assert isinstance(found[1], SignalResult)
    assert found[0].signals == found[1].signals


def test_more_steps_than_the_inner_loop_has_are_refused() -> None:
    signals = SignalsConfig(names=("few_steps",), few_steps=FewStepsConfig(num_steps=3))
    with pytest.raises(ValueError, match=r"at most inner_loop.num_steps = 2 \(got 3\)"):
        SupernetWorker(glyphs_model(), [GLYPHS.build()], ComputeSettings("cpu"), signals)


def test_what_raises_twice_is_a_failed_result() -> None:
    model = glyphs_model()
    arguments = {
        "model": model,
        "sources": [GLYPHS],
        "settings": ComputeSettings("cpu"),
        "signals": SignalsConfig(names=("params",)),
    }
    good = signal_unit(model)
    units: list[Unit] = [good, replace(good, key="bad", genotype=(99, 0, 0, 0))]
    with InProcessPool(make_supernet_worker, arguments, WorkersConfig(num_workers=0)) as pool:
        pool.publish(0, model.initial_vector(0))
        results = {result.key: result for arrived in pool.collect(units) for result in arrived}
    failed = results["bad"]
    assert isinstance(failed, SignalResult)
    assert failed.signals == {}
    assert failed.failure is not None
    assert results[good.key].failure is None


def test_spooled_signals_come_back(tmp_path: FilePath) -> None:
    run = RunDirectory.create(tmp_path / "run", {"seed": 1}, {"device": "cpu"})
    written: list[EvaluationResult | SignalResult] = [
        SignalResult("a", {"snip": 0.1 + 0.2, "grasp": -1e300}, 0.5),
        EvaluationResult("b", (0.25,), {"loss": 1.0}, 0.5),
        SignalResult("c", {}, failure="KeyError: 'x'"),
    ]
    run.spool(0, written)
    assert RunDirectory.open(run.path).spooled(0) == {result.key: result for result in written}
