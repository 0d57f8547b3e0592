# Every target sets up what it needs; a second run starts at once. `make help` lists them all.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
STAMP := .venv/.perdure-setup
# What mypy reads: folders join when they have code.
TYPED := src $(patsubst %/,%,$(sort $(dir $(wildcard tests/*.py examples/*.py benchmarks/*.py scripts/*.py))))
JOBS ?= 2
ARGS ?=
# Of each room the tests that find most in the least time.
QUICK := tests/test_house.py tests/test_public.py tests/journals tests/model \
	tests/sim/test_simulation.py::test_every_seed_keeps_every_promise \
	$(addprefix tests/wire/base/test_,codec.py errors.py retry.py) \
	tests/wire/clock/test_cron.py \
	$(addprefix tests/store/runs/test_,cancel.py reports.py starts.py) \
	tests/store/sql/test_statements.py \
	tests/engine/clock/test_schedules.py \
	tests/server/access/test_access.py \
	$(addprefix tests/server/openapi/test_,contract.py openapi.py) \
	tests/server/http/test_routing.py \
	$(addprefix tests/sdk/test_,context.py inner_loop.py machine.py order.py) \
	tests/embedded/runs/test_children.py \
	$(addprefix tests/agents/test_,durable.py names.py) \
	tests/cli/base/test_render.py \
	tests/cli/clock/test_schedules.py

export PYTHON

# Set up again when somebody names another Python, or when the clone was moved or copied with its environment.
ifneq ($(PYTHON),)
$(STAMP): FORCE
else ifneq ($(shell cat .venv/.perdure-home 2>/dev/null),$(CURDIR))
$(STAMP): FORCE
endif

$(STAMP): pyproject.toml requirements/dev.txt requirements/uv.txt scripts/setup.sh
	@sh scripts/setup.sh

.PHONY: FORCE
FORCE:

.PHONY: help
help: ## List what can be done (this list)
	@echo 'usage: make TARGET   (needs only Python 3.11-3.13; PYTHON=python3.12 names one)'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Build the environment in .venv from the pinned requirements

.PHONY: demo
demo: $(STAMP) ## See it work: verify every installed Python package, with a worker killed half-way
	@$(PY) examples/integrity.py $(ARGS)

.PHONY: format
format: $(STAMP) ## Format the code and fix what can be fixed by machine
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

.PHONY: check
check: $(STAMP) ## Format, lint, types, import contracts, prose; changes nothing
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy $(TYPED)
	@for system in darwin win32; do $(PY) -m mypy --platform $$system --cache-dir .mypy_cache/$$system src || exit 1; done
	@.venv/bin/lint-imports --no-logo
	@$(PY) -m scripts.prose

# A test run starts hundreds of processes: bytecode that is kept spares each of them a second of compiling.
quick test test-full test-long: export PYTHONDONTWRITEBYTECODE :=
quick test test-full test-long: export PYTHONPYCACHEPREFIX := $(CURDIR)/.venv/pycache

.PHONY: quick
quick: $(STAMP) ## The most telling tests of each room, within a minute
	@$(PY) -m pytest -m 'not slow and not long' -n $(JOBS) --dist worksteal $(ARGS) $(QUICK)

# More than there are cores: much of the time tests wait for processes that they have started.
.PHONY: test
test: $(STAMP) ## The fast suite (ARGS="-k claim" narrows it, JOBS=4 for more cores)
	@$(PY) -m pytest -m 'not slow and not long' -n $$(($(JOBS) + 2)) --dist worksteal $(ARGS)

.PHONY: test-full
test-full: $(STAMP) ## The slow tests too
	@$(PY) -m pytest -m 'not long' -n $$(($(JOBS) + 1)) --dist worksteal $(ARGS)

.PHONY: test-long
test-long: $(STAMP) ## Those that take minutes each: a million rows, thousands of programs, longer fault runs
	@$(PY) -m pytest -m long -n $(JOBS) --dist worksteal $(ARGS)

.PHONY: house
house: $(STAMP) ## Measure the code and its prose: each figure, today and the bar
	@$(PY) -m scripts.house

.PHONY: faults
faults: $(STAMP) ## Kill, freeze and cut off real processes for an hour (ARGS="--help" shows what)
	@$(PY) -m tests.faults --jobs $$(($(JOBS) + 1)) $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Measure (ARGS="--help" shows what)
	@$(PY) -m benchmarks $(ARGS)

# The built files are committed, so that only who changes the dashboard needs Node.
DASHBOARD := dashboard/node_modules/.package-lock.json

$(DASHBOARD): dashboard/package-lock.json
	@cd dashboard && npm ci --no-audit --no-fund --loglevel=error

.PHONY: dashboard
dashboard: $(STAMP) $(DASHBOARD) ## Build the dashboard's files into src/perdure/dashboard (needs Node 20.19 or newer)
	@$(PY) -m scripts.openapi > dashboard/openapi.json
	@cd dashboard && npm run --silent types && npm run --silent check && npm test --silent && npm run --silent build
	@$(PY) -m scripts.dashboard_sizes

.PHONY: docs
docs: $(STAMP) ## Build the site from docs/ into build/site: strict links, search, Markdown beside each page
	@$(PY) -m scripts.website

.PHONY: tables
tables: $(STAMP) ## Write the tables of commands and routes in docs/ from their declarations
	@$(PY) -m scripts.tables

.PHONY: screenshots
screenshots: $(STAMP) ## Take pictures of all pages, light and dark, into docs/images (needs Chromium)
	@$(PY) -m scripts.screenshots
	@$(PY) -m scripts.learn_pictures

.PHONY: dashboard-check
dashboard-check: $(STAMP) ## Build the dashboard elsewhere and compare: the committed files are those of its source
	@sh scripts/dashboard_check.sh

.PHONY: dist
dist: $(STAMP) ## Build sdist and wheel twice, and prove them: alone, with uvx, in an image where a container engine runs
	@$(PY) -m scripts.dist

.PHONY: lock
lock: $(STAMP) ## Pin and hash requirements/*.txt anew (UPGRADE=1 takes the newest versions)
	@UPGRADE='$(UPGRADE)' sh scripts/lock.sh

.PHONY: clean
clean: ## Remove the environment, caches and built files
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
