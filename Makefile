# Two commands need nothing but Python 3.11, pip and make:  make quickstart   and   make test
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test check lint types docs reference screenshot docs-site tutorials bench bench-quick campaign audit-deps clean

quickstart: .venv/installed
	$(BIN)/tunesmith quickstart

test: .venv/installed-check
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal

check: lint types test

lint: .venv/installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed-check
	$(BIN)/mypy

docs: reference screenshot

# The pages of docs/reference that are made from settings, commands and routes.
reference: .venv/installed
	$(BIN)/python docs/generate.py

# docs/report.png, the picture in the README, of the quickstart's report (docs/screenshot.py REPORT: of another). Needs Chromium.
screenshot: .venv/installed-check
	$(BIN)/python docs/screenshot.py

# The documentation as a site in site/: open site/index.html, or serve the folder. Dead links fail the build.
docs-site: .venv/installed-docs
	$(BIN)/python docs/stage.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# Executes the notebooks of docs/tutorials on real models and stores their outputs: ten minutes on two cores. Figures in their prose have
# to be those of the outputs, which a test compares.
tutorials: .venv/installed-check
	$(BIN)/python docs/execute_tutorials.py

# Tries to break everything; prints one table. Half an hour on two cores; CAMPAIGN="recipes" runs one of them.
campaign: .venv/installed-check
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.campaigns $(CAMPAIGN)

# Known vulnerabilities of what is installed. Exit code 1: there are some; 3: no database could be asked (make shows it).
audit-deps: .venv/installed-check .venv-audit/installed
	$(BIN)/python -m tests.campaigns.dependencies .venv-audit/bin/pip-audit \
	  $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")

# Wants three files, named in BENCH_INSTRUCTIONS, BENCH_AG_NEWS_TRAIN and BENCH_AG_NEWS_TEST: see benchmarks/README.md.
# Twenty minutes on two quiet cores; BENCH_FLAGS="--rounds 1 --steps 1" is for trying.
bench: .venv/installed-bench
	$(BIN)/python benchmarks/sft.py $(BENCH_FLAGS)
	$(BIN)/python benchmarks/sft.py --batch 32 --steps 1 --rounds 5 $(BENCH_FLAGS)
	$(BIN)/python benchmarks/sft.py --method lora $(BENCH_FLAGS)
	$(BIN)/python benchmarks/sft.py --memory $(BENCH_FLAGS)
	$(BIN)/python benchmarks/sft.py --memory --batch 32 $(BENCH_FLAGS)
	$(BIN)/python benchmarks/encoder.py $(BENCH_FLAGS)
	$(BIN)/python benchmarks/encoder.py --peer grouped $(BENCH_FLAGS)
	$(BIN)/python benchmarks/encoder.py --memory $(BENCH_FLAGS)
	$(BIN)/python benchmarks/encoder.py --growth 160 --rounds 2 $(BENCH_FLAGS)

# Fails where a ratio falls more than 15% below the one in benchmarks/recorded.json; BENCH_FLAGS=--record writes them.
bench-quick: .venv/installed-bench
	$(BIN)/python benchmarks/quick.py $(BENCH_FLAGS)

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv-audit/installed:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	touch $@

.venv/installed-check: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[check]'
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

.venv/installed-bench: .venv/installed benchmarks/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -r benchmarks/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-audit build site .mypy_cache .pytest_cache .ruff_cache
