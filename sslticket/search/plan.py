"""A search that is checked and counted before anything is written."""

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from sslticket import models
from sslticket.errors import BadInput
from sslticket.machine import Machine
from sslticket.masking.acting import Acting
from sslticket.masking.layers import described, shortened
from sslticket.masking.mask import Mask, prunable
from sslticket.objectives import batchnorm
from sslticket.recipe import Recipe, flat
from sslticket.search.base import Search, Stages
from sslticket.search.folder import RunFolder, identified
from sslticket.search.images import Images
from sslticket.training.blank import Blank
from sslticket.training.memory import Needs, Room, Unmeasured, resident
from sslticket.training.net import Net
from sslticket.training.numerics import Numerics, resolved, size_of
from sslticket.units import Clock


@dataclass(frozen=True)
class Plan:
    """A search that has passed every check and has not written anything yet.

    Attributes:
        recipe: as resolved from file and flags.
        images: what is trained on.
        stages: steps and survivors of every level.
        folder: where the tickets will lie.
        prunable: number of weights that may be pruned.
        weights: how many weights of the network are of kinds that may be pruned.
        parameters: of the backbone, in all.
        dense: matrices that activations are multiplied by and that no search prunes, by name.
        notice: what was adapted to the flags, "" for nothing.
        part: source images that go through the network at once, in one process.
        numerics: how it computes on this machine.
    """

    recipe: Recipe
    images: Images
    stages: Stages
    folder: RunFolder
    prunable: int
    weights: int
    parameters: int
    dense: tuple[str, ...]
    notice: str
    part: int
    numerics: Numerics

    @property
    def steps(self) -> int:
        """Optimiser steps of all its trainings together, at most."""
        return self.stages.costs[-1]

    def net(self, kind: type[Net] = Net) -> Net:
        """The net that is trained, of any kind of net, drawn anew."""
        return kind.build(
            self.recipe.model,
            self.recipe.objective,
            channels=self.images.source.dataset.channels,
            image_size=self.images.views[0].size,
            classes=len(self.images.source.manifest.classes),
            seed=self.recipe.seeds.init,
            gated=self.recipe.search.layers,
            learning=self.recipe.search.learning(self.recipe.fit, self.clock),
        )

    @cached_property
    def needs(self) -> Needs | None:
        """What a training of the search needs of its device's memory; None where that shows only when it runs."""
        images = self.images
        try:
            return Needs.of(
                self.net,
                images.views,
                self.recipe.fit,
                self.numerics.precision,
                channels=images.source.dataset.channels,
                labelled=images.labelled,
                resident=resident(images.source, images.views),
                gpu=torch.cuda.is_available(),
            )
        except Unmeasured:
            return None

    def samples(self, level: int) -> int:
        """Samples that the search has seen, at most, when it knows the ticket of this level."""
        return self.stages.costs[level] * self.recipe.fit.batch_size + self.scoring_samples(level)

    def scoring_samples(self, level: int) -> int:
        """Those of them, at most, that are looked at for scores alone."""
        classes = len(self.images.source.manifest.classes)
        return self.recipe.search.scoring_samples(level, self.clock, classes)

    @property
    def clock(self) -> Clock:
        """Of one training, in full length."""
        return self.recipe.fit.clock(self.images.epoch(self.recipe.fit.batch_size))

    @property
    def levels(self) -> int:
        """The level of the last ticket."""
        return self.stages.levels

    def text(self) -> str:
        """The resolved recipe and what it comes to, for a person."""
        recipe, stages, manifest = self.recipe, self.stages, self.images.true.manifest
        clock, counts = self.clock, manifest.counts()
        after = f", then {stages.costs[2] - stages.costs[1]:,} a level" if stages.levels > 1 else ""
        most = "" if stages.exact else "at most "
        left = "as many as the search finds remain"
        if stages.kept is not None:
            share = stages.kept[-1] / self.prunable
            left = f"{stages.kept[-1]:,} remain at level {self.levels}, a density of {share:.3%}"
        may = f"{self.prunable:,} prunable"
        if which := described(recipe.to_dict()):
            may = f"{self.prunable:,} of {self.weights:,} may be pruned, {which}"
        scoring = self.scoring_samples(self.levels)
        scored = f", {scoring:,} of them for scores" if scoring else ""
        labelled = self.images.labelled
        known = (
            {"labelled": f"{labelled.length:,} images, {labelled.places(clock.batch_size)} a batch"} if labelled else {}
        )
        lines = dict(flat(recipe.to_dict())) | {
            "run folder": self.folder.path,
            "images": f"{len(manifest):,} of {self.images.whole:,}, hash {self.images.source.manifest.hash}",
            "classes": f"{len(manifest.classes):,}, of {min(counts):,} to {max(counts):,} images",
            **known,
            "training": f"{clock.length} = {clock.total:,} steps = {clock.total * clock.batch_size:,} samples",
            "W_k": f"after step {stages.rewind:,} = {stages.rewind * clock.batch_size:,} samples "
            f"= {stages.rewind / clock.total:.1%} of training",
            "weights": f"{may}; {left}",
            "parameters": self._parameters(),
            "steps": f"{stages.costs[1]:,} dense{after}; {most}{self.steps:,} in all "
            f"= {self.samples(self.levels):,} samples{scored}",
            "numerics": str(self.numerics),
            "memory": self._memory(),
        }
        width = max(map(len, lines)) + 2
        return "\n".join(f"{name:<{width}}{value}" for name, value in lines.items())

    def _memory(self) -> str:
        """What a training takes of a device, beside what a GPU here has."""
        if self.needs is None:
            return "known only when it runs"
        room = Room.on(torch.device("cuda")) if torch.cuda.is_available() else None
        need = self.needs.need(self.part)
        return str(need) if room is None else room.beside(need)

    def _parameters(self) -> str:
        """How much of the whole backbone a mask is about."""
        told = f"{self.parameters:,} in the backbone, {self.prunable / self.parameters:.2%} of them in the masks"
        if self.stages.kept is not None:
            whole = self.stages.kept[-1] + self.parameters - self.prunable
            told = f"{told}; over all of them level {self.levels} has a density of {whole / self.parameters:.3%}"
        return f"{told}; dense matrices: {shortened(self.dense)}" if self.dense else told


