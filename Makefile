# `make` sets up and runs the main job; `make test` sets up and runs every check. `make help` tells
# the rest.
CONFIG ?= config/default.yaml
CORES ?= all
EXECUTOR ?= local
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
SHELL := /bin/bash
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# A machine's own Python settings must not leak into the environment.
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := run
.PHONY: run setup test tune lint format unit dry ci regress resolution robustness robustness-gate baseline robustness-baseline mutate slurm faults peers peers-test neighbours ablation paper experiment audit lock clean help

# Where jobs run: on this machine, or as a profile says.
JOBS = $(if $(filter local,$(EXECUTOR)),--cores "$(CORES)",--profile "workflow/profiles/$(EXECUTOR)")

run: setup $(if $(filter slurm,$(EXECUTOR)),$(VENV)/.slurm) ## run $(CONFIG), then say where the report is and what it found
	@ccstae config check "$(CONFIG)"
	@snakemake $(JOBS) --configfile "$(CONFIG)" --no-hooks
	@ccstae summary "$(CONFIG)"

setup: $(READY) ## make .venv with the pinned packages

$(READY): envs/ccstae.lock envs/cuda.lock envs/install.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python %d.%d;" \
		" expected 3.11 or newer: make PYTHON=python3.x" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python envs/install.py envs/ccstae.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(VENV)/bin/python -m pip check --quiet
	@touch $@

$(VENV)/.slurm: $(READY) envs/slurm.lock
	@$(VENV)/bin/python envs/install.py envs/slurm.lock
	@touch $@

test: setup ## everything that continuous integration checks
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint dry
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory ci
	@$(MAKE) --no-print-directory robustness-gate

tune: setup ## only search the settings of the methods of $(CONFIG) that are tuned
	snakemake --cores "$(CORES)" --configfile "$(CONFIG)" --no-hooks --until tune

lint: setup ## format, lint and types
	ruff format --check .
	ruff check .
	snakefmt --check Snakefile workflow
	snakemake --lint
	mypy

format: setup ## rewrite the sources in the project's format
	ruff format .
	ruff check --fix .
	snakefmt Snakefile workflow

# One process more than cores: tests of the workflow wait, for a cluster or a killed job, minutes long.
unit: setup ## the tests of the package and of the workflow
	OMP_NUM_THREADS=1 pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 4 \
		--dist loadgroup --no-loadscope-reorder

