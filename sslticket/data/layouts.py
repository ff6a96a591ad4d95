"""How image sets are published: which files an archive unpacks to, and what is in them."""

from dataclasses import dataclass


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

    @property
    def files(self) -> tuple[str, ...]:
        """Any of these shows that the set is there."""
        return (*self.train, *self.eval)


@dataclass(frozen=True)
class Idx:
    """MNIST's idx files; `folder` is where torchvision's download puts them."""

    folder: str
    train: tuple[str, str] = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    eval: tuple[str, str] = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

    @property
    def files(self) -> tuple[str, ...]:
        """Any of these shows that the set is there."""
        return tuple(name + end for name in (*self.train, *self.eval) for end in ("", ".gz"))


@dataclass(frozen=True)
class Mat:
    """SVHN's MATLAB files of cropped digits (Netzer et al. 2011)."""

    train: tuple[str, ...] = ("train_32x32.mat",)
    eval: tuple[str, ...] = ("test_32x32.mat",)
    folder: str = "."

    @property
    def files(self) -> tuple[str, ...]:
        """Any of these shows that the set is there."""
        return (*self.train, *self.eval)


@dataclass(frozen=True)
class Ilsvrc:
    """ImageNet's archives as they are downloaded, and the development kit that tells what the evaluation images show.

    Attributes:
        train: an archive of archives, one a class.
        eval: an archive of images in no class folders.
        devkit: archive of the development kit.
        meta: in the devkit, the classes and their numbers.
        truth: in the devkit, the number of the class of each evaluation image.
    """

    train: str = "ILSVRC2012_img_train.tar"
    eval: str = "ILSVRC2012_img_val.tar"
    devkit: str = "ILSVRC2012_devkit_t12.tar.gz"
    meta: str = "ILSVRC2012_devkit_t12/data/meta.mat"
    truth: str = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Lists:
    """Places365's lists of files and the folders that its archives unpack to, as torchvision arranges them.

    Attributes:
        train_images, eval_images: folders that the listed names are relative to.
        train, eval: the lists, a name and a class number a line.
        classes: the list of the classes and their numbers.
    """

    train_images: str
    eval_images: str
    train: str = "places365_train_standard.txt"
    eval: str = "places365_val.txt"
    classes: str = "categories_places365.txt"
