"""A search that is checked and counted before anything is written, and the images that it trains on."""

import dataclasses
import hashlib
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sslticket import models
from sslticket.config.recipe import Data, ImageIdentity, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import Clock
from sslticket.data import source
from sslticket.data.augment import View
from sslticket.data.datasets.locate import MissingSplit
from sslticket.data.loader import LabelledStream
from sslticket.data.manifest import (
    Manifest,
    half_provenance,
    hide_labels_except,
    labelled_then_unlabelled,
    take_half,
    with_shuffled_labels,
)
from sslticket.data.source import DataSource, convert_channels, open_split
from sslticket.data.unreadable import log_empty_classes, log_left_out
from sslticket.errors import BadInput
from sslticket.objectives import distributed
from sslticket.objectives.base import objective_of
from sslticket.pruning.forward_graph import MaskCoverage
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import describe_layers, prunable_weights, shorten_names
from sslticket.results.run_dir import RunDir, identify_images
from sslticket.search.base import Search, Stages, search_of
from sslticket.training.memory import DeviceMemory, MemoryModel, ShapeOnlyMode, UnknownMemory, resident_bytes
from sslticket.training.network import MaskedNetwork
from sslticket.training.numerics import Numerics, resolve_precision, state_size


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """What a search trains on.

    Attributes:
        source: the training images, with the labels that the objective may know.
        true_labels: the subset with its true labels, each image once; for looking on, never for training.
        full_size: images in the training set before the subset.
        source_hash: of the whole training set, before half, subset, labels and shuffling, so of no seed.
        labelled: the labelled stream, where the objective draws from two.
        views: what the network is shown of each image.
        permutation: where labels were shuffled: seed, share and hash; for a ticket's provenance.
        half: of one half of the set: which, seed, images and hash; for a ticket's provenance.
        identity: what tells these images from others, where the settings do not; for the recipe.
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

    @classmethod
    def open(cls, recipe: Recipe, machine: RuntimeConfig) -> "TrainingImages":
        """Open the training split and apply what the recipe says of it.

        Raises:
            BadInput: if the data is missing or not the official one, a class is left empty, or the objective cannot
                work with these labels.
        """
        data, objective = recipe.data, objective_of(recipe)
        opened = _open_training_split(data, machine)
        log_empty_classes(opened.manifest)
        log_left_out(opened.manifest, opened.left_out)
        origin = _image_identity(data, opened)
        opened = opened if data.channels is None else convert_channels(opened, data.channels)
        one = opened.manifest if data.half is None else take_half(opened.manifest, data.half)
        true = _take_subset(recipe, one)
        manifest, labelled, permutation = true, None, None
        if data.shuffle_labels:
            manifest = with_shuffled_labels(true, data.shuffle_labels, seed=recipe.seeds.labels)
            digest = hashlib.sha256(manifest.labels.astype("<i8").tobytes()).hexdigest()[:16]
            permutation = {"seed": recipe.seeds.labels, "share": data.shuffle_labels, "hash": digest}
        known = _rows_with_labels(recipe, manifest, true)
        if objective.labelled_fraction is not None:
            labelled = LabelledStream(len(known), objective.labelled_fraction)
            manifest = labelled_then_unlabelled(manifest, known)
        elif len(known) < len(manifest):
            if objective.needs_labels:
                raise BadInput(
                    f"{objective.name} needs every image's label, and {len(known):,} of {len(manifest):,} are known; "
                    "give --subset in place of --labels, or an objective that does without labels"
                )
            manifest = hide_labels_except(manifest, known)
        views = recipe.views(opened.dataset.train_view)
        source, with_truth = (replace(opened, manifest=which) for which in (manifest, true))
        told = None if data.half is None else half_provenance(one, data.half)
        whole = opened.manifest
        return cls(source, with_truth, len(whole), whole.hash, labelled, views, permutation, told, origin)

    def epoch_samples(self, batch_size: int) -> int:
        """Samples in an epoch: the images, or what two streams show while the labelled one is seen once."""
        return len(self.source.manifest) if self.labelled is None else self.labelled.samples_per_epoch(batch_size)


def _open_training_split(data: Data, machine: RuntimeConfig) -> DataSource:
    """The whole training split; it and the evaluation split have the official counts, or the recipe names a part."""
    opened = [open_split(data.dataset, "train", machine.data_root)]
    if opened[0].dataset.image_counts is not None:
        with suppress(MissingSplit):  # a search can do without
            opened.append(open_split(data.dataset, "eval", machine.data_root))
    return source.check_complete(opened, data.part)[0]


def _image_identity(data: Data, opened: DataSource) -> ImageIdentity | None:
    """Of one's own images, of a part of a set, and of images that a list chooses: others may have the same settings."""
    lists = [path for path in (data.subset_list, data.labels_list) if path is not None]
    own = opened.dataset.image_counts is None
    if not own and data.part is None and not lists:
        return None
    return ImageIdentity(
        folder=source.own_folder_name(opened) if own else None, images_hash=source.hash_images(opened, lists)
    )


