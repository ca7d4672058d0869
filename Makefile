# The two commands of the README: `make demo` and `make test`. `make check` is the quick loop while working.
.DEFAULT_GOAL := help
PYTHON_BIN := .venv/bin/python
DEMO_MODEL := parlay-out/tiny-llama
# Hundreds of processes load Parlay; where bytecode is not to be kept, each of them would compile it for a second.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo demo-service test-long demo-retune test check format clean
help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed ## make .venv with Ray Serve, vLLM (CPU) and the test tools (3 minutes, 4 GB)
.venv/installed: pyproject.toml .ci/install
	@echo "installing Parlay, Ray Serve and vLLM for CPU into .venv (a few minutes) ..."
	@.ci/install

demo: .venv/installed ## tune a tiny real model on real Ray Serve + vLLM (at most 8 minutes after the installation)
	@$(PYTHON_BIN) -m serve.tiny_model $(DEMO_MODEL) --size demo
	@.venv/bin/parlay tune demo.yaml --study "demo-$$(date +%Y%m%d-%H%M%S)" --metrics-port 0

demo-service: .venv/installed ## ask a service for such a study over HTTP (at most 6 minutes after the installation)
	@.ci/demo-service

demo-retune: .venv/installed ## a node joins under load: another layout is tried and promoted (at most 10 minutes after the installation)
	@.ci/demo-retune

# Those that start engines have the machine for themselves; the API server of the last may be built meanwhile.
test: .venv/installed ## run all tests, those on the real stack included
	@.ci/tools
	@$(PYTHON_BIN) -m tests.tools
	@$(PYTHON_BIN) -m tests.kube_tools
	$(PYTHON_BIN) -m pytest -n 2 --dist worksteal -m "not real and not long" --ignore tests/with_kubernetes
	$(PYTHON_BIN) -m pytest -m "real and not long"
	$(PYTHON_BIN) -m pytest tests/with_kubernetes

test-long: .venv/installed ## what CI has no time for: properties on new examples, the image, more real engines
	@.ci/tools
	@$(PYTHON_BIN) -m tests.tools
	@$(PYTHON_BIN) -m tests.kube_tools
	$(PYTHON_BIN) -m pytest -n 2 --dist worksteal -m "hypothesis and not real" --hypothesis-profile anew
	$(PYTHON_BIN) -m pytest -m long

# Of each property fewer examples are tried than `make test` tries. Two processes each load half of the files: workers of
# one pytest would each load all of them, and a third process would deal the tests.
check: .venv/installed ## ruff, mypy and the quick unit tests
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy
	@$(MAKE) --no-print-directory --jobs 2 --output-sync --keep-going quick-0 quick-1

quick-%:
	@$(PYTHON_BIN) -m pytest tests/unit -q --half $* --hypothesis-profile quick -m "not slow and not real and not tools"

format: .venv/installed ## put the code in its usual shape
	@.venv/bin/ruff check --fix --quiet .
	@.venv/bin/ruff format --quiet .

clean: ## remove results and caches, not .venv
	rm -rf parlay-out .mypy_cache .ruff_cache .pytest_cache
