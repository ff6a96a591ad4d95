"""Trainings under a protocol, on its images, from whatever weights; and what they need of a device's memory."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sslticket import provenance
from sslticket.config.recipe import RecipeRecord
from sslticket.config.training import Span, TrainConfig
from sslticket.data.datasets.base import SPLITS
from sslticket.data.datasets.catalogue import get_dataset, is_own_dataset
from sslticket.data.loader import Batch, Loader
from sslticket.data.manifest import take_half
from sslticket.data.own_images import KeptSplit, hash_images, own_images_name
from sslticket.data.source import (
    DataSource,
    check_complete,
    convert_channels,
    is_here,
    known_counts,
    made_up_split,
    open_split,
)
from sslticket.data.unreadable import log_empty_classes, log_left_out, unreadable_fields
from sslticket.errors import BadInput
from sslticket.evaluation.protocols import Protocol
from sslticket.objectives.supervised import Supervised
from sslticket.pruning.effective_sparsity import EffectivePaths
from sslticket.pruning.mask import Mask, StateDict
from sslticket.seeds import Seeds, derive_seed
from sslticket.ticket import run_folder_of
from sslticket.training.engine import Engine
from sslticket.training.memory import DeviceMemory, MemoryModel, UnknownMemory, resident_bytes
from sslticket.training.network import MaskedNetwork, measure_metrics, preserve_buffers
from sslticket.training.progress import Progress
from sslticket.training.snapshots import resumable
from sslticket.training.trial import computing_with, kernels_path


def evaluation_seeds(seed: int, stream: str = "evaluation") -> Seeds:
    """What chance decides under a protocol's seed.

    A stream of its own: under a seed that a search had too, a random ticket must not get that search's weights.
    """
    return Seeds.from_seed(derive_seed(seed, stream))


def replicate_seeds(seeds: Seeds, search_seed: int) -> Seeds:
    """Seeds of what is drawn for the search with a seed; order and augmentation stay the ticket's.

    Replicates of a search have controls of their own: one that all shared would count once, however many searches it
    stood beside.
    """
    return replace(seeds, init=derive_seed(seeds.init, "replicate", search_seed))


def control_mask_seed(seeds: Seeds) -> int:
    """The seed from which a control's mask is drawn."""
    return derive_seed(seeds.init, "control")


@dataclass(frozen=True)
class Splits:
    """A protocol's two sets of images.

    Attributes:
        training: Images that are trained on.
        evaluation: Images on which is measured.
        whole_hash: Hash of the names and labels of the whole training split, before any half; "" in plans.
        split: Which images of a folder of one's own are for training and which for evaluation; None for other sets.
        target: What rows call the images.
    """

    training: DataSource
    evaluation: DataSource
    whole_hash: str = ""
    split: KeptSplit | None = None
    target: str = ""

    @classmethod
    def open(cls, protocol: Protocol, data_root: Path | None) -> "Splits":
        """Finds both sets.

        Raises:
            BadInput: If one is missing or not the official one, or their classes differ.
        """
        both = [open_split(protocol.dataset, split, data_root) for split in SPLITS]
        training, evaluation = check_complete(both, protocol.part)
        whole, split, own = training.manifest.hash, None, None
        if is_own_dataset(training.dataset):
            split = KeptSplit.of_sources(training, evaluation)
            own = own_images_name(training, protocol.half, split.images_hash if split else hash_images(training))
        if protocol.half is not None:
            training = replace(training, manifest=take_half(training.manifest, protocol.half))
        if training.manifest.classes != evaluation.manifest.classes:
            odd = set(training.manifest.classes) ^ set(evaluation.manifest.classes)
            raise BadInput(
                f"the training and evaluation images of {protocol.dataset} have different classes, {min(odd)!r} is in "
                "one only; check the data"
            )
        for source in (training, evaluation):
            log_empty_classes(source.manifest)
            log_left_out(source.manifest, source.left_out)
        return cls(training, evaluation, whole, split, own or training.manifest.name)

    @classmethod
    def made_up(cls, protocol: Protocol, data_root: Path | None) -> "Splits":
        """Both sets of the catalogue's counts, for a plan where the images are not here.

        Raises:
            BadInput: If nobody publishes how many there are.
        """
        entry, sources = get_dataset(protocol.dataset), []
        for split in SPLITS:
            counts = known_counts(protocol.dataset, split, data_root, protocol.part)
            if split == "train" and protocol.half is not None:
                counts = counts.half(protocol.half)
            sources.append(made_up_split(entry, counts.manifest(entry, split)))
        training, evaluation = sources
        return cls(training, evaluation, target=training.manifest.name)

    def with_channels(self, channels: int) -> "Splits":
        """The same images, gray or in colour."""
        training, evaluation = (convert_channels(each, channels) for each in (self.training, self.evaluation))
        return replace(self, training=training, evaluation=evaluation)

    def check_found_on(self, header: Mapping[str, Any], path: Path) -> None:
        """Refuse a ticket that was found on images of this name which are not those that are here.

        What is for training and what for evaluation is another division then, and some of what a search has seen would
        be measured on.

        Args:
            header: Header of the ticket.
            path: Path of its file.

        Raises:
            BadInput: If a folder of one's own, or another set whose name does not say which images it has, has changed
                since; it names what was added and removed, where the list was kept.
        """
        entry = self.training.dataset
        if not self.whole_hash or not is_own_dataset(entry) or not header["recipe"].get("data"):
            return
        data, origin = RecipeRecord(header["recipe"]).data, header["provenance"]
        identity = data.identity
        if data.dataset != entry.name:
            return
        same = origin.get("source_hash") in (None, self.whole_hash)
        listed = data.subset_list is not None or data.labels_list is not None  # whose names are in the hash, too
        if same and self.split and identity and not listed:
            same = identity.images_hash == self.split.images_hash
        if same:
            return
        changes = "it was kept nowhere which they were"
        if identity and identity.folder and self.split:
            kept = KeptSplit.find(run_folder_of(path).parent, identity.folder, identity.images_hash)
            changes = changes if kept is None else self.split.describe_changes(kept)
        raise BadInput(
            f"{path} was found on other images of {entry.name} than those that are here ({changes}), so that training "
            "images of its search may be among the evaluation images now; restore them, give the --data-root of those, "
            "or search again"
        )


