"""A search that is checked and counted before anything is written, and the images that it trains on."""

import hashlib
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sslticket import models, processes
from sslticket.config.recipe import Data, ImageIdentity, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import Clock
from sslticket.data import source
from sslticket.data.augment import View
from sslticket.data.datasets.catalogue import get_dataset, is_own_dataset
from sslticket.data.datasets.locate import MissingSplit
from sslticket.data.loader import LabelledStream
from sslticket.data.manifest import (
    Manifest,
    half_provenance,
    hide_labels_except,
    labelled_then_unlabelled,
    least_class_fraction,
    take_half,
    with_shuffled_labels,
)
from sslticket.data.own_images import KeptSplit, hash_images, own_folder_name
from sslticket.data.source import DataSource, convert_channels, open_split
from sslticket.data.unreadable import log_empty_classes, log_left_out
from sslticket.errors import BadInput
from sslticket.models.pretrained import Pretrained, resolve_pretrained
from sslticket.objectives import distributed
from sslticket.objectives.base import objective_of
from sslticket.provenance import collect_provenance, git_commit, library_versions
from sslticket.pruning.forward_graph import MaskCoverage
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import describe_layers, prunable_weights, shorten_names
from sslticket.results.run_dir import RunDir, identify_images, read_json_or_empty
from sslticket.results.throughput import CostEstimate, Throughput
from sslticket.search.base import SearchCost, Stages, search_of
from sslticket.search.estimate import SearchWork, num_known_labels, planned_counts, rewound_within
from sslticket.ticket import Ticket
from sslticket.training.display import Stage
from sslticket.training.memory import DeviceMemory, MemoryModel, ShapeOnlyMode, UnknownMemory, resident_bytes
from sslticket.training.network import MaskedNetwork
from sslticket.training.numerics import Numerics, resolve_precision, state_size
from sslticket.training.optim import layer_scales


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """What a search trains on.

    Attributes:
        source: The training images, with the labels that the objective may know.
        true_labels: The subset with its true labels, each image once; for measurements, never for training.
        full_size: Number of images in the training set before the subset.
        source_hash: Hash of the whole training set, before half, subset, labels and shuffling, so of no seed.
        labelled: The labelled stream, where the objective draws from two.
        views: The views of each image that the network sees.
        permutation: Seed, fraction and hash of shuffled labels, for a ticket's provenance; None where none were.
        half: Which half of the set it is, with seed, images and hash, for a ticket's provenance; None for all of it.
        identity: What tells these images from others, for the recipe; None where its settings do.
        evaluation: Evaluation images of the classes that are trained on; 0 where there are none.
        about: For a plan without the images, whether their number is only about right.
        whole: The number of images of which a subset was taken, or the labelled ones of them where the objective draws
            from two streams; None where no subset was taken.
        split: Which images of a folder of one's own are for training and which for evaluation; None for other sets.
        some_classes: Whether only some of the classes are trained on.
    """

    source: DataSource
    true_labels: DataSource
    full_size: int
    source_hash: str
    labelled: LabelledStream | None
    views: tuple[View, ...]
    permutation: dict[str, Any] | None
    half: dict[str, Any] | None = None
    identity: ImageIdentity | None = None
    evaluation: int = 0
    about: bool = False
    whole: int | LabelledStream | None = None
    split: KeptSplit | None = None
    some_classes: bool = False

    @classmethod
    def open(cls, recipe: Recipe, runtime: RuntimeConfig, *, dry_run: bool = False) -> "TrainingImages":
        """Opens the training split and applies the recipe's choice of images and labels.

        Args:
            recipe: The recipe.
            runtime: Where the data lies.
            dry_run: Whether the catalogue's counts take the place of images that are not here.

        Raises:
            BadInput: If the data is missing or not the official one, a class is left empty, or the objective cannot
                work with these labels.
        """
        data = recipe.data
        if dry_run and not source.is_here(data.dataset, runtime.data_root):
            return cls._made_up(recipe, runtime)
        opened, evaluation = _open_splits(data, runtime)
        log_empty_classes(opened.manifest)
        log_left_out(opened.manifest, opened.left_out)
        identity = _image_identity(data, opened)
        split = KeptSplit.of_sources(opened, evaluation) if identity and identity.folder else None
        opened = opened if data.channels is None else convert_channels(opened, data.channels)
        one = opened.manifest if data.half is None else take_half(opened.manifest, data.half)
        true = _take_subset(recipe, one)
        half = None if data.half is None else half_provenance(one, data.half)
        measured = _num_evaluation_images(evaluation, true.classes)
        chosen, full = replace(opened, manifest=true), opened.manifest
        found = cls._with_labels(recipe, chosen, one, full, evaluation=measured, half=half, identity=identity)
        return replace(found, split=split, some_classes=len(true.classes) < len(full.classes))

    @classmethod
    def _made_up(cls, recipe: Recipe, runtime: RuntimeConfig) -> "TrainingImages":
        """Images of which the catalogue's counts alone are known, for a plan."""
        data, entry = recipe.data, get_dataset(recipe.data.dataset)
        full, one, counts = planned_counts(data, runtime.data_root)
        opened = source.made_up_split(entry, counts.manifest(entry, "train"))
        opened = opened if data.channels is None else convert_channels(opened, data.channels)
        known = num_known_labels(data, counts), num_known_labels(data, one)
        evaluation = source.known_counts(data.dataset, "eval", runtime.data_root, data.part)
        measured = round(len(evaluation) * len(counts.per_class) / len(full.per_class))
        # Only its length and its classes matter.
        before = one.manifest(entry, "train") if len(one) > len(counts) else opened.manifest
        found = cls._with_labels(recipe, opened, before, opened.manifest, evaluation=measured, known=known)
        return replace(found, full_size=len(full), about=not counts.exact)

    @classmethod
    def _with_labels(
        cls,
        recipe: Recipe,
        opened: DataSource,
        one: Manifest,
        full: Manifest,
        *,
        evaluation: int,
        half: dict[str, Any] | None = None,
        identity: ImageIdentity | None = None,
        known: tuple[int, int] | None = None,
    ) -> "TrainingImages":
        """What is trained on: the images that were chosen, with the labels that may be used.

        Args:
            recipe: The recipe.
            opened: The images that were chosen, with their true labels.
            one: The images of which they were chosen: the whole training set, or its half.
            full: The whole training set.
            evaluation: See the attribute.
            half: See the attribute.
            identity: See the attribute.
            known: For a plan, how many of the images that were chosen, and of all, have labels that may be used; None
                where the recipe chooses among real ones.
        """
        data, objective, true = recipe.data, objective_of(recipe), opened.manifest
        manifest, labelled, permutation = true, None, None
        if data.shuffle_labels:
            manifest = with_shuffled_labels(true, data.shuffle_labels, seed=recipe.seeds.labels)
            digest = hashlib.sha256(manifest.labels.astype("<i8").tobytes()).hexdigest()[:16]
            permutation = {"seed": recipe.seeds.labels, "share": data.shuffle_labels, "hash": digest}
        rows = _rows_with_labels(recipe, manifest, true) if known is None else np.arange(known[0])
        whole: int | LabelledStream | None = len(one) if len(true) < len(one) else None
        if objective.needs_labels or objective.labelled_fraction is not None:
            _check_classes(true, one)
        if objective.labelled_fraction is not None:
            labelled = LabelledStream(len(rows), objective.labelled_fraction)
            manifest = labelled_then_unlabelled(manifest, rows)
            if whole is not None:
                before = len(_rows_with_labels(recipe, one, one)) if known is None else known[1]
                whole = LabelledStream(before, objective.labelled_fraction)
        elif len(rows) < len(manifest):
            if objective.needs_labels:
                raise BadInput(
                    f"{objective.name} needs every image's label, and {len(rows):,} of {len(manifest):,} are known; "
                    "give --subset in place of --labels, or an objective that does without labels"
                )
            manifest = hide_labels_except(manifest, rows)
        views = recipe.views(opened.dataset.train_view)
        trained, with_truth = (replace(opened, manifest=which) for which in (manifest, true))
        return cls(
            trained,
            with_truth,
            len(full),
            full.hash,
            labelled,
            views,
            permutation,
            half,
            identity,
            evaluation=evaluation,
            whole=whole,
        )

    def provenance(self) -> dict[str, Any]:
        """Which images and labels these are, for a ticket's provenance."""
        manifest = self.source.manifest
        return {
            "images": len(self.true_labels.manifest),
            **({} if self.half is None else {"half": self.half}),
            **({} if self.permutation is None else {"permutation": self.permutation}),
            "classes": len(manifest.classes),
            "classes_hash": manifest.classes_hash,
            "source_hash": self.source_hash,
            "data_hash": manifest.hash,
        }

    def epoch_samples(self, batch_size: int) -> int:
        """Samples in an epoch: the images, or those of both streams while the labelled one is seen once."""
        return len(self.source.manifest) if self.labelled is None else self.labelled.samples_per_epoch(batch_size)

    def whole_epoch_samples(self, batch_size: int) -> int | None:
        """Samples in an epoch of all images; None where no subset of them is taken."""
        return self.whole.samples_per_epoch(batch_size) if isinstance(self.whole, LabelledStream) else self.whole


