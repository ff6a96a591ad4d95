"""Speed and size, each line against what a user would pick instead, measured in the same run.

Run       python benchmarks/bench.py [TOPIC ...]
Needs     SSLTICKET_TEST_DATA for the lines about images; without it they say so.
Cost      12 minutes on two cores that do nothing else, 8 of them for the objectives.

Contenders take turns and a ratio is the median over the rounds, so ratios hold on a busy machine; figures do not.
"""

import importlib
import os
import platform
import sys
import time

from compare import Line, text
from images import Images, NoImages

from sslticket import provenance

TOPICS = (
    "selection",
    "ticket_file",
    "mask_cost",
    "gate_cost",
    "criteria",
    "startup",
    "resident",
    "pipeline",
    "objectives",
)


def main(names: list[str]) -> int:
    """Print the machine, then the table of the named topics, or of all; returns the exit code."""
    if strange := [name for name in names if name not in TOPICS]:
        print(f"error: unknown topic {strange[0]!r}; known: {', '.join(TOPICS)}", file=sys.stderr)
        return 2
    # Before torch is imported. By default a thread of OpenMP that waits spins for milliseconds, and on a busy machine
    # takes the processor from the very thread that it waits for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, {_processor()}; {platform.platform()}")
    print(", ".join(f"{library} {number}" for library, number in provenance.library_versions().items()))
    print(f"commit {provenance.git_commit() or 'unknown: not a checkout'}\n", flush=True)
    images, lines = Images(), list[Line]()
    try:
        for name in names or TOPICS:
            start = time.monotonic()
            print(f"{name} ...", end="", file=sys.stderr, flush=True)
            lines += _measured(name, images)
            print(f" {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    finally:
        images.close()
    print(text(lines))
    print("\nEach ratio is the median over rounds in which ours and the alternative took turns.")
    return 0


def _measured(name: str, images: Images) -> list[Line]:
    try:
        found: list[Line] = importlib.import_module(name).lines(images)
    except NoImages as reason:
        return [Line(name, f"not measured: {reason}")]
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  # no file to Path
            return next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown processor"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
