# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first if it is not there.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

.PHONY: demo test setup check check-code check-types check-docs docs clean

demo: setup
	$(BIN)/snakemake --cores all
	@cat results/studies/demo/leaderboard/leaderboard.md

# Three files of tests at a time, because some wait for SLURM or a server most of the time. Together they need up to 8 GB.
test: setup
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

setup: .venv/.installed

# sam2 and vos-benchmark go in without their dependencies: sam2's isolated build would download torch a second time,
# and vos-benchmark would overwrite OpenCV's headless build with the one that needs a display. What they need is in
# pyproject.toml. All CPUs compile what pip has installed, and the library: where PYTHONDONTWRITEBYTECODE is set, every
# process would compile it again. `|| true` is for packages with files that are not valid Python.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --constraint constraints.txt pip
	$(PIP) install --no-compile --constraint constraints.txt --editable ".[transformers,workflow]" \
		--group dev setuptools wheel
	$(BIN)/python -m compileall -qq -j 0 .venv/lib src || true
	SAM2_BUILD_CUDA=0 $(PIP) install --no-build-isolation --no-deps sam2==1.1.0 vos-benchmark==0.1.0
	touch $@

# What CI runs besides the tests, with `--jobs 2`.
check: check-code check-types check-docs

check-code: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint

check-types: setup
	$(BIN)/mypy

check-docs: setup
	$(MKDOCS) build --strict --quiet

# Write the generated pages and build the documentation into site/; `.venv/bin/mkdocs serve` shows it.
docs: setup
	$(BIN)/python -m vosarena.config.reference docs/reference
	$(BIN)/python tools/cli_reference.py docs/reference/cli.md
	$(MKDOCS) build --strict --quiet

clean:
	rm -rf results logs site .snakemake
