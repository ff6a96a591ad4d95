"""Scores: a task is trained and measured, and becomes a row."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslticket import origin
from sslticket.data.halves import half
from sslticket.data.opening import Source, open_split
from sslticket.errors import BadInput
from sslticket.evaluation.controls import control
from sslticket.evaluation.protocols import Protocol
from sslticket.evaluation.tasks import Task
from sslticket.files import write_row
from sslticket.masking import gate
from sslticket.objectives.supervised import Supervised
from sslticket.randomness import Seeds, derive
from sslticket.recipe import family
from sslticket.ticket import Ticket
from sslticket.training.measure import measure
from sslticket.training.net import Net
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench


@dataclass(frozen=True)
class Splits:
    """A protocol's two sets of images."""

    training: Source
    evaluation: Source

    @classmethod
    def open(cls, protocol: Protocol, data_root: Path | None) -> "Splits":
        """Find both sets.

        Raises:
            BadInput: if one is missing, or their classes differ.
        """
        training = open_split(protocol.dataset, "train", data_root)
        if protocol.half is not None:
            training = replace(training, manifest=half(training.manifest, protocol.half))
        evaluation = open_split(protocol.dataset, "eval", data_root)
        if training.manifest.classes != evaluation.manifest.classes:
            odd = set(training.manifest.classes) ^ set(evaluation.manifest.classes)
            raise BadInput(
                f"the training and evaluation images of {protocol.dataset} have different classes, {min(odd)!r} is in "
                "one only; check the data"
            )
        return cls(training, evaluation)


def evaluate(tasks: Sequence[Task], bench: Workbench) -> Iterator[dict[str, Any]]:
    """Do what is not done yet, one row at a time; each is written before it is yielded.

    Raises:
        BadInput: if a ticket is damaged or for another model, or data is missing.
        Diverged: if a loss is not finite.
    """
    # Every ticket is checked before the first is trained; they are not all kept, a dense one takes 94 MB.
    hashes, models = {}, {}
    for path in dict.fromkeys(task.path for task in tasks):
        ticket = Ticket.load(path)
        hashes[path], models[path] = ticket.hash, ticket.recipe["model"]
    left = [task for task in tasks if not task.is_done(hashes[task.path])]
    fits = {task: task.protocol.fit_for(models[task.path]) for task in left}
    for fit in fits.values():
        bench.check_batch(fit.batch_size)
    protocols = {task.protocol.name: task.protocol for task in left}
    splits = {name: Splits.open(protocol, bench.machine.data_root) for name, protocol in protocols.items()}
    clocks = {task: fits[task].clock(len(splits[task.protocol.name].training.manifest)) for task in left}
    with Progress(sum(clock.total * clock.batch_size for clock in clocks.values()), show=bench.first) as progress:
        for number, task in enumerate(left, 1):
            protocol = f" {task.protocol.name}" if len(splits) > 1 else ""  # the line has to fit a terminal
            label = f"{number}/{len(left)} {task.path.stem} {task.control}{protocol} seed {task.seed}"
            progress.task(label, clocks[task].total)
            row = score(task, Ticket.load(task.path), splits[task.protocol.name], bench, progress)
            if bench.first:
                write_row(task.row, row)
            yield row


def score(task: Task, ticket: Ticket, splits: Splits, bench: Workbench, progress: Progress) -> dict[str, Any]:
    """Train a ticket, or a control of it, from its W_k with a new head, and measure it on every evaluation image.

    Returns:
        The row: top1, top5 (fractions), loss (nats), samples, steps, seconds of training, and where all of it is from.
    """
    # A stream of its own: under a seed that a search had too, a random ticket must not get that search's weights.
    seeds = Seeds.of(derive(task.seed, "evaluation"))
    manifest = splits.training.manifest
    dataset = splits.training.dataset
    augmented, plain = (view.resized(task.protocol.image_size) for view in (dataset.train, dataset.eval))
    fit = task.protocol.fit_for(ticket.recipe["model"])
    net = Net.build(
        ticket.recipe["model"],
        Supervised(),
        channels=dataset.channels,
        image_size=augmented.size,
        classes=len(manifest.classes),
        seed=seeds.init,
    )
    start = ticket
    if task.control != "ticket":
        start = control(ticket, task.control, initial=gate.read(net.backbone), seed=derive(seeds.init, "control"))
    start.apply(net.backbone)
    steps = fit.clock(len(manifest)).total
    with bench.prepared(net) as wrapped:
        batches = bench.loader(
            splits.training, (augmented,), batch_size=fit.batch_size, order=seeds.order, augment=seeds.augment
        )
        loop = bench.loop(net, wrapped, batches, fit, set_size=len(manifest), seed=seeds.augment, progress=progress)
        began = time.monotonic()
        loop.run(0, steps)
        seconds = time.monotonic() - began
        held_out = bench.loader(splits.evaluation, (plain,), batch_size=fit.batch_size, order=0, augment=0)
        metrics = measure(bench.accelerator, net, held_out)
        bad = bench.bad_images(batches, held_out)
    return (
        _row(task, ticket, splits)
        | {"loss": None, **metrics}
        | {
            "samples": steps * fit.batch_size,
            "steps": steps,
            "seconds": round(seconds, 3),
            "bad_images": len(bad),
            "device": bench.device_name,
            "precision": bench.precision,
        }
    )


def _row(task: Task, ticket: Ticket, splits: Splits) -> dict[str, Any]:
    recipe, came = ticket.recipe, ticket.provenance
    return {
        "kind": "score",
        "run": task.row.parent.parent.name,
        "recipe": family(recipe),
        "objective": came["objective"],
        "model": recipe["model"],
        "source": came["dataset"],
        "subset": recipe["data"]["subset"],
        "subset_by": recipe["data"]["subset_by"],
        "level": ticket.level,
        "density": ticket.mask.density,
        "ticket_hash": ticket.hash,
        "search_seed": came["seed"],
        "search_samples": came["search_samples"],
        "control": task.control,
        "protocol": task.protocol.name,
        "target": splits.training.manifest.dataset,
        "seed": task.seed,
        **origin.stamp(),
        "data_hash": splits.training.manifest.hash,
    }
