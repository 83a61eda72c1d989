# Every target builds the virtual environment it needs; nothing has to be installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TESTS := $(BIN)/python -m pytest -n auto --dist worksteal
READY := $(VENV)/ready-with-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

.PHONY: demo maze test test-all coverage dist test-matrix lint recipes bench clean

demo: $(READY)
	$(BIN)/python examples/colored_digits.py confounded --out runs/demo

maze: $(READY)
	$(BIN)/python examples/red_doors.py confounded --updates 100 --out runs/maze
	$(BIN)/python examples/red_doors.py varied --out runs/maze

# A worker on each core is enough.
test test-all coverage dist: export OMP_NUM_THREADS := 1

# What a change can break.
test: lint
	$(TESTS) -m "not slow"

# The same, and what takes long: trained examples, every process group, kills, the whole matrix of configurations; and
# what is shipped.
test-all: lint dist
	$(TESTS)

# Slower than the tests alone.
coverage: $(READY)
	$(TESTS) --cov --cov-report=term:skip-covered

# Builds into dist/, and tries each of the two in an empty environment.
dist: $(READY)
	$(BIN)/python -m nox --session installed

test-matrix: $(READY)
	$(BIN)/python -m nox --session tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What the package ships of callbacks/.
recipes:
	rm -f lightning_mesa/conf/callbacks/*
	cp callbacks/*.yaml lightning_mesa/conf/callbacks/

bench: export PYTHONPATH = examples:tests:benchmarks
bench: $(READY)
	$(BIN)/python benchmarks/colored_digits_table.py --markdown docs/colored_digits.md \
		--picture docs/accuracy_and_alert.png --weights docs/behavioral_objective.png
	$(BIN)/python benchmarks/red_doors_table.py --markdown docs/red_doors.md --picture docs/red_doors.png \
		--weights docs/red_doors_weights.png
	$(BIN)/python benchmarks/grid_suite.py --markdown docs/grid_world.md --picture docs/grid_world.png
	$(BIN)/python benchmarks/irl_coverage.py
	$(BIN)/python benchmarks/irl.py
	$(BIN)/python benchmarks/false_alarms.py
	$(BIN)/python benchmarks/whole_alarm.py
	$(BIN)/python benchmarks/whole_alarm.py --fresh
	$(BIN)/python benchmarks/evidence.py
	$(BIN)/python benchmarks/kill.py
	$(BIN)/python benchmarks/fuzz_configs.py
	$(BIN)/python benchmarks/ddp.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/looks.py
	$(BIN)/python benchmarks/environments.py
	$(BIN)/python benchmarks/search.py --markdown docs/search_mazes.md
	$(BIN)/python benchmarks/search_descent.py --markdown docs/search_descent.md
	$(BIN)/python benchmarks/search_solvers.py --markdown docs/search_solvers.md
	$(BIN)/python benchmarks/search_others.py --markdown docs/search_others.md
	$(BIN)/python benchmarks/false_rungs.py
	$(BIN)/python benchmarks/ridge.py
	$(BIN)/python benchmarks/reading_cost.py
	$(BIN)/python benchmarks/lead.py --markdown docs/lead.md
	$(BIN)/lightning-mesa bench --markdown docs/benchmark.md
	$(BIN)/python benchmarks/overhead.py

$(READY):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	rm -f $(VENV)/ready-with-*
	touch $@

clean:
	rm -rf $(VENV) .nox dist runs lightning_logs .pytest_cache .mypy_cache .ruff_cache .coverage