class SplitCache:
    """The images of protocols: each set, or half of it, is opened once, and once for each number of channels."""

    def __init__(self, data_root: Path | None, counted: Literal["never", "missing", "always"] = "never") -> None:
        """Opens nothing yet.

        Args:
            data_root: Folder of the data sets.
            counted: When the catalogue's counts take the place of images, for plans: where these are not here, or
                always, so that no folder is looked into.
        """
        self._data_root, self._counted = data_root, counted
        self._open: dict[tuple[str, str | None, str | None, int | None], Splits] = {}

    def get(self, protocol: Protocol, channels: int) -> Splits:
        """The protocol's images with so many channels.

        Raises:
            BadInput: If they are not there, or cannot have these channels.
        """
        opened, converted = ((protocol.dataset, protocol.part, protocol.half, each) for each in (None, channels))
        if opened not in self._open:
            counted = self._counted == "always" or (
                self._counted == "missing" and not is_here(protocol.dataset, self._data_root)
            )
            self._open[opened] = (Splits.made_up if counted else Splits.open)(protocol, self._data_root)
        if converted not in self._open:
            self._open[converted] = self._open[opened].with_channels(channels)
        return self._open[converted]

    def describe(self) -> list[str]:
        """How many images of each set are open, with their hashes, for a person; in the order of their names."""
        found = [
            f"{len(splits.training.manifest):,} training and {len(splits.evaluation.manifest):,} evaluation images of "
            f"{splits.training.manifest.name} with the hashes {splits.training.manifest.hash} and "
            f"{splits.evaluation.manifest.hash}"
            for (*_, channels), splits in self._open.items()
            if channels is None
        ]
        return sorted(found)

    def planned(self) -> list[str]:
        """Names of the data sets whose images are not here, and are only counted."""
        sources = (splits.training for (*_, channels), splits in self._open.items() if channels is None)
        return sorted({source.manifest.name for source in sources if source.planned})

    def check_row(
        self,
        protocol: Protocol,
        channels: int,
        row: Mapping[str, Any] | None,
        path: Path,
        header: Mapping[str, Any],
        ticket: Path,
    ) -> None:
        """Checks whether a row that is there already, and the ticket, are about the images of this name that are here.

        What is measured needs no images any more, so where they cannot be opened, it stands.

        Args:
            protocol: Protocol of the row.
            channels: Channels of the ticket's images.
            row: The row; None where there is none yet.
            path: Path of the row's file.
            header: Header of the ticket.
            ticket: Path of the ticket's file.

        Raises:
            BadInput: If there is no row and the images cannot be opened, or the row or the ticket is about others.
        """
        try:
            splits = self.get(protocol, channels)
        except BadInput:
            if row is None:
                raise
            return
        splits.check_found_on(header, ticket)
        for key, manifest in (("data_hash", splits.training.manifest), ("eval_hash", splits.evaluation.manifest)):
            if row is not None and not splits.training.planned and row.get(key, manifest.hash) != manifest.hash:
                part = "" if is_own_dataset(splits.training.dataset) else " name these with --part,"
                raise BadInput(
                    f"{path} was measured on other images of {row.get('target', manifest.name)}, with the hash "
                    f"{row[key]} and not {manifest.hash}; give the --data-root of those,{part} or move that row away"
                )


