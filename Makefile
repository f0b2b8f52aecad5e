# Each target sets up what it needs on a fresh machine: a virtual environment in .venv with pinned, hashed dependencies.
# Stamps in .venv remember which pins are installed, so that a second run starts in seconds.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-emit-build-options --custom-compile-command "make lock"
ARGS ?=
PROOF ?= faults
BENCH ?= sockets

.DEFAULT_GOAL := help
.PHONY: help run test style types bench prove verify lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

run: $(VENV)/runtime.stamp  ## run the gateway; make run ARGS="--port 9000"
	$(BIN)/python run.py $(ARGS)

test: $(VENV)/test.stamp  ## run the whole test suite; make test ARGS="-k settings"
	$(BIN)/python -m pytest $(ARGS)

style: $(VENV)/test.stamp  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp  ## check the types
	$(BIN)/mypy

bench: $(VENV)/runtime.stamp  ## run a benchmark; make bench BENCH=fanout ARGS="--quick"
	@echo "The benchmarks live in benchmarks/; this runs benchmarks/$(BENCH).py."
	$(BIN)/python benchmarks/$(BENCH).py $(ARGS)

prove: $(VENV)/runtime.stamp  ## run a proof; make prove PROOF=faults ARGS="--only 10006"
	$(BIN)/python proofs/$(PROOF).py $(ARGS)

verify: $(VENV)/runtime.stamp  ## see that sockets do not slow REST: a table and a verdict, in a minute
	$(BIN)/python proofs/verify.py $(ARGS)

lock: $(VENV)/python.stamp  ## pin the dependencies anew
	$(PIP) install uv==0.13.8
	$(LOCK) requirements-test.in -o requirements-test.txt
	$(LOCK) requirements.in -c requirements-test.txt -o requirements.txt

clean:  ## remove everything that was made here
	rm -rf $(VENV) .coverage .coverage.* coverage.xml htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis examples/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; '$(PYTHON)' is none. Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "'$(PYTHON)' cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/runtime.stamp: requirements.txt $(VENV)/python.stamp
	$(PIP) install --require-hashes -r requirements.txt
	@touch $@

# The test pins hold the runtime's too, so the runtime is there as well; `make run` still finds its own stamp missing
# and takes a second to see that nothing is to be done.
$(VENV)/test.stamp: requirements-test.txt requirements.txt $(VENV)/python.stamp
	$(PIP) install --require-hashes -r requirements-test.txt
	@touch $@
