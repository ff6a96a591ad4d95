"""Lists of images or of classes in text files, in the forms in which people have them."""

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from sslticket.data.datasets.folders import is_hidden
from sslticket.errors import BadInput

_AMBIGUOUS = -1  # instead of a row: more than one image may be meant
_HEADING_PATTERN = re.compile(
    "(image|img|file|path|name|id|index|class|category|wnid|synset|label)(e?s)?[ _]?(id|name|path)?s?", re.IGNORECASE
)
_PROBED_LINES = 100  # lines that show in which form a list may be
_LONGEST_SHOWN = 100  # characters of a line that an error shows


class ListLine(NamedTuple):
    """A line of a list that is not empty: its number in the file, from 1 on, and its text."""

    number: int
    text: str

    def __str__(self) -> str:
        cut = self.text if len(self.text) <= _LONGEST_SHOWN else f"{self.text[:_LONGEST_SHOWN]}..."
        return f"line {self.number} {cut!r}"


@dataclass(frozen=True, eq=False)
class KnownImages:
    """The images that a list may name.

    Attributes:
        names: Paths of the images below their root, or the numbers of those that are an array.
        labels: (N,) int64, indices into `classes`.
        classes: Names of the classes.
        roots: Folders of the images; a path in a list may begin with one, or with its last parts.
        description: What the images are, for errors.
    """

    names: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    roots: tuple[PurePosixPath, ...]
    description: str


def read_lines(path: Path) -> list[ListLine]:
    """Read the lines of a list without the empty ones; UTF-8, or UTF-16 with its byte-order mark.

    Raises:
        BadInput: If it cannot be read, is no text or is empty.
    """
    if path.exists() and not path.is_file():  # a pipe could be read only once, and by one process
        raise BadInput(f"cannot read the subset list {path}: it is no regular file; write the list to one")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read the subset list {path}: {error.strerror}") from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16", "replace") if wide else content.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        raise BadInput(f"cannot read the subset list {path}: it is not a text file; give one with a name on each line")
    found = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    kept = [ListLine(number, line.strip()) for number, line in enumerate(found, 1) if line.strip()]
    if not kept:
        raise BadInput(f"the subset list {path} is empty; it needs one file name per line")
    return kept


_IMAGENET_CLASS = re.compile(r"n\d{8}")


def count_listed(path: Path) -> tuple[int, bool]:
    """Count what a list names, for a plan without the images: its lines, and whether they are classes of ImageNet's.

    Raises:
        BadInput: If the list cannot be read.
    """
    lines = read_lines(path)
    return len({line.text for line in lines}), all(_IMAGENET_CLASS.fullmatch(line.text) for line in lines)


def resolve_list(path: Path, known: KnownImages) -> tuple[str, ...] | np.ndarray:
    """Return the classes that a list names, if each of its lines names one and none an image; else the images.

    A line is a name, alone or beside a label after a tab, a comma or a space; docs/data.md has all forms. Labels choose
    nothing, but must fit the classes one to one.

    Returns:
        Names of classes, or rows of images, ascending, (N,) int64.

    Raises:
        BadInput: Showing the lines that name nothing or several images, or whose label is another class's.
    """
    given = read_lines(path)
    index = _NameIndex(known.names, known.roots, stems=True)
    images = _parse_list(given, index)
    if not images.indices and not images.unmatched:
        raise BadInput(f"{path} names nothing, it holds {given[0]} and the like only; it needs a name on each line")
    if not images.indices:
        index = _NameIndex(known.classes, known.roots, stems=False)
        classes = _parse_list(given, index)
        if not classes.unmatched:
            _check_one_name_per_line(path, classes, index)
            return tuple(dict.fromkeys(known.classes[row] for row in classes.indices))
        if classes.indices:
            raise BadInput(
                f"{path} names classes of {known.description}, but {_first_lines(classes.unmatched)} "
                f"{'is' if len(classes.unmatched) == 1 else 'are'} none; correct or remove what is not there"
            )
    if images.unmatched:
        count = len(set(images.unmatched_names))
        raise BadInput(
            f"{count} of the {count + len(set(images.indices))} images in {path} are not in {known.description}: "
            f"{_first_lines(images.unmatched)}; correct or remove them"
        )
    if unclear := [line for line, row in zip(images.lines, images.indices, strict=True) if row == _AMBIGUOUS]:
        raise BadInput(
            f"{len(unclear)} names in {path} fit several images ({_first_lines(unclear)}); write them as class/name"
        )
    if not set(images.labels) <= set(known.classes):
        _check_one_name_per_line(path, images, index)
    _check_label_column(path, images, known)
    return np.unique(np.array(images.indices, np.int64))


