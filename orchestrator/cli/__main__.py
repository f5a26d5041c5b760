"""`python -m orchestrator.cli`: the command line where the package is not installed."""

from orchestrator.cli import main

main()
