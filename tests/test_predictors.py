"""What holds for every predictor, and what makes the features and the rivals what they are said to be."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy.stats import kendalltau

from across.search_spaces import (
    CellConfig,
    LayerwiseConfig,
    NasBench201Config,
    TransNasMacroConfig,
    TransNasMicroConfig,
)
from across.search_spaces.base import SearchSpace
from across.search_spaces.tables import open_table
from across.workers.predictors import PredictorConfig
from across.workers.predictors.base import (
    Candidates,
    Prediction,
    Predictor,
    PredictorInputError,
    SavedPredictor,
    Values,
    candidates_of,
)
from across.workers.predictors.features import learn_features, training_data

REPOSITORY = Path(__file__).resolve().parents[1]
TYPES = [
    get_args(config.model_fields["type"].annotation)[0] for config in get_args(get_args(PredictorConfig)[0])
]
QUICK: dict[str, dict[str, Any]] = {
    "extra_trees": {"num_trees": 50},
    "gradient_boosting": {"num_ensemble": 4, "num_trees": 40},
    "gaussian_process": {"num_restarts": 0},
    "weak": {"width": 100},
    "dele": {"num_pretraining_epochs": 5, "num_epochs": 20, "num_averaged_epochs": 10, "head_widths": (32,)},
}
"""Settings with which tests take less time; a type without an entry keeps its defaults."""
RIVALS = ("extra_trees", "gradient_boosting", "gaussian_process", "weak")
MICRO = TransNasMicroConfig().build((3, 64, 64))
NUM_SCORED = 40

every_predictor = pytest.mark.parametrize("name", TYPES)


def build(name: str, space: SearchSpace = MICRO, seed: int = 0, **settings: Any) -> Predictor:
    config: TypeAdapter[Any] = TypeAdapter(PredictorConfig)
    section = {"type": name, **QUICK.get(name, {}), **settings}
    predictor: Predictor = config.validate_python(section).build(space, seed=seed)
    return predictor


def fit_predict(
    name: str, scored: Candidates, scores: Values, others: Candidates, **settings: Any
) -> Prediction:
    predictor = build(name, **settings)
    predictor.fit(scored, scores)
    return predictor.predict(others)


@cache
def toy(num: int = NUM_SCORED, seed: int = 1, space: Any = MICRO) -> tuple[Candidates, Values]:
    """Random candidates; a score that is linear in the encoding, a signal that nearly is it, and one of noise."""
    rng = np.random.default_rng(seed)
    genotypes = [space.sample(rng) for _ in range(num)]
    encodings = candidates_of(space, genotypes).encodings
    scores = encodings @ np.random.default_rng(0).normal(size=space.encoding_dim)
    signals = {"near": np.exp(3 * scores) + rng.normal(size=num), "noise": rng.normal(size=num)}
    return candidates_of(space, genotypes, signals=signals, earlier={"earlier": np.tanh(scores)}), scores


@pytest.fixture(scope="module")
def micro(shared_data: Path) -> tuple[Candidates, Values]:
    """The networks of the benchmark's class_scene that every proxy scores."""
    table = open_table(shared_data / "transnas_bench_101" / "micro.npz")
    proxies = table.proxies("class_scene")
    rows = np.flatnonzero(np.all([np.isfinite(values) for values in proxies.values()], axis=0))
    genotypes = [MICRO.from_string(table.strings[row]) for row in rows]
    signals = {name: values[rows] for name, values in proxies.items()}
    return candidates_of(MICRO, genotypes, signals=signals), table.scores("class_scene")[rows]


def with_signals(candidates: Candidates, change: Callable[[Values], Values]) -> Candidates:
    return replace(candidates, signals={name: change(values) for name, values in candidates.signals.items()})


def unknown(values: Values) -> Values:
    return np.full(len(values), np.nan)


def every_other_unknown(values: Values) -> Values:
    return np.where(np.arange(len(values)) % 2 == 0, np.nan, values)


def bare(candidates: Candidates) -> Candidates:
    return replace(candidates, signals={}, earlier={})


def assert_usable(prediction: Prediction, num_candidates: int) -> None:
    for values in (prediction.mean, prediction.std):
        assert values.shape == (num_candidates,)
        assert values.dtype == np.float64
        assert np.isfinite(values).all()
    assert (prediction.std > 0).all()


def assert_same(one: Prediction, other: Prediction) -> None:
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.std, other.std)


def assert_close(one: Prediction, other: Prediction) -> None:
    spread = one.mean.std() + one.std.mean()
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-3 * spread)
    np.testing.assert_allclose(one.std, other.std, atol=1e-3 * spread)


