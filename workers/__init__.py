"""Imported as `across.workers`."""

if __name__ != "across.workers":
    raise ImportError("this package is called across.workers: `from across.workers import ...`")
