# Every target works from a fresh clone: what it needs is installed into .venv first.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
SEEDS ?=
PYTEST_ARGS ?=
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
INSTALLED := $(VENV)/.installed

# Two threads suit models this small on any machine, and idle ones must not spin.
export OMP_NUM_THREADS ?= 2
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-ci install fmt check test test-all test-distributed test-distributed-all test-vllm test-adapters test-envs test-envs-all test-browser test-browser-all test-browsergym test-desktop results ladder bench docs reliability wheel clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 24

quickstart: $(INSTALLED)  ## train a small agent on BabyAI and write its report (SEEDS="1 2 3": one run each)
	@if [ -z "$(SEEDS)" ]; then $(BIN)/agentrl train scripts/quickstart.yaml; \
	else $(BIN)/python scripts/quickstart_seeds.py $(SEEDS); fi
	@echo "numbers: runs/quickstart/summary.json"
	@find runs/quickstart -name report.html | sort | sed 's/^/report:  /'

quickstart-ci: $(INSTALLED)  ## the quickstart cut to two minutes: GRPO must beat its own warm start
	$(BIN)/python scripts/quickstart_check.py

install: $(INSTALLED)  ## create .venv with the exact versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "agentrl needs Python 3.11 or newer and found none on the PATH: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "agentrl needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1): make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@.ci/install-torch $(BIN)/python $(TORCH_INDEX)
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@if $(PIP) list --format=freeze | grep -iE '^(nvidia[-_]|torchvision=)'; then \
		echo "these packages must not be in .venv: the CPU build of torch needs no nvidia-* package, and torchvision changes what transformers does; rm -rf $(VENV) and see .ci/install-torch"; exit 1; fi
	@touch $@

fmt: $(INSTALLED)  ## format, and fix what can be fixed
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

check: $(INSTALLED)  ## lint, formatting, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy agentrl tests
	$(BIN)/lint-imports

test: $(INSTALLED)  ## the tests that need nothing special, two and a half minutes on two cores (PYTEST_ARGS=...)
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

test-all: $(INSTALLED)  ## the slow ones as well
	$(BIN)/python -m pytest -n $(WORKERS) -m "not gpu and not vllm and not browser and not distributed and not java and not adapters and not browsergym and not desktop" --timeout=600 $(PYTEST_ARGS)

test-distributed: $(VENV)/.installed-deepspeed  ## every training backend on two processes (CPU)
	$(BIN)/python -m pytest -m "distributed and not slow" $(PYTEST_ARGS)

test-distributed-all: $(VENV)/.installed-deepspeed  ## the slow ones as well
	$(BIN)/python -m pytest -m distributed $(PYTEST_ARGS)

$(VENV)/.installed-deepspeed: $(INSTALLED)
	$(PIP) install --quiet -c constraints.txt --no-build-isolation deepspeed
	@touch $@

test-vllm: $(INSTALLED)  ## real vLLM servers on the CPU, from an environment of their own (.venv-vllm, 3.5 GB)
	.ci/install-vllm
	$(BIN)/python -m pytest -m vllm --timeout=600 -rs --must-run=vllm --durations=10 $(PYTEST_ARGS)

test-adapters: $(INSTALLED)  ## OpenEnv's own client and servers, and Inspect, each from an environment of its own (0.8 GB)
	.ci/install-adapters
	$(BIN)/python -m pytest -m adapters --timeout=300 -rs --must-run=adapters --durations=10 $(PYTEST_ARGS)

IN_A_BROWSER := .ci/install-gui || { [ $$? = 77 ] && echo "SKIPPED: tests in a browser" && exit 0; exit 1; } && \
	.venv-gui/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -rs --must-run=browser --durations=10

test-browser: $(INSTALLED)  ## environments in a real Chromium (.venv-gui; as root a missing Chromium is installed)
	@$(IN_A_BROWSER) -m "browser and not slow" --timeout=120 $(PYTEST_ARGS)

