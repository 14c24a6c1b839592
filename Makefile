# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The modules named in setup.py, compiled beside their source; see there.
COMPILED := $(VENV)/.compiled
# greenfilter and what its demo needs, as long as nothing else was wanted.
DEMO := $(VENV)/.demo

.PHONY: demo test style types bench soak fuzz libraries servers clean

demo: $(if $(wildcard $(INSTALLED)),$(INSTALLED),$(DEMO))
	$(BIN)/python -m examples.demo
	@echo
	$(BIN)/python -m examples.demo_mail

# Most tests wait for other processes most of the time; those of one file share its servers.
test: servers $(COMPILED) style types
	$(BIN)/python -m pytest -n 3 --dist loadfile

style: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(COMPILED)
	$(BIN)/python -m tests.benchmarks

soak: servers $(COMPILED)
	$(BIN)/python -m tests.soak

fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz

libraries: $(INSTALLED)
	@tests/support/install_servers.sh --all
	$(BIN)/python -m pip install --quiet --editable '.[libraries]'
	$(BIN)/python -m tests.libraries

# The servers that the tests run against, where apt-get may install them.
servers:
	@tests/support/install_servers.sh

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	GREENFILTER_COMPILE=0 $(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(DEMO): pyproject.toml
	@echo "Installing greenfilter and what three of its filters need into $(VENV): a minute, once."
	@echo "The demo itself takes ten seconds."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet 'setuptools>=77'
	@GREENFILTER_COMPILE=0 $(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[rbl,auth-verify,dkim-sign]'
	@touch $@

$(COMPILED): $(INSTALLED) setup.py $(shell find greenfilter -name '*.py')
	GREENFILTER_COMPILE=$(if $(shell command -v cc),1,0) $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation \
	    --editable .
	@touch $@

clean:
	find greenfilter* -name '*.so' -delete
	rm -rf $(VENV) build dist *.egg-info .bench .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
