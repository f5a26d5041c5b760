"""Imported as `across.orchestrator`."""

if __name__ != "across.orchestrator":
    raise ImportError("this package is called across.orchestrator: `from across.orchestrator import ...`")
