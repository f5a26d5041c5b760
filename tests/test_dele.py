"""DELE: K stacked networks are K networks, experts learn from signals, and a part of them is what it would be alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor

from search_spaces import CellConfig, LayerwiseConfig, NasBench201Config, TransNasMacroConfig
from search_spaces.base import SearchSpace
from search_spaces.edge_cell import EDGES
from workers.predictors.base import Candidates, Values, candidates_of
from workers.predictors.dele import Dele, DeleConfig, EncoderError
from workers.predictors.ranking import MARGIN, ranking_losses
from workers.predictors.stacked import Encoder, Gates, Head, Lstm, Mlp, Networks, initial_parameters

SPACE = NasBench201Config().build((3, 32, 32))
SMALL: dict[str, Any] = {
    "num_pretraining_epochs": 20,
    "num_epochs": 30,
    "num_averaged_epochs": 20,
    "head_widths": (32,),
}


def inputs_of(encoder: Encoder, num: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if isinstance(encoder, Mlp):
        return torch.rand(num, encoder.num_inputs, generator=generator)
    return torch.randint(5, (num, 6), generator=generator)


ENCODERS: list[Encoder] = [
    Gates(5, embedding=6, hidden=7, width=8, num_layers=3),
    Lstm(5, embedding=4, hidden=6),
    Mlp(10, widths=(7, 5)),
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=["gates", "lstm", "mlp"])
def test_stacked_networks_are_networks_side_by_side(encoder: Encoder) -> None:
    num, inputs = 3, inputs_of(encoder)
    head = Head(encoder.num_features, 2, (6, 5), 0.0)
    stacked = Networks.made(encoder, head, num, torch.Generator().manual_seed(0))
    together = {name: value.clone().requires_grad_() for name, value in stacked.parameters.items()}
    outputs = forward(encoder, head, together, inputs)
    outputs.square().sum().backward()
    for row in range(num):
        alone = {
            name: value[row : row + 1].clone().requires_grad_() for name, value in stacked.parameters.items()
        }
        single = forward(encoder, head, alone, inputs)
        assert torch.allclose(single[0], outputs[row], atol=1e-6)
        single.square().sum().backward()
        for name, value in alone.items():
            gradient = together[name].grad
            assert gradient is not None
            assert value.grad is not None
            assert torch.allclose(value.grad[0], gradient[row], atol=1e-5)


def forward(encoder: Encoder, head: Head, parameters: dict[str, Tensor], inputs: Tensor) -> Tensor:
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "head": {}}
    for name, value in parameters.items():
        part, _, own = name.partition(".")
        parts[part][own] = value
    return head(parts["head"], encoder(parts["encoder"], inputs), None)


def test_gates_is_information_that_flows_through_gates() -> None:
    """Against a plain walk over nodes and edges, one candidate at a time."""
    encoder = Gates(5, embedding=6, hidden=7, width=8, num_layers=3)
    parameters = initial_parameters(encoder.shapes(), 1, torch.Generator().manual_seed(0))
    own = {name: value[0] for name, value in parameters.items()}
    inputs = inputs_of(encoder)
    features = encoder(parameters, inputs)[0]
    for candidate, operations in zip(features, inputs.tolist(), strict=True):
        nodes: list[Tensor | None] = [(own["input_embedding"] @ own["input.weight"])[0], None, None, None]
        for layer in range(3):
            weight, bias = own[f"layer{layer}.weight"], own[f"layer{layer}.bias"][0]
            after: list[Tensor | None] = []
            for target in range(4):
                total = bias.clone()
                for (source, end), operation in zip(EDGES, operations, strict=True):
                    state = nodes[source]
                    if end == target and operation != 0 and state is not None:
                        gate = own["operation_embedding"][operation] @ own[f"layer{layer}.gate_weight"]
                        total = total + gate.sigmoid() * (state @ weight)
                before = nodes[target]
                after.append(total.relu() if layer == 0 or before is None else total.relu() + before)
            nodes = after
        output = nodes[3]
        assert output is not None
        assert torch.allclose(candidate, output, atol=1e-5)


def test_the_lstm_is_an_lstm() -> None:
    encoder = Lstm(5, embedding=4, hidden=6)
    parameters = initial_parameters(encoder.shapes(), 1, torch.Generator().manual_seed(0))
    inputs = inputs_of(encoder)
    reference = torch.nn.LSTM(4, 6, batch_first=True)
    named = dict(reference.named_parameters())
    with torch.no_grad():

        def arranged(value: Tensor) -> Tensor:
            keep, admit, show, new = value.split(6, dim=-1)  # PyTorch: input, forget, cell, output
            return torch.cat([admit, keep, new, show], dim=-1)

        named["weight_ih_l0"].copy_(arranged(parameters["input.weight"][0]).T)
        named["weight_hh_l0"].copy_(arranged(parameters["state.weight"][0]).T)
        named["bias_ih_l0"].copy_(arranged(parameters["bias"][0, 0]))
        named["bias_hh_l0"].zero_()
        _, (state, _) = reference(parameters["token_embedding"][0][inputs])
    assert torch.allclose(encoder(parameters, inputs)[0], state[0], atol=1e-6)


def test_the_ranking_loss_counts_pairs_of_known_order() -> None:
    predicted = torch.tensor([[0.0, 0.05, 1.0], [0.0, 0.05, 1.0]])
    wanted = torch.tensor([[0.0, 1.0, 0.5], [0.0, torch.nan, 0.0]])
    pairs = torch.tensor([[0, 1, 0], [1, 2, 2]])
    losses = ranking_losses(predicted, wanted, pairs)
    expected = ((MARGIN - 0.05) + (MARGIN + 0.95) + 0.0) / 3
    assert losses.tolist() == pytest.approx([expected, 0.0])


def sample(space: SearchSpace, num: int) -> list[tuple[int, ...]]:
    rng, found = np.random.default_rng(0), dict[tuple[int, ...], tuple[int, ...]]()
    while len(found) < num:
        genotype = space.sample(rng)
        found.setdefault(space.canonical(genotype), genotype)
    return list(found.values())


@pytest.fixture(scope="module")
def problem() -> tuple[Candidates, Values]:
    """Convolutions are good; one signal says so but for noise, one the opposite, one nothing."""
    genotypes, rng = sample(SPACE, 300), np.random.default_rng(1)
    quality = np.array(
        [sum((0, 1, 2, 4, 1)[gene] for gene in SPACE.canonical(each)) for each in genotypes], float
    )
    quality += 0.3 * rng.normal(size=300)
    signals = {
        "good": quality + rng.normal(size=300),
        "opposite": -quality + rng.normal(size=300),
        "noise": rng.normal(size=300),
    }
    return candidates_of(SPACE, genotypes, signals=signals), quality


def tau(problem: tuple[Candidates, Values], **settings: Any) -> float:
    candidates, scores = problem
    predictor = DeleConfig(**{**SMALL, **settings}).build(SPACE, seed=0)
    predictor.pretrain(candidates)
    predictor.fit(candidates.take(range(15)), scores[:15])
    return float(kendalltau(predictor.predict(candidates.take(range(15, 300))).mean, scores[15:]).statistic)


def test_signals_help(problem: tuple[Candidates, Values]) -> None:
    with_signals, vanilla = tau(problem), tau(problem, signals=())
    assert vanilla > 0.2
    assert with_signals > vanilla + 0.03


def pretrained(problem: tuple[Candidates, Values], **settings: Any) -> Dele:
    predictor = DeleConfig(**{**SMALL, **settings}).build(SPACE, seed=0)
    predictor.pretrain(problem[0])
    return predictor


def test_pretraining_can_be_kept(problem: tuple[Candidates, Values]) -> None:
    candidates, scores = problem
    first = pretrained(problem)
    arrays = first.pretrained()
    assert {name.split("/")[0] for name in arrays} == {"good", "opposite", "noise"}
    second = DeleConfig(**SMALL).build(SPACE, seed=0)
    second.load_pretrained(arrays)
    for predictor in (first, second):
        predictor.fit(candidates.take(range(20)), scores[:20])
    assert first.predict(candidates).mean.tolist() == second.predict(candidates).mean.tolist()
    assert (
        arrays["good/value/head.layer0.bias"].tolist()
        == first.pretrained()["good/value/head.layer0.bias"].tolist()
    ), "what is kept does not change as scores are learned"


def test_experts_can_be_taken_out_one_by_one(problem: tuple[Candidates, Values]) -> None:
    alone = DeleConfig(**SMALL, signals=("good",)).build(SPACE, seed=0)
    alone.load_pretrained(pretrained(problem).pretrained())
    assert {name.split("/")[0] for name in alone.pretrained()} == {"good"}
    candidates, scores = problem
    alone.fit(candidates.take(range(20)), scores[:20])
    assert kendalltau(alone.predict(candidates).mean, scores).statistic > 0.3


def test_experts_rank_by_their_signal_before_any_score(problem: tuple[Candidates, Values]) -> None:
    candidates, _ = problem
    for name in ("good", "opposite"):  # signs are the signals' own
        predictor = pretrained(problem, signals=(name,), num_epochs=1)
        predictor.fit(candidates.take([0]), np.array([1.0]))  # one score orders nothing
        found = kendalltau(predictor.predict(candidates).mean, candidates.signals[name]).statistic
        assert found > 0.4


def test_each_space_has_an_encoder_and_a_wrong_one_is_named() -> None:
    layerwise, macro = LayerwiseConfig().build((1, 28, 28)), TransNasMacroConfig().build((3, 64, 64))
    for space in (SPACE, layerwise, macro, CellConfig().build((3, 32, 32))):
        genotypes = sample(space, 12)
        candidates = candidates_of(space, genotypes)
        predictor = DeleConfig(**SMALL).build(space, seed=0)
        predictor.fit(candidates, np.arange(12.0))
        assert np.isfinite(predictor.predict(candidates).mean).all()
    with pytest.raises(EncoderError, match="gates is for spaces of cells with operations on edges"):
        DeleConfig(encoder="gates").build(layerwise, seed=0)
    with pytest.raises(EncoderError, match="lstm is for spaces of a fixed number of genes"):
        DeleConfig(encoder="lstm").build(macro, seed=0)
