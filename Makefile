# Needs make and Python 3.11 or later. Everything is installed into .venv once; `make clean` removes it.
#
#   make demo                 train both recipes on real data, and write a report   (ARGS=--quick: under 3 minutes)
#   make test                 lint, types and tests                                 (ARGS="-k retrieval": for pytest)
#   make test-full            the slow tests too, and fuzzing for 4 minutes         (FUZZ_SECONDS=60: for one)
#   make test-accelerators    tests with the compilers of TPUs and GPUs, which test-full includes (3 GB, once)
#   make lint                 only lint and types
#   make ledger               rewrite the tables of the documents in docs, and docs/layers.svg; compiles nothing

VENV := .venv
ARGS ?=
WORKERS ?= 2
FUZZ_SECONDS ?= 240

# The first of these that is new enough is used; PYTHON=... overrides.
CANDIDATES := python3 python3.12 python3.11 python3.13 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: demo test tests-only test-full test-accelerators fuzz lint ledger clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.installed
	@$(VENV)/bin/jclip demo $(ARGS)

test: lint tests-only

tests-only: $(VENV)/.browser
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-full: lint $(VENV)/.browser
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "" $(ARGS)
	@$(MAKE) --no-print-directory test-accelerators fuzz

# A compiler mostly uses one core. Tests of one place are a group, so that only one worker starts its compiler. Groups are
# in the order of the files, which have the longest in the middle; by their sizes, a single long test would be the last.
test-accelerators: $(VENV)-plan/.installed
	$(VENV)-plan/bin/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder -m "" \
	  tests/accelerators/compiled

# The readers of foreign bytes, with random ones. Where pip finds no atheris for this Python and system, it is left out.
fuzz: $(VENV)/.installed-test
	@$(VENV)/bin/python -c 'import atheris' 2>/dev/null \
	  || $(VENV)/bin/python -m pip install --disable-pip-version-check --quiet -e '.[fuzz]' 2>/dev/null \
	  || { echo "fuzz: pip finds no atheris for this Python and system, so nothing is fuzzed" >&2; exit 0; }; \
	$(VENV)/bin/python -m tests.fuzz $(FUZZ_SECONDS)

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

ledger: $(VENV)/.installed
	$(VENV)/bin/python -m docs.ledger
	$(VENV)/bin/python -m docs.layers
	$(VENV)/bin/python -m docs.devices --draw
	$(VENV)/bin/python -m docs.scaling --draw

clean:
	rm -rf .venv .venv-3.12 .venv-plan .venv-3.12-plan .mypy_cache .pytest_cache .ruff_cache .hypothesis build jclip.egg-info .fuzz
	find jclip configs conversion docs tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files, so that a second call installs nothing. The test extra includes everything that the demo needs, and convert;
# that is named apart so that pip reads the pinned torch first, and does not also download the newest.
$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "Installing jclip into $(VENV): about a minute, once"
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off -e '.[train,serve]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.created
	@echo "Installing jclip and its test references into $(VENV): a few minutes, once"
	@$(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off -e '.[convert,test]'
	@touch $(VENV)/.installed $@

# The compilers are in an environment of their own, on top of the other one, because jax looks for the devices of those
# that are installed. pip finds what is installed below, and adds the rest.
$(VENV)-plan/.installed: pyproject.toml | $(VENV)/.installed-test
	@echo "Installing the compilers of TPUs and GPUs into $(VENV)-plan: a few minutes, once"
	@$(VENV)/bin/python -m venv $(VENV)-plan
	@below=$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  echo "import site; site.addsitedir('$$below')" > "$$($(VENV)-plan/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/below.pth"
	@$(VENV)-plan/bin/python -m pip install --disable-pip-version-check --progress-bar off -e '.[plan-tpu,plan-cuda]'
	@touch $@

$(VENV)/.browser: tests/browser.py | $(VENV)/.installed-test
	@$(VENV)/bin/python tests/browser.py
	@touch $@

$(VENV)/.created:
	@$(if $(PYTHON),,echo "jclip needs Python 3.11 or later, but none of '$(CANDIDATES)' is: install one, or set PYTHON: make PYTHON=/path/to/python" >&2; exit 1)
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "jclip needs Python 3.11 or later, but PYTHON=$(PYTHON) is older: set another" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Could not make $(VENV) with $(PYTHON) -m venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@touch $@
