"""What every search space offers, and the genes that most of them are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from across.errors import AcrossError
from across.search_spaces.architecture import Architecture

Genotype: TypeAlias = tuple[int, ...]
"""An architecture's code: hashable and JSON; its space gives it meaning."""

InputShape: TypeAlias = tuple[int, int, int]
"""Channels, height and width of one input image."""

NOTATION_SHAPE: InputShape = (1, 1024, 1024)
"""Of images that every space takes, for reading and writing genotypes: their strings do not depend on it."""


class Config(BaseModel):
    """Base of every configuration section: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InvalidGenotypeError(AcrossError):
    """A genotype or its string is not of this space; says which position, which value, what is allowed."""


class ConstraintError(AcrossError):
    """No architecture within the configured limits could be found; says which limits."""


class SearchSpace(Protocol):
    """A set of architectures with the operators that a search needs: pure, immutable, cheap."""

    @property
    def input_shape(self) -> InputShape:
        """Channels, height and width of the images that its networks take."""

    @property
    def encoding_dim(self) -> int:
        """Length of `encode`'s vector."""

    def sample(self, rng: np.random.Generator) -> Genotype:
        """A genotype drawn uniformly from the genotypes of the space."""

    def mutate(self, parent: Genotype, rng: np.random.Generator) -> Genotype:
        """`parent` with one gene changed: always a different, valid genotype."""

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        """All genotypes that one mutation of `genotype` can give: each computes another function."""

    def crossover(self, mother: Genotype, father: Genotype, rng: np.random.Generator) -> Genotype:
        """Uniform crossover: each gene from either parent with equal chance; always valid."""

    def validate(self, genotype: Genotype) -> None:
        """Raise `InvalidGenotypeError` unless `genotype` belongs to the space."""

    def canonical(self, genotype: Genotype) -> Genotype:
        """The representative of all genotypes that compute the same function."""

    def architecture(self, genotype: Genotype) -> Architecture:
        """The graph that `genotype` stands for."""

    def super_architecture(self) -> Architecture:
        """The graph with every candidate edge at its greatest width: what the supernet allocates."""

    def encode(self, genotype: Genotype) -> NDArray[np.float32]:
        """A vector for predictors, shape (encoding_dim,)."""

    def to_string(self, genotype: Genotype) -> str:
        """The literature's own string where one exists."""

    def from_string(self, text: str) -> Genotype:
        """The inverse of `to_string`; raises `InvalidGenotypeError`."""


# Spaces whose genotype is a sequence of independent choices share these operators. `cardinalities[i]` is the
# number of values of gene i.


def sample_genes(cardinalities: Sequence[int], rng: np.random.Generator) -> Genotype:
    """One value for each gene, uniformly."""
    return tuple(int(rng.integers(cardinality)) for cardinality in cardinalities)


def mutate_gene(cardinalities: Sequence[int], parent: Genotype, rng: np.random.Generator) -> Genotype:
    """`parent` with one gene, chosen among those with a choice, set to another value."""
    free = [position for position, cardinality in enumerate(cardinalities) if cardinality > 1]
    if not free:
        raise InvalidGenotypeError("the space holds a single genotype: there is nothing to mutate")
    position = free[int(rng.integers(len(free)))]
    shift = 1 + int(rng.integers(cardinalities[position] - 1))
    value = (parent[position] + shift) % cardinalities[position]
    return (*parent[:position], value, *parent[position + 1 :])


def neighbour_genes(cardinalities: Sequence[int], genotype: Genotype) -> Iterator[Genotype]:
    """Every genotype that differs from `genotype` in one gene."""
    for position, cardinality in enumerate(cardinalities):
        for value in range(cardinality):
            if value != genotype[position]:
                yield (*genotype[:position], value, *genotype[position + 1 :])


def mutate_function(
    cardinalities: Sequence[int],
    canonical: Callable[[Genotype], Genotype],
    parent: Genotype,
    rng: np.random.Generator,
) -> Genotype:
    """`parent` with one gene changed so that its canonical genotype changes too."""
    while True:
        child = mutate_gene(cardinalities, parent, rng)
        if canonical(child) != canonical(parent):
            return child


def neighbour_functions(
    cardinalities: Sequence[int], canonical: Callable[[Genotype], Genotype], genotype: Genotype
) -> list[Genotype]:
    """The genotypes one gene away whose canonical genotype is another."""
    own = canonical(genotype)
    return [each for each in neighbour_genes(cardinalities, genotype) if canonical(each) != own]


def cross_genes(mother: Genotype, father: Genotype, rng: np.random.Generator) -> Genotype:
    """Uniform crossover."""
    from_mother = rng.integers(2, size=len(mother)) == 0
    return tuple(m if take else f for m, f, take in zip(mother, father, from_mother, strict=True))


def validate_genes(cardinalities: Sequence[int], genotype: Genotype, space: str) -> None:
    """Raise `InvalidGenotypeError` unless each gene is an integer within its cardinality."""
    if len(genotype) != len(cardinalities):
        raise InvalidGenotypeError(
            f"a genotype of the space {space} has {len(cardinalities)} genes (got {len(genotype)}: {genotype})"
        )
    problems = [
        f"gene {position} must be 0 to {cardinality - 1} (got {value!r})"
        for position, (value, cardinality) in enumerate(zip(genotype, cardinalities, strict=True))
        if type(value) is not int or not 0 <= value < cardinality
    ]
    if problems:
        raise InvalidGenotypeError(f"no genotype of the space {space}: {'; '.join(problems)}")


def enumerate_genes(cardinalities: Sequence[int]) -> Iterator[Genotype]:
    """Every genotype, in lexicographic order."""
    return product(*(range(cardinality) for cardinality in cardinalities))


def encode_genes(cardinalities: Sequence[int], genotype: Genotype) -> NDArray[np.float32]:
    """One-hot encoding of each gene, concatenated: shape (sum of cardinalities,)."""
    encoding = np.zeros(sum(cardinalities), dtype=np.float32)
    start = 0
    for value, cardinality in zip(genotype, cardinalities, strict=True):
        encoding[start + value] = 1.0
        start += cardinality
    return encoding
