"""A search that is checked and counted before anything is written."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from sslticket import models
from sslticket.errors import BadInput
from sslticket.machine import Machine
from sslticket.masking.mask import prunable
from sslticket.recipe import Recipe, flat
from sslticket.search.base import Stages
from sslticket.search.folder import RunFolder
from sslticket.search.images import Images
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
        notice: what was adapted to the flags, "" for nothing.
    """

    recipe: Recipe
    images: Images
    stages: Stages
    folder: RunFolder
    prunable: int
    notice: str

    def samples(self, level: int) -> int:
        """Samples that the search has seen when it knows the ticket of this level."""
        return self.stages.cost(level) * self.recipe.fit.batch_size

    @property
    def clock(self) -> Clock:
        """Of one training, in full length."""
        return self.recipe.fit.clock(self.images.epoch(self.recipe.fit.batch_size))

    @property
    def levels(self) -> int:
        """The level of the last ticket."""
        return len(self.stages.kept) - 1

    def text(self) -> str:
        """The resolved recipe and what it comes to, for a person."""
        recipe, stages, manifest = self.recipe, self.stages, self.images.true.manifest
        clock, counts = self.clock, manifest.counts()
        steps = stages.cost(self.levels)
        after = f", then {stages.steps[1]:,} a level" if len(stages.steps) > 1 else ""
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
            "weights": f"{self.prunable:,} prunable; {stages.kept[-1]:,} remain at level {self.levels}, "
            f"a density of {stages.kept[-1] / self.prunable:.3%}",
            "steps": f"{stages.steps[0]:,} dense{after}; {steps:,} in all = {self.samples(self.levels):,} samples",
        }
        width = max(map(len, lines)) + 2
        return "\n".join(f"{name:<{width}}{value}" for name, value in lines.items())


def plan(recipe: Recipe, machine: Machine, out: Path, *, trial: bool = False) -> Plan:
    """Check a recipe against the data, the network and the output folder.

    Args:
        recipe: as resolved from file and flags.
        machine: where the data lies.
        out: folder of all runs.
        trial: a length was given without a rewind point; one that lies beyond the end is then brought within.

    Raises:
        BadInput: naming what does not fit and the fix; nothing has been written.
    """
    images = Images.of(recipe, machine)
    recipe.objective.check(machine.part(recipe.fit.batch_size), len(images.views))
    clock = recipe.fit.clock(images.epoch(recipe.fit.batch_size))
    search = recipe.search.brought_within(clock) if trial else recipe.search
    moved = search != recipe.search
    recipe = dataclasses.replace(recipe, search=search)
    count = _prunable_weights(recipe, images)
    stages = search.stages(clock, count)
    notice = (
        f"the rewind point lies beyond {clock.length}; this trial takes W_k at step {stages.rewind}" if moved else ""
    )
    folder = RunFolder(out, recipe, images.source.manifest.hash)
    return Plan(recipe, images, stages, folder, count, notice)


def _prunable_weights(recipe: Recipe, images: Images) -> int:
    sizes, channels = {view.size for view in images.views}, images.source.dataset.channels
    first = images.views[0].size
    backbone = models.build(recipe.model, channels=channels, image_size=first)
    for size in sorted(sizes - {first}):
        if not models.takes(backbone, channels=channels, image_size=size):
            raise BadInput(
                f"{recipe.model} cannot take views of {size} pixels beside those of {first}; give --local-crops 0, "
                "a larger --image-size, or a --model that pools globally"
            )
    return sum(backbone.get_parameter(name).numel() for name in prunable(backbone))