def tau(prediction: Prediction, scores: Values) -> float:
    return float(kendalltau(prediction.mean, scores).statistic)


def global_random_states() -> list[str]:
    return [repr(random.getstate()), repr(np.random.get_state()), repr(torch.get_rng_state().tolist())]


def digest(name: str) -> str:
    """What a predictor says on the toy, to the last bit."""
    scored, scores = toy()
    prediction = fit_predict(name, scored, scores, toy(20, seed=2)[0])
    return hashlib.sha256(prediction.mean.tobytes() + prediction.std.tobytes()).hexdigest()


def test_types_are_told_apart() -> None:
    assert len(set(TYPES)) == len(TYPES)
    assert set(RIVALS) <= set(TYPES)
    with pytest.raises(ValidationError, match=r"'extra_trees'.*'gaussian_process'"):
        TypeAdapter(PredictorConfig).validate_python({"type": "oracle"})


@every_predictor
def test_unknown_settings_are_errors(name: str) -> None:
    with pytest.raises(ValidationError, match="no_such_setting"):
        build(name, no_such_setting=1)


@every_predictor
def test_a_seed_decides_everything(name: str) -> None:
    scored, scores = toy()
    others, _ = toy(20, seed=2)
    seed = 2**80 + 3  # larger than any library's
    first = fit_predict(name, scored, scores, others, seed=seed)
    assert_usable(first, 20)
    for set_seed in (random.seed, np.random.seed, torch.manual_seed):
        set_seed(99)
    states = global_random_states()
    assert_same(first, fit_predict(name, scored, scores, others, seed=seed))
    assert states == global_random_states()


