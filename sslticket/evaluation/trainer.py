"""Trainings under a protocol: a ticket, a control of it, or the dense network that shows natural zeros."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslticket import provenance
from sslticket.config.training import TrainConfig
from sslticket.data.loader import Loader
from sslticket.data.unreadable import unreadable_fields
from sslticket.errors import BadInput
from sslticket.evaluation.controls import REINITIALIZED, NaturalMask, load_control_weights, make_control
from sslticket.evaluation.jobs import SplitCache, Splits, TrainingJob
from sslticket.evaluation.protocols import Protocol
from sslticket.objectives.supervised import Supervised
from sslticket.pruning import pruned_model
from sslticket.pruning.effective_sparsity import EffectivePaths
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import prunable_weights
from sslticket.seeds import Seeds, derive_seed
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine
from sslticket.training.memory import DeviceMemory, MemoryModel, UnknownMemory, resident_bytes
from sslticket.training.network import MaskedNetwork, measure_metrics
from sslticket.training.progress import Progress

TrainingKind = tuple[Protocol, str, int]
"""A protocol, a model, and the channels of the images."""


class MemoryEstimator:
    """Tells it for a workbench; each kind of training is looked at once."""

    def __init__(self, bench: Engine) -> None:
        self._bench = bench
        self._found: dict[TrainingKind, MemoryModel | None] = {}

    def needs(self, protocol: Protocol, model: str, splits: Splits) -> MemoryModel | None:
        """Of a training; None where that shows only when it runs."""
        kind = (protocol, model, splits.training.dataset.channels)
        if kind not in self._found:
            self._found[kind] = self._measure(protocol, model, splits)
        return self._found[kind]

    def describe(self, kinds: Iterable[TrainingKind], gallery: SplitCache) -> list[str]:
        """A line for each kind of training, for a person."""
        told = {kind: self._describe_kind(kind, gallery) for kind in kinds}
        return [
            f"memory: {text}" if len(told) == 1 else f"memory of {model} under {protocol.name}: {text}"
            for (protocol, model, _), text in told.items()
        ]

    def _describe_kind(self, kind: TrainingKind, gallery: SplitCache) -> str:
        protocol, model, channels = kind
        needs, device = self.needs(protocol, model, gallery.get(protocol, channels)), self._bench.accelerator.device
        if needs is None:
            return "known only when it runs"
        fit = protocol.fit_for(model)
        part = self._bench.runtime.micro_batch(
            fit.batch_size, fit.ghost_batch, protocol.name, whole=False, normalised=False
        )
        need = needs.estimate(part)
        room = None if device.type == "cpu" else DeviceMemory.of_device(device)
        return str(need) if room is None else room.compare(need)

    def _measure(self, protocol: Protocol, model: str, splits: Splits) -> MemoryModel | None:
        source = splits.training
        view, _ = protocol.views(source.dataset)
        try:
            return MemoryModel.measure(
                lambda kind: kind.build(
                    model,
                    Supervised(),
                    channels=source.dataset.channels,
                    image_size=view.size,
                    classes=len(source.manifest.classes),
                    seed=0,
                ),
                (view,),
                protocol.fit_for(model),
                self._bench.precision,
                channels=source.dataset.channels,
                resident=resident_bytes(source, (view,)),
                gpu=self._bench.accelerator.device.type == "cuda",
            )
        except UnknownMemory:
            return None


def evaluation_seeds(seed: int) -> Seeds:
    """What chance decides under a protocol's seed.

    A stream of its own: under a seed that a search had too, a random ticket must not get that search's weights.
    """
    return Seeds.from_seed(derive_seed(seed, "evaluation"))


@dataclass(frozen=True, kw_only=True)
class EvalRun:
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
    def fit(self) -> TrainConfig:
        """How this model is trained."""
        return self.protocol.fit_for(self.model)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the protocol's whole training."""
        return self.fit.clock(len(self.splits.training.manifest)).total_steps

    def build_net(self) -> MaskedNetwork:
        """Backbone and head drawn anew."""
        return MaskedNetwork.build(
            self.model,
            Supervised(),
            channels=self.channels,
            image_size=self.protocol.views(self.splits.training.dataset)[0].size,
            classes=len(self.splits.training.manifest.classes),
            seed=self.seeds.init,
        )


