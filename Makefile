# Needs Python 3.11 or later with venv, and nothing else. `make PYTHON=python3.12` picks another one.

VENV := .venv
BIN := $(VENV)/bin
IS_NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	$$candidate -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo $$candidate; done) python3)

.PHONY: install demo test lint bench bench-search bench-profile bench-train clean

install: $(VENV)/.installed

# uv links packages from its cache where pip copies gigabytes, but does not read pip's settings: the index is
# handed on. Where uv cannot be had or cannot reach an index, pip does the same with its own settings.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c '$(IS_NEW_ENOUGH)' 2>/dev/null || { \
		echo "Python 3.11 or later with venv is needed, got $$($(PYTHON) --version 2>&1)." \
			"Install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@index="$${PIP_INDEX_URL:-$$($(BIN)/pip config get global.index-url 2>/dev/null)}"; \
	if [ -n "$$index" ] && [ -z "$$UV_DEFAULT_INDEX" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	{ $(BIN)/pip install --quiet -c constraints.txt uv && \
		$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e '.[test,lint]'; } || \
	{ echo "uv did not succeed: installing with pip, which takes minutes." && \
		$(BIN)/pip install -c constraints.txt -e '.[test,lint]'; }
	@touch $@

demo: install
	$(BIN)/orchestrator run jobs/experiments/demo.yaml

# Two processes: tests that share the Ray cluster stay in one of them (tests/conftest.py). One thread for each, since
# threads of the one would wait for those of the other. A third made Ray's workers start too late on two cores.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' --numprocesses 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	@for script in tests/benchmarks/*.py; do \
		[ -e "$$script" ] || { echo "There is nothing to measure in tests/benchmarks."; break; }; \
		echo "$$script"; $(BIN)/python "$$script" || exit 1; \
	done

# Needs data and weights that are not part of the project: make bench-search DATA=directory WEIGHTS=file.pt,
# and, say, ARGS='--only batched_heads --repeats 1' for a part of it.
bench-search: install
	@[ -n "$(DATA)" ] && [ -n "$(WEIGHTS)" ] || { \
		echo "Name the PACS shards and the weights: make bench-search DATA=directory WEIGHTS=file.pt" >&2; exit 1; }
	@$(BIN)/python tests/benchmarks/search/bench_search.py "$(DATA)" "$(WEIGHTS)" $(ARGS)

# Likewise: make bench-profile DATA=directory WEIGHTS=file.pt, and, say, ARGS='--only label_entropy_10m_rows'.
bench-profile: install
	@[ -n "$(DATA)" ] && [ -n "$(WEIGHTS)" ] || { \
		echo "Name the PACS shards and the weights: make bench-profile DATA=directory WEIGHTS=file.pt" >&2; exit 1; }
	@$(BIN)/python tests/benchmarks/profile/bench_profile.py "$(DATA)" "$(WEIGHTS)" $(ARGS)

# Likewise: make bench-train DATA=directory WEIGHTS=file.pt, and, say, ARGS='--only ddp_vs_torchrun'.
bench-train: install
	@[ -n "$(DATA)" ] && [ -n "$(WEIGHTS)" ] || { \
		echo "Name the PACS shards and the weights: make bench-train DATA=directory WEIGHTS=file.pt" >&2; exit 1; }
	@$(BIN)/python tests/benchmarks/training/bench_train.py "$(DATA)" "$(WEIGHTS)" $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find orchestrator tests jobs -name __pycache__ -type d -prune -exec rm -rf {} +
