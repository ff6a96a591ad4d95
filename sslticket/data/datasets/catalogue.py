"""The known data sets, and the images that a recipe asks for.

To add a data set, add an entry. Its counts of images and classes are the official ones, and each entry says where they
are published: a set with other counts is refused wherever it is opened under its name, unless the user says which part
of it is there.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslticket.data.augment import View
from sslticket.data.datasets import CATALOGUED, DATASETS
from sslticket.data.datasets.arrays import CifarLayout, DigitsLayout, IdxLayout, SvhnLayout
from sslticket.data.datasets.base import Dataset, path_safe
from sslticket.data.datasets.folders import FolderLayout
from sslticket.data.datasets.imagenet import ImageNetLayout
from sslticket.data.datasets.lists import Places365Layout, TinyImageNetLayout
from sslticket.errors import BadInput
from sslticket.registry import loaded_parts

# The normalisation and evaluation crop that nearly all ImageNet numbers are published with; training crops as in
# Szegedy et al. 2015, as appendix A of "Finding Winning Tickets with Limited (or No) Supervision" says in words.
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGENET_TRAIN, _IMAGENET_EVAL = View(size=224, crop="resized", flip=True), View(size=224, resize=256)
# The same appendix: flips and fixed-size crops of the image padded by 2.
_CIFAR_TRAIN, _CIFAR_EVAL = View(size=32, crop="pad", pad=2, flip=True), View(size=32)
_DIGIT_CLASSES = tuple("0123456789")
# What those who made pictures of the arrays call the splits.
_MNIST_FOLDERS = ("train", "training"), ("val", "validation", "test", "testing")
_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# Where the folders of splits are in Kaggle's archive, and in the first folder of it.
_KAGGLE_FOLDERS = "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"

_SVHN_MD5 = {
    "train_32x32.mat": ("e26dedcc434d2e4c54c9b2d4a06d8373",),
    "test_32x32.mat": ("eb5a983be6a315427106f1b164d9cef3",),
    "extra_32x32.mat": ("a93ce644f1a588dc4d68dda5feec44a7",),
}

IMAGENET = Dataset(
    name="imagenet",
    classes=1000,
    channels=3,
    mean=_IMAGENET_MEAN,
    std=_IMAGENET_STD,
    train_view=_IMAGENET_TRAIN,
    eval_view=_IMAGENET_EVAL,
    kind="files",
    image_counts=(1_281_167, 50_000),  # Russakovsky et al. 2015, Table 2
    class_range=(732, 1300),  # the same table
    layout=ImageNetLayout(
        md5={
            "ILSVRC2012_img_train.tar": ("1d675b47d978889d74fa0da5fadfb00e",),
            "ILSVRC2012_img_val.tar": ("29b22e2961454d5413ddabcf34fc5622",),
            "ILSVRC2012_devkit_t12.tar.gz": ("fa75699e90414af021442c21a62c3abf",),
        },
    ),
    train_folders=("train", *(f"{above}/train" for above in _KAGGLE_FOLDERS)),
    eval_folders=("val", "validation", "test", *(f"{above}/val" for above in _KAGGLE_FOLDERS)),
    homepage="https://www.image-net.org/download.php",
    licence="non-commercial research",
)

# Views and normalisation are ImageNet's, so that tickets of one set see the other as they saw their own.
PLACES365 = Dataset(
    name="places365",
    classes=365,
    channels=3,
    mean=_IMAGENET_MEAN,
    std=_IMAGENET_STD,
    train_view=_IMAGENET_TRAIN,
    eval_view=_IMAGENET_EVAL,
    kind="files",
    image_counts=(1_803_460, 36_500),  # its home page; the training images also in Zhou et al. 2017, section 3
    class_range=(3_068, 5_000),  # Zhou et al. 2017, section 3
    # torchvision renames the folder that the archive of training images unpacks to.
    layout=Places365Layout(
        train_images=("data_large_standard", "data_large", "train_large_places365standard.tar"),
        eval_images=("val_large", "val_large.tar"),
        md5={
            "train_large_places365standard.tar": ("67e186b496a84c929568076ed01a8aa1",),
            "val_large.tar": ("9b71c4993ad89d2d8bcbdc4aef38042f",),
            "categories_places365.txt": ("06c963b85866bd0649f97cb43dd16673",),
            "places365_train_standard.txt": ("30f37515461640559006b8329efbed1a",),
            "places365_val.txt": ("e9f2fd57bfd9d07630173f4e8708e4b1",),
        },
    ),
    homepage="http://places2.csail.mit.edu/download.html",
    licence="non-commercial research",
)

PLACES365_SMALL = replace(
    PLACES365,
    name="places365_small",
    layout=Places365Layout(
        train_images=("data_256_standard", "data_256", "train_256_places365standard.tar"),
        eval_images=("val_256", "val_256.tar"),
        md5={
            "train_256_places365standard.tar": ("53ca1c756c3d1e7809517cc47c5561c5",),
            "val_256.tar": ("e27b17d8d44f4af9a78502beb927f808",),
            "categories_places365.txt": ("06c963b85866bd0649f97cb43dd16673",),
            "places365_train_standard.txt": ("30f37515461640559006b8329efbed1a",),
            "places365_val.txt": ("e9f2fd57bfd9d07630173f4e8708e4b1",),
        },
    ),
    train_folders=("train", "places365_standard/train"),  # the second is what the easy format unpacks to
    eval_folders=("val", "validation", "test", "places365_standard/val"),
)

FOLDER = Dataset(
    name="folder",
    classes=None,
    channels=3,
    mean=_IMAGENET_MEAN,
    std=_IMAGENET_STD,
    train_view=_IMAGENET_TRAIN,
    eval_view=_IMAGENET_EVAL,
    kind="files",
    layout=FolderLayout(),
    # What people and programs call the splits; the first that is there is taken.
    train_folders=("train", "Train", "training", "."),
    eval_folders=("val", "validation", "test", "valid", "Val", "Valid", "Test", "testing"),
)

TINY_IMAGENET = Dataset(
    # Mean, deviation, padding and flips are those of GraSP's published code (Wang et al. 2020), as of many others'.
    name="tiny_imagenet",
    classes=200,
    channels=3,
    mean=(0.4802, 0.4481, 0.3975),
    std=(0.2770, 0.2691, 0.2821),
    train_view=View(size=64, crop="pad", pad=4, flip=True),
    eval_view=View(size=64),
    kind="arrays",
    image_counts=(100_000, 10_000),  # Le and Yang 2015, section 2; its test images' labels are not published
    class_counts=(500,),
    layout=TinyImageNetLayout(),
    eval_folders=("val", "validation"),  # test/ has no labels
    homepage="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    licence="non-commercial research",
)

CIFAR10 = Dataset(
    name="cifar10",
    classes=10,
    channels=3,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    train_view=_CIFAR_TRAIN,
    eval_view=_CIFAR_EVAL,
    kind="arrays",
    image_counts=(50_000, 10_000),  # its home page
    class_counts=(5_000,),
    layout=CifarLayout(
        folders=("cifar-10-batches-py", "cifar-10-batches-bin", "."),
        train=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
        eval=("test_batch",),
        labels="labels",
        names=("batches.meta", "label_names"),
        binary_names="batches.meta.txt",
        md5={
            "data_batch_1": ("c99cafc152244af753f735de768cd75f",),
            "data_batch_2": ("d4bba439e000b95fd0a9bffe97cbabec",),
            "data_batch_3": ("54ebc095f3ab1f0389bbae665268c751",),
            "data_batch_4": ("634d18415352ddfa80567beed471001a",),
            "data_batch_5": ("482c414d41f54cd18b22e5b47cb7c3cb",),
            "test_batch": ("40351d587109b95175f43aff81a1287e",),
            "batches.meta": ("5ff9c542aee3614f3951f8cda6e48888",),
        },
    ),
    torchvision="CIFAR10",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="research",
)

CIFAR100 = Dataset(
    name="cifar100",
    classes=100,
    channels=3,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    train_view=_CIFAR_TRAIN,
    eval_view=_CIFAR_EVAL,
    kind="arrays",
    image_counts=(50_000, 10_000),  # its home page
    class_counts=(500,),
    layout=CifarLayout(
        folders=("cifar-100-python", "cifar-100-binary", "."),
        train=("train",),
        eval=("test",),
        labels="fine_labels",
        names=("meta", "fine_label_names"),
        binary_names="fine_label_names.txt",
        md5={
            "train": ("16019d7e3df5f24257cddd939b257f8d",),
            "test": ("f0ef6b0ae62326f3e7ffdfab6717acfc",),
            "meta": ("7973b15100ade9c7d40fb424638fde48",),
        },
    ),
    torchvision="CIFAR100",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="research",
)

# Digits may not be mirrored; the 2-pixel padding is CIFAR's.
SVHN = Dataset(
    name="svhn",
    classes=10,
    channels=3,
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    train_view=View(size=32, crop="pad", pad=2),
    eval_view=View(size=32),
    kind="arrays",
    image_counts=(73_257, 26_032),  # its home page
    # Of its labels by number, 0 first; they add up to the 73,257.
    class_counts=(4_948, 13_861, 10_585, 8_497, 7_458, 6_882, 5_727, 5_595, 5_045, 4_659),
    layout=SvhnLayout(md5=_SVHN_MD5),
    torchvision="SVHN",
    torchvision_splits=("train", "test"),
    class_names=_DIGIT_CLASSES,
    homepage="http://ufldl.stanford.edu/housenumbers",
    licence="non-commercial",
)

SVHN_EXTRA = replace(
    SVHN,  # its mean and deviation too, so that a network may go from one to the other
    name="svhn_extra",
    image_counts=(604_388, 26_032),  # its home page: the 73,257 and 531,131 more
    class_counts=(50_498, 104_421, 85_325, 69_262, 58_091, 60_372, 47_309, 49_592, 40_403, 39_115),  # of both files
    layout=SvhnLayout(train=("train_32x32.mat", "extra_32x32.mat"), md5=_SVHN_MD5),
    torchvision_splits=("train", "extra", "test"),
)

MNIST = Dataset(
    # No augmentation, as in Frankle & Carbin 2019, whose LeNet it is for; digits may not be mirrored.
    name="mnist",
    classes=10,
    channels=1,
    mean=(0.1307,),
    std=(0.3081,),
    train_view=View(size=28),
    eval_view=View(size=28),
    kind="arrays",
    image_counts=(60_000, 10_000),  # LeCun, Cortes and Burges, its home page
    # Of its labels by number, 0 first; they add up to the 60,000.
    class_counts=(5_923, 6_742, 5_958, 6_131, 5_842, 5_421, 5_918, 6_265, 5_851, 5_949),
    layout=IdxLayout(
        folders=("MNIST/raw", ".", "raw"),
        tables=("mnist_train.csv", "mnist_test.csv"),
        npz="mnist.npz",
        md5={
            "train-images-idx3-ubyte.gz": ("f68b3c2dcbeaaa9fbdd348bbdeb94873",),
            "train-labels-idx1-ubyte.gz": ("d53e105ee54ea40749a09fcbcd1e9432",),
            "t10k-images-idx3-ubyte.gz": ("9fb629c4189551a2d022fa330f9573f3",),
            "t10k-labels-idx1-ubyte.gz": ("ec29112dd5afa0611ce80d1b7f02629c",),
        },
    ),
    torchvision="MNIST",
    class_names=_DIGIT_CLASSES,
    train_folders=_MNIST_FOLDERS[0],
    eval_folders=_MNIST_FOLDERS[1],
    homepage="https://yann.lecun.org/exdb/mnist",
    licence="CC BY-SA 3.0",
)

FASHION_MNIST = Dataset(
    # Clothes may be mirrored; the 2-pixel padding is CIFAR's.
    name="fashion_mnist",
    classes=10,
    channels=1,
    mean=(0.2860,),
    std=(0.3530,),
    train_view=View(size=28, crop="pad", pad=2, flip=True),
    eval_view=View(size=28),
    kind="arrays",
    image_counts=(60_000, 10_000),  # Xiao et al. 2017, section 2
    class_counts=(6_000,),
    layout=IdxLayout(
        folders=("FashionMNIST/raw", ".", "raw"),
        tables=("fashion-mnist_train.csv", "fashion-mnist_test.csv"),
        # The second is that of the same file as Debian's package dataset-fashion-mnist compresses it.
        md5={
            "train-images-idx3-ubyte.gz": (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "cf8536b0aa1a6ac5fa3f23001093305c",
            ),
            "train-labels-idx1-ubyte.gz": (
                "25c81989df183df01b3e8a0aad5dffbe",
                "10bea18fdb374794d4bb42e356e600c9",
            ),
            "t10k-images-idx3-ubyte.gz": (
                "bef4ecab320f06d8554ea6380940ec79",
                "f78720b4224f21cce2f2ccf2d7a94c9a",
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "bb300cfdad3c16e7a12a480ee83cd310",
                "0d30e22e447f3c33dab9ed536400ac01",
            ),
        },
    ),
    torchvision="FashionMNIST",
    class_names=_FASHION_CLASSES,
    train_folders=_MNIST_FOLDERS[0],
    eval_folders=_MNIST_FOLDERS[1],
    system_folder="/usr/share/datasets/fashion-mnist",
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT",
)

DIGITS = Dataset(
    # The digits fill their 8x8 pixels: a shifted crop would cut them, a mirrored one is no digit.
    name="digits",
    classes=10,
    channels=1,
    mean=(0.3046,),
    std=(0.3755,),
    train_view=View(size=8),
    eval_view=View(size=8),
    kind="arrays",
    image_counts=(1_438, 359),  # our division of the 1,797 that scikit-learn has
    class_counts=(142, 146, 142, 146, 145, 146, 145, 143, 139, 144),
    layout=DigitsLayout(),
    train_fraction=0.8,
    class_names=_DIGIT_CLASSES,
    homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    licence="CC BY 4.0",
)


def get_dataset(name: str) -> Dataset:
    """Return the data set of a name; no file of a user's is run, as a downloaded ticket may name it.

    Args:
        name: A name in the catalogue, "folder:NAME" for any folder of class folders, or the name of a data set of one's
            own that is loaded.

    Raises:
        BadInput: Naming the nearest known sets, if there is none of that name.
    """
    if name.startswith("folder:"):
        _check_folder_name(name)
        return replace(FOLDER, name=name, train_fraction=0.8)
    if name not in DATASETS.names():
        if (loaded := next((entry for entry in loaded_parts(Dataset) if entry.name == name), None)) is not None:
            return loaded
        if ":" in name:
            raise BadInput(f"{name!r} is no dataset that is loaded; give its file with --parts FILE.py")
    try:
        return DATASETS.get(name)
    except BadInput as error:
        raise BadInput(
            f"{error} (your own: folder:NAME for a folder of class folders; file.py:NAME, and for later commands "
            "--parts FILE.py)"
        ) from error


def _check_folder_name(name: str) -> None:
    """Refuse a "folder:NAME" whose NAME is no folder's own name: where it lies is no part of what it is called."""
    own = name.removeprefix("folder:")
    if not own or own.startswith(".") or own != own.strip() or not own.isprintable() or set(own) & {"/", "\\"}:
        place = Path(own)
        fix = "the folder's own name, and what it lies in with --data-root"
        if place.name and set(own) & {"/", "\\"}:
            fix = f"folder:{place.name}, and --data-root {place.parent}"
        raise BadInput(f"folder:NAME must have the name of a folder, got {name!r}; give {fix}")


