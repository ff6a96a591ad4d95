"""Rows as searches and evaluations write them, with the values that a test cares about."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

SHARED: dict[str, Any] = {
    "run": "rotnet-conv-digits-3f2a9c01",
    "recipe": "aa11bb22",
    "objective": "rotnet",
    "model": "conv",
    "source": "digits",
    "subset": 1.0,
    "subset_by": "samples",
    "level": 2,
    "density": 0.25,
    "ticket_hash": "77aa",
    "search_seed": 0,
    "loss": 0.5,
    "samples": 1280,
    "seconds": 2.5,
    "steps": 10,
    "command": "sslticket evaluate runs",
    "commit": "0123abc",
    "versions": {"torch": "2.11"},
    "data_hash": "8d3f",
    "device": "cpu",
    "precision": "no",
}
SCORE = {
    "kind": "score",
    "control": "ticket",
    "protocol": "digits",
    "target": "digits",
    "seed": 0,
    "top1": 0.9,
    "top5": 1,
}
LEVEL = {
    "kind": "level",
    "metrics": {"rotation accuracy": 0.93},
    "probe": {},
    "search_samples": 3840,
    "layers": {"first": [9, 10], "last": [16, 90]},
    "bad_images": 0,
}


@pytest.fixture(scope="session")
def score() -> Callable[..., dict[str, Any]]:
    """A row that scores a ticket, with some keys changed."""
    return lambda **changes: SHARED | SCORE | changes


@pytest.fixture(scope="session")
def level() -> Callable[..., dict[str, Any]]:
    """A row of a search's level, with some keys changed."""
    return lambda **changes: SHARED | LEVEL | changes


@pytest.fixture(scope="session")
def searched(score, level) -> list[dict[str, Any]]:
    """Rows of two objectives and the random control at four densities, of two searches each and of one training of
    each of their tickets."""
    rows = []
    for depth, (objective, drop), seed in product(range(4), {"rotnet": 0.02, "supervised": 0.01}.items(), (0, 1)):
        run = f"{objective}-{seed}"
        same = {"run": run, "objective": objective, "level": depth, "density": 0.5**depth}
        same |= {"search_seed": seed, "ticket_hash": f"{run}-{depth}"}
        layers = {"first": [9 if depth else 10, 10], "last": [int(90 * 0.5**depth) * (depth < 3), 90]}
        rows.append(level(**same, layers=layers, search_samples=1280 * (depth + 1), loss=0.1))
        rows.append(score(**same, seed=seed, top1=0.98 - drop * depth + 0.01 * seed))
        drawn = {"control": "random", "replicate": seed}
        rows.append(score(**same, **drawn, seed=seed, top1=0.98 - 0.1 * depth - 0.02 * seed))
    return rows


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows below a folder, as runs/a/rows/rows.jsonl unless told otherwise, and gives the folder."""

    def write(*rows: dict[str, Any], file: str = "a/rows/rows.jsonl") -> Path:
        path = tmp_path / "runs" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "runs"

    return write


@pytest.fixture
def folder(runs, searched) -> Path:
    """The rows of `searched`, in files."""
    return runs(*searched)
