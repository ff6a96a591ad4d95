"""The list of a data set's images and their labels.

Subsets, halves, and hidden or shuffled labels are operations on this list; none of them touches an image.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd

from sslticket.data import subset_lists
from sslticket.data.datasets.base import Dataset, Split, display_name
from sslticket.errors import BadInput
from sslticket.seeds import seeded_generator

log = logging.getLogger("sslticket")

SubsetBy = Literal["samples", "random", "classes"]
"""What a fraction is taken of: each class's images, all images whatever their labels, or the classes."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """Which images there are, in order, and what they show.

    Attributes:
        frame: One row per image: `label` int64, -1 where it is hidden; `item` int64, its position in the image array,
            where there is one; `file`, its path relative to `root`, where it has one; `archive`, `offset` and `size`,
            int64, the bytes of one of the `archives` that it is, where it is inside one.
        classes: Names of the classes, by label.
        dataset: Name in the catalogue, with the half's letter where it is one.
        split: "train" or "eval".
        root: Folder, or archive, that `file` is relative to; None for arrays.
        archives: Tar files that the images are in; none where they are files of their own.
        preprocessing: What was done to the images, such as resizing; "" for the images as they are published.
        part: What the user calls these images, where they are not the whole official set.
    """

    frame: pd.DataFrame
    classes: tuple[str, ...]
    dataset: str
    split: str
    root: Path | None
    archives: tuple[Path, ...] = ()
    preprocessing: str = ""
    part: str | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels of the rows, (N,) int64."""
        return self.frame["label"].to_numpy(np.int64)

    @property
    def byte_ranges(self) -> np.ndarray:
        """Archive, offset and size of every row, (N, 3) int64."""
        return self.frame[["archive", "offset", "size"]].to_numpy(np.int64)

    @property
    def array_indices(self) -> np.ndarray:
        """Positions of the rows in the image array, (N,) int64."""
        return self.frame["item"].to_numpy(np.int64)

    def image_path(self, row: int) -> Path:
        """Path of the image of a row."""
        assert self.root is not None, "images of an array have no path"
        return self.root / str(self.frame["file"].iloc[row])

    def class_counts(self) -> np.ndarray:
        """Number of images in each class, (classes,) int64; those with a hidden label are not counted."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))

    @property
    def empty_classes(self) -> list[str]:
        """Names of the classes of which there is no image."""
        return [self.classes[label] for label in np.flatnonzero(self.class_counts() == 0)]

    @property
    def name(self) -> str:
        """Name of the images, for rows and people: "imagenet", "cifar10a", "imagenet[flowers102]"."""
        return display_name(self.dataset, self.part)

    @property
    def classes_hash(self) -> str:
        """16 hexadecimal digits over the classes' names in their order, to compare what labels mean elsewhere."""
        return hashlib.sha256(json.dumps(self.classes).encode()).hexdigest()[:16]

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits that name this list of images and labels, wherever the images lie."""
        form = (self.preprocessing,) if self.preprocessing else ()
        names = "\n".join((self.dataset, *form, *self.classes, ""))
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape"))
        if "file" in self.frame:
            digest.update("\n".join(self.frame["file"]).encode("utf-8", "surrogateescape"))
        else:
            digest.update(self.array_indices.astype("<i8").tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def subset(self, fraction: float, by: SubsetBy = "samples", *, seed: int) -> "Manifest":
        """Take a fraction of the images, nested in every larger fraction with the same seed.

        By samples, each class keeps `fraction` of its images, rounded half up and at least one, so labels are used for
        balance. At random, `fraction` of all images, rounded half up and at least one, are sampled uniformly, whatever
        their labels. By classes, `fraction` of the classes keep all their images, and labels are renumbered in the old
        order. Which images are taken depends on their names and the seed, not on the order of the rows.

        Args:
            fraction: Fraction of the images or classes, in (0, 1].
            by: What the fraction is taken of.
            seed: Seed of the `subset` stream.

        Raises:
            BadInput: If the fraction is out of range, a class has no images, or no class is left.
        """
        if not 0 < fraction <= 1:
            raise BadInput(f"--subset must be in (0, 1], got {fraction}; give a fraction of the images such as 0.1")
        if fraction == 1:
            return self
        if by == "samples":
            return self.take_rows(self.stratified_rows(fraction, seed))
        if by == "random":
            rows = np.argsort(self._image_ids, kind="stable")
            count = max(1, _round_half_up(fraction, len(rows)))
            return self.take_rows(
                np.sort(rows[seeded_generator(seed, "subset", "random").permutation(len(rows))[:count]])
            )
        keep = _num_classes_kept(fraction, len(self.classes), self.dataset)
        # Sorted first, so that the choice does not depend on the order in which the classes are numbered.
        names = sorted(self.classes)
        chosen = seeded_generator(seed, "subset", "classes").permutation(len(names))[:keep]
        return self.take_classes(names[number] for number in chosen)

    def take_classes(self, names: Iterable[str]) -> "Manifest":
        """Take all images of the named classes, their labels renumbered in the old order."""
        wanted = set(names)
        old = np.array([label for label, name in enumerate(self.classes) if name in wanted], np.int64)
        assert len(old) == len(wanted), f"classes {sorted(wanted - set(self.classes))} are not in {self.dataset}"
        new = np.full(len(self.classes), -1, np.int64)
        new[old] = np.arange(len(old))
        kept = self.take_rows(np.flatnonzero(new[self.labels] >= 0))
        classes = tuple(self.classes[label] for label in old)
        return replace(kept, frame=kept.frame.assign(label=new[kept.labels]), classes=classes)

    def evenly_spaced(self, most: int) -> "Manifest":
        """Take at most so many of the images, evenly spaced."""
        return self if len(self) <= most else self.take_rows(np.arange(most) * len(self) // most)

    def restrict_to_list(self, list_file: Path) -> "Manifest":
        """Take the images that a text file names, or all images of the classes that it names, labels renumbered.

        The published 1% and 10% lists of ImageNet (SimCLR, Chen et al. 2020, https://arxiv.org/abs/2002.05709) are such
        files, and so are those of the classes of ImageNet-100. docs/data.md describes all their forms.

        Raises:
            BadInput: If the list cannot be read, names what is not here, or leaves a class empty.
        """
        found = subset_lists.resolve_list(list_file, self._list_candidates)
        return (
            self.take_classes(found)
            if isinstance(found, tuple)
            else self.take_rows(self._check_no_class_empty(list_file, found))
        )

    def rows_in_list(self, list_file: Path) -> np.ndarray:
        """Rows, ascending, of the images that a list names, at least one of each class.

        Raises:
            BadInput: As in `restrict_to_list`.
        """
        found = subset_lists.resolve_list(list_file, self._list_candidates)
        if isinstance(found, tuple):
            found = np.flatnonzero(np.isin(self.labels, [self.classes.index(name) for name in found]))
        return self._check_no_class_empty(list_file, found)

    def _check_no_class_empty(self, list_file: Path, rows: np.ndarray) -> np.ndarray:
        if empty := self.take_rows(rows).empty_classes:
            raise BadInput(
                f"the subset list {list_file} must name an image of each of the {len(self.classes)} classes, got none "
                f"of {len(empty)}: {', '.join(empty[:3])}{', ...' if len(empty) > 3 else ''}; add an image of each"
            )
        return rows

    @property
    def _list_candidates(self) -> subset_lists.KnownImages:
        """What a list may name: files, or the numbers of an array's images in the published order, from 0."""
        where = f"{self.dataset} at {self.root}" if self.root else self.dataset
        roots = [PurePosixPath(root) for root in (self.root.absolute(), self.root.resolve())] if self.root else []
        if self.root and self.archives:  # an archive's own name is in no list
            roots.append(PurePosixPath(self.root.absolute().parent / self.split))
        return subset_lists.KnownImages(list(map(str, self._image_ids)), self.labels, self.classes, tuple(roots), where)

    def stratified_rows(self, fraction: float, seed: int, flag: str = "--subset") -> np.ndarray:
        """Rows, ascending, of the images that `subset` by samples keeps; errors name `flag`."""
        counts = self.class_counts()
        if counts.min() == 0:
            raise BadInput(
                f"{self.dataset} must have images of every class for {flag} {fraction}, got none of "
                f"{self.classes[int(counts.argmin())]!r}; complete the data (sslticket data verify)"
            )
        keep = np.array([_round_half_up(fraction, int(count)) for count in counts])
        if few := int((keep == 0).sum()):
            log.warning(
                "%s %s of %s rounds to no image in %d of %d classes, which keep one each",
                *(flag, f"{fraction:g}", self.dataset, few, len(keep)),
            )
        return self._sample_per_class(keep.clip(min=1), seed)

    def take_shots(self, count: int, *, seed: int) -> "Manifest":
        """Take `count` images of each class, all of them where there are fewer; nested in any larger number.

        They are sampled as by `subset` by samples, so that of the two, the one that keeps fewer images of a class keeps
        some of those that the other keeps.

        Raises:
            BadInput: If that is less than one, or a class has no images.
        """
        return self.take_rows(self.shot_rows(count, seed))

    def shot_rows(self, count: int, seed: int, flag: str = "--shots") -> np.ndarray:
        """Rows, ascending, of the images that `take_shots` keeps; errors name `flag`."""
        if count < 1:
            raise BadInput(f"{flag} must be at least 1 image of each class, got {count}; give {flag} 10")
        if self.empty_classes:
            raise BadInput(
                f"{self.dataset} must have images of every class for {flag} {count}, got none of "
                f"{self.empty_classes[0]!r}; complete the data (sslticket data verify)"
            )
        if few := int((self.class_counts() < count).sum()):
            log.warning(
                "%d of %d classes of %s have fewer than the %d images of %s and keep all of theirs",
                *(few, len(self.classes), self.dataset, count, flag),
            )
        return self._sample_per_class(self.class_counts().clip(max=count), seed)

    def _sample_per_class(self, keep: np.ndarray, seed: int) -> np.ndarray:
        """Rows, ascending, of so many images of each class; a larger number takes these and others."""
        chosen = [
            rows[seeded_generator(seed, "subset", name).permutation(len(rows))[:count]]
            for (name, rows), count in zip(self.rows_by_class(), keep, strict=True)
        ]
        return np.sort(np.concatenate(chosen))

    def rows_by_class(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every class and its rows by the images' names, so that no sample depends on the order of the rows."""
        ids = self._image_ids
        by_label = np.split(np.argsort(self.labels, kind="stable"), np.cumsum(self.class_counts())[:-1])
        for name, rows in zip(self.classes, by_label, strict=True):
            yield name, rows[np.argsort(ids[rows], kind="stable")]

    @property
    def _image_ids(self) -> np.ndarray:
        """What identifies each image, whatever its row: its file, or its position in the array."""
        return (self.frame["file"] if "file" in self.frame else self.frame["item"]).to_numpy()

    def take_rows(self, rows: np.ndarray) -> "Manifest":
        """Take the images of these rows."""
        return replace(self, frame=self.frame.iloc[rows].reset_index(drop=True))


def _round_half_up(fraction: float, count: int) -> int:
    """`fraction * count`, rounded half up in the decimal digits that the user wrote."""
    exact = Fraction(str(fraction))
    return (2 * exact.numerator * count + exact.denominator) // (2 * exact.denominator)


def _num_classes_kept(fraction: float, classes: int, name: str) -> int:
    """How many classes a fraction of them is.

    Raises:
        BadInput: If it is none.
    """
    keep = _round_half_up(fraction, classes)
    if keep == 0:
        raise BadInput(
            f"--subset by classes must leave one of the {classes} classes of {name}, got {fraction}; give at least "
            f"--subset {least_class_fraction(1, classes):g}"
        )
    return keep


def least_class_fraction(keep: int, classes: int) -> float:
    """The least fraction that leaves so many of the classes, to three digits."""
    digits = 10 ** (len(str(classes)) + 2)
    return float(-(-digits * (2 * keep - 1) // (2 * classes)) / digits)


HALVES_SEED = 0
"""The halves are sampled once and for all: with a recipe's seed, CIFAR-10a would be another set for each."""


def take_half(manifest: Manifest, which: Literal["a", "b"]) -> Manifest:
    """Take one half of each class's images; the other half has the rest, and "a" the odd one.

    These are such halves as CIFAR-10a and CIFAR-10b (Morcos et al. 2019, section 4.2, https://arxiv.org/abs/1906.02773).
    Which images are taken depends on their names, not on the order of the rows. The half has the set's name with "a" or
    "b" after it.

    Raises:
        BadInput: If a class has a single image.
    """
    taken = []
    for name, rows in manifest.rows_by_class():
        if len(rows) < 2:
            raise BadInput(
                f"every class of {manifest.dataset} must have 2 images for --half {which}, got {len(rows)} of "
                f"{name!r}; leave --half out or add images"
            )
        mixed = rows[seeded_generator(HALVES_SEED, "half", name).permutation(len(rows))]
        middle = -(-len(rows) // 2)
        taken.append(mixed[:middle] if which == "a" else mixed[middle:])
    return replace(manifest.take_rows(np.sort(np.concatenate(taken))), dataset=f"{manifest.dataset}{which}")


def half_provenance(half: Manifest, which: Literal["a", "b"]) -> dict[str, Any]:
    """Record, for a ticket, the half that it was found on."""
    return {"which": which, "seed": HALVES_SEED, "images": len(half), "hash": half.hash}


HIDDEN_LABEL = -1


def hide_labels_except(manifest: Manifest, rows: np.ndarray) -> Manifest:
    """Hide the labels of all images but these rows."""
    labels = np.full(len(manifest), HIDDEN_LABEL, np.int64)
    labels[rows] = manifest.labels[rows]
    return replace(manifest, frame=manifest.frame.assign(label=labels))


def labelled_then_unlabelled(manifest: Manifest, rows: np.ndarray) -> Manifest:
    """Join these rows with their labels and all rows with hidden labels, the two streams of S4L (Zhai et al. 2019)."""
    frame = manifest.frame
    both = pd.concat([frame.iloc[rows], frame.assign(label=HIDDEN_LABEL)], ignore_index=True)
    return replace(manifest, frame=both)


def with_shuffled_labels(manifest: Manifest, fraction: float, *, seed: int) -> Manifest:
    """Permute the labels of a fraction of the images among themselves; each class keeps its count.

    Args:
        manifest: The images.
        fraction: Fraction of the images, in [0, 1]; their number is rounded to the nearest.
        seed: Seed of the `labels` stream.
    """
    rng = seeded_generator(seed, "shuffle")
    chosen = rng.permutation(len(manifest))[: round(fraction * len(manifest))]
    labels = manifest.labels.copy()
    labels[chosen] = labels[rng.permutation(chosen)]
    return replace(manifest, frame=manifest.frame.assign(label=labels))


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """How many images of each class there are, for plans where the images are not at hand: a manifest's numbers.

    What it has in common with `Manifest` comes out as there.

    Attributes:
        per_class: Number of images of each class, (classes,) int64.
        by_class: Whether these are known; else they are the known total, divided evenly.
        exact: Whether the total is that of the images, and not only about that.
        fewest: Images that every class has at least.
    """

    per_class: np.ndarray
    by_class: bool = True
    exact: bool = True
    fewest: int = 0

    @classmethod
    def official(cls, entry: Dataset, split: Split) -> "ImageCounts | None":
        """Return the published numbers of a split; None where nobody publishes any, as of one's own images."""
        if entry.image_counts is None or entry.classes is None:
            return None
        total = entry.image_counts[0 if split == "train" else 1]
        if split == "train" and entry.class_counts:
            counts = np.broadcast_to(np.array(entry.class_counts, np.int64), entry.classes)
            return cls(counts, fewest=int(counts.min()))
        fewest = entry.class_range[0] if split == "train" and entry.class_range else 0
        return cls(_spread(total, entry.classes), by_class=False, fewest=fewest)

    def __len__(self) -> int:
        return int(self.per_class.sum())

    def subset(self, fraction: float, by: SubsetBy = "samples", *, seed: int = 0) -> "ImageCounts":
        """Take a fraction, as `Manifest.subset` does."""
        if fraction == 1:
            return self
        if by == "samples":
            return self._with(self._kept(fraction), exact=self.by_class)
        if by == "random":
            count = max(1, _round_half_up(fraction, len(self)))
            return replace(self, per_class=_spread(count, len(self.per_class)), by_class=False, fewest=0)
        keep = _num_classes_kept(fraction, len(self.per_class), "the set")
        balanced = self.by_class and bool((self.per_class == self.per_class[0]).all())
        return self._with(self.per_class[:keep], exact=balanced)

    def take_shots(self, count: int, *, seed: int = 0) -> "ImageCounts":
        """Take `count` images of each class, as `Manifest.take_shots` does."""
        known = self.by_class or self.fewest >= count
        return replace(self._with(self.per_class.clip(max=count), exact=known), by_class=known)

    def half(self, which: Literal["a", "b"]) -> "ImageCounts":
        """Take a half, as `take_half` does."""
        upper = -(-self.per_class // 2)
        return self._with(upper if which == "a" else self.per_class - upper, exact=self.by_class)

    def first(self, count: int) -> "ImageCounts":
        """Take about so many images, evenly of all classes: what a list of so many lines comes to."""
        return replace(self.subset(min(1.0, count / len(self)), "random"), exact=False)

    def num_labelled(self, fraction: float) -> int:
        """Count the images whose labels are used, as `Manifest.stratified_rows` chooses them."""
        return int(self._kept(fraction).sum()) if fraction < 1 else len(self)

    def manifest(self, entry: Dataset, split: Split) -> Manifest:
        """Make up a manifest with these numbers: its classes have the data set's names where these are known."""
        names = entry.class_names or tuple(str(number) for number in range(len(self.per_class)))
        labels = np.repeat(np.arange(len(self.per_class)), self.per_class)
        frame = pd.DataFrame({"item": np.arange(len(labels)), "label": labels})
        return Manifest(frame, names, entry.name, split, None)

    def _kept(self, fraction: float) -> np.ndarray:
        if not self.by_class:
            most = max(len(self.per_class), _round_half_up(fraction, len(self)))
            return _spread(most, len(self.per_class))
        sizes = {int(count): max(1, _round_half_up(fraction, int(count))) for count in np.unique(self.per_class)}
        return np.array([sizes[int(count)] for count in self.per_class], np.int64)

    def _with(self, per_class: np.ndarray, *, exact: bool) -> "ImageCounts":
        fewest = int(per_class.min()) if self.by_class and len(per_class) else 0
        return replace(self, per_class=per_class, exact=self.exact and exact, fewest=fewest)


def _spread(total: int, parts: int) -> np.ndarray:
    """A number divided into equal whole parts, the first of them one larger where it does not divide."""
    each, rest = divmod(total, parts)
    return each + (np.arange(parts) < rest).astype(np.int64)
