"""The tables of docs/speed.md, written from the rows that `bench.py` leaves in benchmarks/results.

Run       python benchmarks/speed_table.py [--check]

With --check nothing is written, and the exit code is 1 where the page differs from the rows.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compare import cells, from_row

_HERE = Path(__file__).parent
RESULTS, PAGE = _HERE / "results", _HERE.parent / "docs" / "speed.md"
_BEGIN, _END = "<!-- {} begins: written by benchmarks/speed_table.py -->", "<!-- {} ends -->"
_HEADS = ("what", "ours", "alternative", "ratio (least to greatest of the rounds)", "target", "met")


def main(words: list[str]) -> int:
    """Write the tables, or check them; returns the exit code."""
    old = PAGE.read_text(encoding="utf-8")
    new = filled(old)
    if words == ["--check"]:
        if new != old:
            print("error: docs/speed.md differs from benchmarks/results; run python benchmarks/speed_table.py")
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    return 0


def filled(page: str) -> str:
    """The page with the tables of today's rows between its marks."""
    lines = page.splitlines()
    names = [line.split()[1] for line in lines if line.startswith("<!-- ") and " begins:" in line]
    for name in names:
        first, last = lines.index(_BEGIN.format(name)), lines.index(_END.format(name))
        lines[first + 1 : last] = ["", *(_origin() if name == "origin" else _table(name.split("+"))), ""]
    return "\n".join(lines) + "\n"


def _rows(topic: str) -> list[dict[str, Any]]:
    path = RESULTS / f"{topic}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _table(topics: Iterable[str]) -> list[str]:
    found = [f"| {' | '.join(_HEADS)} |", f"|{'---|' * len(_HEADS)}"]
    for topic in topics:
        found += [f"| {' | '.join(cells(from_row(row)))} |" for row in _rows(topic)]
    return found


def _origin() -> list[str]:
    """Where and of what commit the figures are."""
    measured: dict[tuple[str, str, str, str], list[str]] = {}
    for path in sorted(RESULTS.glob("*.jsonl")):
        for row in _rows(path.stem)[:1]:
            versions = row["versions"]
            libraries = {"torch": "torch", "torchvision": "torchvision", "nvidia-dali-cuda130": "DALI"}
            told = ", ".join(f"{shown} {versions[name]}" for name, shown in libraries.items() if name in versions)
            measured.setdefault((row["commit"], row["date"], row["processor"], told), []).append(path.stem)
    return [
        f"- commit {commit} ({date}, one thread of {processor}, {told}): {', '.join(topics)}"
        for (commit, date, processor, told), topics in measured.items()
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
