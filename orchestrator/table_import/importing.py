"""From an official file to one compact table a space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from across.orchestrator.table_import.nas_bench_201 import NAS_BENCH_201_KEYS, nas_bench_201_contents
from across.orchestrator.table_import.plain_pickles import TableImportError, load_plain
from across.orchestrator.table_import.transnas_bench_101 import TRANSNAS_KEYS, transnas_contents
from across.search_spaces.tables import TableError, open_table
from across.search_spaces.tables.compact import TableContents, compact_arrays


@dataclass(frozen=True)
class OfficialFile:
    """How a benchmark was published."""

    keys: frozenset[str]
    """Those of its outermost dict, by which it is recognised."""
    read: Callable[[Mapping[str, Any]], list[TableContents]]


OFFICIAL_FILES = {
    "TransNAS-Bench-101": OfficialFile(TRANSNAS_KEYS, transnas_contents),
    "NAS-Bench-201": OfficialFile(NAS_BENCH_201_KEYS, nas_bench_201_contents),
}


def import_table(source: Path, folder: Path, *, replace: bool = False) -> list[Path]:
    """Write the tables of an official file into `folder`, as `SPACE.npz`; returns their paths.

    The whole file is read at once: seven times its size in memory and 0.15 s a megabyte, as measured on a small one
    of NAS-Bench-201's layout, which makes 30 GB and 12 minutes for the official 4.7 GB. Raises `TableImportError` if
    it is cut off, holds anything but plain data, or is none of the known ones, and if a table is there already,
    unless `replace`.
    """
    tables = _read(source, load_plain(source))
    targets = [folder / f"{contents.space}.npz" for contents in tables]
    if not replace and (taken := [str(target) for target in targets if target.exists()]):
        raise TableImportError(
            f"{', '.join(taken)}: there already: use --force to replace, or --into another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target, contents in zip(targets, tables, strict=True):
            _write(target, contents)
    except OSError as error:
        raise TableImportError(f"{folder}: cannot be written ({error.strerror or error})") from error
    except TableError as error:
        raise TableImportError(f"{source}: makes no table: {error}") from error
    return targets


def _read(source: Path, content: object) -> list[TableContents]:
    keys = {str(key) for key in content} if isinstance(content, Mapping) else set()
    for name, official in OFFICIAL_FILES.items():
        if official.keys <= keys:
            assert isinstance(content, Mapping)
            try:
                return official.read(content)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise TableImportError(
                    f"{source}: has the keys of {name}, but is not laid out as its official file ({error!r})"
                ) from error
    known = "; ".join(f"{name}: {', '.join(sorted(each.keys))}" for name, each in OFFICIAL_FILES.items())
    has = f"the keys {', '.join(sorted(keys)[:10])}" if keys else f"a {type(content).__name__}"
    raise TableImportError(
        f"{source}: no official file of a known benchmark: it holds {has} (expected {known})"
    )


def _write(target: Path, contents: TableContents) -> None:
    """Under a temporary name, until it is complete and can be opened."""
    temporary = target.with_name(f".{target.name}.{uuid4().hex}.partial")
    try:
        with temporary.open("xb") as file:
            np.savez_compressed(file, allow_pickle=False, **compact_arrays(contents))
        open_table(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
