"""A normal and a reduction cell, stacked: the space of T-NAS and of AT-NAS.

Papers: Lian et al. 2020, "Towards Fast Adaptation of Neural Architectures with Meta Learning" (T-NAS);
"Across-Task Neural Architecture Search via Meta Learning" (arXiv 2110.05842, AT-NAS). The cell is that of DARTS
(Liu et al. 2019): the cell at position k takes the outputs of cells k-2 and k-1; each intermediate node sums two
operations, each on one of two different inputs among those outputs and the earlier nodes; the output concatenates
all intermediate nodes. All normal cells have the same genes, and so have all reduction cells; each cell has
weights of its own.

Deviations from DARTS: the number of channels stays the same after a reduction (few-shot networks are small); no
batch norm follows a pooling; `none` can be chosen, not only be mixed in; what cannot reach the output is no part of
the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from across.search_spaces.architecture import Architecture
from across.search_spaces.base import (
    Config,
    Genotype,
    InputShape,
    InvalidGenotypeError,
    cross_genes,
    encode_genes,
    mutate_function,
    neighbour_functions,
    sample_genes,
    validate_genes,
)
from across.search_spaces.cell_stack import (
    CELL_OPERATIONS,
    CellChoices,
    CellOperation,
    Choice,
    edges_into,
    stack_cells,
)

KINDS = ("normal", "reduction")
"""The two kinds of cell, in genotype order."""


class CellConfig(Config):
    """Size of the cells and how they are stacked; `build` makes the space for images of one shape."""

    type: Literal["cell"] = "cell"
    operations: Annotated[tuple[CellOperation, ...], Field(min_length=2)] = CELL_OPERATIONS
    channels: int = Field(default=16, ge=2)
    """Channels of each node; a cell's output has num_nodes times as many."""
    layout: str = Field(default="NRNR", pattern="^[NR]+$")
    """The cells from input to output: N normal, R reduction (halves the resolution)."""
    num_nodes: int = Field(default=3, ge=1, le=5)
    readout: Literal["flatten", "mean"] = "mean"

    @model_validator(mode="after")
    def _operations_are_distinct(self) -> Self:
        if len(set(self.operations)) < len(self.operations):
            raise ValueError(f"operations must be distinct (got {', '.join(self.operations)})")
        return self

    def build(self, input_shape: InputShape) -> Cell:
        """The space over images of `input_shape`."""
        return Cell(
            input_shape, self.operations, self.channels, self.layout, self.num_nodes, readout=self.readout
        )


