# Two commands matter to a newcomer: `make demo` and `make test`. Each first makes .venv if it is not there yet.
PYTHON ?= python3
DATA   ?= digits
RUNS   := runs/demo-$(DATA)
SIZE_fashion_mnist := --image-size 12  # a fifth of the pixels: five minutes on two cores are the limit
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Threads that wait without spinning: where other work shares the cores, spinning ones are many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test check bench pictures clean

# The demonstration's net is tiny: a second thread gains little on a quiet machine and loses tenfold on a busy one.
demo: export OMP_NUM_THREADS = 1
demo: .venv/installed
	python recipes/supervised_digits.py --dataset $(DATA) $(SIZE_$(DATA)) --out $(RUNS)
	python recipes/rotnet_digits.py --dataset $(DATA) $(SIZE_$(DATA)) --out $(RUNS)
	sslticket evaluate $(RUNS)/supervised-* --protocol $(DATA)-demo --seeds 0-2 --controls random
	sslticket evaluate $(RUNS)/rotnet-* --protocol $(DATA)-demo --seeds 0-2
	sslticket report $(RUNS) --output $(RUNS)/report.html

test: check
	python -m pytest

check: .venv/installed
	ruff check .
	ruff format --check .
	mypy

bench: .venv/installed
	python benchmarks/bench.py

pictures: .venv/installed
	python docs/objectives/pictures.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "error: no venv; apt install python3-venv" >&2; exit 2; }
	python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs .mypy_cache .pytest_cache .ruff_cache *.egg-info