class _ParsedList(NamedTuple):
    """A list taken in one form: the lines that name something, what and with which label; and those that do not."""

    lines: list[ListLine]
    indices: list[int]
    labels: list[str]
    unmatched: list[ListLine]
    unmatched_names: list[str]


def _parse_list(given: Sequence[ListLine], index: "_NameIndex") -> _ParsedList:
    """The list in that form, one for all lines, in which the most lines name something."""
    forms = [form for divider, form in _LINE_FORMATS if any(divider in line.text for line in given)]
    # Most forms fit no line at all; the first lines show it, and a list may have a million.
    forms.sort(key=lambda form: len(_parse_in_format(given[:_PROBED_LINES], form, index).unmatched))
    readings = (_parse_in_format(given, form, index) for form in forms)
    best = next(readings)
    while best.unmatched and (other := next(readings, None)):
        best = min(best, other, key=lambda reading: len(reading.unmatched))
    return best


def _parse_in_format(given: Sequence[ListLine], form: "_LineFormat", index: "_NameIndex") -> _ParsedList:
    found = _ParsedList([], [], [], [], [])
    for position, line in enumerate(given):
        name, label = (part.strip().strip("\"'").strip() for part in form(line.text))
        if (row := index.find(name)) is not None:
            found.lines.append(line)
            found.indices.append(row)
            found.labels.append(label)
        elif not (
            line.text.startswith("#") or _is_ignored(name) or (position == 0 and _HEADING_PATTERN.fullmatch(name))
        ):
            found.unmatched.append(line)
            found.unmatched_names.append(name)
    return found


def _is_ignored(name: str) -> bool:
    """Whether it is a hidden file's or macOS's copy's, as those of folders and archives are left out."""
    last = _with_forward_slashes(name).rpartition("/")[2]
    return last != ".." and (is_hidden(last) or "__MACOSX/" in name)


_LineFormat = Callable[[str], tuple[str, str]]


def _split_line(divider: str, label: str, text: str) -> tuple[str, str]:
    """Split a line into its name and its label.

    Args:
        divider: Character that separates them.
        label: Position of the label: "after" the first divider, as in CSV files and Kaggle's boxes; after the "last"
            one, as names may hold it too; or "before" the first.
        text: The line.
    """
    first, last = text.partition(divider), text.rpartition(divider)
    if label == "last":
        return last[0] or text, last[2] if divider in text else ""
    return (first[0], first[2]) if label == "after" else (first[2], first[0])


_LINE_FORMATS: tuple[tuple[str, _LineFormat], ...] = (
    ("", lambda text: (text, "")),
    *(
        (divider, partial(_split_line, divider, label))
        for divider in ("\t", ",", ";", " ")
        for label in ("last", "after", "before")
    ),
)


