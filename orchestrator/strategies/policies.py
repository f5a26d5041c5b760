"""Distributions over genotypes with a vector of logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from across.search_spaces.base import Genotype, SearchSpace
from across.search_spaces.constrained import Constrained

Vector = NDArray[np.float64]
MAX_DRAWS = 1000
"""Draws for a genotype within limits, before one is sampled uniformly."""


@runtime_checkable
class EnumerableSpace(SearchSpace, Protocol):
    """A space small enough to be listed."""

    def enumerate(self) -> Iterator[Genotype]: ...


class Policy(Protocol):
    """p(genotype | logits); all zeros are the uniform distribution."""

    @property
    def num_logits(self) -> int: ...

    def sample(self, logits: Vector, rng: np.random.Generator) -> Genotype:
        """One genotype."""

    def gradient(self, logits: Vector, genotype: Genotype) -> Vector:
        """Of the log-likelihood of `genotype` with respect to the logits, (num_logits,)."""


def policy_of(space: SearchSpace) -> Policy:
    """The policy over `space`."""
    inner = space.space if isinstance(space, Constrained) else space
    cardinalities: Sequence[int] | None = getattr(inner, "cardinalities", None)
    if cardinalities is not None:
        return IndependentGenes(space, tuple(cardinalities))
    assert isinstance(inner, EnumerableSpace), "a space has independent genes, or can be enumerated"
    return AllGenotypes(space, inner)


@dataclass(frozen=True)
class IndependentGenes:
    """One softmax a gene; logits lie gene after gene."""

    space: SearchSpace
    cardinalities: tuple[int, ...]

    @property
    def num_logits(self) -> int:
        return sum(self.cardinalities)

    def sample(self, logits: Vector, rng: np.random.Generator) -> Genotype:
        cumulated = [np.cumsum(chances) for chances in self._chances(logits)]
        for _ in range(MAX_DRAWS):
            draws = rng.random(len(cumulated))
            genotype = tuple(
                min(int(np.searchsorted(sums, draw, side="right")), len(sums) - 1)
                for sums, draw in zip(cumulated, draws, strict=True)
            )
            if not isinstance(self.space, Constrained) or self.space.allows(genotype):
                return genotype
        return self.space.sample(rng)

    def gradient(self, logits: Vector, genotype: Genotype) -> Vector:
        gradient = -np.concatenate(self._chances(logits))
        starts = (0, *accumulate(self.cardinalities[:-1]))
        gradient[[start + gene for start, gene in zip(starts, genotype, strict=True)]] += 1.0
        return gradient

    def _chances(self, logits: Vector) -> list[Vector]:
        parts = np.split(logits, list(accumulate(self.cardinalities[:-1])))
        return [_softmax(part) for part in parts]


@dataclass(frozen=True)
class AllGenotypes:
    """One softmax over every genotype; its logit is the dot product of its encoding with the vector."""

    space: SearchSpace
    inner: EnumerableSpace

    @cached_property
    def genotypes(self) -> list[Genotype]:
        """Those within the limits."""
        allowed = self.space.allows if isinstance(self.space, Constrained) else lambda genotype: True
        return [genotype for genotype in self.inner.enumerate() if allowed(genotype)]

    @cached_property
    def encodings(self) -> Vector:
        """(number of genotypes, encoding_dim)."""
        return np.stack([self.space.encode(genotype) for genotype in self.genotypes]).astype(np.float64)

    @property
    def num_logits(self) -> int:
        return self.space.encoding_dim

    def sample(self, logits: Vector, rng: np.random.Generator) -> Genotype:
        sums = np.cumsum(_softmax(self.encodings @ logits))
        drawn = int(np.searchsorted(sums, rng.random(), side="right"))
        return self.genotypes[min(drawn, len(sums) - 1)]

    def gradient(self, logits: Vector, genotype: Genotype) -> Vector:
        expected = _softmax(self.encodings @ logits) @ self.encodings
        return np.asarray(self.space.encode(genotype) - expected)


def _softmax(logits: Vector) -> Vector:
    exponentials = np.exp(logits - logits.max())
    return np.asarray(exponentials / exponentials.sum())
