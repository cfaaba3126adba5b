# Each target sets up what it needs in .venv; nothing is installed outside this folder. Downloads are kept in the user's
# cache: those of pip and, for `make test` and `make matrix`, those of `cdc sandbox --version` in ~/.cache/wells-cdc.
# Another interpreter: make PYTHON=python3.12 test
# Some versions of PostgreSQL: make matrix VERSIONS="14 16"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SECONDS ?= 15
VERSIONS ?= 14 15 16 17 18
SEED ?= 1

.PHONY: setup demo test matrix chaos stress oracle mutants check bench record fuzz clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@echo "Setting up $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/cdc demo --seconds $(SECONDS)

# Tests wait for servers most of the time: three runs at once take half as long as one on two processors. What fails
# beside others, as when a server starts too slowly for its test, is run once more by itself; both outcomes are printed.
test: $(STAMP)
	$(BIN)/python -m pytest -q -n 3 --dist worksteal || \
		{ echo "Once more, by themselves:"; $(BIN)/python -m pytest -q --last-failed --last-failed-no-failures none; }

matrix: $(STAMP)
	@$(BIN)/python -m tests.matrix $(VERSIONS)

# Kills, cuts, full disks and the like under load, ROUNDS of each; SEED=1001 for other ones.
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),5) --seed $(SEED)

# Readers of fenced caches beside writers, with delays at every lock and wait: READS altogether, and none may be stale.
stress: $(STAMP)
	$(BIN)/python -m tests.stress --reads $(or $(READS),1000000) --seed $(SEED)

# Random policies, decided by cdc and by PostgreSQL itself: VERDICTS of them, on all VERSIONS together.
oracle: $(STAMP)
	$(BIN)/python -m tests.oracle --verdicts $(or $(VERDICTS),100000) --seed $(SEED) $(VERSIONS:%=--version %)

# Deliberate faults in what decides who sees a row: the oracle or a test has to find each.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants

# What `make test` does not do; the newest PostgreSQL is the one that it tries, with both kinds of consumers.
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/wheel.py
	$(BIN)/python -m tests.matrix --older $(VERSIONS)
	$(BIN)/python -m tests.chaos --rounds $(or $(ROUNDS),5) --seed $(SEED)
	$(BIN)/python -m tests.stress --reads $(or $(READS),100000) --seed $(SEED)
	$(BIN)/python -m tests.oracle --verdicts $(or $(VERDICTS),50000) --seed $(SEED) $(VERSIONS:%=--version %)

bench: $(STAMP)
	$(BIN)/python bench/run.py $(if $(ROWS),--rows $(ROWS)) $(if $(ROUNDS),--rounds $(ROUNDS))

# Frames of PostgreSQL 14 to 18 for the unit tests; VERSIONS="17 18" records these only.
record: $(STAMP)
	$(BIN)/python -m tests.wire.record $(VERSIONS)

fuzz: $(STAMP)
	@$(BIN)/pip install --quiet --disable-pip-version-check --only-binary atheris --editable '.[fuzz]' || \
		echo "atheris has no wheel for this Python or machine: tests/fuzz.py does without it"
	$(BIN)/python -m tests.fuzz $(SECONDS)

clean:
	rm -rf $(VENV) dist build .pytest_cache .pytest_tmp .matrix .chaos .mypy_cache .ruff_cache .hypothesis
