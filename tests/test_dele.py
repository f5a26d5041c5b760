"""Stacked experts are what each would be alone; cheap signals help; what is learned can be stored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from across.search_spaces import LayerwiseConfig, NasBench201Config, TransNasMacroConfig, TransNasMicroConfig
from across.search_spaces.base import SearchSpace
from across.search_spaces.constrained import Constrained
from across.search_spaces.edge_cell import EDGES
from across.workers.predictors.base import (
    Candidates,
    Prediction,
    Predictor,
    PredictorInputError,
    SavedPredictor,
    Values,
    candidates_of,
)
from across.workers.predictors.dele import Dele, DeleConfig, EncoderError
from across.workers.predictors.experts import select_signals
from across.workers.predictors.ranking import MARGIN, draw_pairs, epoch_rows, ranking_losses, trust
from across.workers.predictors.stacked import Encoder, GatesEncoder, LstmEncoder, MlpEncoder, Network

CELL = NasBench201Config().build((3, 32, 32))
MACRO = TransNasMacroConfig().build((3, 64, 64))
QUICK: dict[str, Any] = {
    "num_pretraining_epochs": 20,
    "num_epochs": 40,
    "num_averaged_epochs": 20,
    "learning_rate": 3e-3,
}
NUM_NETWORKS, NUM_CANDIDATES, NUM_SCORED = 3, 17, 24

Weights = Mapping[str, Tensor]
"""Of one network."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_gates(weights: Weights, genotypes: Tensor, encoder: GatesEncoder) -> Tensor:
    """Every node of every candidate in every layer, one candidate after the other; not a word of what is constant."""
    features = []
    for genes in genotypes.tolist():
        x = nn.functional.linear(
            weights["input_embedding"][0], weights["hidden.0.weight"].T, weights["hidden.0.bias"][0]
        )
        nodes = [x, *[weights["hidden.0.bias"][0]] * 3]
        for layer in range(encoder.num_layers):
            carried = [node @ weights[f"flow.{layer}"] for node in nodes]
            arrived = [carried[0], *[torch.zeros(encoder.num_features)] * 3]
            for gene, (source, target) in zip(genes, EDGES, strict=True):
                if gene and f"gate.{layer}.weight" in weights:
                    logits = weights["operation_embedding"][gene - 1] @ weights[f"gate.{layer}.weight"]
                    gate = (logits + weights[f"gate.{layer}.bias"][0]).sigmoid()
                    arrived[target] = arrived[target] + gate * carried[source]
            is_last = layer == encoder.num_layers - 1
            nodes = arrived if is_last else [node.relu() for node in arrived]
        features.append(nodes[3])
    return torch.stack(features)


def plain_lstm(weights: Weights, genotypes: Tensor, encoder: LstmEncoder) -> Tensor:
    """PyTorch's own, candidate by candidate, each as long as it is."""
    lstm = nn.LSTM(encoder.embedding_size, encoder.num_features)
    own = {
        "weight_ih_l0": weights["input.weight"].T,
        "weight_hh_l0": weights["state.weight"].T,
        "bias_ih_l0": weights["input.bias"][0],
        "bias_hh_l0": torch.zeros(4 * encoder.num_features),
    }
    features = []
    for genes in genotypes:
        embedded = weights["token_embedding"][genes[genes >= 0]]
        features.append(torch.func.functional_call(lstm, own, (embedded,))[0][-1])
    return torch.stack(features)


def plain_mlp(weights: Weights, encodings: Tensor, encoder: MlpEncoder) -> Tensor:
    return (encodings @ weights["encoding.0.weight"] + weights["encoding.0.bias"]).relu()


def plain_head(weights: Weights, features: Tensor, num_hidden: int) -> Tensor:
    for layer in range(num_hidden):
        features = (features @ weights[f"head.{layer}.weight"] + weights[f"head.{layer}.bias"]).relu()
    return features @ weights[f"head.{num_hidden}.weight"] + weights[f"head.{num_hidden}.bias"]


def padded_tokens() -> Tensor:
    tokens = torch.randint(5, (NUM_CANDIDATES, 6), generator=generator(1))
    tokens[::3, 4:] = -1
    return tokens


CASES: dict[str, tuple[Any, Any, Tensor]] = {
    "gates": (
        GatesEncoder(5, 7, 9, 11),
        plain_gates,
        torch.randint(5, (NUM_CANDIDATES, 6), generator=generator(1)),
    ),
    "lstm": (LstmEncoder(5, 7, 11), plain_lstm, padded_tokens()),
    "mlp": (MlpEncoder(8, 11), plain_mlp, torch.rand(NUM_CANDIDATES, 8, generator=generator(1))),
}


