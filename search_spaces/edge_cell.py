"""A cell of four nodes with an operation on each of its six edges: that of NAS-Bench-201 and TransNAS-Bench-101.

Node 0 is the cell's input, node 3 its output; a node sums what its incoming edges carry. Gene i is the operation of
`EDGES[i]`; operation 0 carries nothing and operation 1 is the identity.

Two cells compute the same function when they agree as expressions: an edge that leads from nothing, or to nothing,
is left out; an identity is transparent; an operation without weights that is linear (average pooling) distributes
over sums; the order of summands, and with it the numbers of the inner nodes, does not matter. After Dong & Yang 2020,
"NAS-Bench-201", which leaves out zeros and identities. Deviations: average pooling distributes, and two convolutions
of the same expression are told from one that is used twice, because they have weights of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from across.search_spaces.architecture import Layer, Node
from across.search_spaces.base import (
    Genotype,
    encode_genes,
    enumerate_genes,
    mutate_function,
    neighbour_functions,
)
from across.search_spaces.graph import GraphBuilder, Incoming

EDGES = tuple((source, target) for target in range(1, 4) for source in range(target))
"""(source, target) of each gene's edge, in the order of both benchmarks' strings."""
ZERO, IDENTITY = 0, 1
ROUTES = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""The genes along each way from the cell's input to its output."""

Use: TypeAlias = tuple[int, str, str]
"""A convolution's gene, what it computes, and the operations that lie between there and the cell's output."""
Expression: TypeAlias = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]
"""The output's summands; for each convolution, what it computes and where it is used; all sorted."""


class Term(NamedTuple):
    """One summand of a node: what it computes, and every use of a convolution in it."""

    text: str
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class EdgeCell:
    """Which operations the six genes choose from.

    `linear` are the operations without weights, besides the identity, that distribute over sums.
    `input_skip_has_weights`: in some cells the identity on an edge from node 0 is not one, but changes the shape.
    """

    num_operations: int
    linear: frozenset[int] = frozenset()
    input_skip_has_weights: bool = False

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of values of each gene."""
        return (self.num_operations,) * len(EDGES)

    def canonical(self, genotype: Genotype) -> Genotype:
        """The first genotype, in lexicographic order, with the expression of this one."""
        return representatives(self)[genotype]

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """`parent` with one gene changed so that its canonical genotype changes too."""
        return mutate_function(self.cardinalities, self.canonical, parent, rng)

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """The genotypes one gene away whose canonical genotype is another."""
        return neighbour_functions(self.cardinalities, self.canonical, genotype)

    def encode(self, genotype: Genotype) -> NDArray[np.float32]:
        """One-hot encoding of each gene of the canonical genotype."""
        return encode_genes(self.cardinalities, self.canonical(genotype))

    def encode_paths(self, genotype: Genotype) -> NDArray[np.float32]:
        """For each sequence of operations, short ones first, whether a way from input to output has it.

        White et al. 2021, "BANANAS", section 4. Deviation: the ways are those of the canonical genotype, so that
        equal functions have equal encodings. Shape (n + n² + n³,) for n operations other than zero.
        """
        canonical = self.canonical(genotype)
        present = {tuple(canonical[gene] for gene in route) for route in ROUTES}
        nonzero = range(1, self.num_operations)
        sequences = [path for length in (1, 2, 3) for path in product(nonzero, repeat=length)]
        return np.array([path in present for path in sequences], dtype=np.float32)

    def expression(self, genotype: Genotype) -> Expression:
        """What the cell computes, up to the order of sums and the names of its convolutions."""
        nodes = [[Term("x", ())]]
        for target in range(1, 4):
            terms: list[Term] = []
            for source in range(target):
                gene = EDGES.index((source, target))
                terms += self._follow(gene, genotype[gene], nodes[source])
            nodes.append(sorted(terms))
        places: dict[int, list[str]] = {}
        for use in sorted(use for term in nodes[-1] for use in term.uses):
            gene, text, place = use
            places.setdefault(gene, [text]).append(place)
        return tuple(term.text for term in nodes[-1]), tuple(sorted(map(tuple, places.values())))

    def _follow(self, gene: int, operation: int, terms: list[Term]) -> list[Term]:
        """What the edge of `gene` makes of the sum of `terms`."""
        changes_shape = self.input_skip_has_weights and EDGES[gene][0] == 0
        if operation == ZERO or not terms:
            return []
        if operation == IDENTITY and not changes_shape:
            return terms
        if operation in self.linear:
            return [Term(f"{operation}({text})", _moved(uses, operation)) for text, uses in terms]
        text = f"{operation}({'+'.join(term.text for term in terms)})"
        uses = tuple(use for term in terms for use in _moved(term.uses, operation))
        return [Term(text, ((gene, text, ""), *uses))]


def _moved(uses: Iterable[Use], operation: int) -> tuple[Use, ...]:
    """The same uses below one more operation."""
    return tuple((gene, text, f"{operation}{place}") for gene, text, place in uses)


@lru_cache
def representatives(cell: EdgeCell) -> dict[Genotype, Genotype]:
    """The canonical genotype of every genotype."""
    first: dict[Expression, Genotype] = {}
    genotypes = enumerate_genes(cell.cardinalities)
    return {genotype: first.setdefault(cell.expression(genotype), genotype) for genotype in genotypes}


def add_cell(
    graph: GraphBuilder,
    place: str,
    source: int,
    choices: Sequence[Sequence[int]],
    layers: Callable[[int, bool], tuple[Layer, ...]],
    operations: Sequence[str],
) -> int:
    """Add the cell `place` on the node `source` of the graph; returns its output.

    `choices` holds the operations of each edge: one of a path, none of an edge that is left out, all of a
    supernet. `layers` makes an operation's layers, given whether the edge leaves the cell's input.
    """
    positions = [source]
    for target in range(1, 4):
        incoming = [
            Incoming(
                positions[start],
                f"{place}.node{target}.input{start}.{operations[operation]}",
                operations[operation],
                layers(operation, start == 0),
            )
            for start in range(target)
            for operation in choices[EDGES.index((start, target))]
        ]
        positions.append(graph.add(Node(f"{place}.node{target}"), incoming))
    return positions[-1]
