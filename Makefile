# Two commands do everything on a fresh machine with Python 3.11+, git and make:
#   make reproduce   the main job: records, tables and figures of the default profile
#   make test        the tests
PROFILE ?= default
# ARGS: further options of `maskutils reproduce`, as ARGS="--workers 1"
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: reproduce renew test test-fast lab notebooks lint types docs bench readme clean distclean help
.DEFAULT_GOAL := help

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

reproduce: $(READY) ## run a profile's notebooks in a batch, into results/local, and compare (PROFILE=default)
	$(BIN)/maskutils reproduce --profile $(PROFILE) $(ARGS)

renew: $(READY) ## the same, over the committed results and figures
	$(BIN)/maskutils reproduce --profile $(PROFILE) --renew

test: $(READY) ## run all tests, notebooks included, and say which lines of the package they run
	$(BIN)/python -m pytest --cov=maskutils

test-fast: $(READY) ## run the tests that take no kernels and less than a minute together
	$(BIN)/python -m pytest -m "not slow" --dist worksteal --ignore=tests/hosts tests maskutils

lab: $(READY) ## open JupyterLab on copies of the notebooks, in lab/
	$(BIN)/maskutils lab

notebooks: $(READY) ## execute the notebooks in place at their defaults, and normalise them
	ls notebooks/*.ipynb | TQDM_DISABLE=1 OMP_NUM_THREADS=1 xargs -n 1 -P 2 $(BIN)/jupyter execute --inplace
	$(BIN)/nbstripout --keep-output --keep-count --keep-id --extra-keys \
		"metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info.version" notebooks/*.ipynb

lint: $(READY) types ## check style, notebooks too, and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## check types
	$(BIN)/mypy maskutils

docs: $(READY) ## build the site from docstrings, documents and committed notebooks, into docs/_build/html
	mkdir -p docs/_build/source
	$(BIN)/sphinx-build -W --keep-going -q -c docs docs/_build/source docs/_build/html

bench: $(READY) ## measure what masks and protection cost
	$(BIN)/python -m benchmarks.bench

readme: $(READY) ## write the numbers of the committed records into README.md and docs/results.md
	$(BIN)/python -m tools.fill_readme

clean: ## remove what is quickly made again: the environment, the site, pages of reports
	rm -rf $(VENV) docs/_build results/*/report

distclean: ## remove besides, after asking: caches, single runs, results and notebooks of your own; what is committed stays
	@printf 'Remove lab/, results/local, figures/local, all caches and single runs? [y/N] '; read answer; test "$$answer" = y
	rm -rf $(VENV) docs/_build lab results/.cache results/local figures/local results/*/runs results/*/report

# Exact versions from constraints.txt, so that the same seed gives the same record; rebuilt when what it depends on changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}; say make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,docs]'
	touch $@
