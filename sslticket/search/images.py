"""The images that a recipe's tickets are found on: subset, known labels, shuffled labels."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sslticket.data import halves, labels, parts
from sslticket.data.bad import name_empty, name_left_out
from sslticket.data.channels import in_channels
from sslticket.data.manifest import Manifest
from sslticket.data.opening import Source, open_split
from sslticket.data.order import Labelled
from sslticket.data.places import MissingSplit
from sslticket.data.views import View
from sslticket.errors import BadInput
from sslticket.machine import Machine
from sslticket.recipe import Data, Origin, Recipe


@dataclass(frozen=True, eq=False)
class Images:
    """What a search trains on.

    Attributes:
        source: the training images, with the labels that the objective may know.
        true: the subset with its true labels, each image once; for looking on, never for training.
        whole: images in the training set before the subset.
        source_hash: of the whole training set, before half, subset, labels and shuffling, so of no seed.
        labelled: the labelled stream, where the objective draws from two.
        views: what the network is shown of each image.
        permutation: where labels were shuffled: seed, share and hash; for a ticket's provenance.
        half: of one half of the set: which, seed, images and hash; for a ticket's provenance.
        origin: what tells these images from others, where the settings do not; for the recipe.
    """

    source: Source
    true: Source
    whole: int
    source_hash: str
    labelled: Labelled | None
    views: tuple[View, ...]
    permutation: dict[str, Any] | None
    half: dict[str, Any] | None = None
    origin: Origin | None = None

    @classmethod
    def of(cls, recipe: Recipe, machine: Machine) -> "Images":
        """Open the training split and apply what the recipe says of it.

        Raises:
            BadInput: if the data is missing or not the official one, a class is left empty, or the objective cannot
                work with these labels.
        """
        data, objective = recipe.data, recipe.objective
        opened = _opened(data, machine)
        name_empty(opened.manifest)
        name_left_out(opened.manifest, opened.left_out)
        origin = _origin(data, opened)
        opened = opened if data.channels is None else in_channels(opened, data.channels)
        one = opened.manifest if data.half is None else halves.half(opened.manifest, data.half)
        true = _subset(recipe, one)
        manifest, labelled, permutation = true, None, None
        if data.shuffle_labels:
            manifest = labels.shuffled(true, data.shuffle_labels, seed=recipe.seeds.labels)
            digest = hashlib.sha256(manifest.labels.astype("<i8").tobytes()).hexdigest()[:16]
            permutation = {"seed": recipe.seeds.labels, "share": data.shuffle_labels, "hash": digest}
        known = _known(recipe, manifest, true)
        if objective.labelled_share is not None:
            labelled = Labelled(len(known), objective.labelled_share)
            manifest = labels.two_streams(manifest, known)
        elif len(known) < len(manifest):
            if objective.needs_labels:
                raise BadInput(
                    f"{objective.name} needs every image's label, and {len(known):,} of {len(manifest):,} are known; "
                    "give --subset in place of --labels, or an objective that does without labels"
                )
            manifest = labels.only(manifest, known)
        views = recipe.views(opened.dataset.train)
        source, with_truth = (replace(opened, manifest=which) for which in (manifest, true))
        told = None if data.half is None else halves.told(one, data.half)
        whole = opened.manifest
        return cls(source, with_truth, len(whole), whole.hash, labelled, views, permutation, told, origin)

    def epoch(self, batch_size: int) -> int:
        """Samples in an epoch: the images, or what two streams show while the labelled one is seen once."""
        return len(self.source.manifest) if self.labelled is None else self.labelled.epoch(batch_size)


def _opened(data: Data, machine: Machine) -> Source:
    """The whole training split; it and the evaluation split have the official counts, or the recipe names a part."""
    opened = [open_split(data.dataset, "train", machine.data_root)]
    if opened[0].dataset.images is not None:
        with suppress(MissingSplit):  # a search can do without
            opened.append(open_split(data.dataset, "eval", machine.data_root))
    return parts.checked(opened, data.part)[0]


def _origin(data: Data, opened: Source) -> Origin | None:
    """Of one's own images, of a part of a set, and of images that a list chooses: others may have the same settings."""
    lists = [path for path in (data.subset_list, data.labels_list) if path is not None]
    own = opened.dataset.images is None
    if not own and data.part is None and not lists:
        return None
    return Origin(folder=parts.folder_name(opened) if own else None, images_hash=parts.images_hash(opened, lists))


def _subset(recipe: Recipe, manifest: Manifest) -> Manifest:
    data = recipe.data
    if data.subset_list is not None:
        return manifest.restricted_to(data.subset_list)
    if data.shots is not None:
        return manifest.shots(data.shots, seed=recipe.seeds.subset)
    return manifest.subset(data.subset, by=data.subset_by, seed=recipe.seeds.subset) if data.subset < 1 else manifest


def _known(recipe: Recipe, manifest: Manifest, true: Manifest) -> np.ndarray:
    """Rows whose labels may be used: under one seed, those that a subset of this size has."""
    data = recipe.data
    if data.labels_list is not None:
        return true.listed(data.labels_list)  # a list may tell true labels too, whatever becomes of them
    if data.labels < 1:
        return manifest.stratified(data.labels, recipe.seeds.subset, "--labels")
    return np.arange(len(manifest))
