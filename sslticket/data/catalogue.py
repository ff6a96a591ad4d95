"""The known data sets. To add one, add an entry."""

from dataclasses import dataclass
from typing import Literal

from sslticket.data.views import View
from sslticket.errors import unknown


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """Python files as in Krizhevsky 2009.

    Attributes:
        folder: what the archive unpacks to.
        train, eval: a split's files in it.
        labels: the key of the labels.
        names: the file with the class names, and its key.
    """

    folder: str
    train: tuple[str, ...]
    eval: tuple[str, ...]
    labels: str
    names: tuple[str, str]


@dataclass(frozen=True)
class Idx:
    """MNIST's idx files; `folder` is where torchvision's download puts them."""

    folder: str
    train: tuple[str, str] = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    eval: tuple[str, str] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What has to be known of a data set before its images are found.

    Attributes:
        name: as on the command line.
        classes: how many there are, where the set itself fixes that.
        channels: 3 for RGB, 1 for gray.
        mean, std: of the training images, by channel, pixels from 0 to 1.
        train: the training view, unless a recipe says otherwise.
        eval: the evaluation view.
        kind: "files" are decoded as they are needed, through DALI; "arrays" are small enough to be kept whole.
        layout: how the set is published: "folders" of class folders, CIFAR's or idx files, or inside "sklearn". A set
            of arrays may lie in folders of class folders instead.
        train_folders, eval_folders: names that a split's folder of class folders may have; "." is the data root itself.
        class_names: where the files don't hold them.
        torchvision: the class there that can download it.
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
    layout: Cifar | Idx | Literal["folders", "sklearn"]
    train_folders: tuple[str, ...] = ("train",)
    eval_folders: tuple[str, ...] = ("val", "validation", "test")
    class_names: tuple[str, ...] = ()
    torchvision: str | None = None
    system: str | None = None
    home: str
    licence: str


# The normalisation and evaluation crop that nearly all ImageNet numbers are published with; training crops as in
# Szegedy et al. 2015, as appendix A of "Finding Winning Tickets with Limited (or No) Supervision" says in words.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_TRAIN, _IMAGENET_EVAL = View(size=224, crop="resized", flip=True), View(size=224, resize=256)
# The same appendix: flips and fixed-size crops of the image padded by 2.
_CIFAR_TRAIN, _CIFAR_EVAL = View(size=32, crop="pad", pad=2, flip=True), View(size=32)
_DIGITS = tuple("0123456789")
_CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

_ALL = (
    Dataset(
        name="imagenet",
        classes=1000,
        channels=3,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        train=_IMAGENET_TRAIN,
        eval=_IMAGENET_EVAL,
        kind="files",
        layout="folders",
        home="https://www.image-net.org/download.php",
        licence="non-commercial research",
    ),
    Dataset(
        # Views and normalisation are ImageNet's, so that tickets of one set see the other as they saw their own.
        name="places365",
        classes=365,
        channels=3,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        train=_IMAGENET_TRAIN,
        eval=_IMAGENET_EVAL,
        kind="files",
        layout="folders",
        home="http://places2.csail.mit.edu/download.html",
        licence="non-commercial research",
    ),
    Dataset(
        name="folder",
        classes=None,
        channels=3,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        train=_IMAGENET_TRAIN,
        eval=_IMAGENET_EVAL,
        kind="files",
        layout="folders",
        train_folders=("train", "."),
        home="your own images",
        licence="your own",
    ),
    Dataset(
        name="cifar10",
        classes=10,
        channels=3,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        train=_CIFAR_TRAIN,
        eval=_CIFAR_EVAL,
        kind="arrays",
        layout=Cifar(
            folder="cifar-10-batches-py",
            train=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
            eval=("test_batch",),
            labels="labels",
            names=("batches.meta", "label_names"),
        ),
        torchvision="CIFAR10",
        home="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="research",
    ),
    Dataset(
        name="cifar100",
        classes=100,
        channels=3,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        train=_CIFAR_TRAIN,
        eval=_CIFAR_EVAL,
        kind="arrays",
        layout=Cifar(
            folder="cifar-100-python",
            train=("train",),
            eval=("test",),
            labels="fine_labels",
            names=("meta", "fine_label_names"),
        ),
        torchvision="CIFAR100",
        home="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="research",
    ),
    Dataset(
        # No augmentation, as in Frankle & Carbin 2019, whose LeNet it is for; digits may not be mirrored.
        name="mnist",
        classes=10,
        channels=1,
        mean=(0.1307,),
        std=(0.3081,),
        train=View(size=28),
        eval=View(size=28),
        kind="arrays",
        layout=Idx("MNIST/raw"),
        torchvision="MNIST",
        class_names=_DIGITS,
        home="https://yann.lecun.org/exdb/mnist",
        licence="CC BY-SA 3.0",
    ),
    Dataset(
        # Clothes may be mirrored; the 2-pixel padding is CIFAR's.
        name="fashion_mnist",
        classes=10,
        channels=1,
        mean=(0.2860,),
        std=(0.3530,),
        train=View(size=28, crop="pad", pad=2, flip=True),
        eval=View(size=28),
        kind="arrays",
        layout=Idx("FashionMNIST/raw"),
        torchvision="FashionMNIST",
        class_names=_CLOTHES,
        system="/usr/share/datasets/fashion-mnist",
        home="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
    ),
    Dataset(
        # The digits fill their 8x8 pixels: a shifted crop would cut them, a mirrored one is no digit.
        name="digits",
        classes=10,
        channels=1,
        mean=(0.3046,),
        std=(0.3755,),
        train=View(size=8),
        eval=View(size=8),
        kind="arrays",
        layout="sklearn",
        class_names=_DIGITS,
        home="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        licence="CC BY 4.0",
    ),
)
DATASETS = {dataset.name: dataset for dataset in _ALL}


def dataset(name: str) -> Dataset:
    """The catalogue's entry.

    Raises:
        BadInput: naming the nearest known sets, if there is none of that name.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    return DATASETS[name]
