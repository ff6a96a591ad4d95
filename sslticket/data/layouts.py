"""How image sets are published: which files an archive unpacks to, and what is in them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cifar:
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
class Idx:
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
class Mat:
    """SVHN's MATLAB files of cropped digits (Netzer et al. 2011)."""

    train: tuple[str, ...] = ("train_32x32.mat",)
    eval: tuple[str, ...] = ("test_32x32.mat",)
    folders: tuple[str, ...] = (".",)

    @property
    def files(self) -> tuple[str, ...]:
        """Any of these shows that the set is there."""
        return (*self.train, *self.eval)


@dataclass(frozen=True)
class Ilsvrc:
    """ImageNet as it is downloaded, and the files that tell what the evaluation images show.

    Attributes:
        train: where the archives of training images lie; the official one is an archive of archives, one a class.
        eval: where those of the evaluation images lie, in no class folders.
        devkit: what the names of the development kit's archive and folder begin with.
        meta: in the devkit, the classes and their numbers.
        truth: in the devkit, the number of the class of each evaluation image.
        lists: folders beside the images in which others put lists of them.
    """

    train: tuple[str, ...] = ("ILSVRC2012_img_train.tar", "train_images_*.tar", "data/train_images_*.tar")
    eval: tuple[str, ...] = ("ILSVRC2012_img_val.tar", "val_images.tar", "data/val_images.tar")
    devkit: str = "ILSVRC2012_devkit_t12"
    meta: str = "meta.mat"
    truth: str = "ILSVRC2012_validation_ground_truth.txt"
    lists: tuple[str, ...] = ("val", "caffe_ilsvrc12", "meta")


@dataclass(frozen=True)
class Lists:
    """Places365's lists of files and the images that they name, as torchvision arranges them and in other states.

    Attributes:
        train_images, eval_images: folders, or archives that are read in place, that the listed names are relative to.
        train, eval: the lists, a name and a class number a line.
        classes: the list of the classes and their numbers.
        homes: where the lists may lie; the second is what their archive unpacks to.
    """

    train_images: tuple[str, ...]
    eval_images: tuple[str, ...]
    train: str = "places365_train_standard.txt"
    eval: str = "places365_val.txt"
    classes: str = "categories_places365.txt"
    homes: tuple[str, ...] = (".", "filelist_places365-standard")


@dataclass(frozen=True)
class Tree:
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
