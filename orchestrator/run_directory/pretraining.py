"""What predictors learned before their first score: a file of tensors a predictor and pool.

It can be computed again from the config at any time: a file that is missing or damaged is simply made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from across.orchestrator.run_directory.saved_weights import TensorFileError, load_tensors, save_tensors


@dataclass(frozen=True)
class Pretraining:
    """The folder `predictor` of a run."""

    folder: Path

    def load(self, key: str) -> dict[str, NDArray[np.float32]] | None:
        """What was saved under `key`, if anything that can be read."""
        try:
            arrays, _ = load_tensors(self._path(key))
        except TensorFileError:
            return None
        return arrays

    def save(self, key: str, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep `arrays` under `key`; raises `RunDirectoryError`."""
        save_tensors(self._path(key), arrays)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"