dry: setup ## plan a run of every config
	@for config in config/*.yaml; do \
		echo "dry run: $$config"; \
		snakemake --cores 2 --dry-run --configfile "$$config" > $(VENV)/dry-run.log 2>&1 || \
			{ cat $(VENV)/dry-run.log; exit 1; }; \
	done

ci: setup ## config/ci.yaml from nothing to its report, then again: the second run must find nothing to do; then the gate
	rm -rf results/ci
	$(MAKE) run CONFIG=config/ci.yaml
	@snakemake --cores "$(CORES)" --configfile config/ci.yaml > $(VENV)/again.log 2>&1; \
		cat $(VENV)/again.log; \
		grep --quiet "Nothing to be done" $(VENV)/again.log
	$(MAKE) regress CONFIG=config/ci.yaml

regress: setup ## hold a run (CONFIG=config/ci.yaml) against its baseline
	snakemake --cores "$(CORES)" --configfile "$(CONFIG)" --no-hooks regress

baseline: setup ## measure config/ci.yaml with 36 seeds and make that its new baseline; about an hour
	snakemake --cores "$(CORES)" --configfile config/ci.yaml --no-hooks \
		--config name=baseline "seeds={test: [$$(echo {1..36} | tr ' ' ,)], tune: []}"
	ccstae regress --update --metrics results/baseline/metrics.csv --baseline tests/baselines/ci.yaml

resolution: setup ## config/resolution.yaml: error beside resolution; ten minutes
	$(MAKE) run CONFIG=config/resolution.yaml

robustness: setup ## config/robustness.yaml: every method and peer against every nuisance; over an hour
	$(MAKE) run CONFIG=config/robustness.yaml

robustness-gate: setup ## hold a small robustness matrix against its baseline; two minutes
	snakemake --cores "$(CORES)" --configfile config/robustness-gate.yaml --no-hooks regress

robustness-baseline: setup ## measure config/robustness-gate.yaml with 12 seeds and make that its new baseline
	snakemake --cores "$(CORES)" --configfile config/robustness-gate.yaml --no-hooks \
		--config name=robustness-baseline "seeds={test: [$$(echo {1..12} | tr ' ' ,)], tune: []}"
	ccstae regress --update --metrics results/robustness-baseline/metrics.csv \
		--baseline tests/baselines/robustness-gate.yaml

mutate: setup ## plant degradations, each of which the gate must see, then 20 unchanged runs that it must pass; hours
	OMP_NUM_THREADS=1 python tools/mutation.py
	OMP_NUM_THREADS=1 python tools/mutation.py --repeats 20

slurm: setup $(VENV)/.slurm ## config/ci.yaml through a Slurm of this machine, killed and cancelled, against a local run; an hour
	OMP_NUM_THREADS=1 python tools/slurm.py

faults: setup ## kill real runs, fill a disk, take away the right to write; hours
	python tools/faults.py kill
	python tools/faults.py disk
	python tools/faults.py readonly

peers: setup ## config/peers.yaml: other packages' methods beside ours; makes their environments; up to two hours
	@grep -ls '^error' .environments/*.python 2>/dev/null | xargs -r rm
	$(MAKE) run CONFIG=config/peers.yaml
	@$(MAKE) --no-print-directory peers-test

peers-test: setup ## the tests that need the peers' environments
	OMP_NUM_THREADS=1 pytest -rs tests/peers

ifdef SIZE
PAPER_CONFIG = --config name=paper-$(SIZE) \
	"scan={shape: [$(SIZE), $(SIZE)], step_A: $$((2560 / $(SIZE)))}"
endif
paper: setup ## config/paper.yaml: the published simulation, its table beside ours, its five claims; SIZE=16 is a first look
	@ccstae config check config/paper.yaml
	@snakemake --cores "$(CORES)" --configfile config/paper.yaml --no-hooks $(PAPER_CONFIG)
	@awk -F'|' '/^\| [0-9]/ {gsub(/  +/, ""); print $$2 ":" $$3 "." $$9}' \
		results/paper$(if $(SIZE),-$(SIZE))/tables/claims.md

experiment: setup ## a stand-in for a recorded scan of SIZE x SIZE positions (32), from the detector's file to the report
	@test -f results/stand-in/stand_in.raw -a -z "$(SIZE)" || \
		python tools/stand_in.py results/stand-in --size $(or $(SIZE),32)
	$(MAKE) run CONFIG=config/experiment-stand-in.yaml

neighbours: setup ## config/neighbours.yaml: blurs and other rivals that see neighbours, beside ccstae-pooled
	$(MAKE) run CONFIG=config/neighbours.yaml

ablation: setup ## config/ablation.yaml: ccstae with each of its parts left out in turn
	$(MAKE) run CONFIG=config/ablation.yaml

audit: setup ## known vulnerabilities of the pinned packages
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/python -m pip install --quiet --quiet pip-audit==2.10.1; }
	@for lock in envs/ccstae.lock envs/cuda.lock; do \
		$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip \
			--progress-spinner off --requirement $$lock || { \
		echo "error: $$lock: not shown to be without known vulnerabilities; either one is listed" \
			"above (then: make lock), or the package index could not be asked for its" \
			"advisories" >&2; exit 1; }; \
	done

lock: export PATH := $(CURDIR)/$(VENV)/lock/bin:$(PATH)
lock: setup ## pin the newest packages that fit pyproject.toml, with their hashes, and those of the peers
	@test -x $(VENV)/lock/bin/uv || { python -m venv $(VENV)/lock && \
		$(VENV)/lock/bin/python -m pip install --quiet --quiet uv==0.13.9; }
	python envs/lock.py

clean: ## remove the environment, caches and results
	rm -rf $(VENV) .environments .snakemake .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find results -mindepth 1 ! -name README.md -delete

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | \
		while IFS=$$'\t' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done
	@echo '  CONFIG=config/default.yaml CORES=all EXECUTOR=local PYTHON=python3 are settings: make CONFIG=config/ci.yaml'