def split_folder_path(word: str, data_root: Path | None) -> tuple[str, Path | None]:
    """Divide "folder:PATH", as a user types it, into "folder:NAME" and the folder to look in.

    A path is that from `data_root`, where one is given, and a name alone stays as it is. So what a data set is called
    in recipes, keys and rows never says where it lies.

    Args:
        word: Name of a data set, or "folder:PATH".
        data_root: Folder that was given to look in; None for the usual places.

    Returns:
        The name of the data set, and the folder to look in; None for the usual places.
    """
    kind, _, text = word.partition(":")
    if kind != "folder" or not (os.sep in text or "/" in text or text.startswith("~") or text in (".", "..")):
        return word, data_root
    place = Path(text).expanduser()
    if place.name in ("", ".."):  # "." and "photos/.." have their names in the file system alone
        place = place.resolve()
    above = place.parent if data_root is None else data_root.expanduser() / place.parent
    return f"folder:{place.name}", above


def find_folder_path(word: str, data_root: Path | None) -> tuple[str, Path | None]:
    """As `split_folder_path`, and the path is that of a folder.

    Raises:
        BadInput: If it is not: class folders beside it would be taken for the data set.
    """
    name, above = split_folder_path(word, data_root)
    if name != word and above is not None:
        check_folder(name, above)
    return name, above


