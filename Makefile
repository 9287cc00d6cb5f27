# Needs Python 3.10 or newer with venv, and make. PYTHON=python3.12 make test takes another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo serve test lint test-slow load pictures clean

help:
	@echo "make demo   install the runtime into .venv and cut out the demo photo"
	@echo "make serve  install the service into .venv and answer on http://127.0.0.1:8765 with the starter model"
	@echo "make test   install everything for development, run the tests, and test the built wheel"
	@echo "make lint   ruff and mypy"
	@echo "make pictures   the kiosk page's pictures in docs/images (needs Chromium)"
	@echo "make load   the service under load, against its targets (about 40 minutes)"
	@echo "make test-slow   the full-size reference models too (about 15 minutes)"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "boothsam needs Python 3.10 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m boothsam.service.cli demo -o demo-output

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,serve]'
	touch $@

serve: $(VENV)/.serve
	$(BIN)/python -m boothsam.service.cli serve

# PyTorch's CPU build only: the constraint keeps pip from the CUDA one where an index offers both.
$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.demo $(VENV)/.serve

test: $(VENV)/.dev
	$(BIN)/python -m pytest
	$(BIN)/python tests/wheel/check_wheel.py

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/wheel/check_types.py

load: $(VENV)/.dev
	$(BIN)/python benchmarks/load_service.py

pictures: $(VENV)/.dev
	$(BIN)/python docs/make_kiosk_pictures.py

clean:
	rm -rf $(VENV) build dist *.egg-info demo-output
