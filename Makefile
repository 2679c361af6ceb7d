# `make demo` and `make test` need git, make and Python 3.11 to 3.13; everything else they bring along.
SHELL := /bin/bash
PYTHON ?=
export PYTHON
BIN := .venv/bin
BENCHMARKS := $(filter-out __init__ common render packing_cases packing_memory packed_makespan_figures packing_gpu_figures packing_gpu_parts together,$(basename $(notdir $(wildcard benchmarks/*.py)))) search
# The last Syne Tune with MOBSTER; it pins an old numpy, but what is used of it works with this one.
SYNE_TUNE := syne-tune==0.13.0 autograd==1.9.1 dill==0.4.1 sortedcontainers==2.4.0

.PHONY: help demo test lint format audit bench bench-search-deps docs-reference lock venv clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 14
	@echo "make bench-NAME  one benchmark: $(BENCHMARKS)"

demo: venv ## tunes a LoRA of a character on the embedded base model, from nothing to a report
	$(BIN)/tune-lora run search_spaces/studies/demo.yaml

test: venv ## the fast test suite
	scripts/test.sh $(PYTEST_ARGS)

lint: venv ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv ## lets ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: venv ## reports known vulnerabilities of the locked packages; never fails
	scripts/audit.sh

bench: $(addprefix bench-,$(BENCHMARKS)) ## all benchmarks, then docs/benchmarks.md; BENCH=quick for a short form
	$(BIN)/python -m benchmarks.render

bench-search-deps: venv ## what `make bench-search` compares with and nothing else needs
	$(BIN)/python -m pip install --no-build-isolation --editable ".[bench]"
	$(BIN)/python -m pip install --no-deps $(SYNE_TUNE)

bench-%: venv
	$(BIN)/python -m benchmarks.$*

docs-reference: venv ## docs/study_file.md, from the code that reads study files
	$(BIN)/python -m scripts.study_reference

lock: venv ## writes requirements.lock from pyproject.toml; LOCK_ARGS=--upgrade takes newer versions
	scripts/lock.sh $(LOCK_ARGS)

venv: ## .venv with the locked packages, made once per lock
	@scripts/venv.sh

clean: ## removes caches and build leftovers; keeps .venv and results
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