def check_folder(name: str, above: Path) -> None:
    """Whether the folder of "folder:NAME", which was given by its path, is there.

    Raises:
        BadInput: If there is no such folder.
    """
    place = above / name.removeprefix("folder:")
    if not place.is_dir():
        state = "is no folder" if place.exists() else "is not there"
        raise BadInput(f"{place} {state}; give folder:PATH with the path of the folder that holds the class folders")


def load_dataset(name: str) -> Dataset:
    """Return the data set of a name that the user gives: as `get_dataset`, or in a file or module of the user's own.

    Args:
        name: As for `get_dataset`; or "path/file.py:NAME" or "package.module:NAME", which is imported.

    Raises:
        BadInput: If there is no such data set, or its own name is that of a known one or cannot go into files' names.
    """
    if ":" not in name or name.startswith("folder:"):
        return get_dataset(name)
    entry = DATASETS.get(name)
    if entry.name in CATALOGUED or not entry.name or entry.name != path_safe(entry.name):
        raise BadInput(
            f"the name of a dataset must be new, of letters, digits, dots, underscores and hyphens, got {entry.name!r} "
            f"in {name}; give another"
        )
    return DATASETS.register(entry.name)(entry)


def is_own_dataset(dataset: Dataset) -> bool:
    """Whether a data set is a user's own: its name alone does not say which images it has."""
    return dataset.image_counts is None or dataset.name not in CATALOGUED


