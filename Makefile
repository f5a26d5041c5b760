# `make search` and `make test` work on a machine that has Python 3.11 or later and nothing else.
# PYTHON=python3.12 chooses the interpreter; ARGS="..." is added to the command.

PACKAGES := across search_spaces workers orchestrator tests benchmarks tools
BENCHMARKS ?= adaptation dispatch
BIN := .venv/bin

.PHONY: search test check setup benchmark lock clean

search: setup
	$(BIN)/across search configs/quickstart.yaml $(ARGS)

test: check
	$(BIN)/python -m pytest $(ARGS)

check: setup
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/mypy --strict

setup:
	@PYTHON="$(PYTHON)" ./tools/make_venv.sh

# One table a question; BENCHMARKS="adaptation" chooses, ARGS="--full" measures what the documents quote.
benchmark: setup
	$(BIN)/python -m pip install -qq -c requirements.lock higher==0.2.1
	set -e; for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py $(ARGS); done

# Pins the newest versions that pyproject.toml allows. Run `make test` before committing the result.
lock: setup
	$(BIN)/python tools/lock.py requirements.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info build
	find $(PACKAGES) -name __pycache__ -type d -prune -exec rm -rf {} +
