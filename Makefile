# `make demo` and `make test` work as the first command on a fresh clone: they create the environment and install.
PYTHON ?= python3
# Another torch gets an environment of its own: make test 'TORCH=2.11.*'
TORCH ?=
VENV ?= .venv$(if $(TORCH),-torch-$(subst *,x,$(TORCH)))
# Optional: the address of a package index with CPU builds of torch, for a small installation.
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
SUM := $(shell cat pyproject.toml | cksum | cut -d' ' -f1)
TORCH_STAMP := $(VENV)/.torch
DEMO_STAMP := $(VENV)/.compare-$(SUM)
TEST_STAMP := $(VENV)/.dev-$(SUM)
ALL_STAMP := $(VENV)/.all-$(SUM)
DOCS_STAMP := $(VENV)/.docs-$(SUM)
DIST_STAMP := $(VENV)/.dist-$(SUM)
EXPORTERS_STAMP := $(VENV)/.exporters-$(SUM)
DEMO_OUT ?= runs/demo
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: demo test test-all examples exporters exporters-here pages lint format bench gpu docs site dist clean

demo: $(DEMO_STAMP)
	$(BIN)/tokenmix compare matching_digits --out $(DEMO_OUT)

test: $(TEST_STAMP) lint
	$(PYTEST) -m "not slow and not network"

test-all: $(ALL_STAMP) lint
	$(PYTEST) -m "not network"

# Also those whose training `make test` leaves out.
examples: $(TEST_STAMP)
	$(PYTEST) tests/test_examples.py

# Files for OpenVINO, ExecuTorch and Core ML, whose tests are skipped elsewhere, in an environment of their own.
exporters:
	$(MAKE) VENV=.venv-exporters exporters-here

exporters-here: $(EXPORTERS_STAMP)
	$(PYTEST) -m "not network" tests/test_export_runtimes.py tests/test_super_resolution_export.py \
		tests/test_int8_pays.py tests/test_compilation.py tests/test_onnx_operators.py

# What the pages say and how they look, of which `make test` leaves much out: the tutorial's commands, the site, and each
# kind of page in chromium, which needs chromedriver too.
pages: $(DOCS_STAMP)
	$(PYTEST) tests/test_docs.py tests/test_tutorial.py tests/test_pages_looks.py

# torch's own annotations differ by version: types are checked with the newest alone.
lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(if $(TORCH),,$(BIN)/mypy -n $(WORKERS))

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(TEST_STAMP)
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/mixers.py

gpu: $(TEST_STAMP)
	$(BIN)/python benchmarks/gpu.py

docs: $(DOCS_STAMP)
	$(BIN)/python docs/generate.py
	$(MAKE) site

# The pages as they are, as a site in site/: without network, and any warning is an error.
site: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Both files of a release, checked and tried from an empty environment, without this folder.
dist: $(DIST_STAMP)
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tests/try_wheel.py dist/*.whl

clean:
	rm -rf .venv .venv-* build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(TORCH_STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "torch$(if $(TORCH),==$(TORCH))" torchvision
	touch $@

$(DEMO_STAMP): $(TORCH_STAMP)
	$(PIP) -e ".[compare,demo]"
	touch $@

$(TEST_STAMP): $(TORCH_STAMP)
	$(PIP) -e ".[dev]"
	touch $@ $(DEMO_STAMP)

$(ALL_STAMP): $(TEST_STAMP)
	$(PIP) -e ".[dev,docs,release,ray,trackio,wandb]"
	touch $@ $(DOCS_STAMP) $(DIST_STAMP)

$(DOCS_STAMP): $(TEST_STAMP)
	$(PIP) -e ".[dev,docs]"
	touch $@

$(DIST_STAMP): $(TEST_STAMP)
	$(PIP) -e ".[dev,release]"
	touch $@

$(EXPORTERS_STAMP): $(TEST_STAMP)
	$(PIP) -e ".[dev,openvino,executorch,coreml]"
	touch $@
