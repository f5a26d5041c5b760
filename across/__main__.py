"""`python -m across`: the command line."""

from across.orchestrator.cli import main

main()
