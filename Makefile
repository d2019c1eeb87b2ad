# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check bench torture fuzz clean

demo: .venv/.installed
	$(BIN)/sprobe demo --out runs/demo

test: .venv/.installed-test check
	$(BIN)/python -m pytest

check: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/.installed-test
	$(BIN)/python benchmarks/main_job.py --out docs/benchmarks.md
	$(BIN)/python benchmarks/extraction.py --out docs/benchmarks.md
	$(BIN)/python benchmarks/probing.py --out docs/benchmarks.md
	$(BIN)/python benchmarks/selection.py --out docs/benchmarks.md
	$(BIN)/python benchmarks/interval_coverage.py --out docs/benchmarks.md
	$(BIN)/python benchmarks/null_calibration.py --out docs/benchmarks.md
	$(BIN)/python benchmarks/evidence.py --out docs/benchmarks.md
	$(BIN)/python tools/survey_architectures.py --again

# Sixty kills of a run and of its second look, each gone on with and compared byte for byte.
torture: .venv/.installed-test
	$(BIN)/python tools/torture.py --kills 60

# Good inputs, changed at random: only the package's own errors may come out (tests/hostile).
fuzz: .venv/.installed-test
	$(BIN)/python -m tests.hostile --cases 20000

clean:
	rm -rf .venv runs

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade "pip>=25.1"

# Exact versions come from constraints.txt; it also keeps pip from fetching CUDA builds where a CPU build of torch is at hand.
.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -c constraints.txt -e .
	@touch $@

.venv/.installed-test: .venv/.installed
	$(PIP) -c constraints.txt --group test
	@touch $@