def _check_classes(manifest: Manifest, whole: Manifest) -> None:
    """Refuses a single class where classes are to be told apart."""
    if len(manifest.classes) > 1:
        return
    fix = "give images of more classes, or an objective that does without labels"
    if (known := len(whole.classes)) > 1:
        fix = f"give at least --subset {least_class_fraction(2, known):g}, or an objective that does without labels"
    raise BadInput(f"classes to be told apart must be 2 or more, got 1 of the {known} of {manifest.dataset}; {fix}")


def _open_splits(data: Data, runtime: RuntimeConfig) -> tuple[DataSource, DataSource | None]:
    """The whole training split, and the evaluation split where there is one.

    Both have the official counts, or the recipe names a part.
    """
    training, evaluation = open_split(data.dataset, "train", runtime.data_root), None
    with suppress(MissingSplit):  # a search can do without
        evaluation = open_split(data.dataset, "eval", runtime.data_root)
    official = evaluation is not None and training.dataset.image_counts is not None
    checked = source.check_complete([training, *([evaluation] if evaluation and official else [])], data.part)
    return checked[0], evaluation


def _num_evaluation_images(evaluation: DataSource | None, classes: tuple[str, ...]) -> int:
    """How many of the evaluation images are of these classes."""
    if evaluation is None:
        return 0
    manifest, wanted = evaluation.manifest, set(classes)
    return sum(
        int(count) for name, count in zip(manifest.classes, manifest.class_counts(), strict=True) if name in wanted
    )


