"""The contract that every search space keeps, and what is particular to each."""

from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy.stats import chisquare

from across.search_spaces import (
    CellConfig,
    LayerwiseConfig,
    NasBench201Config,
    SpaceConfig,
    TransNasMacroConfig,
    TransNasMicroConfig,
)
from across.search_spaces.architecture import Shape
from across.search_spaces.base import InvalidGenotypeError, SearchSpace, enumerate_genes
from across.search_spaces.cell import Cell
from across.search_spaces.constrained import Constrained
from across.search_spaces.layerwise import InputTooSmallError, Layerwise, spread_reductions

CONFIGS: dict[str, SpaceConfig] = {
    "layerwise": LayerwiseConfig(),
    "layerwise with poolings first": LayerwiseConfig(
        operations=("avg_pool_3x3", "conv_5x5", "skip", "sep_conv_3x3")
    ),
    "layerwise with many layers": LayerwiseConfig(num_layers=6, widths=(8, 16), readout="mean"),
    "cell": CellConfig(),
    "cell of one kind": CellConfig(layout="RR", num_nodes=2, operations=("none", "skip", "sep_conv_3x3")),
    "nas_bench_201": NasBench201Config(channels=4, cells_per_stage=1),
    "transnas_micro": TransNasMicroConfig(channels=4),
    "transnas_macro": TransNasMacroConfig(channels=4),
}
SPACES: dict[str, SearchSpace] = {
    **{name: config.build((1, 28, 28)) for name, config in CONFIGS.items()},
    "constrained layerwise": Constrained(
        LayerwiseConfig().build((1, 28, 28)), num_outputs=5, max_params=60_000
    ),
    "constrained cell": Constrained(CellConfig().build((3, 16, 16)), num_outputs=5, max_flops=4_000_000),
    "constrained transnas_macro": Constrained(
        TransNasMacroConfig(channels=8).build((1, 28, 28)), num_outputs=5, max_params=100_000
    ),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))


def small_layerwise() -> Layerwise:
    config = LayerwiseConfig(operations=("conv_3x3", "skip", "sep_conv_3x3"), widths=(4, 8), num_layers=2)
    return config.build((1, 8, 8))


def small_cell() -> Cell:
    return CellConfig(operations=("none", "skip"), layout="RN", num_nodes=2).build((1, 8, 8))


def kind_of(space: SearchSpace) -> type:
    return type(space.space if isinstance(space, Constrained) else space)


def test_every_registered_space_is_under_contract() -> None:
    registered = set(get_args(get_args(SpaceConfig)[0]))
    assert {type(config) for config in CONFIGS.values()} == registered


@every_space
def test_samples_are_valid_and_depend_on_the_generator_alone(space: SearchSpace) -> None:
    samples = [[space.sample(rng) for _ in range(30)] for rng in (np.random.default_rng(7) for _ in range(2))]
    for genotype in samples[0]:
        space.validate(genotype)
        assert all(type(gene) is int for gene in genotype)
    assert samples[0] == samples[1]
    assert len(set(samples[0])) > 20


