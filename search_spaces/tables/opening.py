"""Opening a table: which layout a file has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from numpy.lib.npyio import NpzFile

from across.search_spaces.tables.archive import TableError, open_archive
from across.search_spaces.tables.compact import COMPACT_ARRAYS, compact_table
from across.search_spaces.tables.condensed import (
    NAS_BENCH_201_ARRAYS,
    TRANSNAS_ARRAYS,
    nas_bench_201_table,
    transnas_table,
)
from across.search_spaces.tables.table import BenchmarkTable


@dataclass(frozen=True)
class Layout:
    """One way in which tables are stored."""

    arrays: frozenset[str]
    """Those by which it is recognised."""
    open: Callable[[Path, NpzFile], BenchmarkTable]


LAYOUTS = {
    "an imported table": Layout(COMPACT_ARRAYS, compact_table),
    "the condensed TransNAS-Bench-101": Layout(TRANSNAS_ARRAYS, transnas_table),
    "the condensed NAS-Bench-201": Layout(NAS_BENCH_201_ARRAYS, nas_bench_201_table),
}


def open_table(path: Path) -> BenchmarkTable:
    """The table in an npz file; raises `TableError` if it is missing, cut off, or of no known layout."""
    with open_archive(path) as archive:
        lacking = {name: sorted(layout.arrays - set(archive.files)) for name, layout in LAYOUTS.items()}
        closest = min(lacking, key=lambda name: len(lacking[name]))
        if lacking[closest]:
            raise TableError(
                f"{path}: no benchmark table; as {closest} it lacks {', '.join(lacking[closest])}"
                f" (it has {', '.join(sorted(archive.files)) or 'no arrays'})"
            )
        try:
            table = LAYOUTS[closest].open(path, archive)
        except TableError:
            raise
        except (ValueError, TypeError, LookupError) as error:
            raise TableError(f"{path}: its arrays do not fit together as {closest} ({error!r})") from error
    if not table.strings or len(set(table.strings)) != len(table.strings):
        raise TableError(f"{path}: holds {'some networks twice' if table.strings else 'no network'}")
    return table
