"""The process that transfers across tasks: its posterior, its hyperparameters, and what earlier tasks are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau, multivariate_normal
from sklearn.gaussian_process.kernels import DotProduct, Matern

from across.search_spaces import TransNasMicroConfig
from across.search_spaces.tables import open_table
from across.workers.predictors.across import Across, AcrossConfig
from across.workers.predictors.base import (
    Candidates,
    Values,
    best_first,
    candidates_of,
    normal_scores,
    quantiles,
)
from across.workers.predictors.kernels import (
    JITTER,
    PREDICTED_AT_ONCE,
    AdditiveGaussianProcess,
    Array,
    Views,
    default_prior,
)

SPACE = TransNasMicroConfig().build((3, 256, 256))


def views(num: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"near": rng.normal(size=(num, 3)), "along": rng.normal(size=(num, 2))}


def kernel(theta: Array, left: Views, right: Views) -> Array:
    """By scikit-learn's kernels."""
    amplitudes = np.exp(theta[[0, 2]])
    matern = Matern(length_scale=float(np.exp(theta[1])), nu=1.5)(left["near"], right["near"])
    linear = DotProduct(sigma_0=0.0)(left["along"], right["along"]) / left["along"].shape[1]
    return np.asarray(amplitudes[0] * matern + amplitudes[1] * linear)


def fitted(num: int = 25) -> tuple[AdditiveGaussianProcess, dict[str, Array], Array]:
    seen = views(num, 0)
    targets = np.sin(seen["near"][:, 0]) + seen["along"][:, 1] + 5.0
    process = AdditiveGaussianProcess({"near": "matern", "along": "linear"})
    process.fit(seen, targets)
    return process, seen, targets


def test_the_posterior_is_the_textbook_one() -> None:
    process, seen, targets = fitted()
    new, theta = views(7, 1), process.hyperparameters
    mean, std = process.predict(new)
    noisy = kernel(theta, seen, seen) + (np.exp(theta[-1]) + JITTER) * np.eye(len(targets))
    cross = kernel(theta, new, seen)
    scaled = (targets - targets.mean()) / targets.std()
    expected = cross @ np.linalg.solve(noisy, scaled) * targets.std() + targets.mean()
    variance = np.diag(kernel(theta, new, new) - cross @ np.linalg.solve(noisy, cross.T))
    assert mean == pytest.approx(expected, rel=1e-6)
    assert std == pytest.approx(np.sqrt(variance) * targets.std(), rel=1e-4)


def test_hyperparameters_are_the_most_probable() -> None:
    process, seen, targets = fitted()
    scaled = (targets - targets.mean()) / targets.std()
    mean, deviation = default_prior(2)

    def log_posterior(theta: Array) -> float:
        noisy = kernel(theta, seen, seen) + (np.exp(theta[-1]) + JITTER) * np.eye(len(targets))
        likelihood = multivariate_normal(np.zeros(len(targets)), noisy).logpdf(scaled)
        return float(likelihood - 0.5 * np.square((theta - mean) / deviation).sum())

    best = process.hyperparameters
    for position in range(len(best)):
        if position == 3:  # a linear kernel has no length; its prior alone decides
            assert best[position] == pytest.approx(mean[position], abs=1e-4)
            continue
        for step in (-0.1, 0.1):
            other = best.copy()
            other[position] += step
            assert log_posterior(other) < log_posterior(best)


def test_a_prior_pulls_hyperparameters_to_itself() -> None:
    _, seen, targets = fitted()
    wanted = np.array([0.5, 1.0, 0.5, 0.0, -1.0])
    process = AdditiveGaussianProcess({"near": "matern", "along": "linear"}, (wanted, np.full(5, 1e-4)))
    process.fit(seen, targets)
    assert process.hyperparameters == pytest.approx(wanted, abs=1e-3)


def test_ranks_alone_count() -> None:
    scores = np.array([3.0, 1.0, 2.0, 2.0])
    assert normal_scores(scores) == pytest.approx(normal_scores(np.exp(scores)))
    assert normal_scores(scores)[2] == normal_scores(scores)[3]
    shares = quantiles(np.array([0.0, 2.0, 9.0, np.nan]), np.array([1.0, 2.0, 3.0, np.nan]))
    assert shares[:3] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert np.isnan(shares[3])


