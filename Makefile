# Everything there is to do in a checkout; `make help` lists it. Needs make and Python 3.11, 3.12 or 3.13 with venv.
#
# .poetry/  a Poetry of our own (scripts/poetry.txt), so that none has to be installed and none that is gets in the way
# .release/ pip-audit and twine (scripts/release.txt), which look at a release before it goes out
# .venv/    the project and what poetry.lock pins; made anew when it was moved here from another place
#
# ARGS="..." is handed to the command of a target, e.g. make test ARGS="-k resume".

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-everything sweep test test-all test-browser coverage lint type benchmark mutants app lock lock-check docs screenshots audit dist clean chromium FORCE

SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
# tried by running it, once: a version manager's stand-in may be on PATH without the Python behind it
PYTHON ?= $(eval PYTHON := $(shell for name in python3.13 python3.12 python3.11 python3; do \
	"$$name" -c '$(SUITABLE)' >/dev/null 2>&1 && { command -v "$$name"; break; }; done))$(PYTHON)
RUN := .venv/bin/python
# what it advises then works as typed, where no environment is active
CONSOLE := .venv/bin/lora-sam
# one thread a worker: two workers with two threads each are slower on two cores, and sums come out in another order
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(RUN) -m pytest
WORKERS ?= 2

# an active environment would be used in place of ours, or mixed into it
unexport VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV PYTHONPATH PYTHONHOME
# where it is set, as in many images, every process compiles the thousands of files that it imports once more
unexport PYTHONDONTWRITEBYTECODE
export POETRY_VIRTUALENVS_CREATE := true
export POETRY_VIRTUALENVS_IN_PROJECT := true
export POETRY_REQUESTS_MAX_RETRIES ?= 3
# nothing here reports home
export GRADIO_ANALYTICS_ENABLED := False
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

help: ## List what there is to do
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## Install Poetry and everything that poetry.lock pins into this checkout

demo: setup ## Fine-tune the small SAM of the package on drawn washers, and show before and after
	$(CONSOLE) demo $(ARGS)

demo-everything: setup ## Without prompts: tune on drawn blood smears, and show what base and tuned find by themselves
	$(CONSOLE) train experiment=demo_everything $(ARGS)

sweep: setup ## Tune the demo with six pairs of rank and rate, a few minutes, and rank them: multirun/latest/sweep.html
	$(CONSOLE) sweep experiment=demo method=lora method.blocks=last:2 method.rank=4,16 optim.lr=1e-4,3e-4,1e-3 trainer.max_epochs=2 $(ARGS)

# in the order of tests/conftest.py, the longest files first: otherwise those with many tests would be
test: setup ## Run the tests that need neither a GPU nor much time
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart=0 $(ARGS)

test-all: setup ## Run the slow tests too, and require 90 % of the branches
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart=0 -m "not gpu and not browser" --cov $(ARGS)
	@$(MAKE) --no-print-directory coverage

test-browser: setup chromium ## Run the tests that drive a browser; installs Debian's Chromium where there is none
	$(PYTEST) -m browser tests/browser $(ARGS)

# Playwright has no browser of its own here: it drives the one of the system
chromium:
	@command -v chromium >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends chromium; }

coverage: setup ## Tell what the last run with --cov covered, and require 90 % of the branches
	@$(RUN) -m coverage json --quiet -o - | $(RUN) scripts/branch_coverage.py 90

lint: setup ## Check style, format and the order of imports
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	.venv/bin/lint-imports

type: setup ## Check types
	$(RUN) -m mypy lora_sam benchmarks $(wildcard train.py app.py)

benchmark: setup ## Measure speed and memory against the peers, and write the tables
	$(RUN) -m benchmarks $(ARGS)
	$(RUN) -m benchmarks.tables

mutants: setup ## Change the code a little at random, and see whether a test notices (20 minutes at most)
	$(RUN) scripts/mutants.py $(ARGS)

app: setup ## Compare base and tuned masks in a browser
	$(CONSOLE) app $(ARGS)

lock: .poetry/.ready ## Resolve the dependencies of pyproject.toml into poetry.lock
	$(POETRY) lock $(ARGS)

lock-check: .poetry/.ready ## Check that poetry.lock fits pyproject.toml
	$(POETRY) check --lock

docs: export NO_MKDOCS_2_WARNING := 1
docs: setup ## Build the documentation as pages that need no network: site/index.html
	$(RUN) -m mkdocs build --quiet

screenshots: setup chromium ## Train both demos, and take the pictures of README and docs again
	$(RUN) scripts/screenshots.py $(ARGS)

audit: setup .release/.ready ## Write what is locked to dist/sbom.json, and ask for its known weaknesses
	$(RUN) scripts/sbom.py dist/sbom.json
	$(RUN) scripts/audit.py .release/bin/pip-audit --vulnerability-service osv $(ARGS)

dist: .release/.ready ## Build wheel and source archive into dist/, and check them as the package index does
	.release/bin/python scripts/build_dist.py dist
	.release/bin/python -m twine check --strict dist/*.whl dist/*.tar.gz

clean: ## Remove caches and build products; outputs and the environments stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.* coverage.xml htmlcov dist build site
	find . -path ./.venv -prune -o -path ./.poetry -prune -o -path ./.release -prune -o -type d -name __pycache__ -exec rm -rf {} +

POETRY = eval "$$(.poetry/bin/python scripts/pip_settings.py)" && .poetry/bin/poetry

# The stamps hold the checkout's path, and a Python has to read them: an environment that was moved, or that lost the
# Python it was made from, counts as not there.
ready_at = $(shell $(1)/bin/python -c "print(open('$(1)/.ready').read().strip())" 2>/dev/null)

ifneq ($(call ready_at,.poetry),$(CURDIR))
.poetry/.ready: FORCE
endif
ifneq ($(call ready_at,.release),$(CURDIR))
.release/.ready: FORCE
endif
ifneq ($(call ready_at,.venv),$(CURDIR))
.venv/.ready: FORCE
endif

define require_python
	@"$(PYTHON)" -c '$(SUITABLE)' 2>/dev/null || { echo "No Python 3.11, 3.12 or 3.13 with its venv module\
	 (PYTHON is '$(PYTHON)'). Install one (Debian: apt-get install python3 python3-venv) or name it:\
	 make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" | tr -s ' \t' ' ' >&2; exit 1; }
endef

.poetry/.ready .release/.ready: .%/.ready: scripts/%.txt
	$(require_python)
	rm -rf .$*
	"$(PYTHON)" -m venv .$*
	.$*/bin/python -m pip install --quiet --disable-pip-version-check -r scripts/$*.txt
	@echo "$(CURDIR)" > $@

# the last word of `command` in pyvenv.cfg is where an environment was made
.venv/.ready: .poetry/.ready poetry.lock pyproject.toml
	$(require_python)
	@case "$$(sed -n 's/^command = //p' .venv/pyvenv.cfg 2>/dev/null)" in \
	*" $(CURDIR)/.venv") .venv/bin/python -c '$(SUITABLE)' 2>/dev/null;; *) false;; esac \
	|| { rm -rf .venv && "$(PYTHON)" -m venv "$(CURDIR)/.venv"; }
	$(POETRY) install --no-interaction
	@echo "$(CURDIR)" > $@