def known_dataset(name: object) -> Dataset | None:
    """Return the data set that a recipe or a row names; None for one that is unknown here, or not loaded."""
    try:
        return get_dataset(name) if isinstance(name, str) else None
    except BadInput:
        return None


@dataclass(frozen=True)
class InputSpec:
    """The images that a network takes.

    Attributes:
        channels: 3 for RGB, 1 for grey.
        image_size: Side in pixels.
        mean: Mean by channel, with which they are normalised; empty for colour images that were made grey, and of
            images that are not known here.
        std: Standard deviation by channel, likewise.
    """

    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> "InputSpec | None":
        """Return the images that a recipe, as JSON values, is for.

        None where it names no data set known here, and does not tell both channels and size itself.
        """
        data = recipe.get("data")
        dataset = known_dataset(data.get("dataset")) if isinstance(data, Mapping) else None
        if not isinstance(data, Mapping):
            return None
        if dataset is None:
            channels, size = data.get("channels"), data.get("image_size")
            if isinstance(channels, int) and isinstance(size, int) and min(channels, size) > 0:
                return cls(channels, size, (), ())
            return None
        augment = data.get("augment")
        first = augment[0] if isinstance(augment, list) else augment
        size = data.get("image_size") or (first["size"] if first else dataset.train_view.size)
        channels = data.get("channels") or dataset.channels
        if channels == dataset.channels:
            return cls(channels, size, dataset.mean, dataset.std)
        repeated = channels if dataset.channels == 1 else 0
        return cls(channels, size, dataset.mean * repeated, dataset.std * repeated)

    def __str__(self) -> str:
        kind = {1: "gray ", 3: "RGB "}.get(self.channels, "")
        return f"{kind}images of {self.image_size} by {self.image_size} pixels"