class _NameIndex:
    """Finds the index of a name in a list of names."""

    def __init__(self, names: Sequence[str], roots: Iterable[PurePosixPath], *, stems: bool) -> None:
        self._names, self._spellings = names, _SPELLINGS if stems else _SPELLINGS[:-1]
        self._known = list[tuple[dict[str, int], dict[str, int]]]()  # a spelling's paths and bare names, once needed
        # Any last parts of a root's path may stand before a name, "train/" of /data/imagenet/train; or all of it.
        tails = {"/".join(root.parts[start:]) for root in roots for start in range(1, len(root.parts))}
        self._heads = [f"{head}/" for head in sorted(tails | {str(root) for root in roots}, key=len)]

    def find(self, name: str) -> int | None:
        """Return its index, `_AMBIGUOUS` where it fits more than one, None where it fits none."""
        plain = _with_forward_slashes(name)
        if not plain:  # the stem of a number
            return None
        called = dict.fromkeys([name, plain, *(plain.removeprefix(head) for head in self._heads)])
        for level, (spell, given) in enumerate(self._spellings):
            if level == len(self._known):
                bare = [name.rpartition("/")[2] for name in self._names]
                self._known.append((_positions_by_name(map(spell, self._names)), _positions_by_name(map(spell, bare))))
            paths, bare_names = self._known[level]
            for each in map(given, called):
                if (row := paths.get(each)) is not None:
                    return row
            # Only a name that was given without folders: "b/1.jpg" is not the 1.jpg of another folder.
            if "/" not in plain and (row := bare_names.get(given(plain))) is not None:
                return row
        return None


def _positions_by_name(names: Iterable[str]) -> dict[str, int]:
    found = dict[str, int]()
    for index, name in enumerate(names):
        found[name] = _AMBIGUOUS if name in found else index
    return found


def _with_forward_slashes(name: str) -> str:
    """Return a name with forward slashes, without "./" before it and "/" after it."""
    name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name.rstrip("/")


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _without_suffix(name: str) -> str:
    above, slash, last = _nfc(name).rpartition("/")
    return above + slash + last.rpartition(".")[0]


_SPELLINGS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (str, str),
    (_nfc, _nfc),  # a list from macOS may have other Unicode characters for the same text
    (_without_suffix, _nfc),  # Kaggle's lists name ImageNet's images without their suffix
)
"""How the known name and the given one are spelled to be compared, one way after the other."""


def _check_one_name_per_line(path: Path, reading: _ParsedList, index: _NameIndex) -> None:
    """Raise `BadInput` if what stands beside a name, for a label, is another name: it would not be read."""
    names = {label: re.split(r"[\t,; ]+", label)[0].strip("\"'") for label in set(reading.labels)}
    others = {label for label, name in names.items() if not name.isdigit() and index.find(name) is not None}
    for line, row, label in zip(reading.lines, reading.indices, reading.labels, strict=True):
        if label in others and index.find(names[label]) != row:
            raise BadInput(f"{path} has several names on one line, {line}; write each on its own")


def _check_label_column(path: Path, images: _ParsedList, known: KnownImages) -> None:
    """Raise `BadInput` if the labels beside the images' names do not fit the classes one to one."""
    # Running numbers of the images, as in Kaggle's train_cls.txt: no two are alike, and classes are fewer.
    distinct = len(known.classes) < len(images.labels) == len(set(images.labels))
    if not any(images.labels) or (distinct and all(label.isdigit() for label in images.labels)):
        return
    number = {name: label for label, name in enumerate(known.classes)}
    of_label, of_class = dict[str, tuple[int, ListLine]](), dict[int, tuple[str, ListLine]]()
    for line, row, label in zip(images.lines, images.indices, images.labels, strict=True):
        own = int(known.labels[row])
        if label not in number:  # Kaggle's boxes follow the class
            label = label.replace(",", " ").partition(" ")[0]
        where = f"{path}, {line}: the image is of class {known.classes[own]!r}, and "
        if not label:
            raise BadInput(f"{where}has no label, as other lines have; add it, or leave all labels out")
        first, line_of_label = of_label.setdefault(label, (own, line))
        other, line_of_class = of_class.setdefault(own, (label, line))
        if number.get(label, own) != own:
            raise BadInput(f"{where}its label is {label!r}, another class; correct it, or leave all labels out")
        if first != own:
            fault = f"label {label!r} is that of {known.classes[first]!r} in {line_of_label}"
        elif other != label:
            fault = f"its label is {label!r}, and {other!r} in {line_of_class}"
        else:
            continue
        raise BadInput(f"{where}{fault}; correct them, or leave all labels out")


def _first_lines(given: Sequence[ListLine]) -> str:
    return ", ".join(map(str, given[:3])) + (", ..." if len(given) > 3 else "")
