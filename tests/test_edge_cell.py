"""When two cells of six edges compute the same function."""

from __future__ import annotations

from itertools import permutations
from typing import TypeAlias

import numpy as np
import pytest

from across.search_spaces.base import Genotype
from across.search_spaces.edge_cell import EDGES, EdgeCell, representatives

PLAIN = EdgeCell(4)
POOLING = EdgeCell(5, linear=frozenset({4}))
RESHAPING = EdgeCell(4, input_skip_has_weights=True)

Value: TypeAlias = "tuple[Value, ...] | str"
"""The input, a convolution's (name, operation, summands), or a pooling's (operation, summand)."""


def output_of(cell: EdgeCell, genotype: Genotype) -> list[Value]:
    """The summands of the cell's output, every convolution under the name of its edge."""
    nodes: list[list[Value]] = [["x"]]
    for target in range(1, 4):
        summands: list[Value] = []
        for gene, operation in enumerate(genotype):
            if EDGES[gene][1] == target and operation and nodes[EDGES[gene][0]]:
                read = nodes[EDGES[gene][0]]
                if operation == 1 and not (cell.input_skip_has_weights and EDGES[gene][0] == 0):
                    summands += read
                elif operation in cell.linear:
                    summands += [(str(operation), value) for value in read]
                else:
                    summands.append((f"edge{gene}", str(operation), tuple(read)))
        nodes.append(summands)
    return nodes[-1]


def convolutions(values: Value) -> set[str]:
    if isinstance(values, str):
        return {values} if values.startswith("edge") else set()
    return set().union(*map(convolutions, values))


def renamed(values: Value, names: dict[str, str]) -> str:
    """The same with other names, as a text in which the order of summands does not matter."""
    if isinstance(values, str):
        return names.get(values, values)
    return f"({','.join(sorted(renamed(value, names) for value in values))})"


def are_equal(cell: EdgeCell, one: Genotype, other: Genotype) -> bool:
    """Whether names can be given to the convolutions of `one` that make it `other`."""
    values, expected = tuple(output_of(cell, one)), tuple(output_of(cell, other))
    own, names = sorted(convolutions(values)), sorted(convolutions(expected))
    target = renamed(expected, {})
    return len(own) == len(names) and any(
        renamed(values, dict(zip(own, order, strict=True))) == target for order in permutations(names)
    )


@pytest.mark.parametrize("cell", [PLAIN, POOLING, RESHAPING], ids=["plain", "pooling", "reshaping"])
def test_genotypes_of_one_class_are_equal_up_to_the_names_of_their_convolutions(cell: EdgeCell) -> None:
    table = representatives(cell)
    assert all(are_equal(cell, genotype, canonical) for genotype, canonical in table.items())
    assert all(table[canonical] == canonical <= genotype for genotype, canonical in table.items())


@pytest.mark.parametrize("cell", [PLAIN, POOLING, RESHAPING], ids=["plain", "pooling", "reshaping"])
def test_other_classes_are_never_equal(cell: EdgeCell) -> None:
    """Among those of the same convolutions, where a mistake would be."""
    canonical = sorted(set(representatives(cell).values()))
    rng = np.random.default_rng(0)
    chosen = [canonical[i] for i in rng.choice(len(canonical), size=40, replace=False)]
    alike = [
        (one, other)
        for one in chosen
        for other in canonical
        if one != other and sorted(map(str, one)) == sorted(map(str, other))
    ]
    assert len(alike) > 200
    assert not any(are_equal(cell, one, other) for one, other in alike)


@pytest.mark.parametrize(
    ("cell", "one", "other", "same"),
    [
        # An edge from nothing, and an edge to nothing.
        (PLAIN, (0, 0, 2, 3, 0, 0), (0, 0, 0, 3, 3, 1), True),
        (PLAIN, (2, 0, 0, 3, 0, 0), (0, 0, 0, 3, 0, 0), True),
        # The inner nodes change places.
        (PLAIN, (2, 3, 0, 0, 1, 2), (3, 2, 0, 0, 2, 1), True),
        # A node that is the input.
        (PLAIN, (1, 0, 2, 0, 0, 3), (0, 2, 0, 0, 0, 3), True),
        (RESHAPING, (1, 0, 2, 0, 0, 3), (0, 2, 0, 0, 0, 3), False),
        # One convolution that is read twice is not two convolutions.
        (PLAIN, (2, 0, 1, 0, 3, 3), (2, 2, 0, 0, 3, 3), False),
        # x + x is not x.
        (PLAIN, (1, 0, 0, 1, 1, 0), (0, 0, 0, 1, 0, 0), False),
        # The mean of a sum is the sum of means.
        (POOLING, (2, 1, 1, 0, 0, 4), (2, 0, 0, 4, 4, 0), True),
    ],
)
def test_equal_and_other_functions(cell: EdgeCell, one: Genotype, other: Genotype, same: bool) -> None:
    assert (cell.canonical(one) == cell.canonical(other)) == same


def test_paths_are_encoded_by_their_operations() -> None:
    encoding = PLAIN.encode_paths((2, 0, 3, 1, 0, 1))
    assert encoding.shape == (3 + 9 + 27,)
    # The input itself, and a convolution 1x1 with one 3x3 after it.
    assert np.flatnonzero(encoding).tolist() == [0, 3 + 3 * 1 + 2]
    assert not PLAIN.encode_paths((2, 3, 1, 0, 0, 0)).any()
    np.testing.assert_array_equal(
        PLAIN.encode_paths((1, 0, 2, 0, 0, 3)), PLAIN.encode_paths((0, 2, 0, 0, 0, 3))
    )