TrainingKind = tuple[Protocol, str, int]
"""A protocol, a network, and the channels of the images."""


class MemoryEstimator:
    """What trainings under protocols need of a device's memory; each kind of training is measured once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found: dict[TrainingKind, MemoryModel | None] = {}

    def needs(self, protocol: Protocol, model: str, splits: Splits) -> MemoryModel | None:
        """What a training needs; None where that shows only when it runs."""
        kind = (protocol, model, splits.training.dataset.channels)
        if kind not in self._found:
            self._found[kind] = self._measure(protocol, model, splits)
        return self._found[kind]

    def describe(self, kinds: Iterable[TrainingKind], split_cache: SplitCache) -> list[str]:
        """A line for each kind of training, for a person."""
        texts = {kind: self._describe_kind(kind, split_cache) for kind in kinds}
        return [
            f"memory: {text}" if len(texts) == 1 else f"memory of {model} under {protocol.name}: {text}"
            for (protocol, model, _), text in texts.items()
        ]

    def _describe_kind(self, kind: TrainingKind, split_cache: SplitCache) -> str:
        protocol, model, channels = kind
        needs = self.needs(protocol, model, split_cache.get(protocol, channels))
        if needs is None:
            return "known only when it runs"
        training, device = protocol.training_for(model), self._engine.accelerator.device
        micro_batch = self._engine.runtime.micro_batch(
            training.batch_size, training.ghost_batch, protocol.name, whole=False, normalised=False
        )
        need = needs.estimate(micro_batch)
        memory = None if device.type == "cpu" else DeviceMemory.of_device(device)
        return str(need) if memory is None else memory.compare(need)

    def _measure(self, protocol: Protocol, model: str, splits: Splits) -> MemoryModel | None:
        source = splits.training
        view, _ = protocol.views(source.dataset)
        view = view.at_size(max([view.size, *(size for _, size in protocol.early_sizes)]))
        try:
            return MemoryModel.measure(
                lambda kind: kind.build(
                    model,
                    Supervised(label_smoothing=protocol.label_smoothing),
                    channels=source.dataset.channels,
                    image_size=view.size,
                    classes=len(source.manifest.classes),
                    seed=0,
                ),
                (view,),
                protocol.training_for(model),
                self._engine.precision,
                channels=source.dataset.channels,
                resident=resident_bytes(source, (view,)),
                gpu=self._engine.accelerator.device.type == "cuda",
            )
        except UnknownMemory:
            return None


@dataclass(frozen=True, kw_only=True)
class EvalRun:
    """One training under a protocol.

    Attributes:
        protocol: How it is trained and measured.
        model: Name of the network.
        channels: Channels of the images.
        splits: The protocol's images, with so many channels.
        seeds: Seeds of head and weights, order and augmentation.
        start: Optimiser step at which it begins, with the protocol's learning rate and images of that step.
        run: Folder in which it can be watched.
        name: Name by which it is known there.
        curve: Training between two measurements of top-1 on the way, such as "5ep"; None for the end alone.
    """

    protocol: Protocol
    model: str
    channels: int
    splits: Splits
    seeds: Seeds
    start: int = 0
    run: Path
    name: str
    curve: str | None = None

    @property
    def training(self) -> TrainConfig:
        """How this network is trained."""
        return self.protocol.training_for(self.model)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the protocol's whole training."""
        return self.training.clock(len(self.splits.training.manifest)).total_steps

    @property
    def curve_steps(self) -> list[int]:
        """The steps before the end after which top-1 is measured: at multiples of the interval, whatever the start."""
        if self.curve is None:
            return []
        clock, every = self.training.clock(len(self.splits.training.manifest)), Span.parse(self.curve)
        share = clock.samples(every)
        times = range(1, math.ceil(clock.samples(clock.length) / share))
        found = {clock.steps(replace(every, amount=number * every.amount)) for number in times}
        return sorted(step for step in found if self.start < step < self.total_steps)

    @property
    def image_size(self) -> int:
        """Side in pixels of the images in training, at its end where that changes."""
        return self.protocol.views(self.splits.training.dataset)[0].size

    @property
    def size_spans(self) -> tuple[tuple[int, int], ...]:
        """See `Protocol.size_spans`."""
        return self.protocol.size_spans(self.model, len(self.splits.training.manifest))

    def describe(self) -> dict[str, object]:
        """What decides where it ends, beside the network that it starts from."""
        return {
            "protocol": self.protocol.hash_for(self.model),
            "set of images": self.splits.training.manifest.hash,
            "length": f"{self.start}-{self.total_steps}",
            "seed": f"{self.seeds.order} {self.seeds.augment}",
            **({} if self.curve is None else {"curve": self.curve}),
        }

    def build_net(self) -> MaskedNetwork:
        """Backbone and head drawn anew."""
        return MaskedNetwork.build(
            self.model,
            Supervised(label_smoothing=self.protocol.label_smoothing),
            channels=self.channels,
            image_size=self.image_size,
            classes=len(self.splits.training.manifest.classes),
            seed=self.seeds.init,
            drop_path=self.training.drop_path,
        )


