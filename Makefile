# Two commands need nothing but Python 3.11, pip and make:  make quickstart   and   make test
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check lint types docs clean

quickstart: .venv/installed
	$(BIN)/tunesmith quickstart

test: .venv/installed-check
	$(BIN)/pytest

check: lint types test

lint: .venv/installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed-check
	$(BIN)/mypy

docs: .venv/installed
	$(BIN)/python docs/generate.py

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/installed-check: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[check]'
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
