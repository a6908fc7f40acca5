# `make demo` and `make test` on a machine with Python 3.11+ and make; both work twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Real exports for the end-to-end tests; without them those tests say that they are skipped.
SMEARWATCH_SAMPLE_DATA ?= $(wildcard ../shared/data)
export SMEARWATCH_SAMPLE_DATA

.PHONY: demo test benchmark lint figures chaos longrun hostile audit requirements clean

demo: $(VENV)/run.done
	$(BIN)/smearwatch demo $(if $(EXPORTS),--exports "$(EXPORTS)")

test: $(VENV)/test.done lint
	$(BIN)/pytest

# The paper's pipeline against ours, on this machine; docs/performance.md has more to measure.
benchmark: $(VENV)/test.done
	$(BIN)/smearwatch benchmark --picture benchmark.svg

# Shares and images made to do harm, by Hypothesis: about half an hour.
EXAMPLES ?= 10000
hostile: $(VENV)/test.done
	SMEARWATCH_HOSTILE_EXAMPLES=$(EXAMPLES) $(BIN)/pytest tests/hostile -s --timeout=0

# A bill of materials of each image, and what is known against its packages (needs the internet).
AUDIT := $(VENV)/audit
audit: $(AUDIT)/done
	PYTHONWARNINGS=ignore $(AUDIT)/bin/python deploy/audit.py

$(AUDIT)/done: requirements/audit.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

lint: $(VENV)/test.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Random kills of processes and servers; a thousand take about an hour and a half.
KILLS ?= 1000
SEED ?= 1
chaos: $(VENV)/test.done
	$(BIN)/python -m tests.fault.chaos --kills $(KILLS) --seed $(SEED)

# Slides in a row, and what the processes hold meanwhile: printed, and drawn into longrun.svg.
SLIDES ?= 1000
longrun: $(VENV)/test.done
	$(BIN)/python -m tests.fault.longrun --slides $(SLIDES)

# After another bundle or other rules: what they mean, for docs/verdicts.md.
figures: $(VENV)/test.done
	$(BIN)/smearwatch rules check --markdown > docs/reference/figures.md

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.done: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the pinned packages into $(VENV) (a minute or two)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/test.done: requirements/test.txt pyproject.toml | $(VENV)/bin/python
	@echo "installing the pinned packages into $(VENV) (two minutes or three)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/run.done

# Needs uv; hashes only, no addresses.
COMPILE := uv pip compile pyproject.toml --generate-hashes --universal --python-version 3.11 \
	--no-header --no-annotate --quiet
requirements:
	$(COMPILE) -o requirements/ingest.txt
	$(COMPILE) --extra cpu -o requirements/worker-cpu.txt
	$(COMPILE) --extra gpu -o requirements/worker-gpu.txt
	$(COMPILE) --extra cpu --extra embedded --group build -o requirements/run.txt
	$(COMPILE) --extra cpu --extra embedded --extra train --group build --group dev \
		-o requirements/test.txt
	uv pip compile --group audit --generate-hashes --universal --python-version 3.11 \
		--no-header --no-annotate --quiet -o requirements/audit.txt

clean:
	rm -rf $(VENV) demo
