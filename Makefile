PYTHON ?= python3
# `make setup PIP_FLAGS="..."` passes options on to pip, such as an index with CPU-only torch wheels.
PIP_FLAGS ?=
BIN := .venv/bin

.PHONY: setup demo test lint bench soak browser

# The stamp is newer than what it was made from, so nothing is installed again until that changes.
setup: .venv/.installed

.venv/.installed: requirements.txt pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/python app.py

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(BIN)/python -m benchmarks

soak: setup
	$(BIN)/python -m pytest tests/soak

# Debian's Chromium for tests/browser, which are skipped without it.
browser:
	test -x /usr/bin/chromium || { apt-get update && apt-get install --yes --no-install-recommends chromium; }
