"""The report of very many rows: an invented matrix of objectives, sources, levels, protocols, controls and seeds.

`python benchmarks/many_rows.py FOLDER --rows 10000` leaves the rows there, one file each as the tool writes them.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from itertools import islice, product
from pathlib import Path
from typing import Any

from compare import Line, Work, alone, in_turn
from images import Images

_TARGETS = {10_000: 5.0, 100_000: 40.0}  # rows, seconds of the processor
_ROUNDS = 3
_OBJECTIVES = ("supervised", "rotnet", "exemplar", "s4l", "simclr", "byol", "dino", "shuffled")
_SOURCES = ("cifar10", "cifar100", "svhn", "fashion_mnist")
_PROTOCOLS = ("cifar10-sgd", "cifar100-sgd", "svhn-sgd", "fashion_mnist-sgd", "cifar10-adam")
_CONTROLS = ("ticket", "random", "local", "preserved")
_SAME: dict[str, Any] = {
    "kind": "score", "model": "resnet18_cifar", "subset": 1.0, "subset_by": "samples", "device": "cpu, 1 threads",
    "precision": "fp32", "loss": 1.6, "samples": 12800, "seconds": 2.3, "steps": 200, "channels": 3,
    "natural_density": 1.0, "search_samples": 1920, "bad_images": 0, "top5": 0.99, "data_hash": "1d923f0e443b5217",
    "command": "sslticket evaluate", "commit": "0123456789ab",
    "versions": {"python": "3.11", "torch": "2.14", "numpy": "2.4"},
}  # fmt: skip


def lines(images: Images) -> list[Line]:
    """The whole report of many rows: reading, statistics, page and picture."""
    found = []
    for count, most in _TARGETS.items():
        # Reading a hundred thousand small files needs no second round to be warm.
        turns = in_turn({"ours": partial(_reporting, count)}, _ROUNDS, warm=0)
        found.append(alone(turns, f"report of {count:,} rows", target=most))
    return found


def _reporting(count: int) -> Work:
    from sslticket.report import write_report

    folder = Path(tempfile.mkdtemp())
    write_rows(folder / "runs", count)
    return lambda: write_report([folder / "runs"], folder / "report.html")


def write_rows(folder: Path, count: int) -> None:
    """So many rows below a folder, a file each, the same ones every time."""
    for row in islice(_rows(6 if count > 50_000 else 3), count):
        home = folder / row["run"] / "rows"
        home.mkdir(parents=True, exist_ok=True)
        name = f"level-{row['level']:02d}.{row['control']}.{row['protocol']}.seed{row['seed']}.jsonl"
        (home / name).write_text(json.dumps(row) + "\n")


def _rows(seeds: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(0)
    inner = list(product(range(0, 31, 3), _PROTOCOLS, _CONTROLS, range(seeds)))
    for search_seed, objective, source in product(range(6), _OBJECTIVES, _SOURCES):
        run = f"{objective}-resnet18_cifar-{source}-{_digits((objective, source, search_seed), 8)}"
        for level, protocol, control, seed in inner:
            density = 0.8**level
            yield _SAME | {
                "run": run, "recipe": f"{objective}{source}", "objective": objective, "source": source,
                "search_seed": search_seed, "level": level, "density": density, "control_density": density,
                "ticket_hash": _digits((run, level), 16), "protocol": protocol, "target": protocol.split("-")[0],
                "control": control, "seed": seed, "top1": min(1.0, max(0.0, rng.gauss(0.8 - 0.01 * level, 0.01))),
            }  # fmt: skip


def _digits(what: object, count: int) -> str:
    return sha256(repr(what).encode()).hexdigest()[:count]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000)
    given = parser.parse_args()
    write_rows(given.folder, given.rows)
