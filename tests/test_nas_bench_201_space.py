"""The space of NAS-Bench-201 against its own numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from across.search_spaces import NasBench201Config
from across.search_spaces.architecture import Conv, Pool
from across.search_spaces.base import InvalidGenotypeError
from across.search_spaces.nas_bench_201 import OPERATIONS, NasBench201
from tests.published_counts import architecture_counts, classifier_counts, genotype_counts

NUM_CLASSES = (10, 100)
SKIPS = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"


@pytest.fixture(scope="module")
def table(shared_data: Path) -> dict[str, NDArray[np.generic]]:
    return dict(np.load(shared_data / "nas_bench_201" / "nas_bench_201.npz", allow_pickle=False))


def space_of(input_shape: tuple[int, int, int] = (3, 32, 32)) -> NasBench201:
    return NasBench201Config().build(input_shape)


def test_all_strings_of_the_table_return(table: dict[str, NDArray[np.generic]]) -> None:
    space, texts = space_of(), [str(text) for text in table["arch"]]
    genotypes = [space.from_string(text) for text in texts]
    assert [space.to_string(genotype) for genotype in genotypes] == texts
    assert sorted(genotypes) == list(space.enumerate())
    assert len(genotypes) == 15625


def test_counts_of_networks_are_the_tables(table: dict[str, NDArray[np.generic]]) -> None:
    space = space_of()
    genotypes = [space.from_string(str(text)) for text in table["arch"]]
    counted = genotype_counts(space.super_architecture(), OPERATIONS, genotypes)
    for column, num_classes in enumerate(NUM_CLASSES):
        published = np.column_stack([table[name][:, column] for name in ("params_m", "flops_m")]) * 1e6
        head = classifier_counts(space.super_architecture(), num_classes)
        assert np.array_equal(published.round(), counted + head)
    for genotype, counts in list(zip(genotypes, counted, strict=True))[::97]:
        architecture = space.architecture(genotype)
        assert architecture.num_params <= counts[0]
        if all(genotype):
            assert architecture.num_params == counts[0]


def test_counts_of_an_architecture_are_those_of_its_edges() -> None:
    space, rng = space_of(), np.random.default_rng(0)
    genotypes = [space.canonical(space.sample(rng)) for _ in range(60)]
    counted = genotype_counts(space.super_architecture(), OPERATIONS, genotypes)
    for genotype, counts in zip(genotypes, counted, strict=True):
        architecture = space.architecture(genotype)
        assert architecture.num_params == counts[0]
        if any(genotype):
            assert architecture_counts(architecture).tolist() == counts.tolist()


def test_functions_are_counted_once() -> None:
    space = space_of()
    assert len({space.canonical(genotype) for genotype in space.enumerate()}) == 5044


def test_equal_functions_have_similar_results(table: dict[str, NDArray[np.generic]]) -> None:
    """Every string was trained, so that equal functions differ by the noise of training."""
    space = space_of()
    accuracy: dict[tuple[int, ...], list[float]] = {}
    for text, value in zip(table["arch"], table["test_acc_200ep"][:, 0], strict=True):
        accuracy.setdefault(space.canonical(space.from_string(str(text))), []).append(float(value))
    chance = accuracy.pop((0,) * 6)
    assert chance == [10.0] * 341
    assert min(map(min, accuracy.values())) > 10
    squares = sum(np.var(values) * len(values) for values in accuracy.values())
    noise = np.sqrt(squares / sum(len(values) - 1 for values in accuracy.values()))
    assert noise == pytest.approx(0.284, abs=0.001)
    assert np.std([value for values in accuracy.values() for value in values]) > 4


@pytest.mark.parametrize(
    ("sides", "pool"), [((8, 12), Pool("average", 2, 2)), ((8, 9), Pool("average", 3, 2, 1))]
)
def test_odd_sides_are_halved_too(sides: tuple[int, int], pool: Pool) -> None:
    architecture = space_of((3, *sides)).architecture((1,) * 6)
    shortcut = next(edge for edge in architecture.edges if edge.name == "reduction1.shortcut")
    assert shortcut.layers == (pool, Conv(16, 32, 1))
    assert architecture.node_shapes[-1] == (64, 2, 3)


def test_a_wrong_string_is_explained() -> None:
    with pytest.raises(InvalidGenotypeError) as error:
        space_of().from_string(
            SKIPS.replace("skip_connect~2", "skip~2").replace("+|skip_connect~0", "+|none~1", 1)
        )
    for what in (
        "input 0 of node 2 is 'none~1'",
        "input 2 of node 3 is 'skip~2'",
        "needed is |op~0|+|op~0|op~1|+|op~0|op~1|op~2|",
        ", ".join(OPERATIONS),
    ):
        assert what in str(error.value)
    with pytest.raises(InvalidGenotypeError, match=r"its nodes have \[1, 2\] inputs"):
        space_of().from_string(SKIPS.rpartition("+")[0])
    with pytest.raises(InvalidGenotypeError, match="not enclosed"):
        space_of().from_string(f"x{SKIPS}")
