"""Nothing outside the limits is ever proposed."""

import copy
import pickle

import numpy as np
import pytest
from scipy.stats import chisquare

from across.search_spaces import CellConfig, LayerwiseConfig
from across.search_spaces.base import ConstraintError, InvalidGenotypeError, SearchSpace, enumerate_genes
from across.search_spaces.constrained import Constrained, Cost
from across.search_spaces.layerwise import Layerwise
from across.search_spaces.network import Network

LAYERWISE = LayerwiseConfig().build((1, 28, 28))
CELL = CellConfig().build((1, 28, 28))


def tiny() -> Layerwise:
    config = LayerwiseConfig(operations=("conv_3x3", "skip"), widths=(4, 8), num_layers=2, readout="mean")
    return config.build((1, 8, 8))


@pytest.mark.parametrize(
    "space",
    [
        Constrained(LAYERWISE, num_outputs=5, max_params=30_000),
        Constrained(LAYERWISE, num_outputs=20, max_flops=2_000_000, max_params=100_000),
        Constrained(CELL, num_outputs=5, max_flops=5_000_000),
    ],
)
def test_operators_stay_within_the_limits(space: Constrained) -> None:
    rng = np.random.default_rng(0)
    population = [space.sample(rng) for _ in range(10)]
    for _ in range(30):
        mother, father = (population[i] for i in rng.integers(len(population), size=2))
        population.append(space.mutate(space.crossover(mother, father, rng), rng))
    for genotype in population:
        body = Network(space.architecture(genotype))
        num_features = body.architecture.feature_dim
        num_params = sum(p.numel() for p in body.parameters()) + (num_features + 1) * space.num_outputs
        flops = body.architecture.flops + num_features * space.num_outputs
        assert space.cost(genotype) == Cost(num_params, flops)
        assert num_params <= (space.max_params or num_params)
        assert flops <= (space.max_flops or flops)
        space.validate(genotype)


def test_samples_are_uniform_within_the_limits() -> None:
    space = Constrained(tiny(), num_outputs=5, max_params=200)
    allowed = [genotype for genotype in enumerate_genes(tiny().cardinalities) if space.allows(genotype)]
    assert 4 < len(allowed) < 16
    rng = np.random.default_rng(0)
    samples = [space.sample(rng) for _ in range(3000)]
    assert set(samples) == set(allowed)
    assert chisquare([samples.count(genotype) for genotype in allowed]).pvalue > 1e-3


def test_the_limit_itself_is_allowed() -> None:
    genotype = LAYERWISE.sample(np.random.default_rng(0))
    cost = Constrained(LAYERWISE, num_outputs=5).cost(genotype)
    assert Constrained(LAYERWISE, 5, max_params=cost.num_params, max_flops=cost.flops).allows(genotype)
    assert not Constrained(LAYERWISE, 5, max_params=cost.num_params - 1).allows(genotype)
    assert not Constrained(LAYERWISE, 5, max_flops=cost.flops - 1).allows(genotype)


def test_the_rarest_architectures_are_found() -> None:
    """Mutations lead to architectures that are too rare to be drawn."""
    rng = np.random.default_rng(0)
    unlimited = Constrained(CELL, num_outputs=5)
    limit = min(unlimited.cost(CELL.sample(rng)).num_params for _ in range(400)) // 2
    space = Constrained(CELL, num_outputs=5, max_params=limit)
    genotype = space.sample(rng)
    assert space.cost(genotype).num_params <= limit
    assert space.cost(space.mutate(genotype, rng)).num_params <= limit


def test_impossible_limits_are_explained() -> None:
    space = Constrained(CELL, num_outputs=5, max_params=100)
    with pytest.raises(
        ConstraintError, match=r"max_params 100, a head of 5 outputs included.*parameters.*raise"
    ):
        space.sample(np.random.default_rng(0))


def test_a_single_architecture_within_the_limits_cannot_be_mutated() -> None:
    space = Constrained(tiny(), num_outputs=5, max_params=10)
    rng = np.random.default_rng(0)
    genotype = space.sample(rng)
    assert space.to_string(genotype) == "skip|skip"
    with pytest.raises(ConstraintError, match=r"skip\|skip cannot be mutated.*max_params 10"):
        space.mutate(genotype, rng)


def test_crossover_falls_back_on_a_parent() -> None:
    """Wide layers are affordable where none follows another: any mixture of the two has such a pair."""
    config = LayerwiseConfig(
        operations=("conv_3x3",), widths=(1, 64), num_layers=60, reductions=(), readout="mean"
    )
    layers = config.build((1, 4, 4))
    mother = layers.from_string("|".join(["conv_3x3:64", "conv_3x3:1"] * 30))
    father = layers.from_string("|".join(["conv_3x3:1", "conv_3x3:64"] * 30))
    dearest = max(Constrained(layers, 5).cost(parent).num_params for parent in (mother, father))
    space = Constrained(layers, num_outputs=5, max_params=dearest)
    rng = np.random.default_rng(0)
    assert {space.crossover(mother, father, rng) for _ in range(4)} == {mother, father}
    with pytest.raises(InvalidGenotypeError, match="max_params"):
        Constrained(layers, num_outputs=5, max_params=10).crossover(mother, father, rng)


def test_strings_and_genotypes_beyond_the_limits_are_rejected() -> None:
    space = Constrained(LAYERWISE, num_outputs=5, max_params=30_000)
    text = "|".join(["conv_3x3:64"] * 4)
    for reject in (lambda: space.from_string(text), lambda: space.validate(LAYERWISE.from_string(text))):
        with pytest.raises(
            InvalidGenotypeError, match=r"has 112,\d+ parameters .* allowed are max_params 30,000"
        ):
            reject()
    with pytest.raises(InvalidGenotypeError, match="no architecture of the space layerwise"):
        space.from_string("skip")


def test_what_is_remembered_does_not_tell_spaces_apart() -> None:
    space: SearchSpace = Constrained(LAYERWISE, num_outputs=5, max_params=30_000)
    fresh = copy.copy(Constrained(LAYERWISE, num_outputs=5, max_params=30_000))
    space.sample(np.random.default_rng(0))
    assert space == fresh
    assert pickle.loads(pickle.dumps(space)) == fresh
