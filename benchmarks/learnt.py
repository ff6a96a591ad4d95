"""Does every objective learn? A small network on real CIFAR-10 images, before and after a short training, three seeds.

Run       python benchmarks/learnt.py [OBJECTIVE ...] --data-root DIR [--out runs/learnt]
Needs     CIFAR-10 in DIR or where $SSLTICKET_DATA points.
Cost      about 25 minutes on one core for all; what is done is not done again.

Prints the table of docs/objectives.md. "Before" is the untrained network: even random features tell classes apart.
"""

import argparse
import json
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from sslticket import IMP, Adam, Data, Recipe, TrainConfig, provenance
from sslticket.config.runtime import RuntimeConfig
from sslticket.objectives.barlowtwins import BarlowTwins
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.dino import DINO
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.s4l import S4LExemplar, S4LRotation
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.simsiam import SimSiam
from sslticket.objectives.supervised import Supervised
from sslticket.objectives.swav import SwAV
from sslticket.objectives.vicreg import VICReg
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search

BATCH, STEPS, SEEDS = 128, 300, (0, 1, 2)
_PIXELS = 16  # a quarter of the time of 32
_TENTH = Data(dataset="cifar10", subset=0.1, image_size=_PIXELS)
_RETRIEVAL = ("retrieval top1", 1 / BATCH)

# The network is small, and so are the heads: at their published sizes they would take nearly all of the time.
TASKS: dict[str, tuple[Objective, Data, str, float]] = {
    "labels": (Supervised(), _TENTH, "top1", 0.1),
    "labels, shuffled": (Supervised(), replace(_TENTH, subset=0.01, shuffle_labels=1.0), "top1", 0.1),
    "RotNet": (RotNet(), _TENTH, "rotation accuracy", 0.25),
    "Exemplar": (Exemplar(dim=128), _TENTH, "retrieval top1", 1 / (2 * BATCH - 1)),
    "Exemplar, hardest": (Exemplar(dim=128, mining="hard"), _TENTH, "retrieval top1", 1 / (2 * BATCH - 1)),
    "S4L-Rotation": (S4LRotation(), replace(_TENTH, labels=0.1), "rotation accuracy", 0.25),
    "S4L-Exemplar": (
        S4LExemplar(exemplar=Exemplar(copies=4, dim=128, mining="hard", degrees=0.0)),
        replace(_TENTH, labels=0.1),
        "top1",
        0.1,
    ),
    "SimCLR": (SimCLR(temperature=0.5, strength=0.5), _TENTH, *_RETRIEVAL),
    "MoCo v2": (MoCoV2(queue=2048, momentum=0.99), _TENTH, *_RETRIEVAL),
    "BYOL": (BYOL(hidden=256, dim=64, momentum=0.99), _TENTH, *_RETRIEVAL),
    "SimSiam": (SimSiam(dim=256, predictor=64), _TENTH, *_RETRIEVAL),
    "Barlow Twins": (BarlowTwins(hidden=256, dim=256), _TENTH, *_RETRIEVAL),
    "VICReg": (VICReg(hidden=256, dim=256), _TENTH, *_RETRIEVAL),
    # At the published sharpness of 0.05 the codes of so small a batch stay uniform, and nothing is learnt.
    "SwAV": (SwAV(hidden=256, prototypes=100, epsilon=0.02), _TENTH, *_RETRIEVAL),
    # Without batch norm in so narrow a head little is learnt.
    "DINO": (DINO(hidden=256, bottleneck=64, outputs=256, momentum=0.99, head_norm=True), _TENTH, *_RETRIEVAL),
}


def recipe(name: str, seed: int) -> Recipe:
    """W_k at the start and one level: the first row tells of the untrained network, the second of the trained one."""
    objective, data, _, _ = TASKS[name]
    fit = TrainConfig(length=f"{STEPS}it", batch_size=BATCH, optimizer=Adam(lr=1e-3, weight_decay=1e-4), decay="cosine")
    search = IMP(levels=1, rate=0.2, rewind="0it")
    return Recipe(model="conv3", data=data, objective=objective, training=fit, search=search, seed=seed)


def measured(
    name: str, seed: int, machine: RuntimeConfig, out: Path
) -> tuple[dict[str, float], dict[str, float], float]:
    """Metric and probe before and after, and seconds of training."""
    planned = plan_search(recipe(name, seed), machine, out)
    run_search(planned, machine)
    rows = [json.loads(planned.run_dir.row_path(level).read_text()) for level in range(2)]
    metric = TASKS[name][2]
    before, after = ({"metric": row["metrics"][metric], "probe": [*row["probe"].values()][-1]} for row in rows)
    return before, after, rows[1]["seconds"]


def main(names: list[str], data_root: Path | None, out: Path) -> int:
    """Measure what is not measured yet and print the table."""
    if strange := [name for name in names if name not in TASKS]:
        print(f"error: unknown objective {strange[0]!r}; known: {', '.join(TASKS)}", file=sys.stderr)
        return 2
    machine = RuntimeConfig(data_root=data_root, probe=f"{STEPS}it")
    how = f"conv3, {_PIXELS} pixels, {STEPS} steps of {BATCH} images, Adam 1e-3 with a cosine, seeds {SEEDS}"
    print(f"{how}; commit {provenance.git_commit()}\n")
    heads = (
        "objective",
        "its own metric, %",
        "chance",
        "untrained",
        "trained",
        "neighbours, %, untrained",
        "trained",
        "s",
    )
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for name in names or TASKS:
        found = [measured(name, seed, machine, out) for seed in SEEDS]
        cells = [
            _spread([moment[which] for moment in moments])
            for which in ("metric", "probe")
            for moments in list(zip(*found, strict=True))[:2]
        ]
        _, _, metric, chance = TASKS[name]
        seconds = statistics.mean(each[2] for each in found)
        print(f"| {name} | {metric} | {100 * chance:.1f} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)
    return 0


def _spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objectives", nargs="*", help=", ".join(TASKS))
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/learnt"))
    given = parser.parse_args()
    sys.exit(main(given.objectives, given.data_root, given.out))
