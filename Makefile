# Two commands matter to a newcomer: `make demo` and `make test`. Each first makes .venv if it is not there yet.
PYTHON ?= python3
BIN    := .venv/bin
DATA   ?= digits
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test check bench clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

check: .venv/installed
	ruff check .
	ruff format --check .
	mypy

test: check
	python -m pytest
