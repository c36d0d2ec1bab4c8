# `make run` and `make test` do all the set-up themselves; they need Python >= 3.11, make and a package index.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# Compiled modules are kept, whatever the environment says: each of the many processes of the tests would compile hpo.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test quick cluster docs check coverage audit format hooks dist clean

run: $(INSTALLED)
	$(BIN)/hpo run --space ann_fashion --timeout 270s

test: $(INSTALLED)
	$(BIN)/hpo data fetch fashion_mnist
	$(BIN)/pytest -n 3 --dist worksteal -m "not docs and not cluster"

# What needs a Ray cluster of three nodes on this machine. Alone and one after the other: each node is five processes.
cluster: $(INSTALLED)
	$(BIN)/pytest -m cluster

# The inner loop: no worker processes, no browser, SQLite alone.
quick: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist worksteal -m "not docs and not slow"

# The site is built in site/ and looked at; every command of the pages and every notebook is run.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	HPO_SITE=site $(BIN)/pytest -n 2 --dist worksteal -m docs

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Coverage of every module. Measuring slows the tests down, hence the longer time limit.
coverage: $(INSTALLED)
	$(BIN)/hpo data fetch fashion_mnist
	$(BIN)/pytest -n 2 --dist worksteal -m "not docs and not cluster" --timeout=900 \
		--cov --cov-report=term --cov-report=html

# Known vulnerabilities of what is installed. Where the database cannot be asked, pip-audit finds nothing; so it must
# first find one that is known: CVE-2024-49768.
audit: $(INSTALLED)
	@echo waitress==3.0.0 > .venv/vulnerable.txt
	@if $(BIN)/pip-audit --disable-pip --no-deps -r .venv/vulnerable.txt >/dev/null 2>&1; then \
		echo "audit: the database of vulnerabilities cannot be asked: NOTHING WAS CHECKED."; exit 3; fi
	$(BIN)/pip-audit --local --skip-editable --progress-spinner off

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/make_reference.py

hooks: $(INSTALLED)
	$(BIN)/pre-commit install

dist: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist site htmlcov .coverage .coverage.*
