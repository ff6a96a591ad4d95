"""Trainings under a protocol: a ticket, a control of it, or the dense network that shows natural zeros."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslticket import origin
from sslticket.data.bad import counted
from sslticket.data.loader import Loader
from sslticket.errors import BadInput
from sslticket.evaluation.controls import DRAWN_ANEW, control, weights_beside
from sslticket.evaluation.images import Splits
from sslticket.evaluation.matrix import Training
from sslticket.evaluation.memory import Memory
from sslticket.evaluation.natural import Natural
from sslticket.evaluation.protocols import Protocol
from sslticket.fit import Fit
from sslticket.masking import gate
from sslticket.masking.mask import Mask, prunable
from sslticket.masking.paths import Paths
from sslticket.objectives.supervised import Supervised
from sslticket.randomness import Seeds, derive
from sslticket.ticket import Ticket
from sslticket.training.measure import measure
from sslticket.training.net import Net
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench


def seeds_of(seed: int) -> Seeds:
    """What chance decides under a protocol's seed.

    A stream of its own: under a seed that a search had too, a random ticket must not get that search's weights.
    """
    return Seeds.of(derive(seed, "evaluation"))


@dataclass(frozen=True, kw_only=True)
class Exam:
    """One training under a protocol.

    Attributes:
        protocol: how it is trained and measured.
        model: the network.
        channels: of the images.
        splits: the protocol's images, with so many channels.
        seeds: of head and weights, order and augmentation.
        start: the optimiser step at which it begins, with the protocol's learning rate and images of that step.
        run: the folder in which it can be watched.
        name: by which it is known there.
    """

    protocol: Protocol
    model: str
    channels: int
    splits: Splits
    seeds: Seeds
    start: int = 0
    run: Path
    name: str

    @property
    def fit(self) -> Fit:
        """How this model is trained."""
        return self.protocol.fit_for(self.model)

    @property
    def stop(self) -> int:
        """Optimiser steps of the protocol's whole training."""
        return self.fit.clock(len(self.splits.training.manifest)).total

    def net(self) -> Net:
        """Backbone and head drawn anew."""
        return Net.build(
            self.model,
            Supervised(),
            channels=self.channels,
            image_size=self.protocol.views(self.splits.training.dataset)[0].size,
            classes=len(self.splits.training.manifest.classes),
            seed=self.seeds.init,
        )


