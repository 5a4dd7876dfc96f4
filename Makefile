# Two commands do everything on a fresh machine with Python 3.11+, git and make:
#   make reproduce   the main job: records, tables and figures of the default profile
#   make test        the tests
PROFILE ?= default
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: reproduce test lab notebooks lint clean help
.DEFAULT_GOAL := help

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

reproduce: $(READY) ## run a profile's notebooks in a batch (PROFILE=default)
	$(BIN)/maskutils reproduce --profile $(PROFILE)

test: $(READY) ## run all tests, notebooks included
	$(BIN)/python -m pytest

lab: $(READY) ## open JupyterLab on the notebooks
	$(BIN)/maskutils lab

notebooks: $(READY) ## execute the notebooks in place at their defaults, and normalise them
	ls notebooks/*.ipynb | TQDM_DISABLE=1 OMP_NUM_THREADS=1 xargs -n 1 -P 2 $(BIN)/jupyter execute --inplace
	$(BIN)/nbstripout --keep-output --keep-count --keep-id --extra-keys \
		"metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info.version" notebooks/*.ipynb

lint: $(READY) ## check style, notebooks too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean: ## remove environment, caches and single runs; committed results stay
	rm -rf $(VENV) results/.cache results/*/runs

# Exact versions from constraints.txt, so that the same seed gives the same record; rebuilt when what it depends on changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}; say make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@