@pytest.mark.slow
def test_a_fresh_process_says_the_same() -> None:
    program = (
        "import json\nfrom tests.test_predictors import TYPES, digest\n"
        "print(json.dumps({name: digest(name) for name in TYPES}))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: digest(name) for name in TYPES}


@every_predictor
def test_real_networks_are_ranked_better_than_by_chance(name: str, micro: tuple[Candidates, Values]) -> None:
    candidates, scores = micro
    rows = np.random.default_rng(5).permutation(len(scores))
    train, test = rows[:NUM_SCORED], rows[NUM_SCORED:300]
    scored, others = candidates.take(train), candidates.take(test)
    assert tau(fit_predict(name, scored, scores[train], others), scores[test]) > 0.4
    assert tau(fit_predict(name, scored, -scores[train], others), scores[test]) < -0.4


@every_predictor
def test_scale_and_shift_of_the_scores_do_not_matter(name: str) -> None:
    scored, scores = toy()
    others, _ = toy(30, seed=2)
    prediction = fit_predict(name, scored, scores, others)
    assert tau(fit_predict(name, scored, 1e-3 * scores - 50, others), prediction.mean) > 0.95


@every_predictor
def test_fitting_again_forgets(name: str) -> None:
    scored, scores = toy()
    others, _ = toy(20, seed=2)
    predictor = build(name)
    predictor.fit(*toy(15, seed=4))
    predictor.predict(others)
    predictor.fit(scored, scores)
    assert_same(predictor.predict(others), fit_predict(name, scored, scores, others))


@every_predictor
@pytest.mark.parametrize("num", [1, 2, 3])
def test_few_scores_are_enough(name: str, num: int) -> None:
    others, _ = toy(20, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_usable(fit_predict(name, *toy(num), others), 20)


@every_predictor
def test_equal_scores_are_fine(name: str) -> None:
    scored, scores = toy()
    others, _ = toy(20, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_usable(fit_predict(name, scored, np.full_like(scores, 0.1), others), 20)


@every_predictor
def test_a_genotype_may_have_several_scores(name: str) -> None:
    scored, scores = toy()
    twice = scored.take([*range(NUM_SCORED), *range(NUM_SCORED)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_usable(fit_predict(name, twice, np.concatenate([scores, scores + 1]), scored), NUM_SCORED)


CHANGES: dict[str, Callable[[Candidates], Candidates]] = {
    "known": lambda candidates: candidates,
    "none": bare,
    "nan": lambda candidates: with_signals(candidates, unknown),
    "half": lambda candidates: with_signals(candidates, every_other_unknown),
    "constant": lambda candidates: with_signals(candidates, np.ones_like),
    "vast": lambda candidates: with_signals(candidates, lambda values: 1e30 * values**5),
}


@every_predictor
@pytest.mark.parametrize(
    ("at_fit", "at_predict"),
    [
        ("none", "none"),
        ("nan", "nan"),
        ("half", "half"),
        ("constant", "constant"),
        ("vast", "vast"),
        ("known", "none"),
        ("known", "nan"),
        ("known", "half"),
        ("known", "vast"),
        ("none", "known"),
        ("nan", "known"),
        ("half", "known"),
        ("half", "none"),
    ],
)
def test_signals_may_be_missing(name: str, at_fit: str, at_predict: str) -> None:
    scored, scores = toy()
    others, true = toy(60, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prediction = fit_predict(name, CHANGES[at_fit](scored), scores, CHANGES[at_predict](others))
    assert_usable(prediction, 60)
    if at_predict != "vast" or at_fit == "vast":
        assert tau(prediction, true) > 0.2


@every_predictor
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_errors(name: str, wrong: float) -> None:
    scored, scores = toy()
    scores = scores.copy()
    scores[7] = wrong
    genotype = str(scored.genotypes[7]).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(PredictorInputError, match=f"candidate 7, {genotype}, is {wrong}"):
        build(name).fit(scored, scores)


@every_predictor
def test_no_scores_and_too_few_are_errors(name: str) -> None:
    scored, scores = toy()
    with pytest.raises(PredictorInputError, match="got 0 scores for 0 candidates"):
        build(name).fit(scored.take([]), scores[:0])
    with pytest.raises(PredictorInputError, match="got 39 scores for 40 candidates"):
        build(name).fit(scored, scores[1:])


@pytest.mark.parametrize("name", TYPES)
def test_the_order_of_the_scored_candidates_does_not_matter(name: str) -> None:
    scored, scores = toy()
    others, _ = toy(20, seed=2)
    order = np.random.default_rng(3).permutation(NUM_SCORED)
    expected = fit_predict(name, scored, scores, others)
    assert_close(expected, fit_predict(name, scored.take(order), scores[order], others))


@every_predictor
def test_the_order_of_the_predicted_candidates_does_not_matter(name: str) -> None:
    predictor = build(name)
    predictor.fit(*toy())
    others, _ = toy(30, seed=2)
    order = np.random.default_rng(3).permutation(30)
    expected = predictor.predict(others)
    ordered = predictor.predict(others.take(order))
    assert_close(Prediction(expected.mean[order], expected.std[order]), ordered)


@every_predictor
def test_inputs_and_threads_are_left_as_they_were(name: str) -> None:
    scored, scores = toy()
    before, scores_before, num_threads = (
        scored.take(range(NUM_SCORED)),
        scores.copy(),
        torch.get_num_threads(),
    )
    torch.set_num_threads(2)
    try:
        fit_predict(name, scored, scores, scored)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(num_threads)
    np.testing.assert_array_equal(scores, scores_before)
    np.testing.assert_array_equal(scored.encodings, before.encodings)
    for columns, columns_before in ((scored.signals, before.signals), (scored.earlier, before.earlier)):
        np.testing.assert_equal(dict(columns), dict(columns_before))


@every_predictor
@pytest.mark.parametrize(
    "config",
    [LayerwiseConfig(), CellConfig(), NasBench201Config(), TransNasMicroConfig(), TransNasMacroConfig()],
    ids=lambda config: config.type,
)
def test_every_space_will_do(name: str, config: Any) -> None:
    space = config.build((3, 64, 64))
    scored, scores = toy(12, space=space)
    others, _ = toy(8, seed=2, space=space)
    assert_usable(fit_predict(name, scored, scores, others, space=space), 8)


@pytest.mark.parametrize("name", [name for name in TYPES if isinstance(build(name), SavedPredictor)])
def test_what_was_pretrained_can_be_stored(name: str) -> None:
    predictor, restored = build(name), build(name)
    assert isinstance(predictor, SavedPredictor)
    assert isinstance(restored, SavedPredictor)
    pool, _ = toy(60, seed=2)
    predictor.pretrain(pool)
    restored.load_pretrained(predictor.pretrained())
    for each in (predictor, restored):
        each.fit(*toy())
    assert_same(predictor.predict(pool), restored.predict(pool))


@every_predictor
def test_scores_may_be_as_large_as_they_like(name: str) -> None:
    scored, scores = toy()
    others, _ = toy(20, seed=2)
    vast = np.where(scores > np.median(scores), 1e300, -1e300)
    assert_usable(fit_predict(name, scored, vast, others), 20)


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_are_surer_of_what_was_scored(name: str) -> None:
    scored, scores = toy()
    predictor = build(name)
    predictor.fit(scored, scores)
    others, _ = toy(100, seed=2)
    assert predictor.predict(scored).std.mean() < 0.95 * predictor.predict(others).std.mean()


@pytest.mark.parametrize("name", ["extra_trees", "gradient_boosting", "gaussian_process"])
def test_normal_scores_depend_on_the_order_alone(name: str) -> None:
    scored, scores = toy()
    others, _ = toy(20, seed=2)
    by_rank = fit_predict(name, scored, scores, others, score_scale="normal_scores")
    assert_close(by_rank, fit_predict(name, scored, np.exp(scores), others, score_scale="normal_scores"))
    as_they_are = fit_predict(name, scored, np.exp(scores), others, score_scale="standardised")
    assert not np.allclose(by_rank.mean, as_they_are.mean)


def test_weaknas_sees_the_encoding_alone_unless_told() -> None:
    scored, scores = toy()
    others, _ = toy(20, seed=2)
    assert_same(
        fit_predict("weak", scored, scores, others), fit_predict("weak", bare(scored), scores, bare(others))
    )
    told = fit_predict("weak", scored, scores, others, uses_signals=True)
    assert not np.allclose(told.mean, fit_predict("weak", scored, scores, others).mean)


def features_of(**signals: list[float]) -> Candidates:
    num = len(next(iter(signals.values())))
    columns = {name: np.array(values) for name, values in signals.items()}
    return Candidates(((0,),) * num, np.zeros((num, 1), dtype=np.float32), signals=columns)


def test_features_are_found_by_name() -> None:
    fitted = learn_features(features_of(b=[1.0, 2.0, 4.0], a=[3.0, 1.0, 2.0]))
    one = fitted.matrix(features_of(a=[3.0, 5.0], b=[1.0, 7.0], c=[9.0, 9.0]))
    np.testing.assert_array_equal(one, fitted.matrix(features_of(b=[1.0, 7.0], a=[3.0, 5.0])))
    assert one.shape == (2, 3)
    assert one[0, 1] > 0 > one[0, 2]  # the largest a and the least b at fit


def test_features_are_standardised_as_they_were_at_fit() -> None:
    scored, _ = toy()
    views = learn_features(scored).views(scored)
    assert [view.shape[1] for view in views] == [MICRO.encoding_dim, 2, 1]
    for view in views[1:]:
        np.testing.assert_allclose(view.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(view.std(axis=0), 1)
    np.testing.assert_allclose((views[0] ** 2).mean(), 1)
    alone = learn_features(scored).matrix(scored.take([5]))
    np.testing.assert_allclose(alone[0], np.hstack(views)[5])


def test_a_signal_that_says_nothing_is_left_out() -> None:
    fitted = learn_features(
        features_of(equal=[2.0, 2.0, np.nan], unknown=[np.nan] * 3, known=[1.0, 2.0, 3.0])
    )
    assert list(fitted.signals) == ["known"]


def test_an_unknown_value_is_the_median_and_says_so() -> None:
    fitted = learn_features(features_of(partly=[1.0, np.nan, 5.0, 9.0], wholly=[1.0, 2.0, 3.0, 5.0]))
    _, signals, _ = fitted.views(features_of(partly=[np.nan, 5.0, np.inf], wholly=[np.nan, 2.5, 1.0]))
    partly, is_unknown, wholly = signals.T
    assert partly[0] == partly[1] == partly[2]
    assert is_unknown[0] == is_unknown[2] > 0 > is_unknown[1]
    assert wholly[0] == wholly[1]
    _, absent, _ = fitted.views(features_of(other=[1.0]))
    np.testing.assert_array_equal(absent[0], signals[0])


def test_squashing_keeps_the_order_of_vast_signals() -> None:
    values = [-1e300, -1e60, -1.0, 0.0, 0.5, 2.0, 3.0, 1e8, 1e200]
    feature = learn_features(features_of(vast=values)).matrix(features_of(vast=values))[:, 1]
    assert (np.diff(feature) > 0).all()
    assert np.abs(feature).max() < 3


def test_training_data_do_not_depend_on_the_order() -> None:
    scored, scores = toy()
    order = np.random.default_rng(3).permutation(NUM_SCORED)
    one = training_data(scored, scores, score_scale="standardised")
    other = training_data(scored.take(order), scores[order], score_scale="standardised")
    assert one.candidates.genotypes == other.candidates.genotypes
    np.testing.assert_array_equal(one.scores, other.scores)
    np.testing.assert_allclose(one.scores.std(), 1)
    restored = one.prediction(one.scores, np.zeros(NUM_SCORED))
    np.testing.assert_allclose(np.sort(restored.mean), np.sort(scores))
    assert (restored.std > 0).all()