def _image_identity(data: Data, opened: DataSource) -> ImageIdentity | None:
    """The identity of own images, of a part of a set, and of a list of images: others may have the same settings."""
    lists = [path for path in (data.subset_list, data.labels_list) if path is not None]
    own = is_own_dataset(opened.dataset)
    if not own and data.part is None and not lists:
        return None
    return ImageIdentity(folder=own_folder_name(opened) if own else None, images_hash=hash_images(opened, lists))


def _take_subset(recipe: Recipe, manifest: Manifest) -> Manifest:
    data = recipe.data
    if data.subset_list is not None:
        return manifest.restrict_to_list(data.subset_list)
    if data.shots is not None:
        return manifest.take_shots(data.shots, seed=recipe.seeds.subset)
    return manifest.subset(data.subset, by=data.subset_by, seed=recipe.seeds.subset) if data.subset < 1 else manifest


def _rows_with_labels(recipe: Recipe, manifest: Manifest, true: Manifest) -> np.ndarray:
    """Indices of the images whose labels may be used: under one seed, those that a subset of this size has."""
    data = recipe.data
    if data.labels_list is not None:
        return true.rows_in_list(data.labels_list)  # a list may hold true labels too, whatever becomes of them
    if data.label_shots is not None:
        return manifest.shot_rows(data.label_shots, recipe.seeds.subset, "--label-shots")
    if data.labels < 1:
        return manifest.stratified_rows(data.labels, recipe.seeds.subset, "--labels")
    return np.arange(len(manifest))