def plan(recipe: Recipe, machine: Machine, out: Path, *, trial: bool = False) -> Plan:
    """Check a recipe against the data, the network and the output folder.

    Args:
        recipe: as resolved from file and flags.
        machine: where the data lies, and how it computes.
        out: folder of all runs.
        trial: a length was given without a rewind point; one that lies beyond the end is then brought within.

    Raises:
        BadInput: naming what does not fit and the fix; nothing has been written.
    """
    recipe = resolved(recipe, machine)
    images = Images.of(recipe, machine)
    clock = recipe.fit.clock(images.epoch(recipe.fit.batch_size))
    search = recipe.search.brought_within(clock) if trial else recipe.search
    changes = _changes(recipe.search, search)
    recipe = dataclasses.replace(recipe, search=search)
    search.check(recipe.fit, recipe.objective)
    search.learning(recipe.fit, clock)
    backbone = _backbone(recipe, images)
    fit, objective = recipe.fit, recipe.objective
    # Heads may have batch norm too, which shows when they are built.
    normalised, whole = bool(batchnorm.layers(backbone)), objective.whole_batch
    part = machine.part(fit.batch_size, fit.ghost_batch, objective.name, whole=whole, normalised=normalised)
    objective.check(part, len(images.views))
    names = search.layers(backbone)
    acting = Acting.whole()
    if recipe.model not in models.KNOWN:  # tests try those, so that a dry run need not
        acting = Acting.of(backbone, channels=images.source.dataset.channels, image_size=images.views[0].size)
    acting.check(recipe.model, names)
    dense = Mask.ones_like(dict(backbone.named_parameters()), names)
    stages = search.stages(clock, dense)
    weights = sum(backbone.get_parameter(name).numel() for name in prunable(backbone))
    notice = (
        f"{clock.length} is short: this trial has {changes} and takes W_k at step {stages.rewind}" if changes else ""
    )
    recipe = identified(recipe, images.origin, out, images.source.manifest.hash)
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    folder = RunFolder(out, recipe, images.source.manifest.hash)
    numerics = Numerics.of(machine, recipe.precision).over(
        stages.costs[-1],
        size=size_of(backbone),
        steady=recipe.objective.steady,
        ghost_batch=recipe.fit.ghost_batch,
    )
    told = (dense.total, weights, parameters, acting.dense, notice)
    return Plan(recipe, images, stages, folder, *told, part, numerics)


def _backbone(recipe: Recipe, images: Images) -> nn.Module:
    sizes, channels = {view.size for view in images.views}, images.source.dataset.channels
    first = images.views[0].size
    # Of the papers' networks only names and shapes are asked here; weights are drawn when they are trained.
    with Blank() if recipe.model in models.KNOWN else nullcontext():
        backbone = models.build(recipe.model, channels=channels, image_size=first)
        refused = [
            size for size in sorted(sizes - {first}) if not models.takes(backbone, channels=channels, image_size=size)
        ]
    if refused:
        raise BadInput(
            f"{recipe.model} cannot take views of {refused[0]} pixels beside those of {first}; give --local-crops 0, "
            "a larger --image-size, or a --model that pools globally"
        )
    return backbone


def _changes(given: Search, taken: Search) -> str:
    """The flags of a search that a trial changes, with what they were."""
    pairs = [
        (field.name.replace("_", "-"), getattr(given, field.name), getattr(taken, field.name))
        for field in dataclasses.fields(given)
    ]
    return " and ".join(f"--{name} {new} in place of {old}" for name, old, new in pairs if old != new)