@pytest.mark.parametrize("widths", [(), (13, 10)])
@pytest.mark.parametrize("name", CASES)
def test_stacked_networks_are_separate_networks(name: str, widths: tuple[int, ...]) -> None:
    encoder, plain_encoder, inputs = CASES[name]
    network = Network(encoder, widths)
    drawn = [network.draw(generator(seed)) for seed in range(NUM_NETWORKS)]
    rows = torch.stack(drawn).requires_grad_()
    weight = torch.rand(NUM_NETWORKS, NUM_CANDIDATES, generator=generator(2))
    outputs = network(rows, inputs[None])[..., 0]
    (gradient,) = torch.autograd.grad((outputs * weight).sum(), rows)
    own_rows = network(rows, inputs.expand(NUM_NETWORKS, -1, -1))[..., 0]
    torch.testing.assert_close(own_rows, outputs)
    for row, parameters in enumerate(drawn):
        alone = parameters.clone().requires_grad_()
        weights = {key: value[0] for key, value in network.named(alone[None]).items()}
        expected = plain_head(weights, plain_encoder(weights, inputs, encoder), len(widths))[:, 0]
        torch.testing.assert_close(outputs[row], expected)
        (expected_gradient,) = torch.autograd.grad((expected * weight[row]).sum(), alone)
        torch.testing.assert_close(gradient[row], expected_gradient, atol=1e-5, rtol=1e-4)


def test_networks_may_look_at_candidates_of_their_own() -> None:
    for encoder, _, inputs in CASES.values():
        network = Network(encoder, (5,))
        rows = torch.stack([network.draw(generator(seed)) for seed in range(2)])
        both = network(rows, torch.stack([inputs, inputs.flip(0)]))
        torch.testing.assert_close(both[0], network(rows[:1], inputs[None])[0])
        torch.testing.assert_close(both[1], network(rows[1:], inputs.flip(0)[None])[0])


def test_every_parameter_of_a_network_is_learned() -> None:
    for encoder, _, inputs in CASES.values():
        network = Network(encoder, (5,))
        rows = network.draw(generator())[None].requires_grad_()
        (gradient,) = torch.autograd.grad(network(rows, inputs[None]).square().sum(), rows)
        for name, own in network.named(gradient).items():
            assert own.abs().sum() > 0, name


def test_the_loss_is_that_of_single_pairs() -> None:
    scores, values = torch.tensor([[0.0, 0.05, 1.0, 0.3]]), torch.tensor([[1.0, 2.0, 0.0, torch.nan]])
    pairs = torch.tensor([[0, 0, 1, 2], [1, 2, 2, 3]])
    expected = (
        max(0, MARGIN - 0.05) + (MARGIN + 1.0) + (MARGIN + 0.95)
    ) / 3  # the last pair's order is unknown
    assert ranking_losses(scores, values, pairs).item() == pytest.approx(expected)
    assert ranking_losses(scores, torch.ones(1, 4), pairs).item() == 0


def test_pairs_are_different_and_at_most_four_a_candidate() -> None:
    for num, expected in ((2, 1), (5, 10), (40, 160)):
        pairs = draw_pairs(num, generator())
        assert pairs.shape == (2, expected)
        assert len({frozenset(pair) for pair in pairs.T.tolist()}) == expected
        assert (pairs[0] != pairs[1]).all()


def test_an_epoch_shows_each_known_candidate() -> None:
    values = torch.arange(12.0).expand(2, -1).clone()
    assert epoch_rows(values, generator()).shape == (1, 12)
    values[1, 3:] = torch.nan
    rows = epoch_rows(values, generator())
    assert sorted(rows[0].tolist()) == list(range(12))
    assert sorted(rows[1].tolist()) == sorted([0, 1, 2] * 4)


@cache
def toy(num: int = NUM_SCORED, seed: int = 1, space: SearchSpace = CELL) -> tuple[Candidates, Values]:
    """Random candidates, and a score that is linear in the encoding; two signals say different halves of it."""
    rng = np.random.default_rng(seed)
    genotypes = [space.sample(rng) for _ in range(num)]
    encodings = candidates_of(space, genotypes).encodings
    parts = encodings * np.random.default_rng(0).normal(size=space.encoding_dim)
    half = space.encoding_dim // 2
    first, second = parts[:, :half].sum(axis=1), parts[:, half:].sum(axis=1)
    signals = {"first": np.exp(first), "second": -second, "noise": rng.normal(size=num)}
    return candidates_of(space, genotypes, signals=signals), first + second


