# `make demo` and `make test` need Python >= 3.11 and make; everything else they fetch, pinned and verified.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
BENCH_READY := $(VENV)/.installed-bench
BROWSER_READY := $(VENV)/.installed-browser

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-fast test-browser check bench bench-check bench-record profile accelerate drill chaos chaos-short format lock clean

help: ## what there is to do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

# The locks name every package: with --no-deps pip has nothing to resolve. Left to resolve, it looks for the newest `x[extra]` that
# a package asks for, and refuses the pinned `x` as soon as there is a newer one.
$(READY): deploy/requirements.lock pyproject.toml hatch_build.py eventstore/_accelerator.c
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "expected Python >= 3.11, got %d.%d: call make PYTHON=python3.12, say" % sys.version_info[:2])'
	@echo "Installing the pinned packages into $(VENV) (about a minute the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r deploy/requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## the main job on the embedded stack: servers, 39,244 real events, a timeline
	@$(BIN)/eventstore demo up

demo-down: $(READY) ## end the demo's servers and delete its data
	@$(BIN)/eventstore demo down

test: $(READY) ## all tests but the long fault suite, on real servers
	$(BIN)/pytest -n auto -m "unit or properties" --cov --cov-report=term:skip-covered $(ARGS)
	$(BIN)/pytest -m "contract or integration" $(ARGS)

test-fast: $(READY) ## the tests that need no servers
	$(BIN)/pytest -n auto -m "unit or properties" $(ARGS)

$(BROWSER_READY): $(READY) deploy/requirements-browser.lock
	@echo "Installing what drives a browser into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r deploy/requirements-browser.lock
	@touch $@

test-browser: $(BROWSER_READY) ## the profile page in the Chromium of this machine (CHROMIUM names another)
	$(BIN)/pytest -m browser tests/browser $(ARGS)

check: $(READY) ## static checks: ruff, mypy --strict, Import Linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BENCH_READY): $(READY) deploy/requirements-bench.lock
	@echo "Installing what the benchmarks need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r deploy/requirements-bench.lock
	@touch $@

bench: $(BENCH_READY) ## measure side by side with others; SCENARIOS=lane,sink BENCH_EVENTS=50000 BENCH=quick
	@$(BIN)/python -m tests.benchmarks run

bench-check: $(BENCH_READY) ## hold the contest again; fails if a recorded ratio has got 15 % worse
	@$(BIN)/python -m tests.benchmarks run --scenarios stock,simple,driver,lane
	@$(BIN)/python -m tests.benchmarks check

bench-record: $(BENCH_READY) ## make the last run's ratios those to compare with
	@$(BIN)/python -m tests.benchmarks record

profile: $(BENCH_READY) ## where a worker's CPU goes, by stage of an event's journey
	@$(BIN)/python -m tests.benchmarks profile

accelerate: $(READY) ## build the optional hot loops in C anew (needs a C compiler and Python's headers)
	@$(BIN)/python hatch_build.py

chaos: $(READY) ## break everything under load and count what is lost (an hour); SCENARIO=sigkill,tier-away KEEP=1 CHAOS_EVENTS=10000
	@$(BIN)/python -m tests.chaos run
	@$(BIN)/python -m tests.chaos table

chaos-short: $(READY) ## the same for every commit: a few kills, thousands of events, minutes
	@$(BIN)/python -m tests.chaos run --short
	@$(BIN)/python -m tests.chaos.drill --short

drill: $(READY) ## lose a cluster with its disks and bring it back: from a backup, and from Kafka alone; DRILL_EVENTS=60000
	@$(BIN)/python -m tests.chaos.drill

format: $(READY) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## resolve the dependencies anew (needs uv); versions and hashes only, no addresses
	uv pip compile pyproject.toml --extra local --group dev --universal --generate-hashes --python-version 3.11 \
		--upgrade --no-header --no-annotate --no-emit-index-url --quiet --output-file deploy/requirements.lock
	uv pip compile --group pyproject.toml:bench --constraint deploy/requirements.lock --universal --generate-hashes \
		--python-version 3.11 --upgrade --no-header --no-annotate --no-emit-index-url --quiet \
		--output-file deploy/requirements-bench.lock
	uv pip compile --group pyproject.toml:browser --constraint deploy/requirements.lock --universal --generate-hashes \
		--python-version 3.11 --upgrade --no-header --no-annotate --no-emit-index-url --quiet \
		--output-file deploy/requirements-browser.lock

clean: ## delete what was installed and cached here, but no data
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
