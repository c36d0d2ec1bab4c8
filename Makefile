# `make run` and `make test` do all the set-up themselves; they need Python >= 3.11, make and a package index.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: run test docs check format clean

run: $(INSTALLED)
	$(BIN)/hpo run --space ann_fashion --timeout 270s

test: $(INSTALLED)
	$(BIN)/hpo data fetch fashion_mnist
	$(BIN)/pytest -n 2 --dist worksteal -m "not docs"

docs: $(INSTALLED)
	$(BIN)/pytest -n 2 -m docs tests/test_docs.py

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/make_reference.py

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
