"""What ImageNet's evaluation images show, by the number in their names, from whichever published file tells it."""

import re
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sslticket.data.devkit import Devkit
from sslticket.data.folders import Listing
from sslticket.data.layouts import Ilsvrc
from sslticket.errors import BadInput
from sslticket.files import read_bytes

_LARGEST = 1 << 28  # bytes of a list; that of the training images has 40 MB
_CLASSES, _EACH = 1000, 50
_OFFICIAL = re.compile(r"ILSVRC2012_val_(\d{8})(?:_(n\d{8}))?(?=$|[^\w])", re.IGNORECASE)
WNID = re.compile(r"\bn\d{8}\b")
"""A class's name: its number in WordNet."""


# A line of each holds an image's name and its class: Kaggle's table, the script that sorts the images into class
# folders, and Caffe's list, whose classes are numbers unless somebody wrote their names.
_PAIRS = ("LOC_val_solution.csv", "valprep.sh", "val.txt")
_SYNSETS = "imagenet_2012_validation_synset_labels.txt"  # TensorFlow's: line n is the class of image n
# Line n + 1 of each begins with the name of the class that lists call n.
_ORDERS = ("synsets.txt", "synset_words.txt", "LOC_synset_mapping.txt", "imagenet_lsvrc_2015_synsets.txt")


def official(name: str) -> tuple[int, str | None] | None:
    """The number in an evaluation image's name, and the class where the name has that too; None in another name.

    "ILSVRC2012_val_00000001.JPEG" is the official name, "ILSVRC2012_val_00000001_n01751748.JPEG" Hugging Face's.
    """
    found = _OFFICIAL.match(name.rpartition("/")[2])
    return (int(found[1]), found[2]) if found else None


@dataclass(frozen=True)
class Truth:
    """The ground truth of the evaluation images.

    Attributes:
        place: the file or the kit that tells it.
        wnids: the class of each image, by the number in the image's name.
        classes: all of them, sorted.
    """

    place: Path
    wnids: dict[int, str]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, layout: Ilsvrc) -> "Truth | None":
        """What a folder's files tell: the development kit, or one of the lists that others made of it.

        Raises:
            BadInput: naming the file, if it is damaged or tells numbers without the classes that they stand for.
        """
        if kit := Devkit.of(folder, layout):
            told = {place: kit.wnids[number] for place, number in enumerate(kit.truth, 1)}
            _check_lines(kit.place, told, len(kit.wnids))
            return cls(kit.place, told, tuple(sorted(kit.wnids.values())))
        homes = [folder, *(folder / name for name in layout.lists)]
        if folder.name in ("ILSVRC", "CLS-LOC"):  # Kaggle's tables lie beside ILSVRC/Data/CLS-LOC
            homes += folder.absolute().parents[:3]
        for path in (home / name for name in _PAIRS for home in homes):
            if path.is_file() and (told := _pairs(path, homes)):
                return cls(path, told, tuple(sorted(set(told.values()))))
        for path in (home / _SYNSETS for home in homes):
            if path.is_file():
                told = dict(enumerate(_first_words(path), 1))
                _check_lines(path, told, len(set(told.values())))
                return cls(path, told, tuple(sorted(set(told.values()))))
        return None

    def check(self, found: Listing) -> None:
        """Raise `BadInput` if an evaluation image lies in the folder of another class than its number tells.

        Folders whose names are no numbers of WordNet are of one's own choice.
        """
        for file, label in zip(found.files, found.labels.tolist(), strict=True):
            folder, known = found.classes[label], official(file)
            told = self.wnids.get(known[0], folder) if known and WNID.fullmatch(folder) else folder
            if told != folder:
                raise BadInput(
                    f"{found.root / file} is of class {told}, as {self.place} tells; sort the images anew, or take "
                    "away what is wrong"
                )

    def wnid(self, name: str, number: int) -> str:
        """The class of an image.

        Raises:
            BadInput: if nothing is told of it.
        """
        if number not in self.wnids:
            raise BadInput(
                f"{self.place} tells what {len(self.wnids):,} evaluation images show, and not what {name} does; "
                "get the whole file, or take the image away"
            )
        return self.wnids[number]


def _check_lines(place: Path, told: dict[int, str], classes: int) -> None:
    """Raise `BadInput` if lines are missing or double where a line's place is all that tells of which image it is.

    Each of the 1,000 classes has 50 evaluation images (Russakovsky et al. 2015, Table 2).
    """
    odd = next(((wnid, count) for wnid, count in Counter(told.values()).items() if count != _EACH), None)
    if classes == _CLASSES and odd:
        raise BadInput(
            f"the ground truth in {place} has {odd[1]} images of {odd[0]}, not {_EACH}: lines are missing or double, "
            "and others tell of other images; download it again"
        )


def _pairs(path: Path, homes: list[Path]) -> dict[int, str]:
    """Classes by the images' numbers, from a file whose lines hold a name and a class; other lines tell nothing."""
    told: dict[int, str] = {}
    order: list[str] = []
    for count, line in enumerate(map(str.strip, _text(path).splitlines()), 1):
        found = re.search(_OFFICIAL.pattern, line, re.IGNORECASE)
        if not found:
            continue
        named = set(WNID.findall(line.replace(found[0], " "))) | {found[2]} - {None}
        number = re.search(r"[\s,](\d+)$", line)
        if not named and number:
            order = order or _order(path, homes)
            if int(number[1]) < len(order):
                named = {order[int(number[1])]}
        image = int(found[1])
        if len(named) != 1 or told.get(image) not in (None, *named):
            raise BadInput(f"{path}, line {count}: {line[:80]!r} does not tell one class of one image; get it again")
        told[image] = str(*named)
    return told


def _order(path: Path, homes: list[Path]) -> list[str]:
    """The classes that a list's numbers stand for, which nothing but a list of the classes tells."""
    for place in (home / name for name in _ORDERS for home in homes):
        if place.is_file():
            return _first_words(place)
    folder = shlex.quote(str(homes[0]))
    raise BadInput(
        f"{path} gives classes as numbers, and no list of the classes says what they stand for; put {_ORDERS[0]}, "
        "which is published with it, beside it, or if they stand for the sorted folders of the training images: "
        f"(cd {folder}/train && LC_ALL=C ls) > {folder}/{_ORDERS[0]}"
    )


def _first_words(path: Path) -> list[str]:
    """The class that each line of a file begins with."""
    # A line's number is what it is about, so none within may be empty.
    words = [(line.split() or [""])[0] for line in _text(path).rstrip().splitlines()]
    strange = next((word for word in words if not WNID.fullmatch(word)), None if words else "nothing")
    if strange is not None:
        raise BadInput(f"{path} holds {strange[:40]!r} where a class such as n01440764 belongs; get it again")
    return words


def _text(path: Path) -> str:
    try:
        return read_bytes(path, _LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise BadInput(f"{path} is no text file; get it again") from None