test-browser-all: $(INSTALLED)  ## the slow ones as well: thousands of faults, every task of MiniWoB++
	@$(IN_A_BROWSER) -m browser --timeout=7200 $(PYTEST_ARGS)

test-browsergym: $(INSTALLED)  ## BrowserGym's tasks in a real Chromium, from an environment of their own (.venv-browsergym, 0.4 GB)
	.ci/install-gui || [ $$? = 77 ]
	.ci/install-browsergym
	$(BIN)/python -m pytest -m "browsergym and not slow" -rs --must-run=browsergym --durations=10 $(PYTEST_ARGS)

test-desktop: $(INSTALLED)  ## the application on an X desktop (as root Xvfb, xdotool and tkinter are installed)
	@.ci/install-desktop || { [ $$? = 77 ] && echo "SKIPPED: tests on a desktop" && exit 0; exit 1; } && \
	$(BIN)/python -m pytest -m "desktop and not slow" -rs --must-run=desktop --durations=10 $(PYTEST_ARGS)

test-envs: $(INSTALLED)  ## environments with their packages: reasoning-gym, bfcl, TextWorld, ScienceWorld (java), from .venv-envs (0.4 GB)
	.ci/install-envs
	BFCL_EVAL=$(CURDIR)/.venv-envs/bfcl .venv-envs/bin/python -m pytest -n $(WORKERS) -m "(extras or bfcl) and not slow" --timeout=300 -rs --must-run=extras,bfcl --durations=10 $(PYTEST_ARGS)

test-envs-all: $(INSTALLED)  ## the slow ones as well
	.ci/install-envs
	BFCL_EVAL=$(CURDIR)/.venv-envs/bfcl .venv-envs/bin/python -m pytest -n $(WORKERS) -m "extras or bfcl" --timeout=600 -rs --must-run=extras,bfcl --durations=10 $(PYTEST_ARGS)

results: export OMP_NUM_THREADS := 1
results: $(INSTALLED)  ## regenerate docs/results.md: every learning result, three seeds each
	.ci/install-gui || [ $$? = 77 ]
	$(BIN)/python scripts/results.py

ladder: export OMP_NUM_THREADS := 1
ladder: $(INSTALLED)  ## regenerate docs/ladder.md: sparse tasks, with and without exploring (five hours on one core)
	.ci/install-envs
	.ci/install-gui || [ $$? = 77 ]
	$(BIN)/python scripts/ladder.py

bench: $(INSTALLED)  ## regenerate docs/speed.md: every speed (25 minutes on two idle cores; push needs .venv-vllm)
	.ci/install-vllm
	for name in engine trie vs_trl overhead async push envs credit; do \
	  $(BIN)/python scripts/bench/$$name.py --json docs/results/bench/$$name.json || exit 1; done
	.ci/install-gui && .venv-gui/bin/python scripts/bench/gui.py --json docs/results/bench/gui.json || [ $$? = 77 ]
	$(BIN)/python scripts/bench/page.py

docs: $(INSTALLED)  ## write the generated pages that need no training: docs/envs, docs/methods.md, docs/scale.md
	$(BIN)/python scripts/envs_page.py
	$(BIN)/python scripts/methods_page.py
	$(BIN)/python scripts/scale_page.py

reliability: export OMP_NUM_THREADS := 1
reliability: $(INSTALLED)  ## regenerate docs/reliability.md: inject every fault and measure (3 minutes)
	$(BIN)/python -m pytest -m "not gpu and not vllm and not browser and not distributed and not java and not adapters and not browsergym and not desktop" --timeout=600 --record-faults=docs/reliability/faults.json
	$(BIN)/python scripts/reliability.py

wheel: $(INSTALLED)  ## build sdist and wheel into dist/ and try the wheel in an environment of its own
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	.ci/try-wheel $(BIN)/python dist/*.whl

clean:  ## remove what can be made again (runs/ and .venv stay)
	rm -rf build dist htmlcov .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