def predictor(space: SearchSpace = CELL, **settings: Any) -> Dele:
    return DeleConfig(**{**QUICK, **settings}).build(space, seed=0)


def with_signals(candidates: Candidates, **signals: Values) -> Candidates:
    return candidates_of(CELL, candidates.genotypes, signals=signals)


def assert_same(one: Prediction, other: Prediction) -> None:
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.std, other.std)


def tau(dele: Predictor, num: int = 200) -> float:
    others, true = toy(num, seed=9)
    return float(kendalltau(dele.predict(others).mean, true).statistic)


def fitted(pool: Candidates | None = None, num: int = NUM_SCORED, **settings: Any) -> Dele:
    dele = predictor(**settings)
    if pool is not None:
        dele.pretrain(pool)
    dele.fit(*toy(num))
    return dele


@pytest.mark.parametrize("encoder", ["gates", "lstm", "mlp"])
def test_a_ranking_is_learned_without_signals(encoder: str) -> None:
    assert tau(fitted(num=100, signals=(), encoder=encoder, num_epochs=100)) > 0.45


@pytest.mark.parametrize("ensemble", ["gated", "static"])
def test_signals_that_say_something_help(ensemble: str) -> None:
    pool, _ = toy(400, seed=2)
    vanilla = tau(fitted(signals=()))
    with_all = tau(fitted(pool, ensemble=ensemble, num_pretraining_epochs=60))
    assert with_all > vanilla + 0.05
    assert with_all > tau(fitted(pool, signals=("noise",), num_pretraining_epochs=60)) + 0.05


def test_experts_learn_their_own_signal_and_the_gate_nothing() -> None:
    pool, _ = toy(400, seed=2)
    dele = predictor(num_pretraining_epochs=60)
    dele.pretrain(pool)
    arrays = dele.pretrained()
    assert {name.split("/")[0] for name in arrays} == {"first", "noise", "second", "num_steps"}
    assert set(arrays) == set(select_signals(arrays, ("first", "noise", "second")))
    others, _ = toy(200, seed=9)
    for name in ("first", "second"):
        alone = predictor(signals=(name,), num_epochs=1)
        alone.load_pretrained(arrays)
        alone.fit(*toy(1))  # a single score has no pairs: the expert stays as it was
        assert kendalltau(alone.predict(others).mean, others.signals[name]).statistic > 0.65
    untrained = predictor(num_epochs=1)
    untrained.load_pretrained(arrays)
    untrained.fit(*toy(1))
    gate = untrained._ensemble.gate
    assert gate is not None
    drawn = gate.draw(untrained._generator("gate"))
    drawn[-len(others.signals) :] = 0  # a single score says nothing of whom to trust
    torch.testing.assert_close(untrained._ensemble.gate_parameters[0], drawn, atol=0, rtol=0)


@pytest.mark.parametrize("ensemble", ["gated", "static"])
def test_an_expert_that_ranks_in_reverse_is_turned_around(ensemble: str) -> None:
    pool, scores = toy(400, seed=2)
    pool = with_signals(pool, reverse=-scores, noise=pool.signals["noise"])
    start: dict[str, Any] = {"ensemble": ensemble, "num_epochs": 1, "learning_rate": 1e-9}
    dele = predictor(ensemble=ensemble, num_pretraining_epochs=60)
    dele.pretrain(pool)
    others, _ = toy(200, seed=9)
    untaught = predictor(**start, signals=("reverse",))
    untaught.load_pretrained(dele.pretrained())
    untaught.fit(*toy(1))
    mixed = predictor(**start)
    mixed.load_pretrained(dele.pretrained())
    mixed.fit(*toy(50))
    assert tau(untaught) < -0.7
    assert tau(mixed) > 0.7
    weights = mixed._ensemble.scores(mixed._inputs(others))[1]
    assert weights[1].min() > 0.9  # noise, reverse


def test_trust_is_the_agreement_with_the_values() -> None:
    values = torch.arange(30.0)
    unrelated = torch.from_numpy(np.random.default_rng(0).normal(size=30)).float()
    same, reverse, neither, equal = trust(
        torch.stack([values, -values, unrelated, 0 * values]), values
    ).tolist()
    assert same == -reverse == pytest.approx(7.5)
    assert neither == pytest.approx(7.5 * float(kendalltau(unrelated, values).statistic))
    assert equal == 0
    assert trust(torch.arange(2.0)[None], torch.arange(2.0)).item() == pytest.approx(10 / 6)
    assert trust(torch.ones(2, 1), torch.ones(1)).tolist() == [0, 0]


