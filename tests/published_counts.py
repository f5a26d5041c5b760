"""Parameters and operations of an architecture as the tables of published benchmarks count them.

Multiply-adds of convolutions and linear layers count one, as ours do; a batch norm's output values two; a ReLU's
values one; a pooling's output values one for each pixel that they average. Every edge that was chosen counts, also
one that carries nothing to the output.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from across.search_spaces.architecture import (
    Architecture,
    BatchNorm,
    Edge,
    FeatureShape,
    Pool,
    ReLU,
    edge_shapes,
    multiply_adds,
)
from across.search_spaces.base import Genotype
from across.search_spaces.edge_cell import EDGES

Counts = NDArray[np.int64]
"""Parameters, operations."""


def edge_counts(edge: Edge, source: FeatureShape) -> Counts:
    """Those of one edge from features of the shape `source`."""
    operations, shapes = 0, edge_shapes(edge, source)
    for layer, before, after in zip(edge.layers, shapes, shapes[1:], strict=False):
        match layer:
            case BatchNorm():
                operations += 2 * prod(after)
            case ReLU():
                operations += prod(after)
            case Pool():
                operations += layer.kernel_size**2 * prod(after)
            case _:
                operations += multiply_adds(layer, before)
    return np.array([sum(map(prod, edge.parameters().values())), operations])


def architecture_counts(architecture: Architecture) -> Counts:
    """Those of a whole body."""
    shapes = architecture.node_shapes
    return sum((edge_counts(edge, shapes[edge.source]) for edge in architecture.edges), np.zeros(2, np.int64))


def classifier_counts(architecture: Architecture, num_outputs: int) -> Counts:
    """Those of a linear layer with bias on the features' mean, whose pooling counts a pixel more a side."""
    channels, height, width = architecture.node_shapes[-1]
    pooling = channels * (height + 1) * (width + 1)
    return np.array([(channels + 1) * num_outputs, channels * num_outputs + pooling])


def genotype_counts(
    everything: Architecture, operations: Sequence[str], genotypes: Sequence[Genotype]
) -> Counts:
    """Those of the bodies of cells in which every chosen edge counts, shape (number of genotypes, 2).

    `everything` is the space's graph of all candidates, `operations` the names by gene value.
    """
    fixed = np.zeros(2, np.int64)
    of_choice: dict[str, Counts] = defaultdict(lambda: np.zeros(2, np.int64))
    for edge in everything.edges:
        counts = edge_counts(edge, everything.node_shapes[edge.source])
        choice = edge.name.partition(".node")[2]
        if choice:
            of_choice[choice] += counts
        else:
            fixed += counts
    of_gene = np.array(
        [
            [of_choice[f"{target}.input{source}.{operation}"] for operation in operations]
            for source, target in EDGES
        ]
    )
    chosen: Counts = of_gene[np.arange(len(EDGES)), np.array(genotypes)].sum(axis=1)
    return chosen + fixed