@dataclass(frozen=True)
class SearchPlan:
    """A search that has passed every check and has not written anything yet.

    Attributes:
        recipe: The recipe as resolved from file and flags.
        images: The images that are trained on.
        stages: Steps and survivors of every level.
        run_dir: The folder of the tickets and rows.
        num_prunable: Number of weights that may be pruned.
        num_weights: Number of weights of kinds that may be pruned.
        num_parameters: Number of parameters of the backbone, in all.
        dense_matrices: Names of matrices that activations are multiplied by and that no search prunes.
        notice: What a trial changed in the search; "" for nothing.
        notes: What else a person should know: another batch, because there are few images; a folder that has changed.
        micro_batch: Source images that go through the network at once, in one process.
        numerics: How trainings compute on this machine.
        weights: Weights that the search starts from, on this machine but for a dry run; None where its seed draws them.
    """

    recipe: Recipe
    images: TrainingImages
    stages: Stages
    run_dir: RunDir
    num_prunable: int
    num_weights: int
    num_parameters: int
    dense_matrices: tuple[str, ...]
    notice: str
    micro_batch: int
    numerics: Numerics
    weights: Pretrained | None = None
    notes: tuple[str, ...] = ()

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all trainings together, at most."""
        return self.stages.cumulative_steps[-1]

    def build_network(self) -> MaskedNetwork:
        """The network that is trained, as the search starts from it."""
        return self._build_network(MaskedNetwork, self.weights)

    def _build_network(self, kind: type[MaskedNetwork], weights: Pretrained | None = None) -> MaskedNetwork:
        """The network as this class of networks, drawn anew or with these weights."""
        return kind.build(
            self.recipe.model,
            objective_of(self.recipe),
            channels=self.images.source.dataset.channels,
            image_size=self.images.views[0].size,
            classes=len(self.images.source.manifest.classes),
            seed=self.recipe.seeds.init,
            drop_path=self.recipe.training.drop_path,
            gated=search_of(self.recipe).prunable_layers,
            mask_learning=search_of(self.recipe).mask_learning(self.recipe.training, self.clock),
            weights=weights,
        )

    @cached_property
    def memory_model(self) -> MemoryModel | None:
        """What a training of the search needs of its device's memory; None where that shows only when it runs."""
        images = self.images
        try:
            return MemoryModel.measure(
                self._build_network,
                images.views,
                self.recipe.training,
                self.numerics.precision,
                channels=images.source.dataset.channels,
                labelled=images.labelled,
                resident=resident_bytes(images.source, images.views),
                gpu=torch.cuda.is_available(),
            )
        except UnknownMemory:
            return None

    @property
    def work(self) -> SearchWork:
        """The search in numbers."""
        images, recipe = self.images, self.recipe
        return SearchWork(
            recipe=recipe,
            dataset=images.source.dataset,
            views=images.views,
            classes=len(images.source.manifest.classes),
            clock=self.clock,
            stages=self.stages,
            scoring=self.scoring_samples(self.levels),
            images=len(images.true_labels.manifest),
            evaluation=len(images.source.manifest) if images.permutation else images.evaluation,
            labelled=objective_of(recipe).labelled_fraction,
            numerics=str(self.numerics),
            devices=processes.world_size(),
            about=images.about,
        )

    def estimate(self, throughput: Throughput) -> CostEstimate:
        """What the search comes to on a device.

        Args:
            throughput: How fast the device is.
        """
        memory = None if self.memory_model is None else self.memory_model.estimate(self.micro_batch)
        return self.work.estimate(throughput, memory)

    def cumulative_samples(self, level: int) -> int:
        """Samples that the search has seen, at most, when it knows the ticket of this level."""
        return self.stages.cumulative_steps[level] * self.recipe.training.batch_size + self.scoring_samples(level)

    def trained_density(self, level: int) -> float | None:
        """The density at which the ticket of a level is trained; None where that shows only when it has been."""
        survivors, trained = self.stages.survivors, level + self.stages.trained_sparse
        learned = search_of(self.recipe).mask_learning(self.recipe.training, self.clock) is not None
        return None if survivors is None or learned else survivors[trained] / self.num_prunable

    @property
    def training_stages(self) -> list[Stage]:
        """The trainings, that of the dense network to W_k first, each with the images that it sees and its density."""
        ends = [self.cumulative_samples(level) for level in range(self.levels + 1)]
        later = [Stage(end - begin, self.trained_density(level)) for level, (begin, end) in enumerate(pairwise(ends))]
        return [Stage(ends[0], self.trained_density(0)), *later]

    def scoring_samples(self, level: int) -> int:
        """Those of them, at most, that are used for scores alone."""
        classes = len(self.images.source.manifest.classes)
        return search_of(self.recipe).scoring_samples(level, self.clock, classes)

    @property
    def clock(self) -> Clock:
        """The clock of one training in full length."""
        return self.recipe.training.clock(self.images.epoch_samples(self.recipe.training.batch_size))

    @property
    def levels(self) -> int:
        """The level of the last ticket."""
        return self.stages.levels

    def describe(self, cost: CostEstimate | None = None) -> str:
        """The resolved recipe and what it comes to: a table of two columns.

        Args:
            cost: What `estimate` gave; None leaves out what needs a speed.
        """
        recipe, stages, manifest = self.recipe, self.stages, self.images.true_labels.manifest
        clock, counts = self.clock, manifest.class_counts()
        after = (
            f", then {stages.cumulative_steps[2] - stages.cumulative_steps[1]:,} a level" if stages.levels > 1 else ""
        )
        first = "sparse" if stages.trained_sparse else "dense"
        most = "" if stages.exact else "at most "
        left = "as many as the search finds remain"
        if stages.survivors is not None:
            share = stages.survivors[-1] / self.num_prunable
            left = f"{stages.survivors[-1]:,} remain at level {self.levels}, a density of {share:.3%}"
        may = f"{self.num_prunable:,} prunable"
        if which := describe_layers(recipe.to_dict()):
            may = f"{self.num_prunable:,} of {self.num_weights:,} may be pruned, {which}"
        scoring = self.scoring_samples(self.levels)
        scored = f", {scoring:,} of them for scores" if scoring else ""
        labelled = self.images.labelled
        known = (
            {"labelled": f"{labelled.length:,} images, {labelled.labelled_per_batch(clock.batch_size)} a batch"}
            if labelled
            else {}
        )
        about = "about " if self.images.about else ""
        which = self.images.source.planned or f"hash {self.images.source.manifest.hash}"
        sizes = f"{min(counts):,} to {max(counts):,}"
        lines = recipe.describe() | {
            "run folder": self.run_dir.path,
            "images": f"{about}{len(manifest):,} of {self.images.full_size:,}, {which}",
            "classes": f"{len(manifest.classes):,}, of {about}{sizes} images",
            **known,
            "training": f"{clock.length} = {clock.total_steps:,} steps "
            f"= {clock.total_steps * clock.batch_size:,} samples",
            "W_k": f"after step {stages.rewind:,} = {stages.rewind * clock.batch_size:,} samples "
            f"= {stages.rewind / clock.total_steps:.1%} of training",
            "weights": f"{may}; {left}",
            "parameters": self._describe_parameters(),
            "steps": f"{stages.cumulative_steps[1]:,} {first}{after}; {most}{self.total_steps:,} in all "
            f"= {self.cumulative_samples(self.levels):,} samples{scored}",
            "numerics": str(self.numerics),
            "memory": self._describe_memory(),
        }
        if cost is not None:
            lines |= {name: value for name, value in cost.lines() if name != "memory"}
        width = max(map(len, lines)) + 2
        return "\n".join(f"{name:<{width}}{value}" for name, value in lines.items())

    def _describe_memory(self) -> str:
        """The memory that a training needs, beside what a GPU here has."""
        if self.memory_model is None:
            return "known only when it runs"
        device = DeviceMemory.of_device(torch.device("cuda")) if torch.cuda.is_available() else None
        needed = self.memory_model.estimate(self.micro_batch)
        return str(needed) if device is None else device.compare(needed)

    def _describe_parameters(self) -> str:
        """How many of the backbone's parameters the masks cover."""
        in_masks = self.num_prunable / self.num_parameters
        text = f"{self.num_parameters:,} in the backbone, {in_masks:.2%} of them in the masks"
        if self.stages.survivors is not None:
            whole = self.stages.survivors[-1] + self.num_parameters - self.num_prunable
            text = f"{text}; over all of them level {self.levels} has a density of {whole / self.num_parameters:.3%}"
        return f"{text}; dense matrices: {shorten_names(self.dense_matrices)}" if self.dense_matrices else text

    def provenance(self, weights: str, cost: SearchCost, numerics: str, rewind: int) -> dict[str, Any]:
        """Where a ticket comes from; nothing in it depends on the time of day, so a repeated search repeats the file.

        Args:
            weights: "initial" for W_0, "early" for W_k, "trained" for those that the level before ended with.
            cost: What the search has cost so far.
            numerics: How the trainings computed that led to it.
            rewind: The step whose weights these are.
        """
        forward = {} if cost.forward_images is None else {"search_forward_images": cost.forward_images}
        return {
            "dataset": self.recipe.data.name,
            **self.images.provenance(),
            "objective": self.recipe.task,
            "seed": self.recipe.seed,
            **({} if self.weights is None else {"init_hash": self.weights.digest}),
            "rewind_samples": rewind * self.recipe.training.batch_size,
            "weights": weights,
            "search_samples": cost.samples,
            **forward,
            "numerics": numerics,
            "versions": library_versions(),
            "commit": git_commit(),
            **({"parts": self.run_dir.parts} if self.run_dir.parts else {}),
        }

    def row_fields(self, ticket: Ticket) -> dict[str, Any]:
        """The fields that every row of the search has about a ticket, see `Row`."""
        recipe = self.recipe
        return {
            "run": self.run_dir.path.name,
            "recipe": ticket.record.family,
            "objective": recipe.task,
            "model": recipe.model,
            "source": recipe.data.name,
            "subset": recipe.data.subset,
            "subset_by": recipe.data.subset_by,
            "level": ticket.level,
            "density": ticket.mask.density,
            "within": describe_layers(ticket.recipe),
            "pattern": None if ticket.pattern is None else str(ticket.pattern),
            "ticket_hash": ticket.hash,
            "search_seed": recipe.seed,
            "init": ticket.record.init,
            "init_hash": ticket.provenance.get("init_hash"),
            "search": ticket.record.search_name,
            "settings": ticket.record.settings(),
            "rewind_samples": ticket.provenance["rewind_samples"],
            **collect_provenance(),
            "source_hash": self.images.source_hash,
            "data_hash": ticket.provenance["data_hash"],
            "precision": recipe.precision,
            "parts": self.run_dir.parts or None,
        }