def test_experts_have_one_deviation_on_their_pool() -> None:
    pool, _ = toy(300, seed=2)
    dele = predictor()
    dele.pretrain(pool)
    experts = dele._experts
    assert experts is not None
    inputs = torch.unique(dele._inputs(pool), dim=0)
    deviations = dele._expert(experts.parameters, inputs[None])[..., 0].std(dim=1, correction=0)
    torch.testing.assert_close(deviations, torch.ones(3), atol=1e-4, rtol=0)


def test_earlier_tasks_are_signals() -> None:
    pool, _ = toy(100, seed=2)
    as_signal = predictor(num_pretraining_epochs=2)
    as_signal.pretrain(with_signals(pool, **{"earlier/there": pool.signals["first"]}))
    earlier = candidates_of(CELL, pool.genotypes, earlier={"there": pool.signals["first"]})
    for signals in (None, ("earlier/there",)):
        dele = predictor(num_pretraining_epochs=2, signals=signals)
        dele.pretrain(earlier)
        for name, values in dele.pretrained().items():
            np.testing.assert_array_equal(values, as_signal.pretrained()[name])


def test_the_gate_and_the_experts_learn_from_scores() -> None:
    pool, _ = toy(100, seed=2)
    dele = predictor()
    dele.pretrain(pool)
    dele.fit(*toy(1))
    before = [each.clone() for each in dele._ensemble.learned]
    dele.fit(*toy())
    for old, new in zip(before, dele._ensemble.learned, strict=True):
        assert (old != new).float().mean() > 0.5


@pytest.mark.parametrize("chosen", [("second",), ("noise", "first")])
def test_some_experts_of_many_are_those_trained_alone(chosen: tuple[str, ...]) -> None:
    pool, _ = toy(150, seed=2)
    scarce = with_signals(
        pool, **{**pool.signals, "noise": np.where(np.arange(150) % 2, np.nan, pool.signals["noise"])}
    )
    of_all, alone, taken = predictor(), predictor(signals=chosen), predictor(signals=chosen)
    of_all.pretrain(scarce)
    alone.pretrain(scarce)
    expected = alone.pretrained()
    some = select_signals(of_all.pretrained(), chosen)
    assert set(some) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(some[name], values, atol=1e-5, err_msg=name)
    taken.load_pretrained(of_all.pretrained())
    for each in (alone, taken):
        each.fit(*toy())
    others, _ = toy(50, seed=9)
    np.testing.assert_allclose(taken.predict(others).mean, alone.predict(others).mean, atol=1e-2)


def test_what_was_pretrained_comes_back_to_the_bit() -> None:
    pool, _ = toy(100, seed=2)
    dele, restored = predictor(), predictor()
    assert isinstance(dele, SavedPredictor)
    dele.pretrain(pool)
    arrays = dele.pretrained()
    assert all(values.dtype == np.float32 for values in arrays.values())
    restored.load_pretrained(dict(sorted(arrays.items(), reverse=True)))
    for each in (dele, restored):
        each.fit(*toy())
    assert_same(dele.predict(pool), restored.predict(pool))
    for name, values in restored.pretrained().items():
        np.testing.assert_array_equal(values, arrays[name])


def test_experts_of_another_structure_are_refused() -> None:
    pool, _ = toy(50, seed=2)
    dele = predictor(num_pretraining_epochs=0)
    dele.pretrain(pool)
    with pytest.raises(
        PredictorInputError, match=r"first/exp_avg: .* has \d+ parameters here \(got the shape"
    ):
        predictor(head_widths=(5,)).load_pretrained(dict(sorted(dele.pretrained().items())))


def test_the_optimizer_goes_on() -> None:
    pool, _ = toy(100, seed=2)
    dele, fresh = predictor(), predictor()
    dele.pretrain(pool)
    arrays = dele.pretrained()
    fresh.load_pretrained({**arrays, "num_steps": np.array(0, dtype=np.float32)})
    for each in (dele, fresh):
        each.fit(*toy())
    assert not np.allclose(dele.predict(pool).mean, fresh.predict(pool).mean)


