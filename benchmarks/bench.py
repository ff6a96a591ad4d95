"""Speed and size, each line against the strongest thing that one would use instead, measured in the same run.

Run       python benchmarks/bench.py [TOPIC ...] [--again] [--rounds N]
Needs     SSLTICKET_TEST_DATA for lines about images; OPEN_LTH and TURBOPRUNE, clones of those projects, for lines about
          whole searches. Without them the lines say so.
Cost      15 minutes on one core for all.

Every contender computes with one thread in a process of its own, they take turns, and what counts is the processor's
time, so ratios hold on a busy machine. A topic's lines are written as JSON rows to benchmarks/results/TOPIC.jsonl as
soon as they are there. A topic that has been measured at this commit on this machine is not measured again, unless
--again is given. `python benchmarks/speed_table.py` writes the tables of docs/speed.md from these rows.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import compare
from compare import Line, NotHere, as_row, from_row, not_measured, text
from images import Images

from sslticket import provenance
from sslticket.storage.files import atomic_write

RESULTS = Path(__file__).parent / "results"
TOPICS = (
    "selection",
    "ticket_file",
    "mask_cost",
    "density_cost",
    "lenet_step",
    "kernel_memory",
    "fixed_cost",
    "gate_cost",
    "criteria",
    "startup",
    "resident",
    "pipeline",
    "objectives",
    "objective_steps",
    "search_cost",
    "report_cost",
)


def main(words: list[str]) -> int:
    """Print the machine, then the table of the named topics, or of all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join(TOPICS))
    parser.add_argument("--again", action="store_true", help="measure what has been measured at this commit, too")
    parser.add_argument("--rounds", type=int, help="so many rounds at most, for a quick look; nothing is written")
    given = parser.parse_args(words)
    compare.fewer_rounds = given.rounds
    if strange := [name for name in given.topics if name not in TOPICS]:
        print(f"error: unknown topic {strange[0]!r}; known: {', '.join(TOPICS)}", file=sys.stderr)
        return 2
    # Before numpy and torch are imported. A thread of OpenMP that waits spins, and takes the processor from the others.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1"}
    machine = {
        # What is measured here is no change of the code: a run that goes on would else begin anew.
        "commit": provenance.git_commit(besides=("benchmarks/results", "docs/speed.md")) or "unknown: not a checkout",
        "processor": _processor(),
        "versions": provenance.library_versions(),
    }
    print(f"one thread on {machine['processor']}, load {os.getloadavg()[0]:.1f}; {platform.platform()}")
    print(", ".join(f"{library} {number}" for library, number in provenance.library_versions().items()))
    print(f"commit {machine['commit']}\n", flush=True)
    images, lines = Images(), list[Line]()
    try:
        for name in given.topics or TOPICS:
            known = [] if given.again or given.rounds else _known(name, machine)
            lines += known or _measured(name, images, machine, write=not given.rounds)
    finally:
        images.close()
    print(text(lines))
    print("\nEach ratio is the median over rounds in which ours and the alternative took turns, with the spread.")
    return 0


def _known(name: str, machine: dict[str, Any]) -> list[Line]:
    """The lines of a topic that was measured at this commit on this machine, or none."""
    path = RESULTS / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    clean = "+changes" not in machine["commit"]
    same = clean and all(row[key] == value for row in rows for key, value in machine.items())
    return list(map(from_row, rows)) if same else []


def _measured(name: str, images: Images, machine: dict[str, Any], *, write: bool) -> list[Line]:
    began = time.monotonic()
    print(f"{name} ...", end="", file=sys.stderr, flush=True)
    lines: list[Line]
    try:
        lines = importlib.import_module(name).lines(images)
    except NotHere as reason:
        lines = [not_measured(name, reason)]
    if write:
        about = {"topic": name, "date": time.strftime("%Y-%m-%d"), **machine}
        rows = "".join(json.dumps(as_row(line) | about) + "\n" for line in lines)
        RESULTS.mkdir(exist_ok=True)
        with atomic_write(RESULTS / f"{name}.jsonl") as path:
            path.write_text(rows, encoding="utf-8")
    print(f" {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return lines


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  # no file to Path
            return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown processor"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
