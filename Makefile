# Each target does all of its own set-up: the first one that you run makes .venv from requirements.lock.
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin

# The same environment for every notebook kernel on every machine: one thread each, and nothing of the user's own.
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS
export MPLCONFIGDIR := $(CURDIR)/.venv/matplotlib
export IPYTHONDIR := $(CURDIR)/.venv/ipython
export JUPYTER_CONFIG_DIR := $(CURDIR)/.venv/jupyter
export JUPYTER_PREFER_ENV_PATH := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH MPLBACKEND PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help book pdf test lint quick outputs notebooks mutants lower colab lab bench experiments format lock clean env
PYTEST := $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: env ## build the book from the outputs that the notebooks hold, print the page to open
	@$(BIN)/python tools/build_book.py

pdf: env ## print the whole book into one PDF, _build/vaetut.pdf (needs Chromium; some minutes)
	@$(BIN)/python tools/build_book.py
	@$(BIN)/python tools/print_book.py

test: env lint ## everything that must hold: lint, types, the built book, tests, doctests, notebooks
	@$(BIN)/python tools/build_book.py
	@PYTHONPATH=tools $(PYTEST) -rs -p fresh_outputs tests vaetut book $(NBVAL)
	@$(BIN)/python tools/build_book.py --checked

quick: env lint ## does a change hold? lint, types and the fast tests of the package
	@$(PYTEST) tests vaetut --ignore tests/book -m "not slow and not book and not browser"

lint: env
	@$(BIN)/ruff check . || { echo "vaetut: make format mends what is marked [*]" >&2; exit 1; }
	@$(BIN)/ruff format --check . || { echo "vaetut: make format mends this" >&2; exit 1; }
	@$(BIN)/codespell
	@$(BIN)/mypy

NBVAL := --nbval --nbval-current-env --nbval-sanitize-with tests/book/nbval_sanitize.cfg --nbval-cell-timeout=1200

outputs: env ## execute every notebook once: is what is stored what the present code puts out?
	@PYTHONPATH=tools $(PYTEST) -p fresh_outputs book $(NBVAL)
	@$(BIN)/python tools/build_book.py --checked

mutants: env ## change each check of the book mechanically, list what verify lets pass (one chapter: ONLY=02)
	@$(BIN)/python tools/mutants.py $(ONLY)

lower: env ## run the package's tests at the lower bounds of pyproject.toml (some gigabytes the first time)
	@$(BIN)/python tools/other_versions.py lower

colab: env ## run every notebook with Colab's versions, from elsewhere (some gigabytes the first time)
	@$(BIN)/python tools/other_versions.py colab

lab: env ## open chapters 0, 2 and 11 in JupyterLab 4, and in Notebook 6.5 if make colab has built it
	@$(BIN)/python tools/other_versions.py lab
	@$(BIN)/python -m pytest -q -rs tests/book/test_jupyter.py

notebooks: env ## execute the notebooks in place (one of them: make notebooks ONLY=book/02-variational-lower-bound.ipynb)
	@$(BIN)/python tools/notebooks.py $(ONLY)

bench: env ## speed beside torch and other packages, side by side in one run, as ratios (some minutes)
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

experiments: env ## repeat the paper's experiments for chapter 12 (several hours on two cores; can be stopped and continued)
	@$(BIN)/python -m vaetut.experiments all --jobs $(JOBS) --results vaetut/experiments/results --state _build/experiments
	@$(BIN)/python -m vaetut.experiments.mnist paper --results vaetut/experiments/results --runs _build/mnist
	@$(BIN)/python -m vaetut.experiments.full_vb --results vaetut/experiments/results

format: env ## format the Python files and sort their imports
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: env ## write requirements.lock anew from what .venv holds
	@$(BIN)/python tools/lock.py

clean: ## remove what was built; .venv too
	rm -rf _build .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

env:
	@command -v $(PYTHON) >/dev/null || { echo "vaetut: no $(PYTHON) found. Install Python 3.11 or newer," \
		"or name the one to use: make book PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) tools/environment.py
