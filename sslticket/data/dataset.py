"""What has to be known of a data set before its images are found."""

from dataclasses import dataclass
from typing import Literal

from sslticket.data.layouts import Cifar, Idx, Ilsvrc, Lists, Mat, Tree
from sslticket.data.views import View

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
        train: the training view, unless a recipe says otherwise.
        eval: the evaluation view.
        kind: "files" are decoded as they are needed, through DALI; "arrays" are small enough to be kept whole.
        images: how many training and evaluation images there are officially; None where the set itself does not fix
            that.
        layout: how the set is published: "folders" of class folders, files of a certain kind, or inside "sklearn". Any
            but the last may lie in folders of class folders instead.
        train_folders, eval_folders: names that a split's folder of class folders may have; "." is the data root itself.
        class_names: where the files don't hold them.
        torchvision: the class there that can download it.
        torchvision_splits: the splits that have to be downloaded one by one; none where one call fetches all.
        system: a folder where the operating system's packages put it.
        home: where it is described.
        licence: in a few words.
    """

    name: str
    classes: int | None
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: View
    eval: View
    kind: Literal["files", "arrays"]
    images: tuple[int, int] | None = None
    layout: Cifar | Idx | Mat | Ilsvrc | Lists | Tree | Literal["folders", "sklearn"]
    train_folders: tuple[str, ...] = ("train",)
    eval_folders: tuple[str, ...] = ("val", "validation", "test")
    class_names: tuple[str, ...] = ()
    torchvision: str | None = None
    torchvision_splits: tuple[str, ...] = ()
    system: str | None = None
    home: str
    licence: str
