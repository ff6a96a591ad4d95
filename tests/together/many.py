"""Many tiny searches, evaluations and analyses in one go, for tests that start it in several processes and in one.

    torchrun --nproc-per-node 2 tests/together/many.py FOLDER

Each process writes FOLDER/<rank>.json: what it held whenever a ticket was kept, the rows that it got, and how many
collective operations of each kind a training step had.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sslticket import (
    BYOL,
    DINO,
    ERK,
    IMP,
    SET,
    SNIP,
    BarlowTwins,
    ContinuousSparsification,
    Data,
    EdgePopup,
    Exemplar,
    GraSP,
    MoCoV2,
    OneShot,
    Random,
    RigL,
    RotNet,
    S4LExemplar,
    S4LRotation,
    SimCLR,
    SimSiam,
    StochasticSparsification,
    Supervised,
    SwAV,
    SynFlow,
    VICReg,
    processes,
)
from sslticket.analysis.connectivity import Connectivity
from sslticket.analysis.trained_weights import Magnitudes, Stability
from sslticket.cli.exit_status import run_and_exit
from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.evaluation import CONTROLS, tasks
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.models import create_model
from sslticket.objectives.base import Objective
from sslticket.pruning.mask import Mask
from sslticket.search.base import Search
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.search.runner import SearchRunner
from sslticket.storage.files import atomic_write
from sslticket.storage.leases import InHand
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop

BATCH = 24  # can be shared by two and by three
FIT = TrainConfig(length="6it", batch_size=BATCH, optimizer=SGD(lr=0.02))
LEVELS = IMP(levels=2, rate=0.5, rewind="2it")
AT_START = OneShot(levels=1, rate=0.5, rewind="2it", scored="start")
SHORT = Protocol(name="short", dataset="digits", training=FIT, start="k", seeds=(0,))
GROWING = replace(SHORT, name="growing", early_sizes=(("4it", 6),))

WITHOUT_NORM: dict[str, Objective] = {
    "supervised": Supervised(),
    "rotnet": RotNet(),
    "exemplar": Exemplar(dim=16, mining="hard"),
    "mocov2": MoCoV2(dim=16, queue=64),
    "dino": DINO(hidden=16, bottleneck=8, outputs=16, frozen_for=0.5),
}
"""Objectives whose heads have no batch norm: with a network that has none, several processes learn what one does."""

OBJECTIVES = WITHOUT_NORM | {
    "exemplar all": Exemplar(dim=16),
    "s4l rotation": S4LRotation(),
    "s4l exemplar": S4LExemplar(exemplar=Exemplar(copies=2, degrees=0.0, dim=16)),
    "simclr": SimCLR(dim=16),
    "byol": BYOL(hidden=16, dim=8),
    "simsiam": SimSiam(dim=16, predictor=8),
    "barlowtwins": BarlowTwins(hidden=16, dim=8),
    "vicreg": VICReg(hidden=16, dim=8),
    "swav": SwAV(hidden=16, dim=8, prototypes=10),
}

_CS = ContinuousSparsification(rounds=2, rewind="2it", final_temperature=20.0)
SEARCHES: dict[str, Search] = {
    "rate": replace(LEVELS, retrain="rate"),
    "finetune": replace(LEVELS, retrain="finetune"),
    "early_bird": replace(LEVELS, levels=1, early_bird=0.9, early_bird_window=1, early_bird_every="1it"),
    "oneshot": OneShot(levels=2, rate=0.5, rewind="2it"),
    "random": replace(AT_START, criterion=Random()),
    "erk": replace(AT_START, criterion=ERK()),
    "snip": replace(AT_START, criterion=SNIP(score_images=BATCH)),
    "grasp": replace(AT_START, criterion=GraSP(score_images=BATCH)),
    "synflow": replace(AT_START, criterion=SynFlow(rounds=3)),
    "cs": _CS,
    "cs rewound": replace(_CS, rewind_weights=True),
    "cs frozen": replace(_CS, rounds=1, frozen=True),
    "iss": StochasticSparsification(rounds=2, rewind="2it"),
    "supermask": StochasticSparsification(rounds=1, rewind="0it", frozen=True),
    "edgepopup": EdgePopup(density=0.5),
    "rigl": RigL(densities=(0.2,), update_interval="2it", update_until="100%"),
    "set": SET(densities=(0.2,), update_interval="2it"),
}


def recipe(model: str, objective: Objective, search: Search) -> Recipe:
    labels = 0.5 if objective.labelled_fraction is not None else 1.0
    fit = replace(FIT, drops=("4it",))  # a schedule that does not end at 0, which finetune needs
    data = Data(dataset="digits", labels=labels)
    return Recipe(model=model, data=data, objective=objective, training=fit, search=search)


SAME = {f"{name}, lenet300": recipe("lenet300", objective, LEVELS) for name, objective in WITHOUT_NORM.items()} | {
    f"supervised, {name}": recipe("lenet300", Supervised(), search) for name, search in SEARCHES.items()
}
"""Searches whose tickets do not depend on how many processes share a batch, but for rounding."""

IN_PARTS = RuntimeConfig(accumulate=2)
TRAINED = "trained"
"""Stands for a file of trained weights, which `searched` writes."""
PARTS = {
    "parts, clipped": replace(recipe("lenet300", RotNet(), LEVELS), training=replace(FIT, clip=0.5)),
    "parts, frozen": recipe("lenet300", Supervised(), SEARCHES["cs frozen"]),
}
"""Searches that several processes do in parts of their share of a batch."""

SAME |= PARTS
SAME["trained, lenet300"] = replace(recipe("lenet300", RotNet(), LEVELS), init=TRAINED)
ALL = SAME | {name: recipe("conv3", objective, LEVELS) for name, objective in OBJECTIVES.items()}
COUNTED = ("rotnet", "mocov2")


def searched(which: Recipe, out: Path, machine: RuntimeConfig) -> None:
    if which.init == TRAINED:
        with torch.random.fork_rng(devices=[]), atomic_write(file := out.parent / "trained.safetensors") as temporary:
            torch.manual_seed(11)
            save_file(create_model("lenet300", channels=1, image_size=8).state_dict(), temporary)
        which = replace(which, init=str(file))
    run_search(plan_search(which, machine, out), machine)


def refused(which: Recipe, out: Path) -> str:
    """What each process is told of a search that another one has begun before the first of them could."""
    plan = plan_search(which, RuntimeConfig(), out)
    with ExitStack() as held:
        if processes.rank() == 0:
            held.enter_context(plan.run_dir.locked(True, lambda text: None))
        with pytest.raises(InHand) as error:
            run_search(plan, RuntimeConfig())
    return str(error.value)


def found(folder: Path) -> list[Ticket]:
    return [Ticket.load(path) for path in sorted(folder.glob("tickets/*"))]


def spied(held: list[str]) -> Callable[..., Ticket]:
    """What keeps a ticket, after noting what this process would have kept: mask and weights, not statistics."""
    keep = SearchRunner.save_ticket

    def noting(lab: SearchRunner, level: int, mask: Mask, weights: Any = None, **told: Any) -> Ticket:
        digest = hashlib.sha256(str(level).encode())
        for name, value in [*mask.items(), *lab.network.named_parameters()]:
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        held.append(digest.hexdigest())
        return keep(lab, level, mask, weights, **told)

    return noting


def counted(counts: Counter[str]) -> Callable[[TrainingLoop, int, int], None]:
    """What trains, while noting the collective operations in it, and how many numbers they broadcast.

    Not in the first steps: once, after the very first, distributed training agrees on the order of the gradients.
    """
    real = TrainingLoop.run

    def noting(loop: TrainingLoop, start: int, stop: int) -> None:
        if start == 0:
            return real(loop, start, stop)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
            real(loop, start, stop)
        counts["steps"] += stop - start
        for event in profile.events() or ():
            if event.name.startswith("gloo:"):
                counts[event.name] += 1
                if event.name == "gloo:broadcast":
                    counts["numbers broadcast"] += sum(torch.Size(shape).numel() for shape in event.input_shapes)
        return None

    return noting


def _many(folder: Path) -> None:
    told: dict[str, Any] = {"held": {}, "counts": {}}
    keep, train = SearchRunner.save_ticket, TrainingLoop.run
    for name, which in ALL.items():
        held: list[str] = []
        counts: Counter[str] = Counter()
        SearchRunner.save_ticket = spied(held)  # type: ignore[method-assign]
        if name in COUNTED:
            TrainingLoop.run = counted(counts)  # type: ignore[method-assign]
        searched(which, folder / "runs" / name, IN_PARTS if name in PARTS else RuntimeConfig())
        SearchRunner.save_ticket, TrainingLoop.run = keep, train  # type: ignore[method-assign]
        told["held"][name] = held
        told["counts"][name] = counts
    told["refused"] = refused(SAME["supervised, oneshot"], folder / "refused")
    bench = Engine.create(RuntimeConfig(), "fp32")
    paths = tasks.find_ticket_files([folder / "runs" / "supervised"], tasks.Levels((1,)))
    told["rows"] = list(evaluate_tasks(tasks.make_tasks(paths, CONTROLS.names(), [SHORT], None), bench))
    told["rows"] += list(evaluate_tasks(tasks.make_tasks(paths, [], [GROWING], None), bench))
    for analysis in (Stability(), Connectivity(), Magnitudes()):
        told["rows"] += list(analysis.rows(paths, SHORT, None, bench))
    (folder / f"{processes.rank()}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_and_exit(lambda: _many(Path(sys.argv[1])))