class GrowingLoader:
    """Batches whose images change their size between steps: a loader for each size, one at a time.

    What a step shows is a function of the step, as with any loader, so a training goes on at any step and with any
    number of processes. The loader of a size is made when its first step comes, and the one before it goes.
    """

    def __init__(self, spans: Sequence[tuple[int, int]], make: Callable[[int], Loader]) -> None:
        """Makes nothing yet.

        Args:
            spans: The steps up to which, each with the images' side in pixels.
            make: Makes the loader of a side.
        """
        self._spans, self._make = spans, make
        self._size = 0
        self._loader: Loader | None = None
        self._unreadable: dict[str, str] = {}

    @property
    def unreadable(self) -> Mapping[str, str]:
        """See `Loader`; of all sizes up to now."""
        return self._unreadable | dict({} if self._loader is None else self._loader.unreadable)

    def train(self, start: int, stop: int) -> Iterator[Batch]:
        """See `Loader`."""
        for end, size in self._spans:
            if start < min(end, stop):
                yield from self._of_size(size).train(start, min(end, stop))
                start = min(end, stop)

    def once(self) -> Iterator[Batch]:
        """See `Loader`; of the last size."""
        yield from self._of_size(self._spans[-1][1]).once()

    def _of_size(self, size: int) -> Loader:
        if self._loader is None or size != self._size:
            self._unreadable, self._loader = dict(self.unreadable), None  # two would hold the images twice
            self._size, self._loader = size, self._make(size)
        return self._loader


class _Curve:
    """The accuracy on the way to the end of a training.

    Attributes:
        points: Source images seen, the same in epochs, and top-1.
    """

    def __init__(self) -> None:
        self.points: list[list[float]] = []

    def add(self, samples: int, set_size: int, metrics: Mapping[str, float]) -> None:
        """Adds what was measured after so many images."""
        self.points.append([samples, samples / set_size, metrics["top1"]])

    def snapshot_state(self) -> tuple[dict[str, Any], StateDict]:
        """See `training.snapshots.Companion`."""
        return {"points": self.points}, {}

    def restore_state(self, values: Mapping[str, Any], tensors: StateDict) -> None:
        """See `training.snapshots.Companion`."""
        self.points = [list(point) for point in values["points"]]


