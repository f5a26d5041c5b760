"""Arrays in npz files, read when they are needed and never unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from across.errors import AcrossError

Index: TypeAlias = tuple[int | slice | EllipsisType | None, ...]


class TableError(AcrossError):
    """A table cannot be read, or lacks what was asked of it; says what there is."""


@dataclass(frozen=True)
class StoredArray:
    """A part of an array in an npz file; the file is open only while it is read, so tables can be sent about."""

    path: Path
    key: str
    index: Index = (...,)
    """Which part, as numpy indexes it."""

    def read(self) -> NDArray[Any]:
        """The part; raises `TableError` if the file is gone, damaged or of another shape by now."""
        with open_archive(self.path) as archive:
            return read_member(self.path, archive, self.key, self.index)


@contextmanager
def open_archive(path: Path) -> Iterator[NpzFile]:
    """The npz file at `path`; raises `TableError` if it is none."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise TableError(f"{path}: there is no such file") from error
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TableError(f"{path}: not an npz file, or cut off: fetch or import it again") from error
    if not isinstance(loaded, NpzFile):
        raise TableError(f"{path}: a single array (.npy), where a table is an npz file of several")
    with loaded:
        yield loaded


def read_member(path: Path, archive: NpzFile, key: str, index: Index = (...,)) -> NDArray[Any]:
    """One array of an open archive, or a part of it; raises `TableError`."""
    try:
        array: NDArray[Any] = archive[key]
    except KeyError as error:
        raise TableError(f"{path}: lacks the array {key!r}") from error
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise TableError(
            f"{path}: the array {key!r} is damaged, or holds Python objects ({error})"
        ) from error
    try:
        return np.asarray(array[index])
    except IndexError as error:
        raise TableError(f"{path}: the array {key!r} has the shape {array.shape}: too small") from error


def read_strings(path: Path, archive: NpzFile, key: str) -> tuple[str, ...]:
    """A one-dimensional array of strings; raises `TableError`."""
    array = read_member(path, archive, key)
    if array.dtype.kind != "U" or array.ndim != 1:
        raise TableError(
            f"{path}: {key!r} must be a list of strings (got {array.dtype} of shape {array.shape})"
        )
    return tuple(array.tolist())
