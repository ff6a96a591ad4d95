"""What describes a data set: its names, classes, normalisation and views, and the layout in which it is published."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from sslticket.data.augment import View
from sslticket.errors import BadInput

Split = Literal["train", "eval"]
SPLITS: tuple[Split, ...] = ("train", "eval")
SPLIT_NAMES: dict[Split, str] = {"train": "training", "eval": "evaluation"}

_LONGEST_PART_NAME = 40  # characters of a part's name, which has to fit a folder's name and a line of a report


def display_name(dataset: str, which: str | None) -> str:
    """Name a data set and, in brackets, which images of that name these are: "imagenet[flowers102]".

    Args:
        dataset: Name of the data set, with its half's letter.
        which: Name of a part, or some digits of the images' hash; None where the data set's name suffices.
    """
    return dataset if which is None else f"{dataset}[{which}]"


def check_part(dataset: str, part: str | None) -> None:
    """Check that a part of a data set may be called so.

    Raises:
        BadInput: If the text cannot go into names, or the data set is a folder of one's own, whose whole is unknown.
    """
    if part is None:
        return
    if dataset.partition(":")[0] == "folder":
        raise BadInput(f"a folder of your own has no official counts, so {part!r} is no part of it; leave --part out")
    if part.strip() != part or len(part) > _LONGEST_PART_NAME or not re.fullmatch(r"[A-Za-z0-9 ._-]+", part):
        raise BadInput(
            f"--part must be up to {_LONGEST_PART_NAME} letters, digits, spaces, dots, underscores and hyphens, got "
            f"{part!r} for {dataset}; give for instance --part flowers102"
        )


def path_safe(name: str) -> str:
    """Turn a name into a part of files' names that no shell needs quoted: "imagenet-flowers102"."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")


@dataclass(frozen=True)
class Listing:
    """The image files of a split and their labels; from a folder of class folders, sorted by class and name.

    Attributes:
        root: Folder, or archive, that the images are in.
        classes: Names of the classes.
        files: Paths relative to `root`, with forward slashes.
        labels: (N,) int64, indices into `classes`.
        archives: Tar files that the images are in; empty where they are files of their own.
        byte_ranges: (N, 3) int64, each image's archive, offset and size; None where they are files of their own.
        preprocessing: What was done to the images; "" for the images as they are published.
        left_out: Entries among the images that are none, as paths below `root`; folders end in "/".
    """

    root: Path
    classes: tuple[str, ...]
    files: list[str]
    labels: np.ndarray
    archives: tuple[Path, ...] = ()
    byte_ranges: np.ndarray | None = None
    preprocessing: str = ""
    left_out: tuple[str, ...] = ()


class ImageArrays(NamedTuple):
    """The images of a split that is small enough to be kept whole in memory.

    Attributes:
        images: (N, H, W, C) uint8.
        labels: (N,) int64, indices into `classes`.
        classes: Names of the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Layout(ABC):
    """A form in which data sets are published: where it is found, how a split is opened, and its official files.

    A subclass is all that a new form needs; a data set of the catalogue names it as its `layout`.

    Attributes:
        md5: MD5 sums that each official file may have, 32 hexadecimal digits each, the publisher's own first, by name.
    """

    package: ClassVar[str] = ""
    """The installed package whose data it is, such as "scikit-learn"; "" for a layout that is looked for in folders."""

    md5: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    @abstractmethod
    def find(self, dataset: "Dataset", folder: Path) -> Path | None:
        """Return the folder that holds any split in this form: `folder` itself or one below it; None without."""

    @abstractmethod
    def open(self, dataset: "Dataset", split: Split, folder: Path) -> Listing | ImageArrays | None:
        """List or read a split's images, of which both splits number the classes alike; None where it is not there.

        Args:
            dataset: The data set that is opened.
            split: The split that is wanted.
            folder: The folder that `find` returned.

        Raises:
            BadInput: If files are damaged, or it is not clear of which class an image is.
        """

    def checksums(self, folder: Path) -> dict[Path, tuple[str, ...]]:
        """Return the official files that lie in a folder, and the MD5 sums that each may have."""
        return {folder / name: sums for name, sums in self.md5.items() if (folder / name).is_file()}

    def published_classes(self, folder: Path) -> tuple[str, ...] | None:
        """Return the classes' published names, where a file in the folder lists them; else None."""
        return None

    def describe_missing(self, dataset: "Dataset") -> str:
        """Return what a folder without this data set lacks, for an error."""
        return "none of its files in it"

    def how_to_add(self, split: Split) -> str:
        """Return what else than class folders would make a split complete, for an error; "" for nothing."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set.

    Attributes:
        name: Name on the command line and in recipes.
        classes: Number of classes; None where the set itself does not fix that.
        channels: 3 for RGB, 1 for grey.
        mean: Mean of the training images' pixels in [0, 1], by channel.
        std: Standard deviation of the same, by channel.
        train_view: Training view, unless a recipe has one of its own.
        eval_view: Evaluation view.
        kind: "files" are decoded as they are needed, through DALI; "arrays" are small enough to be kept whole.
        image_counts: Official numbers of training and evaluation images; None where the set itself does not fix them.
        class_counts: Numbers of training images of each class, by label, or one number for all of a balanced set; empty
            where nobody publishes them.
        class_range: The smallest and the largest of these numbers, where only they are published.
        layout: Form in which the set is published.
        train_folders: Names that the training split's folder of class folders may have; "." is the data root itself.
        eval_folders: Names that the evaluation split's may have.
        class_names: Names of the classes, where the files don't hold them.
        train_fraction: Fraction of each class's images that is for training, the others for evaluation, where no
            evaluation images are published; None leaves such a set without any.
        torchvision: Name of the class in `torchvision.datasets` that can download the set.
        torchvision_splits: Splits that have to be downloaded one by one; empty where one call fetches all.
        system_folder: Folder where the operating system's packages put the set.
        homepage: Where the set is described.
        licence: Licence in a few words.
    """

    name: str
    classes: int | None = None
    channels: int = 3
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_view: View
    eval_view: View
    kind: Literal["files", "arrays"] = "files"
    image_counts: tuple[int, int] | None = None
    class_counts: tuple[int, ...] = ()
    class_range: tuple[int, int] | None = None
    layout: Layout
    train_folders: tuple[str, ...] = ("train",)
    eval_folders: tuple[str, ...] = ("val", "validation", "test")
    class_names: tuple[str, ...] = ()
    train_fraction: float | None = None
    torchvision: str | None = None
    torchvision_splits: tuple[str, ...] = ()
    system_folder: str | None = None
    homepage: str = "your own images"
    licence: str = "your own"

    @property
    def folder_name(self) -> str:
        """The name of the folder that the set is looked for in: of "folder:flowers", "flowers"."""
        return self.name.partition(":")[2] or self.name