class Evaluator:
    """Trains under protocols and measures on every evaluation image."""

    def __init__(self, engine: Engine, progress: Progress) -> None:
        self.engine, self.progress = engine, progress
        self._paths: dict[tuple[str, int, int], EffectivePaths] = {}
        self._memory = MemoryEstimator(engine)

    def effective_density(self, mask: Mask, net: MaskedNetwork, run: EvalRun) -> float:
        """Fraction of the prunable weights that lie on a path from the image to the features."""
        if (key := (run.model, run.channels, run.image_size)) not in self._paths:
            self._paths[key] = EffectivePaths.trace(net.backbone, channels=run.channels, image_size=run.image_size)
        return self._paths[key].effective_mask(mask).survivors / mask.total

    def train_and_measure(self, net: MaskedNetwork, run: EvalRun) -> dict[str, Any]:
        """Trains a net to the protocol's end, from where the same command was stopped, and measures it.

        Returns:
            Keys of a score row: top1 and top5 (fractions), loss (nats), samples, steps, seconds of training. They come
                with where they are from, and with the curve where one was asked for.

        Raises:
            BadInput: If the device's memory is too small for it.
            Diverged: If a loss is not finite.
        """
        engine, training, steps = self.engine, run.training, run.total_steps - run.start
        numerics = str(engine.numerics_for(net, steps, training, run.splits.training))
        manifest = run.splits.training.manifest
        if note := engine.fit_in_memory(net, training, self._memory.needs(run.protocol, run.model, run.splits)):
            self.progress.note(note)
        path = kernels_path(run.run, run.name)
        kernels = engine.choose_kernels(path, net, run.build_net, lambda: self.training_loader(run), training, steps)
        with (
            engine.prepare(net, steps, training, kernels) as wrapped,
            self.progress.log_to(*engine.trackers(run.run, run.name, self.progress.about, self.progress.note)),
            computing_with(kernels, net),
        ):
            batches = self._growing_loader(run)
            loop = engine.make_loop(
                net, wrapped, batches, training, set_size=len(manifest), seed=run.seeds.augment, progress=self.progress
            )
            curve = _Curve()
            held_out = self.evaluation_loader(run)
            with resumable(
                engine,
                loop,
                self.progress,
                run=run.run,
                name=run.name,
                about=run.describe(),
                start=run.start,
                computed={"device": engine.device_name, "numerics": numerics, "kernels": str(kernels)},
                companion=curve,
            ) as done:
                for reached in run.curve_steps:
                    if reached > done.step:
                        done.run_to(reached)
                        with preserve_buffers(net):  # so that a curve changes no bit of what is trained
                            metrics = measure_metrics(engine.accelerator, net, held_out)
                        curve.add(reached * training.batch_size, len(manifest), metrics)
                        self.progress.log_metrics(metrics)
                done.run_to(run.total_steps)
                done.finish()
            held = run.splits.evaluation.manifest.class_counts()
            by_class = len(held) if len(set(held[held > 0].tolist())) > 1 else None  # else it is top-1 itself
            metrics = measure_metrics(engine.accelerator, net, held_out, by_class=by_class)
            curve.add(run.total_steps * training.batch_size, len(manifest), metrics)
            self.progress.log_metrics(metrics)
            unreadable = done.unreadable_images(held_out)
        return {
            "loss": None,
            **metrics,
            "samples": steps * training.batch_size,
            "steps": steps,
            "forward_images": loop.forward_images,
            "backward_images": loop.backward_images,
            "seconds": round(done.seconds, 3),
            **({} if run.curve is None else {"curve": curve.points, "curve_every": run.curve}),
            **({} if (sizes := run.protocol.size_schedule) is None else {"size_schedule": sizes}),
            **unreadable_fields(unreadable),
            **done.computed,
            "precision": engine.precision,
            **provenance.collect_provenance(),
            "data_hash": manifest.hash,
            "eval_hash": run.splits.evaluation.manifest.hash,
        }

    def training_loader(self, run: EvalRun) -> Loader:
        """Augmented batches, in the order of the run's seeds, of the size at the end of the training."""
        return self._loader_of_size(run, None)

    def _growing_loader(self, run: EvalRun) -> Loader:
        if len(run.size_spans) == 1:
            return self.training_loader(run)
        return GrowingLoader(run.size_spans, lambda size: self._loader_of_size(run, size))

    def _loader_of_size(self, run: EvalRun, size: int | None) -> Loader:
        view = run.protocol.views(run.splits.training.dataset)[0].at_size(size)
        return self.engine.make_loader(
            run.splits.training,
            (view,),
            batch_size=run.training.batch_size,
            order=run.seeds.order,
            augment=run.seeds.augment,
        )

    def evaluation_loader(self, run: EvalRun) -> Loader:
        """Every evaluation image, plain."""
        _, view = run.protocol.views(run.splits.training.dataset)
        return self.engine.make_loader(
            run.splits.evaluation, (view,), batch_size=run.training.batch_size, order=0, augment=0
        )
