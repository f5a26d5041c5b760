"""Turns the official files of tabular benchmarks into compact tables, without running anything that is in them."""

from across.orchestrator.table_import.importing import import_table
from across.orchestrator.table_import.plain_pickles import TableImportError

__all__ = ["TableImportError", "import_table"]
