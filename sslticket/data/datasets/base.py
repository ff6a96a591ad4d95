"""What describes a data set: its names, its classes, its normalisation, its views, and the layout in which it is published."""

import re
from dataclasses import dataclass
from typing import Literal

from sslticket.data.augment import View
from sslticket.errors import BadInput

_LONGEST_PART_NAME = 40  # characters of a part's name, which has to fit a folder's name and a line of a report


def display_name(dataset: str, which: str | None) -> str:
    """A data set and, in brackets, which images of that name these are: "imagenet[flowers102]".

    Args:
        dataset: its name, with its half's letter.
        which: a part's name, or some digits of the images' hash; None where the name says it all.
    """
    return dataset if which is None else f"{dataset}[{which}]"


def check_part(dataset: str, part: str | None) -> None:
    """Whether a part may be called so.

    Raises:
        BadInput: if the text cannot go into names, or the data set is one's own, of which nobody knows the whole.
    """
    if part is None:
        return
    if dataset == "folder":
        raise BadInput(f"a folder of your own has no official counts, so {part!r} is no part of them; leave --part out")
    if part.strip() != part or len(part) > _LONGEST_PART_NAME or not re.fullmatch(r"[A-Za-z0-9 ._-]+", part):
        raise BadInput(
            f"{part!r} cannot name a part of {dataset}; give --part up to {_LONGEST_PART_NAME} letters, digits, spaces, dots, "
            "underscores and hyphens, such as --part flowers102"
        )


def path_safe(name: str) -> str:
    """A name as a part of files' names, which no shell has to have quoted: "imagenet-flowers102"."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")


@dataclass(frozen=True, kw_only=True)
class CifarLayout:
    """Python files as in Krizhevsky 2009, or those of the "binary version", which have the same names and an ending.

    Attributes:
        folder: what the archive of python files unpacks to.
        train, eval: a split's files in it.
        labels: the key of the labels.
        names: the file with the class names, and its key.
        binary: what the archive of the binary version unpacks to, and the file with the class names there.
    """

    folder: str
    train: tuple[str, ...]
    eval: tuple[str, ...]
    labels: str
    names: tuple[str, str]
    binary: tuple[str, str]

    @property
    def folders(self) -> tuple[str, ...]:
        """Where the files may lie."""
        return self.folder, self.binary[0], "."

    @property
    def files(self) -> tuple[str, ...]:
        """Any of these shows that the set is there."""
        return tuple(name + end for name in (*self.train, *self.eval) for end in ("", ".bin"))


@dataclass(frozen=True)
class IdxLayout:
    """MNIST's idx files, and other forms of the same arrays.

    Attributes:
        folder: where torchvision's download puts the idx files.
        tables: a table of comma-separated pixels for each split.
        npz: Keras's file of both splits, where it has one.
        train, eval: a split's idx files; some programs that unpack call them "train-images.idx3-ubyte".
    """

    folder: str
    tables: tuple[str, str]
    npz: str | None = None
    train: tuple[str, str] = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    eval: tuple[str, str] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

    @property
    def folders(self) -> tuple[str, ...]:
        """Where the files may lie."""
        return self.folder, ".", "raw"

    @property
    def files(self) -> tuple[str, ...]:
        """Any of these shows that the set is there."""
        idx = tuple(spelled for name in (*self.train, *self.eval) for spelled in self.spellings(name))
        return (*idx, *self.tables, *filter(None, [self.npz]))

    @staticmethod
    def spellings(name: str) -> tuple[str, ...]:
        """What an idx file may be called."""
        dotted = name.replace("-idx", ".idx")
        return name, f"{name}.gz", dotted, f"{dotted}.gz"


@dataclass(frozen=True)
class SvhnLayout:
    """SVHN's MATLAB files of cropped digits (Netzer et al. 2011)."""

    train: tuple[str, ...] = ("train_32x32.mat",)
    eval: tuple[str, ...] = ("test_32x32.mat",)
    folders: tuple[str, ...] = (".",)

    @property
    def files(self) -> tuple[str, ...]:
        """Any of these shows that the set is there."""
        return (*self.train, *self.eval)


