"""The two spaces of TransNAS-Bench-101 against its own numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from across.search_spaces import TransNasMacroConfig, TransNasMicroConfig
from across.search_spaces.architecture import Architecture
from across.search_spaces.base import Genotype, InvalidGenotypeError
from across.search_spaces.edge_cell import EDGES
from across.search_spaces.transnas_macro import TransNasMacro
from across.search_spaces.transnas_micro import OPERATIONS, TransNasMicro
from tests.published_counts import Counts, architecture_counts, classifier_counts, genotype_counts

NUM_OUTPUTS = {"class_scene": 63, "class_object": 100, "room_layout": 9}
"""Of the networks that the tables count; fewer classes were used in training."""
NUM_PIECES, NUM_PERMUTATIONS = 9, 1000
IMAGE, PIECE = (3, 256, 256), (3, 64, 64)


@pytest.fixture(scope="module")
def micro_table(shared_data: Path) -> dict[str, NDArray[np.generic]]:
    return dict(np.load(shared_data / "transnas_bench_101" / "micro.npz", allow_pickle=False))


@pytest.fixture(scope="module")
def macro_table(shared_data: Path) -> dict[str, NDArray[np.generic]]:
    return dict(np.load(shared_data / "transnas_bench_101" / "macro.npz", allow_pickle=False))


def micro(input_shape: tuple[int, int, int] = IMAGE) -> TransNasMicro:
    return TransNasMicroConfig().build(input_shape)


def macro(input_shape: tuple[int, int, int] = IMAGE) -> TransNasMacro:
    return TransNasMacroConfig().build(input_shape)


def without_dead_edges(genotype: Genotype) -> Genotype:
    """Zeros on edges that no way from node 0 to node 3 takes."""
    chosen = [edge for gene, edge in zip(genotype, EDGES, strict=True) if gene]
    reached, useful = {0}, {3}
    for _ in range(3):
        reached |= {target for source, target in chosen if source in reached}
        useful |= {source for source, target in chosen if target in useful}
    return tuple(
        gene if source in reached and target in useful else 0
        for gene, (source, target) in zip(genotype, EDGES, strict=True)
    )


def pooled_deviation(groups: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Standard deviation of rows within their group."""
    squares, degrees = np.zeros(1), 0
    for rows in groups:
        squares = squares + np.square(rows - rows.mean(axis=0)).sum(axis=0)
        degrees += len(rows) - 1
    return np.sqrt(squares / degrees)


def jigsaw_counts(architecture: Architecture) -> Counts:
    """A linear layer on the means of all pieces; their bodies count once."""
    channels, height, width = architecture.node_shapes[-1]
    features = NUM_PIECES * channels
    pooling = features * (height + 1) * (width + 1)
    return np.array([(features + 1) * NUM_PERMUTATIONS, features * NUM_PERMUTATIONS + pooling])


def test_all_micro_strings_of_the_table_return(micro_table: dict[str, NDArray[np.generic]]) -> None:
    space, texts = micro(), [str(text) for text in micro_table["arch"]]
    genotypes = [space.from_string(text) for text in texts]
    assert [space.to_string(genotype) for genotype in genotypes] == texts
    assert genotypes == list(space.enumerate())
    assert len(genotypes) == 4096


def test_all_macro_strings_of_the_table_return(macro_table: dict[str, NDArray[np.generic]]) -> None:
    space, texts = macro(), [str(text) for text in macro_table["arch"]]
    genotypes = [space.from_string(text) for text in texts]
    assert [space.to_string(genotype) for genotype in genotypes] == texts
    assert sorted(genotypes) == sorted(space.enumerate())
    lengths = [len(genotype) for genotype in space.enumerate()]
    assert [lengths.count(length) for length in (4, 5, 6)] == [210, 750, 2296]
    assert len(np.unique(macro_table["val_final"], axis=0)) == 3256, "no two compute the same function"


def test_equal_results_in_the_micro_table_are_of_equal_functions(
    micro_table: dict[str, NDArray[np.generic]],
) -> None:
    space = micro()
    classes: dict[tuple[float, ...], set[Genotype]] = defaultdict(set)
    for genotype, row in zip(space.enumerate(), micro_table["val_final"], strict=True):
        classes[tuple(row)].add(space.canonical(genotype))
    assert len(classes) == 2994
    assert all(len(canonical) == 1 for canonical in classes.values())
    assert len({space.canonical(genotype) for genotype in space.enumerate()}) == 1376