@dataclass(frozen=True)
class Cell:
    """Two cells' genes, the normal one's first; a node has the genes (pair of inputs, operation, operation).

    The pair gene counts the pairs of different inputs in lexicographic order.
    """

    input_shape: InputShape
    operations: tuple[CellOperation, ...]
    channels: int
    layout: str
    num_nodes: int
    readout: Literal["flatten", "mean"]

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of values of each gene."""
        num_operations = len(self.operations)
        cell = [(len(pairs(node)), num_operations, num_operations) for node in range(self.num_nodes)]
        return tuple(cardinality for node in 2 * cell for cardinality in node)

    @property
    def encoding_dim(self) -> int:
        """Length of `encode`'s vector."""
        return sum(self.cardinalities)

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype drawn uniformly."""
        return sample_genes(self.cardinalities, rng)

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """`parent` with one gene changed so that its canonical genotype changes too."""
        return mutate_function(self.cardinalities, self.canonical, parent, rng)

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """The genotypes one gene away whose canonical genotype is another."""
        return neighbour_functions(self.cardinalities, self.canonical, genotype)

    def crossover(self, mother: Genotype, father: Genotype, rng: np.random.Generator) -> Genotype:
        """Uniform crossover of the genes."""
        return cross_genes(mother, father, rng)

    def validate(self, genotype: Genotype) -> None:
        """Raise `InvalidGenotypeError` unless `genotype` belongs to the space."""
        validate_genes(self.cardinalities, genotype, "cell")

    def canonical(self, genotype: Genotype) -> Genotype:
        """The representative of genotypes that differ in a `none`'s input, or in a cell that has no effect.

        Genotypes with the same representative have the same `architecture`.
        """
        size = 3 * self.num_nodes
        genes: list[int] = []
        choices = self._choices(genotype)
        effective = self._effective_kinds(choices)
        for kind in KINDS:
            if kind not in effective:
                genes += [0] * size
                continue
            for node, node_choices in enumerate(choices[kind]):
                genes += self._node_genes(node, _first_inputs(node_choices))
        return tuple(genes)

    def architecture(self, genotype: Genotype) -> Architecture:
        """The stacked cells, without what cannot reach the output."""
        return self._stack(self._choices(genotype))

    def super_architecture(self) -> Architecture:
        """The stacked cells with every operation on every input of every node."""
        every: CellChoices = [
            [(source, operation) for source in range(node + 2) for operation in self.operations]
            for node in range(self.num_nodes)
        ]
        return self._stack(dict.fromkeys(KINDS, every))

    def encode(self, genotype: Genotype) -> NDArray[np.float32]:
        """One-hot encoding of each gene of the canonical genotype, shape (encoding_dim,)."""
        return encode_genes(self.cardinalities, self.canonical(genotype))

    def to_string(self, genotype: Genotype) -> str:
        """Each node's operations and inputs: `normal:(sep_conv_3x3~0,skip~1)(...)|reduction:(...)`."""
        cells = {
            kind: "".join(f"({a}~{i},{b}~{j})" for (i, a), (j, b) in nodes)
            for kind, nodes in self._choices(genotype).items()
        }
        return "|".join(f"{kind}:{nodes}" for kind, nodes in cells.items())

    def from_string(self, text: str) -> Genotype:
        """The inverse of `to_string`; raises `InvalidGenotypeError`."""
        genes: list[int] = []
        problems: list[str] = []
        cells = text.strip().split("|")
        if len(cells) != len(KINDS):
            problems.append(f"it has {len(cells)} cells")
        for kind, cell in zip(KINDS, cells, strict=False):
            nodes = _split_nodes(cell, kind)
            if len(nodes) != self.num_nodes:
                problems.append(f"the {kind} cell is {cell!r}")
            for node, node_text in enumerate(nodes[: self.num_nodes]):
                choices = self._parse_node(node, node_text)
                if len(choices) == 2:
                    genes += self._node_genes(node, choices)
                else:
                    problems.append(f"{kind} node {node} is {node_text!r} (its inputs: 0 to {node + 1})")
        if problems:
            raise InvalidGenotypeError(
                f"{text!r} is no architecture of the space cell: {'; '.join(problems)}; needed is "
                f"normal:NODES|reduction:NODES with {self.num_nodes} nodes (operation~input,operation~input), their "
                f"two inputs different and their operations of {', '.join(self.operations)}"
            )
        return tuple(genes)

    @property
    def _kinds(self) -> list[str]:
        """The kind of each cell, from input to output."""
        return ["normal" if letter == "N" else "reduction" for letter in self.layout]

    def _stack(self, choices: dict[str, CellChoices]) -> Architecture:
        return stack_cells(
            [choices[kind] for kind in self._kinds],
            input_shape=self.input_shape,
            channels=self.channels,
            reduces=[kind == "reduction" for kind in self._kinds],
            readout=self.readout,
        )

    def _effective_kinds(self, choices: dict[str, CellChoices]) -> set[str]:
        """The kinds of those cells of the layout whose output reaches the network's."""
        kinds = self._kinds
        effective = {len(kinds) - 1}
        for position in reversed(range(len(kinds))):
            if position in effective:
                sources = {source for node in choices[kinds[position]] for source, _ in edges_into(node)}
                effective |= {position - 2 + source for source in sources & {0, 1}}
        return {kinds[position] for position in effective if position >= 0}

    def _choices(self, genotype: Genotype) -> dict[str, CellChoices]:
        """The choices that a genotype makes, by kind of cell."""
        chosen: dict[str, CellChoices] = {kind: [] for kind in KINDS}
        genes = iter(genotype)
        for nodes in chosen.values():
            for node in range(self.num_nodes):
                inputs = pairs(node)[next(genes)]
                nodes.append([(source, self.operations[next(genes)]) for source in inputs])
        return chosen

    def _node_genes(self, node: int, choices: list[Choice]) -> tuple[int, int, int]:
        (i, a), (j, b) = sorted(choices)
        return pairs(node).index((i, j)), self.operations.index(a), self.operations.index(b)

    def _parse_node(self, node: int, text: str) -> list[Choice]:
        """Two choices on different inputs; none where the text does not give them."""
        known = {
            f"{operation}~{source}": (source, operation)
            for source in range(node + 2)
            for operation in self.operations
        }
        choices = [known[token] for token in text.split(",") if token in known]
        two_inputs = len({source for source, _ in choices}) == 2
        return choices if two_inputs and len(text.split(",")) == 2 else []


def pairs(node: int) -> list[tuple[int, int]]:
    """The pairs of different inputs of an intermediate node, in the order of the pair gene."""
    return list(combinations(range(node + 2), 2))


def _first_inputs(choices: list[Choice]) -> list[Choice]:
    """The same sum with `none` on the first inputs that the other choice leaves."""
    informative = [choice for choice in choices if choice[1] != "none"]
    if len(informative) == 1:
        return [*informative, (1 if informative[0][0] == 0 else 0, "none")]
    return informative or [(0, "none"), (1, "none")]


def _split_nodes(cell: str, kind: str) -> list[str]:
    """The texts in parentheses of a cell's string; empty where it has another form."""
    prefix, _, body = cell.partition(":")
    if prefix != kind or not re.fullmatch(r"(\([^()]*\))+", body):
        return []
    return body[1:-1].split(")(")