def plan_search(
    recipe: Recipe,
    runtime: RuntimeConfig,
    out: Path,
    *,
    trial: bool = False,
    rewind_given: bool = False,
    batch_given: bool = True,
    dry_run: bool = False,
) -> SearchPlan:
    """Checks a recipe against the data, the network and the output folder.

    Args:
        recipe: The recipe as resolved from file and flags.
        runtime: Where the data lies, and how this machine computes.
        out: Folder of all runs.
        trial: Whether a length was given without a rewind point; one beyond the end is then moved into the training.
        rewind_given: Whether a rewind point was given. Else one that lies beyond the end of the training on a subset,
            or on one's own images, is moved into it, too.
        batch_given: Whether the batch was chosen for these images. Else one that is large beside a folder of one's own
            is made smaller, and the learning rate with it, see `batch_within`.
        dry_run: Whether the catalogue's counts take the place of images that are not here.

    Raises:
        BadInput: Naming what does not fit and the fix; nothing has been written.
    """
    recipe = resolve_precision(recipe, runtime)
    if (pretrained := resolve_pretrained(recipe.model, recipe.init, planned=dry_run)) is not None:
        recipe = replace(recipe, init=pretrained.name)
    images = TrainingImages.open(recipe, runtime, dry_run=dry_run)
    notes = [images.split.note_of_change(out)] if images.split else []
    lengths = {"trial": trial, "rewind_given": rewind_given}
    settled, notice = _settle_lengths(recipe, images, **lengths)
    if images.split and not batch_given and not _has_run(settled, images, out):
        fitted, note = batch_within(recipe, len(images.true_labels.manifest))
        settled, notice = _settle_lengths(fitted, images, **lengths)
        notes.append(note)
    recipe = settled
    clock = recipe.training.clock(images.epoch_samples(recipe.training.batch_size))
    search = search_of(recipe)
    training, objective = recipe.training, objective_of(recipe)
    search.check(training, objective)
    search.mask_learning(training, clock)
    backbone = _build_backbone(recipe, images)
    if training.layer_decay != 1:
        layer_scales(backbone, training.layer_decay)
    # Heads may have batch norm too, which shows when they are built.
    normalised, whole = bool(distributed.batchnorm_layers(backbone)), objective.needs_whole_batch
    micro_batch = runtime.micro_batch(
        training.batch_size, training.ghost_batch, objective.name, whole=whole, normalised=normalised
    )
    objective.check(micro_batch, len(images.views))
    objective.check_backbone(backbone, images.views)
    notes.append(objective.describe_copies(training.batch_size, len(images.true_labels.manifest)))
    named = search.with_dense_layers_named(backbone)
    if named != search:
        left = named.exclude[len(search.exclude) :]
        notes.append(f"layers that the pattern cannot be laid on stay dense, as by --exclude: {shorten_names(left)}")
        recipe, search = replace(recipe, search=named), named
    names = search.prunable_layers(backbone)
    coverage = MaskCoverage.complete()
    if recipe.model not in models.PAPER_MODELS:  # tests try those, so that a dry run need not
        coverage = MaskCoverage.measure(
            backbone, channels=images.source.dataset.channels, image_size=images.views[0].size
        )
    coverage.check(recipe.model, names)
    dense = Mask.ones_like(dict(backbone.named_parameters()), names)
    stages = search.stages(clock, dense)
    weights = sum(backbone.get_parameter(name).numel() for name in prunable_weights(backbone))
    data_hash = images.source.manifest.hash
    if images.source.planned:  # the hash of images that are not here is not known, but where they have been used
        data_hash = str(read_json_or_empty(out / recipe.key / "recipe.json").get("data_hash", data_hash))
    recipe = identify_images(recipe, images.identity, out, data_hash)
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    if pretrained is not None:
        if not pretrained.location:
            notes.append(f"{pretrained.name} is not here; a plan does without it, the search needs it")
        notes.append(describe_normalisation(pretrained, images))
        if not dry_run:
            pretrained = pretrained.fetch()
            pretrained.state_for(backbone, images.source.dataset.channels)  # which refuses what does not fit
    run_dir = RunDir(out, recipe, data_hash, init_hash=pretrained.digest if pretrained else "")
    numerics = Numerics.resolve(runtime, recipe.precision).for_training(
        stages.cumulative_steps[-1],
        size=state_size(backbone),
        steady=objective.cuda_graph_safe,
        ghost_batch=recipe.training.ghost_batch,
        files=images.source.images is None,
    )
    return SearchPlan(
        recipe,
        images,
        stages,
        run_dir,
        num_prunable=dense.total,
        num_weights=weights,
        num_parameters=parameters,
        dense_matrices=coverage.unprunable,
        notice=notice,
        micro_batch=micro_batch,
        numerics=numerics,
        weights=pretrained,
        notes=tuple(filter(None, notes)),
    )