def test_equal_functions_differ_in_the_micro_table_by_its_noise(
    micro_table: dict[str, NDArray[np.generic]],
) -> None:
    """Training the same function again under another string gives another result."""
    space = micro()
    classes: dict[Genotype, set[tuple[float, ...]]] = defaultdict(set)
    same_edges: dict[Genotype, set[tuple[float, ...]]] = defaultdict(set)
    for genotype, row in zip(space.enumerate(), micro_table["val_final"].astype(float), strict=True):
        if any(space.canonical(genotype)):
            classes[space.canonical(genotype)].add(tuple(row))
            same_edges[without_dead_edges(genotype)].add(tuple(row))
    assert sum(len(rows) > 1 for rows in classes.values()) == 292
    within = pooled_deviation(np.array(list(rows)) for rows in classes.values())
    noise = pooled_deviation(np.array(list(rows)) for rows in same_edges.values())
    total = pooled_deviation([micro_table["val_final"].astype(float)])
    # class_scene, class_object, room_layout, jigsaw, segmentsemantic, normal, autoencoder
    np.testing.assert_allclose(within / noise, [1.04, 0.99, 1.01, 0.95, 1.08, 0.96, 0.94], atol=0.01)
    np.testing.assert_allclose(within / total, [0.03, 0.10, 0.10, 0.06, 0.04, 0.11, 0.22], atol=0.01)


def test_what_has_no_way_to_the_output_is_the_function_zero() -> None:
    space = micro((3, 32, 32))
    dead = [genotype for genotype in space.enumerate() if not any(space.canonical(genotype))]
    assert len(dead) == 169
    assert all(not any(without_dead_edges(genotype)) for genotype in dead)
    architecture = space.architecture(dead[-1])
    assert architecture.feature_dim == 512
    assert {name.partition(".")[0] for name in architecture.parameters} == {"stem"}


def test_counts_of_micro_networks_are_the_tables(micro_table: dict[str, NDArray[np.generic]]) -> None:
    space, genotypes = micro(), list(micro().enumerate())
    counted = genotype_counts(space.super_architecture(), OPERATIONS, genotypes)
    of_pieces = genotype_counts(micro(PIECE).super_architecture(), OPERATIONS, genotypes)
    for column, task in enumerate(map(str, micro_table["task"])):
        table = np.column_stack([micro_table[name][:, column] for name in ("params_full", "flops_full")])
        if task in NUM_OUTPUTS:
            head = classifier_counts(space.super_architecture(), NUM_OUTPUTS[task])
            np.testing.assert_allclose(table * 1e6, counted + head, rtol=2e-9)
        else:
            # A decoder's counts are not ours to know, but they are the same for all.
            rest = table * 1e6 - (of_pieces if task == "jigsaw" else counted)
            assert np.ptp(rest, axis=0).max() < 10
            if task == "jigsaw":
                head = jigsaw_counts(micro(PIECE).super_architecture())
                np.testing.assert_allclose(rest, np.broadcast_to(head, rest.shape), atol=10)


def test_counts_of_micro_architectures_are_those_of_their_live_edges() -> None:
    space = micro()
    genotypes = [without_dead_edges(genotype) for genotype in space.enumerate()]
    counted = genotype_counts(space.super_architecture(), OPERATIONS, genotypes)
    for genotype, counts in list(zip(space.enumerate(), counted, strict=True))[::7]:
        architecture = space.architecture(genotype)
        assert architecture_counts(architecture).tolist() == counts.tolist()
        assert architecture.num_params == counts[0]
        assert architecture.flops < counts[1]