@pytest.fixture(scope="module")
def micro(shared_data: Path) -> tuple[Candidates, Values]:
    """A third of the space, as class_scene sees it after all other tasks."""
    table = open_table(shared_data / "transnas_bench_101" / "micro.npz")
    rows = np.arange(0, len(table.strings), 3)
    earlier = {task: table.scores(task)[rows] for task in table.tasks if task != "class_scene"}
    genotypes = [SPACE.from_string(table.strings[row]) for row in rows]
    return candidates_of(SPACE, genotypes, earlier=earlier), table.scores("class_scene")[rows]


def tau(config: AcrossConfig, candidates: Candidates, scores: Values, num_scores: int) -> float:
    """Mean over three draws of the scores."""
    found = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(candidates))
        predictor: Across = config.build(SPACE, seed=seed)
        predictor.pretrain(candidates)
        predictor.fit(candidates.take(order[:num_scores]), scores[order[:num_scores]])
        rest = order[num_scores:]
        found.append(kendalltau(predictor.predict(candidates.take(rest)).mean, scores[rest]).statistic)
    return float(np.mean(found))


def test_earlier_tasks_are_worth_many_scores(micro: tuple[Candidates, Values]) -> None:
    candidates, scores = micro
    alone = replace(candidates, earlier={})
    config = AcrossConfig(num_meta_scores=40)
    assert tau(config, candidates, scores, 10) > tau(config, alone, scores, 40) + 0.05


def test_one_earlier_task_is_enough_and_teaches_no_prior(micro: tuple[Candidates, Values]) -> None:
    candidates, scores = micro
    single = replace(candidates, earlier={"normal": candidates.earlier["normal"]})
    assert tau(AcrossConfig(), single, scores, 10) > 0.4


def test_views_can_be_left_out(micro: tuple[Candidates, Values]) -> None:
    candidates, scores = micro
    blind = AcrossConfig(views=("encoding",), is_meta_trained=False)
    coregionalised = AcrossConfig(views=("encoding", "paths", "earlier_linear"), is_meta_trained=False)
    assert tau(coregionalised, candidates, scores, 10) > tau(blind, candidates, scores, 10) + 0.1


def test_the_best_by_their_mean_rank_come_first() -> None:
    columns = {
        "a": np.array([1.0, 2.0, 3.0, np.nan]),
        "b": np.array([10.0, 30.0, 20.0, 40.0]),
        "unknown": np.full(4, np.nan),
    }
    assert best_first(columns).tolist() == [3, 2, 1, 0]
    assert best_first({"unknown": np.full(3, np.nan)}).tolist() == [0, 1, 2]


@pytest.mark.parametrize("useless", [np.zeros(300), np.where(np.arange(300) < 140, np.arange(300.0), np.nan)])
def test_an_earlier_task_that_tells_nothing_apart_is_left_out(useless: Values) -> None:
    """As an earlier run is that failed everywhere, or that knows less than half of the pool."""
    rng = np.random.default_rng(0)
    genotypes = [SPACE.sample(rng) for _ in range(300)]
    quality = np.array([sum(genotype) for genotype in genotypes], dtype=np.float64)
    earlier = {name: quality + rng.normal(size=300) for name in ("a", "b")}
    expected, given = (
        fitted_on(candidates_of(SPACE, genotypes, earlier=columns), quality)
        for columns in (earlier, {**earlier, "useless": useless})
    )
    assert given == expected
    alone = candidates_of(SPACE, genotypes, earlier={"a": earlier["a"], "useless": useless})
    assert np.isfinite(fitted_on(alone, quality)).all()


def fitted_on(pool: Candidates, scores: Values) -> list[float]:
    """What is predicted of `pool` after ten of its scores."""
    across = AcrossConfig().build(SPACE, seed=0)
    across.pretrain(pool)
    across.fit(pool.take(range(10)), scores[:10])
    return list(across.predict(pool).mean)


def test_candidates_beyond_one_helping_are_predicted_as_the_others() -> None:
    process, _, _ = fitted()
    many = views(2 * PREDICTED_AT_ONCE + 3, 1)
    mean, std = process.predict(many)
    for part in (slice(0, 5), slice(-5, None)):
        own_mean, own_std = process.predict({name: view[part] for name, view in many.items()})
        assert mean[part] == pytest.approx(own_mean)
        assert std[part] == pytest.approx(own_std)