class Examiner:
    """Trains under protocols and measures on every evaluation image."""

    def __init__(self, bench: Workbench, progress: Progress) -> None:
        self._bench, self._progress = bench, progress
        self._paths: dict[tuple[str, int, int], Paths] = {}
        self._memory = Memory(bench)

    def score(self, training: Training, splits: Splits) -> dict[str, Any]:
        """Train a ticket, or a control of it, from its weights, with its own head or a new one, and measure it.

        Returns:
            What was measured, see `train`; the effective density of the mask; of an adjusted control also the densities
            of its mask and of the natural one.

        Raises:
            BadInput: if the ticket is for another model.
            Diverged: if a loss is not finite.
        """
        task = training.like
        seeds = seeds_of(task.seed)
        drawn = replicated(seeds, training.replicate)
        exam = _exam(training, splits, drawn if training.control in DRAWN_ANEW else seeds, task.run, task.name)
        net, told = exam.net(), {}
        start = ticket = Ticket.load(task.path)
        if training.control != "ticket":
            beside = weights_beside(task.path, training.control)
            natural = _natural(training.natural, splits, ticket) if training.natural else None
            start = control(
                ticket,
                training.control,
                initial=gate.read(net.backbone) if beside is None else beside.weights,
                seed=control_seed(drawn),
                natural=natural,
                head=None if beside is None else beside.head,
            )
            told = {"natural_density": natural.density, "control_density": start.mask.density} if natural else {}
        start.apply(net.backbone, net.heads if task.head == "own" else None)
        told["effective_density"] = self._effective(start.mask, net, exam)
        return self.train(net, exam) | told

    def _effective(self, mask: Mask, net: Net, exam: Exam) -> float:
        """Fraction of the weights that lie on a path from the image to the features."""
        size = exam.protocol.views(exam.splits.training.dataset)[0].size
        if (key := (exam.model, exam.channels, size)) not in self._paths:
            self._paths[key] = Paths.of(net.backbone, channels=exam.channels, image_size=size)
        return self._paths[key].effective(mask).survivors / mask.total

    def natural(self, training: Training, splits: Splits) -> Natural:
        """Train the dense network to the protocol's end, from weights of a stream of its own.

        Raises:
            BadInput: if all weights are zero there.
            Diverged: if a loss is not finite.
        """
        file = training.natural
        assert file is not None, "natural zeros have a file"
        seeds = replicated(Seeds.of(derive(training.like.seed, "natural")), training.replicate)
        exam = _exam(training, splits, seeds, file.parents[1], file.stem)
        net = exam.net()
        measured = self.train(net, exam)
        told = {"model": training.model, "protocol": training.like.protocol.name, "seed": training.like.seed}
        return Natural.of(gate.read(net.backbone), prunable(net.backbone), told | measured)

    def train(self, net: Net, exam: Exam) -> dict[str, Any]:
        """Train a net to the protocol's end, and measure it.

        Returns:
            top1, top5 (fractions), loss (nats), samples, steps, seconds of training, and where they are from.

        Raises:
            BadInput: if the device's memory is too small for it.
            Diverged: if a loss is not finite.
        """
        bench, fit, steps = self._bench, exam.fit, exam.stop - exam.start
        numerics = str(bench.numerics_of(net, steps, fit))
        manifest = exam.splits.training.manifest
        if told := bench.make_room(net, fit, self._memory.needs(exam.protocol, exam.model, exam.splits)):
            self._progress.note(told)
        with bench.prepared(net, steps, fit) as wrapped, self._progress.heard_by(*bench.listeners(exam.run, exam.name)):
            batches = self.training_images(exam)
            loop = bench.loop(
                net, wrapped, batches, fit, set_size=len(manifest), seed=exam.seeds.augment, progress=self._progress
            )
            began = time.monotonic()
            loop.run(exam.start, exam.stop)
            seconds = time.monotonic() - began
            held_out = self.evaluation_images(exam)
            metrics = measure(bench.accelerator, net, held_out)
            self._progress.measured(metrics)
            bad = bench.bad_images(batches, held_out)
        return {
            "loss": None,
            **metrics,
            "samples": steps * fit.batch_size,
            "steps": steps,
            "forward_images": loop.forward_images,
            "backward_images": loop.backward_images,
            "seconds": round(seconds, 3),
            **counted(bad),
            "device": bench.device_name,
            "precision": bench.precision,
            "numerics": numerics,
            **origin.stamp(),
            "data_hash": manifest.hash,
            "eval_hash": exam.splits.evaluation.manifest.hash,
        }

    def training_images(self, exam: Exam) -> Loader:
        """Augmented batches, in the order of the exam's seeds."""
        view, _ = exam.protocol.views(exam.splits.training.dataset)
        order, augment = exam.seeds.order, exam.seeds.augment
        return self._bench.loader(
            exam.splits.training, (view,), batch_size=exam.fit.batch_size, order=order, augment=augment
        )

    def evaluation_images(self, exam: Exam) -> Loader:
        """Every evaluation image, plain."""
        _, view = exam.protocol.views(exam.splits.training.dataset)
        return self._bench.loader(exam.splits.evaluation, (view,), batch_size=exam.fit.batch_size, order=0, augment=0)


def replicated(seeds: Seeds, replicate: int) -> Seeds:
    """Seeds of what is drawn for the search with this seed; order and augmentation stay the ticket's.

    Replicates of a search have controls of their own: one that all shared would count once, however many searches it
    stood beside.
    """
    return replace(seeds, init=derive(seeds.init, "replicate", replicate))


def control_seed(seeds: Seeds) -> int:
    """From which a control's mask is drawn."""
    return derive(seeds.init, "control")


def _exam(training: Training, splits: Splits, seeds: Seeds, run: Path, name: str) -> Exam:
    return Exam(
        protocol=training.like.protocol,
        model=training.model,
        channels=training.channels,
        splits=splits,
        seeds=seeds,
        start=training.start,
        run=run,
        name=name,
    )


def _natural(file: Path, splits: Splits, ticket: Ticket) -> Mask:
    """The natural mask of the layers that the ticket's search might prune; it must be of these very images."""
    natural = Natural.load(file)
    if natural.told["data_hash"] != splits.training.manifest.hash:
        raise BadInput(f"{file} is of other images; delete it and run the same command again")
    mask = natural.mask.only(ticket.mask)
    if not mask.survivors:
        raise BadInput(
            f"every weight that the search might prune has gone to zero in {file}; there is no adjusted random "
            "baseline; leave --controls adjusted out"
        )
    return mask
