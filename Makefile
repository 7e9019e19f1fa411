# Everything below makes its own virtual environment in .venv first; nothing has to be set up before.

PYTHON := .venv/bin/python
# What running and building need, and what tests, checks and benchmarks need besides.
STAMP := .venv/.complete
DEV_STAMP := .venv/.complete-dev
TESTS ?=
# What the type checker does not look into where it is told of another system.
FOR_WINDOWS := $(wildcard src/distbuild/system/windows/*.py src/distbuild/*/windows_*.py src/distbuild/worker/process/windows*.py)
BENCH ?=
SUITES ?= bookworm trixie sid
# Tests wait more than they compute, so a few processes share few cores. What shares a farm is in one file.
TEST_PROCESSES ?= 5
# In order, so that files of few long tests do not come last.
PARALLEL := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# Otherwise each process rewrites the asserts of all tests anew, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE
QUIETLY := -q -o console_output_style=classic -p tests.support.summary

ALL := not slow and not windows and not matrix
QUICK := $(ALL) and not exhaustive
UNIT := $(QUICK) and not compiler and not program
# Packages without a file system or a network of their own, and the least share of lines (percent)
# that their tests run.
PURE := protocol command farm
MIN_COVERED := 90
# make fuzz starts no round after so many seconds.
FUZZ_S ?= 300

.DEFAULT_GOAL := help
.PHONY: FORCE help demo test test-exhaustive test-all unit e2e cover fuzz matrix test-windows check fmt lint types bench profile exe venv lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(firstword $(MAKEFILE_LIST))

# The script looks by itself whether anything is to be done.
$(STAMP): FORCE
	@tools/venv.sh

$(DEV_STAMP): FORCE
	@tools/venv.sh dev

venv: $(STAMP) ## only the virtual environment: what a build machine needs

lock: $(STAMP) ## write requirements.lock, with which releases are built
	@tools/lock.sh

exe: ## build src/dist/dist_build.exe if the sources are newer
	@./generate_dist_build_executable.sh

demo: $(STAMP) exe ## a syncer and two workers on this machine compile a small project
	@$(PYTHON) tools/demo.py

test: $(DEV_STAMP) exe ## each behaviour once, in some minutes; TESTS="tests/unit -k config" for some
	@echo "running the tests in $(TEST_PROCESSES) processes"
	@$(PYTHON) -m pytest $(QUIETLY) $(PARALLEL) -m "$(QUICK)" $(TESTS)

test-exhaustive: $(DEV_STAMP) exe ## what proves the same again and make test leaves out; TESTS as above
	@echo "running the exhaustive tests in $(TEST_PROCESSES) processes"
	@$(PYTHON) -m pytest $(QUIETLY) $(PARALLEL) -m "$(ALL) and exhaustive" $(TESTS)

test-all: test test-exhaustive ## both

unit: $(DEV_STAMP) ## unit and property tests that run no other program
	@$(PYTHON) -m pytest $(QUIETLY) $(PARALLEL) -m "$(UNIT)" tests/unit tests/property

e2e: $(DEV_STAMP) exe ## tests with real compilers, a syncer and workers, hostile ones too
	@$(PYTHON) -m pytest $(QUIETLY) $(PARALLEL) -m "$(QUICK)" tests/e2e tests/security

cover: $(DEV_STAMP) ## lines that unit and property tests run; fails below 90 % of a pure package
	@$(PYTHON) -m coverage run -m pytest $(QUIETLY) -m "$(UNIT)" tests/unit tests/property
	@$(PYTHON) -m coverage report --include="src/distbuild/http/*,src/distbuild/mirror/*"
	@for package in $(PURE); do \
		$(PYTHON) -m coverage report --include="src/distbuild/$$package/*" \
			--fail-under=$(MIN_COVERED) || exit 1; \
	done

fuzz: $(DEV_STAMP) ## property tests with new random examples in rounds, for FUZZ_S=300 seconds or until one fails
	@end=$$(($$(date +%s) + $(FUZZ_S))); round=1; \
	while [ $$(date +%s) -lt $$end ]; do \
		echo "round $$round"; round=$$((round + 1)); \
		$(PYTHON) -m pytest $(QUIETLY) $(PARALLEL) --hypothesis-profile fuzz --timeout 0 \
			tests/property || exit 1; \
	done

check: lint types test ## format, lint, types, then the tests

fmt: $(DEV_STAMP) ## format the sources, and mend what the linter can
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

lint: $(DEV_STAMP) ## check format and style
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .

types: $(DEV_STAMP) ## check the types, for Linux and for Windows
	@$(PYTHON) -m mypy
	@$(PYTHON) -m mypy --platform win32 --follow-imports silent $(FOR_WINDOWS)

test-windows: $(DEV_STAMP) ## the tests of Windows, in a wine that is set up first (about 500 MB, once)
	@$(PYTHON) tools/windows/setup.py
	@DIST_BUILD_REQUIRE_WINDOWS=1 $(PYTHON) -m pytest $(QUIETLY) -m windows tests/windows $(TESTS)

matrix: $(DEV_STAMP) ## as root: tests with the compilers of other Debians; SUITES="bookworm trixie sid", MATRIX_DOCS=1 writes docs/compilers.md
	@DIST_BUILD_SUITES="$(SUITES)" TEST_PROCESSES=$(TEST_PROCESSES) DIST_BUILD_REQUIRE_TOOLS=1 $(PYTHON) -m pytest -q -rf -m matrix tests/matrix $(TESTS)

profile: $(DEV_STAMP) exe ## the functions in which a syncer under load uses the processor
	@$(PYTHON) -m bench.profiling

bench: $(DEV_STAMP) exe ## measure, beside other tools on this machine; BENCH="cost --quick" for some
	@$(PYTHON) -m bench $(BENCH)

clean: ## remove .venv and whatever was built
	rm -rf .venv build src/dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} +
