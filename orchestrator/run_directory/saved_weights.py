"""Named tensors on disk: safetensors files, and the digest that a commit keeps of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from across.errors import AcrossError
from across.orchestrator.run_directory.durable_files import replace_file

Tensors: TypeAlias = Mapping[str, NDArray[Any]]


class TensorFileError(AcrossError):
    """A file of tensors cannot be read; says in half a sentence why."""


def weights_digest(tensors: Tensors) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], order="C")
        digest.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write `path` in one step, durable; raises `RunDirectoryError`."""
    ordered = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    replace_file(path, safetensors.numpy.save(ordered, metadata))


def load_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Tensors and metadata of `path`; raises `TensorFileError`."""
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise TensorFileError("is missing") from error
    except (OSError, SafetensorError) as error:
        raise TensorFileError(f"is cut short or damaged ({error})") from error
