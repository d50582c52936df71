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

test: setup browser
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(BIN)/python -m benchmarks

soak: setup
	$(BIN)/python -m pytest tests/soak

# Debian's Chromium for tests/browser, which are skipped where it cannot be installed.
browser:
	@test -x /usr/bin/chromium || { command -v apt-get >/dev/null && test "$$(id -u)" = 0 \
		&& apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends chromium; } \
		|| echo "Chromium is not at /usr/bin/chromium and cannot be installed here: browser tests will be skipped."
