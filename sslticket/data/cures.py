"""Public forms of data sets that are recognised and not read as they are, and the command that cures each."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sslticket.data.dataset import Dataset

PARQUET = (
    *("*.parquet", "*/*.parquet", "snapshots/*/*.parquet", "snapshots/*/*/*.parquet"),
    *(f"*/{split}/*.parquet" for split in ("train", "test", "validation", "valid", "extra")),
)
"""Where Hugging Face's tables lie in a folder that was downloaded, or in its cache."""

_UNZIPPED, _UNPACKED = "python -m zipfile -e {file} {folder}", "tar -xf {file} -C {folder}"
# A class's archive goes when it is unpacked, so the same command goes on after an interruption.
_CLASSES = (
    'for f in {above}/n[0-9]*.tar; do d={folder}/train/$(basename "$f" .tar); mkdir -p "$d" && tar -xf "$f" -C "$d" '
    '&& rm "$f" || break; done'
)
_SORTED = (
    "tail -n +2 {file} | tr -d '\\r' | while IFS=, read -r id class; do mkdir -p {folder}/train/$class && "
    "mv {folder}/train/$id.png {folder}/train/$class/; done"
)
_SYNSETS = (
    "python -c \"import sys, torch; print(*torch.load(sys.argv[1])[1], sep='\\n')\" {file} > "
    "{folder}/imagenet_2012_validation_synset_labels.txt"
)
_IDX = "get the four idx files from {home}"


@dataclass(frozen=True)
class Cure:
    """A form that is not read.

    Attributes:
        sets: the data sets that are published so; none for all.
        files: patterns below the data set's folder, any of which shows the form.
        what: the form, in words.
        command: what to type; `{file}` is the file found, `{above}` its folder, `{folder}` the data set's.
        advice: what to do where no command can.
        done: patterns that show that the command was typed before.
        needs: patterns of which one has to be there too, where the form alone says little.
    """

    sets: tuple[str, ...]
    files: tuple[str, ...]
    what: str
    command: str = ""
    advice: str = ""
    done: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("*",)


CURES = (
    Cure(
        (),
        PARQUET,
        "Hugging Face's parquet",
        "sslticket data unpack {name} {unpacked} --data-root {folder}",
    ),
    Cure(
        ("imagenet",),
        ("*_images*.tar.gz", "data/*_images*.tar.gz"),
        "Hugging Face's compressed archives",
        "gunzip {above}/*_images*.tar.gz",
    ),
    Cure(
        ("imagenet",),
        ("train/n[0-9]*.tar", "ILSVRC2012_img_train/n[0-9]*.tar", "n[0-9]*.tar"),
        "the archives of single classes",
        _CLASSES,
    ),
    Cure(("imagenet",), ("imagenet-object-localization-challenge*.zip",), "Kaggle's archive", _UNZIPPED),
    Cure(("imagenet",), ("imagenet_object_localization[0-9]*.tar.gz",), "Kaggle's archive", _UNPACKED),
    Cure(
        ("imagenet",),
        ("meta.bin",),
        "torchvision's file of the classes, a pickle that is not opened",
        _SYNSETS,
        done=("imagenet_2012_*.txt",),
        needs=("ILSVRC2012_img_val.tar", "val/ILSVRC2012_val_*"),
    ),
    Cure(
        ("imagenet",),
        ("ILSVRC2012_devkit_t12*.zip",),
        "the development kit packed anew",
        _UNZIPPED,
        done=("ILSVRC2012_devkit_t12/data/meta.mat", "data/meta.mat", "meta.mat"),
    ),
    Cure(
        ("imagenet",),
        ("*-00000-of-01024", "*tfrecord*", "*/*tfrecord*", "*.beton", "*.lmdb", "imagenet*train-*.tar"),
        "the records or shards of another program",
        advice="get the archives that they were made of from {home}",
    ),
    Cure(
        ("cifar10",),
        ("cifar-10-python.tar*", "cifar-10-batches-py.tar*", "cifar-10-binary.tar*"),
        "the archive as downloaded",
        _UNPACKED,
    ),
    Cure(("cifar100",), ("cifar-100-python.tar*", "cifar-100-binary.tar*"), "the archive as downloaded", _UNPACKED),
    Cure(
        ("cifar10", "cifar100"),
        ("cifar-10*-matlab.tar*", "cifar-10-batches-mat/*.mat", "cifar-100-matlab/*.mat"),
        "the MATLAB version",
        advice="get the python version from {home}",
    ),
    Cure(("cifar10",), ("trainLabels.csv",), "Kaggle's training images", _SORTED, done=("train/*/*.png",)),
    Cure(
        ("svhn", "svhn_extra"),
        ("train.tar.gz", "test.tar.gz", "extra.tar.gz", "*/digitStruct.mat"),
        "format 1, the full numbers",
        "for f in train test extra; do curl -o {folder}/${{f}}_32x32.mat {home}/${{f}}_32x32.mat; done",
    ),
    Cure(
        ("mnist", "fashion_mnist"),
        ("processed/training.pt", "*/processed/training.pt"),
        "what earlier versions of torchvision made of the idx files, a pickle that is not opened",
        advice=_IDX,
    ),
    Cure(("mnist",), ("mnist.pkl.gz", "mnist.pkl"), "another division of the images", advice=_IDX),
    Cure(("mnist",), ("train.csv",), "the part of the images that a competition of Kaggle has", advice=_IDX),
    Cure(
        ("places365", "places365_small"),
        ("filelist_places365-standard.tar",),
        "the archive of the lists as downloaded",
        _UNPACKED,
        done=("places365_val.txt", "*/places365_val.txt"),
    ),
    Cure(
        ("places365_small",),
        ("places365standard_easyformat.tar",),
        "the archive of class folders as downloaded",
        _UNPACKED,
        done=("places365_standard",),
    ),
    Cure(
        ("places365", "places365_small"),
        ("train_*_places365challenge.tar", "data_*challenge"),
        "Places365-Challenge, another set",
        advice="get Places365-Standard from {home}",
    ),
    Cure(("tiny_imagenet",), ("tiny-imagenet-200.zip",), "the archive as downloaded", _UNZIPPED),
)


def cured(dataset: Dataset, folders: Iterable[Path]) -> str | None:
    """What a form is that lies in one of the folders and is not read, and what to type; None where there is none."""
    for folder in folders:
        for cure in CURES:
            if cure.sets and dataset.name not in cure.sets:
                continue
            file = next(iter(_first(folder, cure.files)), None)
            if file is not None and _first(folder, cure.needs) and not _first(folder, cure.done):
                return _told(cure, dataset, folder, file)
    return None


def _first(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """What fits the first of the patterns that anything fits, sorted."""
    return next(filter(None, (sorted(folder.glob(pattern)) for pattern in patterns)), [])


def _told(cure: Cure, dataset: Dataset, folder: Path, file: Path) -> str:
    unpacked = folder.absolute().with_name(f"{folder.absolute().name}-unpacked")
    found = {"file": file, "above": file.parent, "folder": folder, "unpacked": unpacked}
    quoted = {name: shlex.quote(str(place)) for name, place in found.items()}
    say = (cure.command or cure.advice).format(name=dataset.name, home=dataset.home, **quoted)
    then = f"; then give --data-root {quoted['unpacked']}" if cure.files is PARQUET else ""
    return f"{file} is {cure.what}, which is not read as it is; {'type: ' if cure.command else ''}{say}{then}"
