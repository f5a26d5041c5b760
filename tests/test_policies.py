"""Policies of REINFORCE: their chances, and the gradient of their log-likelihood."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from across.orchestrator.strategies.policies import AllGenotypes, IndependentGenes, policy_of
from across.search_spaces import LayerwiseConfig, NasBench201Config, TransNasMacroConfig
from across.search_spaces.base import Genotype
from across.search_spaces.constrained import Constrained

MACRO = TransNasMacroConfig().build((3, 256, 256))
CELLS = NasBench201Config().build((3, 32, 32))
LAYERS = LayerwiseConfig(operations=("conv_3x3", "skip"), widths=(4, 8), num_layers=2).build((1, 8, 8))


def log_likelihood(policy: AllGenotypes, logits: np.ndarray, genotype: Genotype) -> float:
    scores = policy.encodings @ logits
    return float(scores[policy.genotypes.index(genotype)] - np.log(np.exp(scores).sum()))


def test_spaces_with_independent_genes_have_a_softmax_a_gene() -> None:
    assert isinstance(policy_of(CELLS), IndependentGenes)
    assert isinstance(policy_of(LAYERS), IndependentGenes)
    assert isinstance(policy_of(MACRO), AllGenotypes)
    assert isinstance(policy_of(Constrained(MACRO, 0, max_params=10**9)), AllGenotypes)


def test_the_gradient_is_that_of_the_log_likelihood() -> None:
    policy = policy_of(MACRO)
    assert isinstance(policy, AllGenotypes)
    rng = np.random.default_rng(0)
    logits, genotype = rng.normal(size=policy.num_logits), MACRO.sample(rng)
    gradient = policy.gradient(logits, genotype)
    for position in range(policy.num_logits):
        step = np.zeros(policy.num_logits)
        step[position] = 1e-6
        slope = (
            log_likelihood(policy, logits + step, genotype) - log_likelihood(policy, logits - step, genotype)
        ) / 2e-6
        assert gradient[position] == pytest.approx(slope, abs=1e-6)


def test_with_independent_genes_both_policies_are_one() -> None:
    rng = np.random.default_rng(0)
    genes, every = policy_of(CELLS), AllGenotypes(CELLS, CELLS)
    logits = rng.normal(size=genes.num_logits)
    canonical = next(each for each in CELLS.enumerate() if CELLS.canonical(each) == each and 1 in each)
    chances = [np.exp(part) / np.exp(part).sum() for part in np.split(logits, 6)]
    one_hot = np.concatenate([np.eye(5)[gene] for gene in canonical])
    assert genes.gradient(logits, canonical) == pytest.approx(one_hot - np.concatenate(chances))
    assert every.num_logits == genes.num_logits


@pytest.mark.parametrize("space", [LAYERS, MACRO], ids=["genes", "every"])
def test_zero_logits_draw_uniformly_and_great_ones_always_the_same(space: object) -> None:
    policy = policy_of(space)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    drawn = Counter(policy.sample(np.zeros(policy.num_logits), rng) for _ in range(800))
    assert max(drawn.values()) < 120
    wanted = next(iter(drawn))
    certain = 50.0 * policy.gradient(np.zeros(policy.num_logits), wanted)
    assert Counter(policy.sample(certain, rng) for _ in range(50)).most_common(1)[0][1] >= 45


def test_limits_are_kept() -> None:
    space = Constrained(LAYERS, 5, max_params=600)
    policy = policy_of(space)
    rng = np.random.default_rng(0)
    assert all(space.allows(policy.sample(np.zeros(policy.num_logits), rng)) for _ in range(100))
