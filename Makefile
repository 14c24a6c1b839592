# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test style types bench soak fuzz servers clean

demo: $(INSTALLED)
	$(BIN)/python -m examples.demo

test: $(INSTALLED) servers style types
	$(BIN)/python -m pytest

style: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks

soak: $(INSTALLED) servers
	$(BIN)/python -m tests.soak

fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz

# The servers that the tests run against, where apt-get may install them.
servers:
	@tests/support/install_servers.sh

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test,rbl,dkim]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .bench .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
