# Rheobase: `make` lists what there is. Needs GNU make, git and Python 3.11 or newer; the rest is installed into .venv.

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_FLAGS ?=
ARGS ?=
RECIPES ?= fashion-mnist
STUDIES ?=
SEEDS ?= 0
RESULTS ?= runs/reproduced.csv
STUDY_RESULTS ?= runs/studied.csv
BENCHMARKS ?= neuron fc conv memory compile parallel_reset psn events products trained sparse
BENCH_FLAGS ?=
TYPED := --jaxtyping-packages=rheobase,beartype.beartype
NONE_IS_FINE = $(if $(ARGS),|| test $$? -eq 5)

PIP = $(BIN)/python -m pip --disable-pip-version-check install $(PIP_FLAGS)
INSTALLED := $(VENV)/.installed
GROUP := $(VENV)/.group-
KERNELS := $(VENV)/.kernels
KERNELS_FROM := $(addprefix packages/kernels-cpu/,pyproject.toml CMakeLists.txt csrc/*.[ch] src/rheobase_kernels/*.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SECONDARY:
.PHONY: help demo test test-typed test-compile test-triton kernels check docs bench reproduce clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  PYTHON=...     the Python to make $(VENV) with (3.11 or newer)'
	@echo '  PIP_FLAGS=...  options for pip, such as --extra-index-url URL of an index with a smaller, CPU-only torch'
	@echo '  ARGS=...       options for pytest: make test ARGS="tests/neurons -x"'
	@echo '  BENCHMARKS=... BENCH_FLAGS=...  what `make bench` measures: make bench BENCHMARKS="fc conv" BENCH_FLAGS=--quick'
	@echo '  RECIPES=... SEEDS=...  what `make reproduce` trains: make reproduce RECIPES=mnist SEEDS="0 1 2"'
	@echo '  STUDIES=...    and what it measures besides: make reproduce RECIPES= STUDIES=h2learn-densities'

demo: $(INSTALLED) ## Train a spiking ResNet on handwritten digits and write its report: minutes, no download of data
	$(BIN)/rheobase train digits --report

test: test-typed test-compile test-triton ## Run all tests: eagerly with types checked, torch.compile, Triton interpreted

test-typed: $(GROUP)test $(KERNELS)
	$(BIN)/python -m pytest -m "not compile and not triton" $(TYPED) $(ARGS) $(NONE_IS_FINE)

test-compile: $(GROUP)test
	JAXTYPING_DISABLE=1 $(BIN)/python -m pytest -m compile $(ARGS) $(NONE_IS_FINE)

test-triton: $(GROUP)triton
	TRITON_INTERPRET=1 $(BIN)/python -m pytest -m triton $(TYPED) $(ARGS) $(NONE_IS_FINE)

kernels: $(KERNELS) ## Build the optional CPU kernels that read spikes, where there is a C compiler

check: $(GROUP)check ## Check format, lint, types and import arrows, and build the docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	@$(MAKE) --no-print-directory docs

docs: $(GROUP)docs ## Build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html
	@echo 'docs: open docs/_build/html/index.html'

bench: $(INSTALLED) $(KERNELS) ## Measure against other libraries on this machine, which must be idle: half an hour
	@status=0; for name in $(BENCHMARKS); do \
		$(BIN)/python -m benchmarks $$name $(BENCH_FLAGS) || status=$$?; \
	done; exit $$status

reproduce: $(INSTALLED) ## Train the slow recipes and append what was measured to runs/reproduced.csv: hours
	@set -e; for recipe in $(RECIPES); do for seed in $(SEEDS); do \
		echo "$$recipe, seed $$seed"; \
		$(BIN)/rheobase train $$recipe --seed $$seed --download --report --results $(RESULTS); \
	done; done; for study in $(STUDIES); do for seed in $(SEEDS); do \
		$(BIN)/rheobase study $$study --seed $$seed --results $(STUDY_RESULTS); \
	done; done

clean: ## Remove .venv, built docs and caches; runs stay
	rm -rf .venv docs/_build build packages/kernels-cpu/build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks docs packages -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@test -n '$(PYTHON)' || { echo 'make: found no Python 3.11 or newer; install one, or name it: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'make: PYTHON=$(PYTHON) is not Python 3.11 or newer; name another: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
		"$$('$(PYTHON)' -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"; } || { \
		echo 'make: $(PYTHON) cannot make virtual environments; install its venv package (Debian: python3-venv)' >&2; exit 1; }
	'$(PYTHON)' -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	@echo 'make: installing rheobase into $(VENV); torch is large, this may take minutes'
	$(PIP) --quiet --upgrade 'pip>=25.1'
	$(PIP) -c constraints.txt -e .
	@touch $@

$(GROUP)%: $(INSTALLED)
	$(PIP) --quiet -c constraints.txt --group $*
	@touch $@

$(KERNELS): $(INSTALLED) $(wildcard $(KERNELS_FROM))
	@if command -v $(CC) >/dev/null; then \
		echo 'make: building packages/kernels-cpu'; $(PIP) --quiet ./packages/kernels-cpu || { \
			echo 'make: the CPU kernels could not be built, see above; they are optional, and their tests are skipped'; \
			test -z "$(CI)"; }; \
	else \
		echo 'make: no C compiler $(CC), so the optional CPU kernels are not built'; \
	fi
	@touch $@
