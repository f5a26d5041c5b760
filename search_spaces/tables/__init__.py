"""Tabular benchmarks: every network of a space trained once, its results looked up afterwards.

A file's layout is recognised by the arrays that it has. A new layout is one function that makes a `BenchmarkTable`
of an archive, and one entry in `opening.LAYOUTS`.
"""

from across.search_spaces.tables.archive import TableError
from across.search_spaces.tables.opening import open_table
from across.search_spaces.tables.table import BenchmarkTable, Epoch

__all__ = ["BenchmarkTable", "Epoch", "TableError", "open_table"]