def describe_normalisation(weights: Pretrained, images: TrainingImages) -> str:
    """Return a line on images that are normalised otherwise than those of the weights were; "" where they are alike.

    Args:
        weights: The weights that a search starts from.
        images: The images that it trains on.
    """
    dataset = images.source.dataset
    theirs, ours = (weights.mean, weights.std), (dataset.mean, dataset.std)
    if not weights.mean or all(
        abs(one - other) < _SAME_NORMALISATION
        for own, given in zip(theirs, ours, strict=True)
        for one, other in zip(own, given, strict=len(own) == len(given))
    ):
        return ""
    words = [
        "mean {} and deviation {}".format(*(" ".join(f"{value:g}" for value in each) for each in of))
        for of in (theirs, ours)
    ]
    return (
        f"{weights.name} was trained on images normalised by {words[0]}; those of {dataset.name} are by {words[1]}, in "
        "the search and under protocols alike"
    )


def _settle_lengths(recipe: Recipe, images: TrainingImages, *, trial: bool, rewind_given: bool) -> tuple[Recipe, str]:
    """The recipe with lengths that are held written out and W_k within the training, and a line where that moved it."""
    held = images.whole_epoch_samples(recipe.training.held_batch)
    if held is None and recipe.training.holds_all:
        held = images.epoch_samples(recipe.training.held_batch)
    recipe = recipe.hold_lengths(held)
    clock = recipe.training.clock(images.epoch_samples(recipe.training.batch_size))
    whole = images.whole_epoch_samples(clock.batch_size)
    if whole is None and images.labelled is not None and images.labelled.length < len(images.true_labels.manifest):
        whole = clock.set_size  # few labels make an epoch as short as few images do
    if whole is None and images.split:
        whole = clock.set_size  # the recipe's rewind point is that of other images
    return rewound_within(recipe, clock, trial=trial, whole=None if rewind_given else whole)