@dataclass(frozen=True)
class ImageNetLayout:
    """ImageNet as it is downloaded, and the files that tell what the evaluation images show.

    Attributes:
        train: where the archives of training images lie; the official one is an archive of archives, one a class.
        eval: where those of the evaluation images lie, in no class folders.
        devkit: what the names of the development kit's archive and folder begin with.
        meta: in the devkit, the classes and their numbers.
        ground_truth: in the devkit, the number of the class of each evaluation image.
        list_folders: folders beside the images in which others put lists of them.
    """

    train: tuple[str, ...] = ("ILSVRC2012_img_train.tar", "train_images_*.tar", "data/train_images_*.tar")
    eval: tuple[str, ...] = ("ILSVRC2012_img_val.tar", "val_images.tar", "data/val_images.tar")
    devkit: str = "ILSVRC2012_devkit_t12"
    meta: str = "meta.mat"
    ground_truth: str = "ILSVRC2012_validation_ground_truth.txt"
    list_folders: tuple[str, ...] = ("val", "caffe_ilsvrc12", "meta")


@dataclass(frozen=True)
class Places365Layout:
    """Places365's lists of files and the images that they name, as torchvision arranges them and in other states.

    Attributes:
        train_images, eval_images: folders, or archives that are read in place, that the listed names are relative to.
        train, eval: the lists, a name and a class number a line.
        classes: the list of the classes and their numbers.
        list_folders: where the lists may lie; the second is what their archive unpacks to.
    """

    train_images: tuple[str, ...]
    eval_images: tuple[str, ...]
    train: str = "places365_train_standard.txt"
    eval: str = "places365_val.txt"
    classes: str = "categories_places365.txt"
    list_folders: tuple[str, ...] = (".", "filelist_places365-standard")


@dataclass(frozen=True)
class TinyImageNetLayout:
    """Tiny-ImageNet's tree: the images of a class in a folder of its folder, and evaluation images in no class folders.

    Attributes:
        folders: where the folders of the splits may lie; the second is what the archive unpacks to, the third what
            Kaggle's does.
        train, eval: the splits' folders.
        images: the folder in a class's folder, or in that of the evaluation images.
        annotations: in the evaluation images' folder, the name and the class of each.
    """

    folders: tuple[str, ...] = (".", "tiny-imagenet-200", "tiny-imagenet-200/tiny-imagenet-200")
    train: str = "train"
    eval: str = "val"
    images: str = "images"
    annotations: str = "val_annotations.txt"


Split = Literal["train", "eval"]
SPLITS: tuple[Split, ...] = ("train", "eval")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One data set.

    Attributes:
        name: as on the command line.
        classes: how many there are, where the set itself fixes that.
        channels: 3 for RGB, 1 for gray.
        mean, std: of the training images, by channel, pixels from 0 to 1.
        train_view: the training view, unless a recipe says otherwise.
        eval_view: the evaluation view.
        kind: "files" are decoded as they are needed, through DALI; "arrays" are small enough to be kept whole.
        image_counts: how many training and evaluation images there are officially; None where the set itself does not fix
            that.
        layout: how the set is published: "folders" of class folders, files of a certain kind, or inside "sklearn". Any
            but the last may lie in folders of class folders instead.
        train_folders, eval_folders: names that a split's folder of class folders may have; "." is the data root itself.
        class_names: where the files don't hold them.
        torchvision: the class there that can download it.
        torchvision_splits: the splits that have to be downloaded one by one; none where one call fetches all.
        system_folder: a folder where the operating system's packages put it.
        homepage: where it is described.
        licence: in a few words.
    """

    name: str
    classes: int | None
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train_view: View
    eval_view: View
    kind: Literal["files", "arrays"]
    image_counts: tuple[int, int] | None = None
    layout: (
        CifarLayout
        | IdxLayout
        | SvhnLayout
        | ImageNetLayout
        | Places365Layout
        | TinyImageNetLayout
        | Literal["folders", "sklearn"]
    )
    train_folders: tuple[str, ...] = ("train",)
    eval_folders: tuple[str, ...] = ("val", "validation", "test")
    class_names: tuple[str, ...] = ()
    torchvision: str | None = None
    torchvision_splits: tuple[str, ...] = ()
    system_folder: str | None = None
    homepage: str
    licence: str