def test_weights_are_averaged_over_the_last_epochs() -> None:
    scored, scores = toy()
    last, two = (predictor(signals=(), num_epochs=2, num_averaged_epochs=num) for num in (1, 2))
    first = predictor(signals=(), num_epochs=1, num_averaged_epochs=1)
    for each in (last, two, first):
        each.fit(scored, scores)
    mean = (first._ensemble.expert_parameters + last._ensemble.expert_parameters) / 2
    torch.testing.assert_close(two._ensemble.expert_parameters, mean)


def test_the_order_of_the_scored_does_not_matter() -> None:
    scored, scores = toy()
    others, _ = toy(50, seed=9)
    order = np.random.default_rng(3).permutation(NUM_SCORED)
    one, other = predictor(), predictor()
    one.fit(scored, scores)
    other.fit(scored.take(order), scores[order])
    assert_same(one.predict(others), other.predict(others))


def test_only_the_order_of_signals_and_scores_matters() -> None:
    scored, scores = toy()
    others, _ = toy(50, seed=9)
    one, other = predictor(), predictor()
    one.fit(scored, scores)
    other.fit(with_signals(scored, **{name: 1e9 + v for name, v in scored.signals.items()}), np.exp(scores))
    assert_same(one.predict(others), other.predict(others))


def test_half_a_signal_is_learned_from_the_half_that_is_known() -> None:
    pool, _ = toy(400, seed=2)
    known = np.where(np.arange(400) % 2, pool.signals["first"], np.nan)
    dele = predictor(signals=("first",), num_pretraining_epochs=60, num_epochs=1)
    dele.pretrain(with_signals(pool, first=known))
    dele.fit(*toy(1))
    others, _ = toy(200, seed=9)
    assert kendalltau(dele.predict(others).mean, others.signals["first"]).statistic > 0.7


@pytest.mark.parametrize("signal", [np.full(NUM_SCORED, np.nan), np.ones(NUM_SCORED)])
def test_a_signal_that_says_nothing_has_no_expert(signal: Values) -> None:
    scored, scores = toy()
    with_nothing, vanilla = predictor(), predictor(signals=())
    with_nothing.fit(with_signals(scored, odd=signal), scores)
    vanilla.fit(scored, scores)
    assert_same(with_nothing.predict(scored), vanilla.predict(scored))


def test_signals_that_no_candidate_has_are_errors() -> None:
    with pytest.raises(
        PredictorInputError, match="signals: no synflow; the candidates have first, noise, second"
    ):
        predictor(signals=("synflow",)).fit(*toy())
    scored, scores = toy()
    with pytest.raises(PredictorInputError, match="signals: no synflow; the candidates have none"):
        predictor(signals=("synflow",)).fit(with_signals(scored), scores)


@pytest.mark.parametrize("settings", [{}, {"signals": ()}, {"signals": ("first",)}, {"ensemble": "static"}])
def test_few_and_equal_scores_will_do(settings: dict[str, Any]) -> None:
    scored, scores = toy()
    for rows, values in (([0], scores[:1]), ([0, 1], scores[:2]), (range(NUM_SCORED), np.ones(NUM_SCORED))):
        dele = predictor(**settings)
        dele.fit(scored.take(list(rows)), values)
        prediction = dele.predict(scored)
        assert np.isfinite(prediction.mean).all()
        assert (prediction.std >= np.float32(MARGIN)).all()
        assert np.isfinite(prediction.std).all()


def test_genotypes_may_differ_in_length() -> None:
    pool, scores = toy(60, space=MACRO)
    assert {len(genotype) for genotype in pool.genotypes} > {5}
    dele = predictor(MACRO)
    dele.fit(pool, scores)
    short = [row for row, genotype in enumerate(pool.genotypes) if len(genotype) == 4]
    assert short
    together, apart = dele.predict(pool).mean[short], dele.predict(pool.take(short)).mean
    np.testing.assert_allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (CELL, GatesEncoder),
        (TransNasMicroConfig().build((3, 64, 64)), GatesEncoder),
        (Constrained(CELL, 10, max_params=10**9), GatesEncoder),
        (MACRO, LstmEncoder),
        (LayerwiseConfig().build((3, 64, 64)), LstmEncoder),
    ],
)
def test_the_space_decides_the_encoder(space: SearchSpace, expected: type[Encoder]) -> None:
    assert isinstance(DeleConfig().build(space, seed=0)._expert.encoder, expected)


def test_gates_need_a_cell() -> None:
    with pytest.raises(
        EncoderError, match=r"gates is for spaces of a cell .*TransNasMacro is not: use lstm or mlp"
    ):
        DeleConfig(encoder="gates").build(MACRO, seed=0)