@every_space
def test_mutation_changes_the_function_and_stays_valid(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        parent = space.sample(rng)
        child = space.mutate(parent, rng)
        space.validate(child)
        assert space.canonical(child) != space.canonical(parent)
        assert child in space.neighbours(parent) or isinstance(space, Constrained)


@every_space
def test_neighbours_are_what_mutation_reaches(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        genotype = space.sample(rng)
        neighbours = space.neighbours(genotype)
        assert len(set(neighbours)) == len(neighbours) > 0
        assert all(genotype in space.neighbours(neighbour) for neighbour in neighbours[:3])
        is_constrained = isinstance(space, Constrained)
        drawn = {space.mutate(genotype, rng) for _ in range(150 if is_constrained else 1500)}
        assert drawn <= set(neighbours) if is_constrained else drawn == set(neighbours)


@every_space
def test_neighbours_are_the_other_functions_one_gene_away(space: SearchSpace) -> None:
    cardinalities = getattr(space, "cardinalities", None)
    if cardinalities is None:
        pytest.skip("its genes are not independent")
    genotype = space.sample(np.random.default_rng(1))
    changed = [
        (*genotype[:position], value, *genotype[position + 1 :])
        for position, cardinality in enumerate(cardinalities)
        for value in range(cardinality)
    ]
    others = {other for other in changed if space.canonical(other) != space.canonical(genotype)}
    assert set(space.neighbours(genotype)) == others


@every_space
def test_crossover_takes_each_gene_from_a_parent(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    mixed = 0
    for _ in range(60):
        mother, father = space.sample(rng), space.sample(rng)
        child = space.crossover(mother, father, rng)
        space.validate(child)
        assert len(child) in (len(mother), len(father))
        assert all(gene in (*mother[i : i + 1], *father[i : i + 1]) for i, gene in enumerate(child))
        mixed += child not in (mother, father)
    assert mixed > 30


@every_space
def test_strings_return_the_same_function(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        genotype = space.sample(rng)
        text = space.to_string(genotype)
        returned = space.from_string(text)
        assert space.canonical(returned) == space.canonical(genotype)
        assert space.to_string(returned) == text
        assert space.from_string(space.to_string(space.canonical(genotype))) == space.canonical(genotype)


@every_space
def test_canonical_genotypes_stand_for_the_same_graph(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        genotype = space.sample(rng)
        canonical = space.canonical(genotype)
        space.validate(canonical)
        assert space.canonical(canonical) == canonical
        assert space.architecture(canonical) == space.architecture(genotype)
        np.testing.assert_array_equal(space.encode(canonical), space.encode(genotype))


@every_space
def test_encodings_are_one_hot_and_tell_functions_apart(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        genotype, other = space.sample(rng), space.sample(rng)
        encoding = space.encode(genotype)
        assert encoding.shape == (space.encoding_dim,)
        assert encoding.dtype == np.float32
        assert set(encoding) == {0.0, 1.0}
        assert encoding.sum() == len(genotype)
        same = space.canonical(genotype) == space.canonical(other)
        assert np.array_equal(encoding, space.encode(other)) == same


@every_space
def test_parameters_are_leading_slices_of_the_supernet(space: SearchSpace) -> None:
    everything, num_features = space.super_architecture().parameters, space.super_architecture().feature_dim
    rng = np.random.default_rng(0)
    greatest: dict[str, Shape] = dict.fromkeys(everything, ())
    for _ in range(200):
        architecture = space.architecture(space.sample(rng))
        assert architecture.feature_dim <= num_features, "the head would not fit"
        for name, shape in architecture.parameters.items():
            assert len(shape) == len(everything[name])
            assert all(size <= full for size, full in zip(shape, everything[name], strict=True))
            greatest[name] = max(greatest[name], shape)
    if not isinstance(space, Constrained):
        assert greatest == everything, "the supernet holds weights that no path uses"


@every_space
def test_genotypes_of_another_form_are_rejected(space: SearchSpace) -> None:
    genotype = space.sample(np.random.default_rng(0))
    with pytest.raises(InvalidGenotypeError, match=r"(genes|modules) \(got 2"):
        space.validate(genotype[:2])
    with pytest.raises(InvalidGenotypeError, match=r" 1 must be \d to \d+ \(got 99\); .* 2 .* \(got -1\)"):
        space.validate((genotype[0], 99, -1, *genotype[3:]))
    with pytest.raises(InvalidGenotypeError, match=r" 0 must be .* \(got 0.0\)"):
        space.validate((0.0, *genotype[1:]))  # type: ignore[arg-type]


@every_space
def test_strings_of_other_spaces_are_rejected(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    own = space.to_string(space.sample(rng))
    for text in ["", "|", "conv_3x3", "normal:|reduction:", own + "|" + own, own[:-2]]:
        with pytest.raises(InvalidGenotypeError, match="is no architecture of the space"):
            space.from_string(text)
    for other in SPACES.values():
        if kind_of(other) is not kind_of(space):
            with pytest.raises(InvalidGenotypeError, match=r"is no architecture of the space .*; needed"):
                space.from_string(other.to_string(other.sample(rng)))


@pytest.mark.parametrize("space", [small_layerwise(), small_cell()], ids=["layerwise", "cell"])
def test_every_genotype_of_a_small_space_is_sampled_equally_often(space: Layerwise | Cell) -> None:
    position = {genotype: i for i, genotype in enumerate(enumerate_genes(space.cardinalities))}
    rng = np.random.default_rng(0)
    counts = np.bincount(
        [position[space.sample(rng)] for _ in range(6 * len(position))], minlength=len(position)
    )
    assert chisquare(counts).pvalue > 1e-3


def test_layerwise_functions_are_counted_once() -> None:
    space = small_layerwise()
    genotypes = list(enumerate_genes(space.cardinalities))
    assert len(genotypes) == (3 * 2) ** 2
    canonical = {space.canonical(genotype) for genotype in genotypes}
    # A layer is one of two convolutions in two widths, or a skip.
    assert len(canonical) == (2 * 2 + 1) ** 2
    assert len({space.architecture(genotype) for genotype in canonical}) == len(canonical)
    assert len({space.to_string(genotype) for genotype in genotypes}) == len(canonical)


def test_cell_functions_are_counted_once() -> None:
    space = small_cell()
    genotypes = list(enumerate_genes(space.cardinalities))
    assert len(genotypes) == ((1 * 2 * 2) * (3 * 2 * 2)) ** 2
    # Node 0 skips from either input or not; node 1 from two of three inputs, one of three, or none.
    per_cell = (2 * 2) * (3 + 3 + 1)
    # The reduction cell comes first. It has no effect when the normal cell's nodes skip from 0, and from 0 or node 0.
    without_effect = 1 * 3
    canonical = {space.canonical(genotype) for genotype in genotypes}
    assert len(canonical) == (per_cell - without_effect) * per_cell + without_effect
    assert len({space.architecture(genotype) for genotype in canonical}) == len(canonical)


def test_cell_pair_genes_are_lexicographic_and_strings_take_either_order() -> None:
    space = small_cell()
    text = "normal:(skip~1,none~0)(none~2,skip~0)|reduction:(none~0,none~1)(skip~1,skip~2)"
    genotype = space.from_string(text)
    assert genotype == (0, 0, 1, 1, 1, 0, 0, 0, 0, 2, 1, 1)
    assert space.to_string(genotype).startswith("normal:(none~0,skip~1)(skip~0,none~2)|")


def test_wrong_strings_are_explained_position_by_position() -> None:
    with pytest.raises(InvalidGenotypeError) as layers:
        small_layerwise().from_string("conv_3x3:5|skip:4|skip")
    assert "layer 0 is 'conv_3x3:5'; layer 1 is 'skip:4'; it has 3 layers; needed are 2 layers" in str(
        layers.value
    )
    assert "conv_3x3:4, conv_3x3:8, skip, sep_conv_3x3:4" in str(layers.value)
    with pytest.raises(InvalidGenotypeError) as nodes:
        small_cell().from_string(
            "normal:(skip~0,skip~1)(conv~0,skip~1)|reduction:(skip~0,skip~0)(skip~3,skip~1)"
        )
    assert "; reduction node 0 is 'skip~0,skip~0' (its inputs: 0 to 1)" in str(nodes.value)
    assert "normal node 1 is 'conv~0,skip~1'" in str(nodes.value)
    assert "reduction node 1 is 'skip~3,skip~1' (its inputs: 0 to 2)" in str(nodes.value)
    assert "operations of none, skip" in str(nodes.value)
    assert "normal node 0" not in str(nodes.value)


def test_reductions_are_spread() -> None:
    assert [spread_reductions(n) for n in (1, 4, 5, 8)] == [(0,), (0, 1, 2, 3), (0, 1, 2, 4), (1, 3, 5, 7)]
    for n in range(4, 40):
        reductions = spread_reductions(n)
        gaps = {b - a for a, b in pairwise((-1, *reductions))}
        assert len(reductions) == 4
        assert reductions[-1] == n - 1
        assert max(gaps) - min(gaps) <= 1


def test_too_small_images_are_an_error_of_the_layerwise_space() -> None:
    assert LayerwiseConfig().build((3, 16, 99)).reductions == (0, 1, 2, 3)
    with pytest.raises(InputTooSmallError, match=r"15x99 can be halved 3 times.*4 reductions"):
        LayerwiseConfig().build((3, 15, 99))


def test_configurations_are_validated() -> None:
    adapter: TypeAdapter[SpaceConfig] = TypeAdapter(SpaceConfig)
    for config in CONFIGS.values():
        assert adapter.validate_json(config.model_dump_json()) == config
    wrong = {"widths": [16, 8], "operations": ["skip", "skip"], "num_layers": 2, "reductions": [2]}
    with pytest.raises(ValidationError) as error:
        LayerwiseConfig.model_validate(wrong)
    for what in ("widths must be", "operations must be distinct", "0 to 1 (got [2])"):
        assert what in str(error.value)
    for changed in (
        {"layout": "NX"},
        {"num_nodes": 6},
        {"operations": ["skip"]},
        {"operations": ["conv"] * 2},
    ):
        with pytest.raises(ValidationError):
            CellConfig.model_validate(changed)
    with pytest.raises(ValidationError, match="'layerwise', 'cell'"):
        adapter.validate_python({"type": "celll"})
