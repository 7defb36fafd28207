# Seedancee2. `make help` lists what there is. Paths are relative, so that any folder name will do.
.POSIX:
.PHONY: help run test chaos screenshots bench bench-long check format lock audit clean

# Many processes run the same modules: the first one's compiling serves all, whatever the machine's habit is.
export PYTHONDONTWRITEBYTECODE =

PYTHON = python3
BIN = .venv/bin
IN_VENV = $(BIN)/python -m
PIP_INSTALL = $(IN_VENV) pip install --disable-pip-version-check --progress-bar off -r

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

run: .venv/local.stamp ## the whole system on this machine; PORT=8001 make run moves it
	@exec $(IN_VENV) seedancee2.local.run

test: .venv/dev.stamp ## all tests, on a real PostgreSQL and Valkey; ARGS="-k ledger" picks some
	@test "$$BROWSER_TESTS" = off || $(IN_VENV) tests.browser.chromium || export BROWSER_TESTS=off; exec $(IN_VENV) pytest -n 3 $(ARGS)

chaos: .venv/dev.stamp ## hurt the whole system while customers use it; CHAOS_SEED=n repeats a run
	@$(IN_VENV) tests.chaos.ledger
	@$(IN_VENV) tests.chaos.degraded
	@$(IN_VENV) tests.chaos.broker --times 2
	@$(IN_VENV) tests.chaos.webhooks
	@exec $(IN_VENV) tests.chaos.run $(ARGS)

screenshots: .venv/dev.stamp ## every page, light and dark, wide and narrow, into var/screenshots
	@exec $(IN_VENV) tests.browser.screenshots

bench: .venv/dev.stamp ## measure the running system at a million tasks, in 20 minutes; ARGS=20000 for fewer
	@exec $(IN_VENV) bench $(ARGS)

bench-long: .venv/dev.stamp ## the same at ten million tasks, with an hour of load
	@exec $(IN_VENV) bench --long $(ARGS)

check: .venv/dev.stamp ## style, types, imports, migrations, production settings, OpenAPI
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	$(IN_VENV) mypy .
	$(BIN)/python -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	$(IN_VENV) seedancee2.local.check

format: .venv/dev.stamp ## put the code into its one form
	$(IN_VENV) ruff check --fix .
	$(IN_VENV) ruff format .

lock: .venv/dev.stamp ## pin the newest versions that requirements*.in allow
	@for name in requirements requirements-local requirements-dev; do \
		echo "pinning $$name.txt"; \
		$(IN_VENV) piptools compile -q --upgrade --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links $$name.in || exit 1; \
	done

audit: .venv/dev.stamp ## look for known vulnerabilities in what we install
	$(IN_VENV) pip_audit --disable-pip --no-deps -r requirements.txt

clean: ## remove what tests and tools left; keeps .venv and the data of make run
	rm -rf var/test-* var/ci .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Seedancee2 needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ". Name another one, for example: make PYTHON=python3.12 run")'
	@echo "making the virtual environment .venv"
	@$(PYTHON) -m venv .venv || { echo "Python could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

.venv/local.stamp: .venv/python.stamp requirements-local.txt
	@echo "installing what requirements-local.txt pins (a minute or two the first time)"
	@rm -f $@
	@{ $(PIP_INSTALL) requirements-local.txt && touch $@; } | grep -v '^Requirement already satisfied'; test -f $@

.venv/dev.stamp: .venv/python.stamp requirements-dev.txt
	@echo "installing what requirements-dev.txt pins (a minute or two the first time)"
	@rm -f $@
	@{ $(PIP_INSTALL) requirements-dev.txt && touch $@; } | grep -v '^Requirement already satisfied'; test -f $@