class Evaluator:
    """Trains under protocols and measures on every evaluation image."""

    def __init__(self, bench: Engine, progress: Progress) -> None:
        self._bench, self._progress = bench, progress
        self._paths: dict[tuple[str, int, int], EffectivePaths] = {}
        self._memory = MemoryEstimator(bench)

    def score(self, training: TrainingJob, splits: Splits) -> dict[str, Any]:
        """Train a ticket, or a control of it, from its weights, with its own head or a new one, and measure it.

        Returns:
            What was measured, see `train`; the effective density of the mask; of an adjusted control also the densities
            of its mask and of the natural one.

        Raises:
            BadInput: if the ticket is for another model.
            Diverged: if a loss is not finite.
        """
        task = training.first_task
        seeds = evaluation_seeds(task.seed)
        drawn = replicate_seeds(seeds, training.search_seed)
        exam = _eval_run(training, splits, drawn if training.control in REINITIALIZED else seeds, task.run, task.name)
        net, told = exam.build_net(), {}
        start = ticket = Ticket.load(task.path)
        if training.control != "ticket":
            beside = load_control_weights(task.path, training.control)
            natural = _load_natural_mask(training.natural_file, splits, ticket) if training.natural_file else None
            start = make_control(
                ticket,
                training.control,
                initial=pruned_model.read_state(net.backbone) if beside is None else beside.weights,
                seed=control_mask_seed(drawn),
                natural=natural,
                head=None if beside is None else beside.head,
            )
            told = {"natural_density": natural.density, "control_density": start.mask.density} if natural else {}
        start.apply(net.backbone, net.heads if task.head == "own" else None)
        told["effective_density"] = self._effective_density(start.mask, net, exam)
        return self.train_and_measure(net, exam) | told

    def _effective_density(self, mask: Mask, net: MaskedNetwork, exam: EvalRun) -> float:
        """Fraction of the weights that lie on a path from the image to the features."""
        size = exam.protocol.views(exam.splits.training.dataset)[0].size
        if (key := (exam.model, exam.channels, size)) not in self._paths:
            self._paths[key] = EffectivePaths.trace(net.backbone, channels=exam.channels, image_size=size)
        return self._paths[key].effective_mask(mask).survivors / mask.total

    def find_natural_mask(self, training: TrainingJob, splits: Splits) -> NaturalMask:
        """Train the dense network to the protocol's end, from weights of a stream of its own.

        Raises:
            BadInput: if all weights are zero there.
            Diverged: if a loss is not finite.
        """
        file = training.natural_file
        assert file is not None, "natural zeros have a file"
        seeds = replicate_seeds(Seeds.from_seed(derive_seed(training.first_task.seed, "natural")), training.search_seed)
        exam = _eval_run(training, splits, seeds, file.parents[1], file.stem)
        net = exam.build_net()
        measured = self.train_and_measure(net, exam)
        told = {
            "model": training.model,
            "protocol": training.first_task.protocol.name,
            "seed": training.first_task.seed,
        }
        return NaturalMask.from_weights(
            pruned_model.read_state(net.backbone), prunable_weights(net.backbone), told | measured
        )

    def train_and_measure(self, net: MaskedNetwork, exam: EvalRun) -> dict[str, Any]:
        """Train a net to the protocol's end, and measure it.

        Returns:
            top1, top5 (fractions), loss (nats), samples, steps, seconds of training, and where they are from.

        Raises:
            BadInput: if the device's memory is too small for it.
            Diverged: if a loss is not finite.
        """
        bench, fit, steps = self._bench, exam.fit, exam.total_steps - exam.start
        numerics = str(bench.numerics_for(net, steps, fit))
        manifest = exam.splits.training.manifest
        if told := bench.fit_in_memory(net, fit, self._memory.needs(exam.protocol, exam.model, exam.splits)):
            self._progress.note(told)
        with bench.prepare(net, steps, fit) as wrapped, self._progress.log_to(*bench.trackers(exam.run, exam.name)):
            batches = self.training_loader(exam)
            loop = bench.make_loop(
                net, wrapped, batches, fit, set_size=len(manifest), seed=exam.seeds.augment, progress=self._progress
            )
            began = time.monotonic()
            loop.run(exam.start, exam.total_steps)
            seconds = time.monotonic() - began
            held_out = self.evaluation_loader(exam)
            metrics = measure_metrics(bench.accelerator, net, held_out)
            self._progress.log_metrics(metrics)
            bad = bench.unreadable_images(batches, held_out)
        return {
            "loss": None,
            **metrics,
            "samples": steps * fit.batch_size,
            "steps": steps,
            "forward_images": loop.forward_images,
            "backward_images": loop.backward_images,
            "seconds": round(seconds, 3),
            **unreadable_fields(bad),
            "device": bench.device_name,
            "precision": bench.precision,
            "numerics": numerics,
            **provenance.collect_provenance(),
            "data_hash": manifest.hash,
            "eval_hash": exam.splits.evaluation.manifest.hash,
        }

    def training_loader(self, exam: EvalRun) -> Loader:
        """Augmented batches, in the order of the exam's seeds."""
        view, _ = exam.protocol.views(exam.splits.training.dataset)
        order, augment = exam.seeds.order, exam.seeds.augment
        return self._bench.make_loader(
            exam.splits.training, (view,), batch_size=exam.fit.batch_size, order=order, augment=augment
        )

    def evaluation_loader(self, exam: EvalRun) -> Loader:
        """Every evaluation image, plain."""
        _, view = exam.protocol.views(exam.splits.training.dataset)
        return self._bench.make_loader(
            exam.splits.evaluation, (view,), batch_size=exam.fit.batch_size, order=0, augment=0
        )


def replicate_seeds(seeds: Seeds, replicate: int) -> Seeds:
    """Seeds of what is drawn for the search with this seed; order and augmentation stay the ticket's.

    Replicates of a search have controls of their own: one that all shared would count once, however many searches it
    stood beside.
    """
    return replace(seeds, init=derive_seed(seeds.init, "replicate", replicate))


def control_mask_seed(seeds: Seeds) -> int:
    """From which a control's mask is drawn."""
    return derive_seed(seeds.init, "control")


def _eval_run(training: TrainingJob, splits: Splits, seeds: Seeds, run: Path, name: str) -> EvalRun:
    return EvalRun(
        protocol=training.first_task.protocol,
        model=training.model,
        channels=training.channels,
        splits=splits,
        seeds=seeds,
        start=training.start,
        run=run,
        name=name,
    )


def _load_natural_mask(file: Path, splits: Splits, ticket: Ticket) -> Mask:
    """The natural mask of the layers that the ticket's search might prune; it must be of these very images."""
    natural = NaturalMask.load(file)
    if natural.provenance["data_hash"] != splits.training.manifest.hash:
        raise BadInput(f"{file} is of other images; delete it and run the same command again")
    mask = natural.mask.restrict(ticket.mask)
    if not mask.survivors:
        raise BadInput(
            f"every weight that the search might prune has gone to zero in {file}; there is no adjusted random "
            "baseline; leave --controls adjusted out"
        )
    return mask
