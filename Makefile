# The README, CI and developers call these. Everything is installed into .venv from constraints.txt.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LOWEST := .venv-lowest
# What a lower bound can break: the engine, the archive and its exports, one training, the report, the command line.
LOWEST_TESTS := tests/test_*.py tests/ntk/test_exact_parts.py tests/ntk/test_held.py tests/ntk/test_slots.py \
	tests/ntk/test_refusals.py tests/ntk/test_passes.py tests/archive/test_round_trip.py tests/archive/test_netcdf.py \
	tests/archive/test_h5py_versions.py tests/archive/test_resume.py tests/callbacks/test_tracker.py \
	tests/callbacks/test_storage.py tests/callbacks/test_roots.py tests/analysis/test_report.py tests/analysis/test_cli.py

.PHONY: help demo test lowest nightly audit-off check lint types bench bench-gpu setups studies calibration docs docs-check browser-test kill-test gpu-test clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

demo: out/demo.html  ## the main job: train on a picture with the tracker on, write out/demo.h5 and out/demo.html

out/demo.html: | $(VENV)/.runtime
	$(BIN)/kerneltrack demo --out out/

test: $(VENV)/.dev  ## the quick tests, about 12 minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not nightly and not browser"

lowest: $(LOWEST)/.dev  ## a part of the tests with every lower bound of setup.cfg; before a release
	$(LOWEST)/bin/python -m pytest -o filterwarnings=default -m "not nightly and not browser" $(LOWEST_TESTS)

nightly: $(VENV)/.dev  ## what the quick tests leave out
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "nightly and not browser"

audit-off: $(VENV)/.dev  ## the kernel tests without the engine's own audit: what only it sees fails here
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not nightly and not audit" --without-audit tests/ntk

check: lint types  ## what CI runs: lint, types, then the test suite
	$(MAKE) test

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy kerneltrack callbacks analysis

browser-test: $(VENV)/.dev  ## the report in headless Chromium
	$(BIN)/python -m pytest -m browser tests/analysis

kill-test: $(VENV)/.dev  ## 500 SIGKILLs and a kill before every file-changing call; nothing acknowledged may be lost
	$(BIN)/python tests/archive/kill.py --kills 500 --calls

gpu-test: $(VENV)/.dev  ## what only a CUDA device shows: exactness, recurrent layers, transparency, memory, generators
	$(BIN)/python -m pytest tests/gpu --device cuda

.PHONY: release-check other-readers
release-check:  ## before a release, from a clean clone of HEAD: build, install, train, read without torch, lowest bounds, site
	$(PYTHON) tests/release/check.py

other-readers: $(VENV)/.dev  ## the snippets of docs/format.md in R and Octave, where they are installed
	$(BIN)/python tests/archive/other_readers.py

bench: $(VENV)/.dev  ## us and every installed peer on the same work, the archive's costs and the tracker's; writes docs/benchmarks*.md
	$(BIN)/python tests/bench/run.py
	$(BIN)/python tests/bench/archive_cost.py
	$(BIN)/python tests/bench/many_archives.py
	$(BIN)/python tests/bench/long_runs.py
	$(BIN)/python tests/bench/overhead.py
	$(BIN)/python tests/bench/analyses.py
	$(BIN)/python tests/bench/ratio.py

bench-gpu: $(VENV)/.dev  ## the kernel beside every installed peer on a CUDA device, in one process; writes docs/benchmarks-gpu.md
	$(BIN)/python tests/bench/device.py

setups: $(VENV)/.dev  ## every set-up of a Trainer through its claims; writes docs/setups.md
	$(BIN)/python tests/callbacks/setups_table.py

studies: $(VENV)/.studies  ## the studies that are missing or stale, at desk size; writes docs/studies/*/README.md and summary.md
	$(BIN)/python docs/studies/due.py

calibration: $(VENV)/.dev  ## ten decays, forecast and measured; writes docs/forecast-calibration.md
	$(BIN)/python docs/forecast_calibration.py

docs: $(VENV)/.docs out/demo.html  ## the generated pages, the README's figures, and the site: build/site/index.html
	$(BIN)/python docs/observables_page.py
	$(BIN)/python docs/format_tables.py
	$(BIN)/python docs/gallery_page.py
	$(BIN)/python docs/analyses_page.py
	$(BIN)/python -m kerneltrack.analysis.commands.demo_checks out > docs/demo.md
	$(BIN)/kerneltrack plot out/demo.h5 --figure eigenfunctions -o docs/figures/eigenfunctions.png
	$(BIN)/python docs/site/build.py --demo out --out build/site

docs-check: docs  ## the site in headless Chromium, from its files and without a network: no request, formulas, the search
	KERNELTRACK_SITE=build/site $(BIN)/python -m pytest -m browser tests/docs

clean:  ## remove what make made
	rm -rf $(VENV) $(LOWEST) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.runtime: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("kerneltrack needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	@touch $@

$(VENV)/.studies: $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,studies]"
	@touch $@

$(LOWEST)/.dev: setup.cfg pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e ".[dev]"
	@touch $@