_SAME_NORMALISATION = 0.02
"""What a mean or a deviation of pixels in [0, 1] may differ by: 5 of 256 steps, as ImageNet's of several authors do."""
LEAST_STEPS_PER_EPOCH = 8
"""Batches that a folder of one's own has at least where its batch is not given: as 1% of ImageNet has of 1,536 images,
the smallest part in "Finding Winning Tickets with Limited (or No) Supervision"."""


def batch_within(recipe: Recipe, images: int) -> tuple[Recipe, str]:
    """Return the recipe with a batch of at most an eighth of the images and the rate for it, and a line that says so.

    The rate falls with the batch as `TrainConfig.scaled_to_batch` has it. The batch is a multiple of those whose
    statistics batch norm takes together, or else a power of 2.

    Args:
        recipe: The recipe, with the batch and the rate of its reference.
        images: Number of images that are trained on.
    """
    old = recipe.training
    most, ghost = max(2, images // LEAST_STEPS_PER_EPOCH), old.ghost_batch
    if old.batch_size <= most:
        return recipe, ""
    batch = most // ghost * ghost if ghost is not None and ghost <= most else 2 ** (most.bit_length() - 1)
    new = replace(old.scaled_to_batch(batch), batch_size=batch)
    rate = f"lr {new.optimizer.lr}, in proportion, in place of {old.optimizer.lr}"
    if new.optimizer.lr == old.optimizer.lr:
        rate = f"{type(new.optimizer).__name__}'s lr {new.optimizer.lr} as it is"
    why = f"{images:,} images are few for batches of {old.batch_size:,}"
    return replace(recipe, training=new), f"{why}: this search has --batch-size {batch} and {rate}"


def _has_run(recipe: Recipe, images: TrainingImages, out: Path) -> bool:
    """Whether a run of this very recipe on these images is there, of a version that left the batch as it is."""
    recipe = identify_images(recipe, images.identity, out, images.source.manifest.hash)
    return bool(read_json_or_empty(out / recipe.key / "recipe.json"))


def _build_backbone(recipe: Recipe, images: TrainingImages) -> nn.Module:
    sizes, channels = {view.size for view in images.views}, images.source.dataset.channels
    first = images.views[0].size
    # Of the papers' networks only names and shapes are needed here; weights are drawn when they are trained.
    with ShapeOnlyMode() if recipe.model in models.PAPER_MODELS else nullcontext():
        backbone = models.create_model(
            recipe.model, channels=channels, image_size=first, drop_path=recipe.training.drop_path
        )
        refused = [
            size
            for size in sorted(sizes - {first})
            if not models.accepts_image_size(backbone, channels=channels, image_size=size)
        ]
    if refused:
        raise BadInput(
            f"{recipe.model} cannot take views of {refused[0]} pixels beside those of {first}; give --local-crops 0, "
            "a larger --image-size, or a --model that takes several sizes: one that pools globally, or timm's ViT such "
            "as vit_small_patch16_224"
        )
    return backbone
