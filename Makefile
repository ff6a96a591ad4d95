# Two commands matter to a newcomer: `make demo` and `make test`. Each first makes .venv if it is not there yet.
PYTHON ?= python3
DATA   ?= digits
SAMPLE ?= 200
RUNS   := runs/demo-$(DATA)
SIZE_fashion_mnist := --image-size 12  # a fifth of the pixels: ten minutes on two cores are the limit
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Threads that wait without spinning: where other work shares the cores, spinning ones are many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test check docs tables findings fuzz mutate bench bench-gpu pictures slurm-install clean

# Six searches of each kind, for a verdict is about searches and needs as many. Labels and RotNet run side by side, and so do
# two evaluations that share the rows; what the second of two prints is in a file. The demonstration's net is tiny: a second
# thread gains little on a quiet machine and loses tenfold on a busy one.
demo: export OMP_NUM_THREADS = 1
demo: SEARCH = --dataset $(DATA) $(SIZE_$(DATA)) --out $(RUNS)
demo: EVALUATE = sslticket evaluate $(RUNS)/*-conv3-* --protocol $(DATA)-demo --levels 0 2 4-6 --seeds 0 --controls random
demo: .venv/installed
	mkdir -p $(RUNS)
	for seed in 0 1 2 3 4 5; do \
		python recipes/rotnet_digits.py $(SEARCH) --seed $$seed > $(RUNS)/rotnet.log 2>&1 & \
		python recipes/supervised_digits.py $(SEARCH) --seed $$seed || { kill $$!; exit 2; }; \
		wait $$! || { cat $(RUNS)/rotnet.log; exit 2; }; \
	done
	$(EVALUATE) > $(RUNS)/evaluate.log 2>&1 & \
	$(EVALUATE) || { kill $$!; exit 2; }; \
	wait $$! || { cat $(RUNS)/evaluate.log; exit 2; }
	sslticket report $(RUNS) --output $(RUNS)/report.html

# Two at a time, a file's tests in one process: their fixtures are shared.
test: check docs
	python -m pytest --numprocesses 2 --dist loadfile

check: .venv/installed
	ruff check .
	ruff format --check .
	mypy
	python docs/recipe_table.py --check

# The site with the API reference, in build/site; a dead link or a docstring that cannot be read fails.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --quiet

tables: .venv/installed
	python docs/recipe_table.py

# What the papers found, from the rows in docs/findings: the tables of its page, and the pictures.
findings: .venv/installed
	python docs/findings.py

# Hours; it goes on where fuzz.log ends.
fuzz: .venv/installed
	python -W ignore -m tests.fuzz.run

# Changes the code in SAMPLE places, one at a time, and tells which changes no test notices; SAMPLE=all takes every place.
mutate: .venv/installed
	python -m tests.mutation.run --sample $(SAMPLE)

# Fifteen minutes on one core; it goes on where it was stopped. TOPICS="search_cost resident" takes these alone.
bench: .venv/installed
	python benchmarks/bench.py $(TOPICS)
	python benchmarks/speed_table.py

# On a machine with a card; SMALL=1 goes the same way on a CPU.
bench-gpu: .venv/installed
	python benchmarks/gpu.py $(if $(SMALL),--small)

pictures: .venv/installed
	python docs/objectives/pictures.py

# The programs of which tests/cluster/ starts a SLURM of its own, on Debian or Ubuntu, as root. The policy keeps apt from
# starting them as services.
slurm-install: SHELL = bash
slurm-install:
	policy=/usr/sbin/policy-rc.d; \
	[ -e $$policy ] || { trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' > $$policy; chmod 755 $$policy; }; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		munge slurm-client slurmctld slurmd slurmdbd mariadb-server-core iproute2 util-linux

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "error: no venv; apt install python3-venv" >&2; exit 2; }
	python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build runs mutants .mypy_cache .pytest_cache .ruff_cache *.egg-info