def test_counts_of_macro_networks_are_the_tables(macro_table: dict[str, NDArray[np.generic]]) -> None:
    proxies = list(macro_table["proxy"])
    params, flops = (macro_table["proxy_score"][proxies.index(name)] for name in ("params", "flops"))
    for column, task in enumerate(map(str, macro_table["task"])):
        counted_rows = np.flatnonzero(np.isfinite(params[:, column]))
        assert len(counted_rows) in (662, 725)
        for row in counted_rows:
            space = macro(PIECE if task == "jigsaw" else IMAGE)
            architecture = space.architecture(space.from_string(str(macro_table["arch"][row])))
            table = np.array([params[row, column], flops[row, column]]) * 1e6
            counted = architecture_counts(architecture)
            assert counted[0] == architecture.num_params
            if task in NUM_OUTPUTS:
                expected = counted + classifier_counts(architecture, NUM_OUTPUTS[task])
                np.testing.assert_allclose(table, expected, rtol=2e-9)
            elif task == "jigsaw":
                expected = counted + jigsaw_counts(architecture)
                np.testing.assert_allclose(table, expected, rtol=2e-9)


def test_macro_genotypes_are_sampled_equally_often() -> None:
    space, rng = macro(), np.random.default_rng(0)
    position = {genotype: i for i, genotype in enumerate(space.enumerate())}
    draws = [position[space.sample(rng)] for _ in range(8 * len(position))]
    assert chisquare(np.bincount(draws, minlength=len(position))).pvalue > 1e-3


def test_every_macro_network_is_reached_by_mutations() -> None:
    space = macro()
    front: set[Genotype] = {(4, 1, 1, 1)}
    reached = front
    while front:
        front = {near for genotype in front for near in space.neighbours(genotype)} - reached
        reached = reached | front
    assert reached == set(space.enumerate())


def test_neighbours_of_a_macro_network_change_insert_or_remove_a_module() -> None:
    """The only module that halves and doubles can be neither lost nor changed."""
    neighbours = macro().neighbours((4, 1, 1, 1))
    changed = {(4, *(digit if i == at else 1 for i in range(3))) for at in range(3) for digit in (2, 3, 4)}
    inserted = {(*(4, 1, 1, 1)[:at], digit, *(4, 1, 1, 1)[at:]) for at in range(5) for digit in (1, 2, 3, 4)}
    assert set(neighbours) == changed | inserted
    assert len(neighbours) == 9 + (2 + 5 + 5 + 4)
    # Removing either 4 leaves one; so does changing one of them, unless to a 1.
    neighbours = macro().neighbours((1, 4, 1, 4, 1))
    assert {len(neighbour) for neighbour in neighbours} == {4, 5, 6}
    assert {(1, 4, 1, 1), (1, 1, 4, 1), (4, 1, 4, 1), (1, 4, 4, 1), (1, 4, 1, 4)} - {
        neighbour for neighbour in neighbours if len(neighbour) == 4
    } == set()


def test_wrong_strings_are_explained() -> None:
    with pytest.raises(InvalidGenotypeError) as cell:
        micro().from_string("64-41414-4_0x_000")
    assert "transnas_micro: edge 0 is '4'; edge 2 is 'x'; needed is 64-41414-a_bc_def" in str(cell.value)
    assert "0 to 3: zero, skip, conv_1x1, conv_3x3" in str(cell.value)
    with pytest.raises(InvalidGenotypeError, match="its cell is '0_00'"):
        micro().from_string("64-41414-0_00")
    with pytest.raises(InvalidGenotypeError, match="it begins with '32-41414-'; needed is 64-41414-a_bc_def"):
        micro().from_string("32-41414-0_00_000")
    with pytest.raises(InvalidGenotypeError) as skeleton:
        macro().from_string("32-25xx2222-basics")
    for what in (
        "it begins with '32'",
        "it ends with 'basics'",
        "module 1 must be 1 to 4 (got 5)",
        "module 2 must be 1 to 4 (got 'x')",
        "4 to 6 modules (got 8)",
        "1 to 4 modules that halve the resolution (3, 4) (got 0)",
        "1 to 3 modules that double the channels (2, 4) (got 5)",
        "needed is 64-DIGITS-basic",
    ):
        assert what in str(skeleton.value)


def test_crossover_of_macro_networks_is_always_valid() -> None:
    space, rng = macro(), np.random.default_rng(0)
    lengths = set()
    for _ in range(3000):
        mother, father = space.sample(rng), space.sample(rng)
        child = space.crossover(mother, father, rng)
        space.validate(child)
        lengths.add((len(mother), len(father), len(child)))
    assert len(lengths) == 3 + 2 * 6