def _take_subset(recipe: Recipe, manifest: Manifest) -> Manifest:
    data = recipe.data
    if data.subset_list is not None:
        return manifest.restrict_to_list(data.subset_list)
    if data.shots is not None:
        return manifest.take_shots(data.shots, seed=recipe.seeds.subset)
    return manifest.subset(data.subset, by=data.subset_by, seed=recipe.seeds.subset) if data.subset < 1 else manifest


def _rows_with_labels(recipe: Recipe, manifest: Manifest, true: Manifest) -> np.ndarray:
    """Rows whose labels may be used: under one seed, those that a subset of this size has."""
    data = recipe.data
    if data.labels_list is not None:
        return true.rows_in_list(data.labels_list)  # a list may tell true labels too, whatever becomes of them
    if data.labels < 1:
        return manifest.stratified_rows(data.labels, recipe.seeds.subset, "--labels")
    return np.arange(len(manifest))


@dataclass(frozen=True)
class SearchPlan:
    """A search that has passed every check and has not written anything yet.

    Attributes:
        recipe: as resolved from file and flags.
        images: what is trained on.
        stages: steps and survivors of every level.
        run_dir: where the tickets will lie.
        num_prunable: number of weights that may be pruned.
        num_weights: how many weights of the network are of kinds that may be pruned.
        num_parameters: of the backbone, in all.
        dense_matrices: matrices that activations are multiplied by and that no search prunes, by name.
        notice: what was adapted to the flags, "" for nothing.
        micro_batch: source images that go through the network at once, in one process.
        numerics: how it computes on this machine.
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

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all its trainings together, at most."""
        return self.stages.cumulative_steps[-1]

    def build_network(self, kind: type[MaskedNetwork] = MaskedNetwork) -> MaskedNetwork:
        """The net that is trained, of any kind of net, drawn anew."""
        return kind.build(
            self.recipe.model,
            objective_of(self.recipe),
            channels=self.images.source.dataset.channels,
            image_size=self.images.views[0].size,
            classes=len(self.images.source.manifest.classes),
            seed=self.recipe.seeds.init,
            gated=search_of(self.recipe).prunable_layers,
            learning=search_of(self.recipe).mask_learning(self.recipe.training, self.clock),
        )

    @cached_property
    def memory_model(self) -> MemoryModel | None:
        """What a training of the search needs of its device's memory; None where that shows only when it runs."""
        images = self.images
        try:
            return MemoryModel.measure(
                self.build_network,
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

    def cumulative_samples(self, level: int) -> int:
        """Samples that the search has seen, at most, when it knows the ticket of this level."""
        return self.stages.cumulative_steps[level] * self.recipe.training.batch_size + self.scoring_samples(level)

    def scoring_samples(self, level: int) -> int:
        """Those of them, at most, that are looked at for scores alone."""
        classes = len(self.images.source.manifest.classes)
        return search_of(self.recipe).scoring_samples(level, self.clock, classes)

    @property
    def clock(self) -> Clock:
        """Of one training, in full length."""
        return self.recipe.training.clock(self.images.epoch_samples(self.recipe.training.batch_size))

    @property
    def levels(self) -> int:
        """The level of the last ticket."""
        return self.stages.levels

    def describe(self) -> str:
        """The resolved recipe and what it comes to, for a person."""
        recipe, stages, manifest = self.recipe, self.stages, self.images.true_labels.manifest
        clock, counts = self.clock, manifest.class_counts()
        after = (
            f", then {stages.cumulative_steps[2] - stages.cumulative_steps[1]:,} a level" if stages.levels > 1 else ""
        )
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
        lines = recipe.describe() | {
            "run folder": self.run_dir.path,
            "images": f"{len(manifest):,} of {self.images.full_size:,}, hash {self.images.source.manifest.hash}",
            "classes": f"{len(manifest.classes):,}, of {min(counts):,} to {max(counts):,} images",
            **known,
            "training": f"{clock.length} = {clock.total_steps:,} steps = {clock.total_steps * clock.batch_size:,} samples",
            "W_k": f"after step {stages.rewind:,} = {stages.rewind * clock.batch_size:,} samples "
            f"= {stages.rewind / clock.total_steps:.1%} of training",
            "weights": f"{may}; {left}",
            "parameters": self._describe_parameters(),
            "steps": f"{stages.cumulative_steps[1]:,} dense{after}; {most}{self.total_steps:,} in all "
            f"= {self.cumulative_samples(self.levels):,} samples{scored}",
            "numerics": str(self.numerics),
            "memory": self._describe_memory(),
        }
        width = max(map(len, lines)) + 2
        return "\n".join(f"{name:<{width}}{value}" for name, value in lines.items())

    def _describe_memory(self) -> str:
        """What a training takes of a device, beside what a GPU here has."""
        if self.memory_model is None:
            return "known only when it runs"
        room = DeviceMemory.of_device(torch.device("cuda")) if torch.cuda.is_available() else None
        need = self.memory_model.estimate(self.micro_batch)
        return str(need) if room is None else room.compare(need)

    def _describe_parameters(self) -> str:
        """How much of the whole backbone a mask is about."""
        told = f"{self.num_parameters:,} in the backbone, {self.num_prunable / self.num_parameters:.2%} of them in the masks"
        if self.stages.survivors is not None:
            whole = self.stages.survivors[-1] + self.num_parameters - self.num_prunable
            told = f"{told}; over all of them level {self.levels} has a density of {whole / self.num_parameters:.3%}"
        return f"{told}; dense matrices: {shorten_names(self.dense_matrices)}" if self.dense_matrices else told


def plan_search(recipe: Recipe, machine: RuntimeConfig, out: Path, *, trial: bool = False) -> SearchPlan:
    """Check a recipe against the data, the network and the output folder.

    Args:
        recipe: as resolved from file and flags.
        machine: where the data lies, and how it computes.
        out: folder of all runs.
        trial: a length was given without a rewind point; one that lies beyond the end is then brought within.

    Raises:
        BadInput: naming what does not fit and the fix; nothing has been written.
    """
    recipe = resolve_precision(recipe, machine)
    images = TrainingImages.open(recipe, machine)
    clock = recipe.training.clock(images.epoch_samples(recipe.training.batch_size))
    search = search_of(recipe).shortened_for_trial(clock) if trial else search_of(recipe)
    changes = _changed_flags(search_of(recipe), search)
    recipe = dataclasses.replace(recipe, search=search)
    search.check(recipe.training, objective_of(recipe))
    search.mask_learning(recipe.training, clock)
    backbone = _build_backbone(recipe, images)
    fit, objective = recipe.training, objective_of(recipe)
    # Heads may have batch norm too, which shows when they are built.
    normalised, whole = bool(distributed.batchnorm_layers(backbone)), objective.needs_whole_batch
    part = machine.micro_batch(fit.batch_size, fit.ghost_batch, objective.name, whole=whole, normalised=normalised)
    objective.check(part, len(images.views))
    names = search.prunable_layers(backbone)
    acting = MaskCoverage.complete()
    if recipe.model not in models.PAPER_MODELS:  # tests try those, so that a dry run need not
        acting = MaskCoverage.measure(
            backbone, channels=images.source.dataset.channels, image_size=images.views[0].size
        )
    acting.check(recipe.model, names)
    dense = Mask.ones_like(dict(backbone.named_parameters()), names)
    stages = search.stages(clock, dense)
    weights = sum(backbone.get_parameter(name).numel() for name in prunable_weights(backbone))
    notice = (
        f"{clock.length} is short: this trial has {changes} and takes W_k at step {stages.rewind}" if changes else ""
    )
    recipe = identify_images(recipe, images.identity, out, images.source.manifest.hash)
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    folder = RunDir(out, recipe, images.source.manifest.hash)
    numerics = Numerics.resolve(machine, recipe.precision).for_training(
        stages.cumulative_steps[-1],
        size=state_size(backbone),
        steady=objective_of(recipe).cuda_graph_safe,
        ghost_batch=recipe.training.ghost_batch,
    )
    told = (dense.total, weights, parameters, acting.unprunable, notice)
    return SearchPlan(recipe, images, stages, folder, *told, part, numerics)


def _build_backbone(recipe: Recipe, images: TrainingImages) -> nn.Module:
    sizes, channels = {view.size for view in images.views}, images.source.dataset.channels
    first = images.views[0].size
    # Of the papers' networks only names and shapes are asked here; weights are drawn when they are trained.
    with ShapeOnlyMode() if recipe.model in models.PAPER_MODELS else nullcontext():
        backbone = models.create_model(recipe.model, channels=channels, image_size=first)
        refused = [
            size
            for size in sorted(sizes - {first})
            if not models.accepts_image_size(backbone, channels=channels, image_size=size)
        ]
    if refused:
        raise BadInput(
            f"{recipe.model} cannot take views of {refused[0]} pixels beside those of {first}; give --local-crops 0, "
            "a larger --image-size, or a --model that pools globally"
        )
    return backbone


def _changed_flags(given: Search, taken: Search) -> str:
    """The flags of a search that a trial changes, with what they were."""
    pairs = [
        (field.name.replace("_", "-"), getattr(given, field.name), getattr(taken, field.name))
        for field in dataclasses.fields(given)
    ]
    return " and ".join(f"--{name} {new} in place of {old}" for name, old, new in pairs if old != new)
