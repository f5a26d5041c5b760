"""Versions of the supernet's weights in Ray's object store: one shared copy a node, two versions at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from across.errors import AcrossError

NUM_KEPT_VERSIONS = 2


class UnknownVersionError(AcrossError):
    """A unit names a weights version that was not published, or was displaced; says which there are."""


@dataclass(frozen=True)
class _Published:
    weights: NDArray[np.float32]
    reference: ray.ObjectRef[Any]


class WeightStore:
    """The newest two published versions of the flat weights vector.

    Workers get a reference, which Ray resolves to a read-only view of their node's one copy. The driver keeps the
    values too, to publish them again when the node that held the object is lost.
    """

    def __init__(self) -> None:
        self._versions: dict[int, _Published] = {}

    @property
    def versions(self) -> tuple[int, ...]:
        """The published versions, oldest first."""
        return tuple(self._versions)

    def publish(self, version: int, weights: NDArray[np.float32]) -> None:
        """Make `weights` available as `version`; a third version displaces the oldest."""
        self._versions.pop(version, None)
        while len(self._versions) >= NUM_KEPT_VERSIONS:
            del self._versions[next(iter(self._versions))]
        kept = weights.copy() if weights.flags.writeable else weights
        self._versions[version] = _Published(kept, ray.put(kept))

    def reference(self, version: int) -> ray.ObjectRef[Any] | None:
        """What to hand to a worker for `version`; None in a search without weights."""
        if not self._versions:
            return None
        if version not in self._versions:
            known = ", ".join(map(str, self._versions))
            raise UnknownVersionError(f"weights version {version} is not published (published: {known})")
        return self._versions[version].reference

    def restore(self, object_id: str) -> None:
        """Publish again the version whose object was `object_id` (hexadecimal), if there is one."""
        for version, published in self._versions.items():
            if published.reference.hex() == object_id:
                self._versions[version] = _Published(published.weights, ray.put(published.weights))

    def clear(self) -> None:
        """Forget everything, which frees the objects."""
        self._versions.clear()
