"""What a report of many rows costs: `sslticket report` from its process's start, on rows as evaluations write them.

Rows are made up from one that the project publishes: a matrix of objectives, data sets, levels, protocols, controls and
seeds, each row a file, as the tool leaves them.
"""

import json
import math
import random
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from compare import Line, Work, alone, in_turn
from images import Images

_ROWS = Path(__file__).parents[1] / "docs" / "transfer" / "rows.parquet"
_OBJECTIVES = ("supervised", "rotnet", "exemplar", "s4l", "simclr", "byol", "dino", "shuffled")
_SOURCES = ("cifar10", "cifar100", "svhn", "fashion_mnist")
_PROTOCOLS = ("cifar10-sgd", "cifar100-sgd", "svhn-sgd", "fashion_mnist-sgd", "cifar10-adam")
_CONTROLS = ("ticket", "random", "local", "preserved")
_SIZES = {10_000: (5.0, 2), 100_000: (40.0, 1)}  # seconds at most, and rounds, by the number of rows


def lines(images: Images) -> list[Line]:
    """A line for each number of rows."""
    found = []
    for count, (at_most, rounds) in _SIZES.items():
        runs = images.scratch / f"rows-{count}"
        write_rows(runs, count)
        turns = in_turn({"ours": partial(_report, runs)}, rounds, warm=0)
        found.append(alone(turns, f"report of {count:,} rows", target=at_most))
    return found


def _report(runs: Path) -> Work:
    command = [sys.executable, "-m", "sslticket", "report", str(runs), "--output", str(runs / "report.html")]
    return lambda: subprocess.run(command, check=True, capture_output=True).returncode


def write_rows(runs: Path, count: int) -> None:
    """So many rows of scores, over as many seeds of the protocols as that takes."""
    base, draw = _published_row(), random.Random(0)
    matrix = list(product(range(6), _OBJECTIVES, _SOURCES, range(0, 31, 3), _PROTOCOLS, _CONTROLS))
    cells = product(range(math.ceil(count / len(matrix))), matrix)
    for _, (seed, (search, objective, source, level, protocol, control)) in zip(range(count), cells, strict=False):
        key = f"{_OBJECTIVES.index(objective):02x}{_SOURCES.index(source):02x}{search:04x}"
        run = f"{objective}-resnet18_cifar-{source}-{key}"
        row = base | {
            "run": run,
            "recipe": f"{objective}{source}",
            "objective": objective,
            "model": "resnet18_cifar",
            "source": source,
            "level": level,
            "density": 0.8**level,
            "ticket_hash": f"{key}{level:08x}",
            "search_seed": search,
            "protocol": protocol,
            "target": protocol.partition("-")[0],
            "seed": seed,
            "control": control,
            "top1": min(1.0, max(0.0, draw.gauss(0.8 - 0.01 * level, 0.01))),
            "top5": 0.99,
        }
        path = runs / run / "rows" / f"level-{level:02d}.{control}.{protocol}.seed{seed}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row) + "\n")


def _published_row() -> dict[str, Any]:
    frame = pd.read_parquet(_ROWS)
    series = frame[frame.kind == "score"].iloc[0]
    row = json.loads(series.dropna().to_json())
    for name in ("settings", "versions"):
        if isinstance(row.get(name), str):
            row[name] = json.loads(row[name])
        if isinstance(row.get(name), dict):
            row[name] = {key: value for key, value in row[name].items() if value is not None}
    return dict(row)
