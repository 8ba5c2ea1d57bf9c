# make demo   the default run on all cores, from a fresh clone to results/demo/report.html
# make demo-qg   the same for two-layer quasi-geostrophic flow, to results/qg-demo/report.html
# make test   static checks, unit and workflow tests, dry runs of every configuration, the smoke run of the whole DAG. Three
#             processes share two cores, because tests of SLURM and of killed calls mostly wait
# make test-fast   of these, what a developer runs before each commit, in a minute and a half: static checks, and all tests but
#             those that train networks, run the workflow or start processes (the mark `slow`, given in tests/conftest.py)
# make test-slurm   of these, the tests on a real SLURM of one or two nodes, which they start and stop themselves (root; on Debian its
#             packages are installed; elsewhere, or without root, these tests are skipped and say why). In the same way
#             `make test` installs Chromium for the tests in tests/browser
# make graph  the graph of rules in docs/code-tour.md and docs/plane.png again, after a change of the rules
# make gallery  the figures and the report of a run that is kept in gallery/ (GALLERY=gallery/<run>), from its models, without training
# make docs   the pages as a site with search and the reference of the package, to site/index.html; it is read without a network
# make bench  speed beside jax-cfd, pyqg and straightforward code, to benchmarks/results/ (needs the models of a finished demo whose
#             use.methods has sns_in_place, too)
#
# VENV and LOCK may be given: `make demo LOCK=envs/requirements-gpu.txt` for a CUDA build of torch.
PYTHON ?= python3
VENV ?= .venv
LOCK ?= envs/requirements-cpu.txt
GALLERY ?= gallery/re1e4
DOCS = $(VENV)-docs
STAMP = $(VENV)/.installed-$(notdir $(LOCK))
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: demo demo-qg gallery test test-fast test-slurm lint graph docs bench clean

demo: $(STAMP)
	snakemake --cores all
	@echo; echo "Report: $(CURDIR)/results/demo/report.html"

demo-qg: $(STAMP)
	snakemake --cores all --configfile config/qg-demo.yaml
	@echo; echo "Report: $(CURDIR)/results/qg-demo/report.html"

gallery: $(STAMP)
	snakemake --cores all --configfile $(GALLERY)/config.json
	@echo; echo "Report: $(CURDIR)/results/gallery-$(notdir $(GALLERY))/report.html"

test: $(STAMP) lint
	SNS_INSTALL_SLURM=1 SNS_INSTALL_BROWSER=1 python -m pytest -n 3 --dist loadfile --no-loadscope-reorder tests

test-fast: $(STAMP)
	ruff check .
	ruff format --check .
	python -m pytest -n 2 -m "not slow" tests

test-slurm: $(STAMP)
	SNS_INSTALL_SLURM=1 python -m pytest tests/slurm

bench: $(STAMP)
	benchmarks/peers.sh
	python benchmarks/run.py

lint: $(STAMP)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint

graph: $(STAMP)
	python docs/refresh.py

docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet
	@echo; echo "Site: $(CURDIR)/site/index.html"

$(DOCS)/.installed: docs/site/requirements.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check -r docs/site/requirements.txt
	touch $@

$(STAMP): $(LOCK) pyproject.toml
	$(PYTHON) -m venv $(VENV)
	python -m pip install --quiet --disable-pip-version-check -r $(LOCK)
	python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) $(DOCS) site .snakemake
