"""One's own images: what tells two folders apart, the split that a folder was given, and what has changed in it since.

A folder's name says nothing about its images, so runs, rows and keys have a hash of them. The list behind the hash is
kept beside the runs: a search or an evaluation that finds other images in the folder can say which.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sslticket.data.datasets import DATASETS
from sslticket.data.datasets.base import display_name, path_safe
from sslticket.data.decode import image_reader
from sslticket.data.source import SPLIT_SEED, DataSource
from sslticket.data.subset_lists import read_lines
from sslticket.errors import BadInput
from sslticket.storage.files import read_json, write_json

_HASHED_IMAGES = 64  # images whose bytes distinguish two sets with the same names; a few milliseconds
_KEPT_FOLDER = ".splits"
"""The folder beside the runs that lists are kept in; hidden, so that `runs/*` are runs."""
_NAMED_IMAGES = 3  # images that a line names
_MAX_KEPT_BYTES = 2**30


def hash_images(source: DataSource, lists: Iterable[Path] = ()) -> str:
    """Compute 16 hexadecimal digits that distinguish sets whose names do not, whatever the seed.

    They are over the list of images and labels, the bytes of some of the images, since two folders may have the same
    names in them, and the names in the lists that choose among them.

    Args:
        source: A whole split.
        lists: Files with one name a line, of the images that are used or whose labels are.

    Raises:
        BadInput: If a list cannot be read.
    """
    digest = hashlib.sha256(source.manifest.hash.encode())
    some = source.manifest.evenly_spaced(_HASHED_IMAGES)
    read = image_reader(some)
    for row in range(len(some)):
        content = read(row) if source.images is None else source.images[some.array_indices[row]].tobytes()
        digest.update(hashlib.sha256(content).digest())
    for path in lists:
        names = "\n".join(sorted({line.text for line in read_lines(path)}))
        digest.update(names.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]


def own_folder_name(source: DataSource) -> str:
    """Name one's own images: as their data set is called, or for the data set "folder", as the folder is.

    That is its own name, or the name above it where it is "train". One with the name of a known set, or of a half of
    one, is "folder-imagenet": nobody knows that it is that set.
    """
    if source.dataset.name != "folder":
        return source.dataset.folder_name
    assert source.manifest.root is not None, "images in folders are files"
    root = source.manifest.root.absolute()  # not resolved: a link's name is the one that people chose
    own = root.parent if root.name in source.dataset.train_folders else root
    name, sets = path_safe(own.name), DATASETS.names()
    known = name in sets or (name[-1:] in ("a", "b") and name[:-1] in sets)
    return "-".join(filter(None, ["folder" if known or not name else "", name]))


@dataclass(frozen=True)
class KeptSplit:
    """Which images of a folder are for training and which for evaluation, as a file beside the runs keeps them.

    Attributes:
        dataset: Name of the data set, such as "folder:flowers".
        name: Name of the images without their hash, see `own_folder_name`.
        images_hash: Hash of the training images, see `hash_images`.
        training: Names of the training images, below their root.
        evaluation: Names of the evaluation images; none where the folder has none.
        seeded: Whether the evaluation images were set aside here, and did not come as a split of their own.
    """

    dataset: str
    name: str
    images_hash: str
    training: tuple[str, ...]
    evaluation: tuple[str, ...]
    seeded: bool

    @classmethod
    def of_sources(cls, training: DataSource, evaluation: DataSource | None) -> "KeptSplit | None":
        """Return the split of a folder that is open; None for images that are no files."""
        if training.images is not None or training.planned:
            return None
        root = training.manifest.root
        return cls(
            training.dataset.name,
            own_folder_name(training),
            hash_images(training),
            tuple(training.manifest.frame["file"]),
            () if evaluation is None else tuple(evaluation.manifest.frame["file"]),
            evaluation is not None and evaluation.manifest.root == root,
        )

    @classmethod
    def load(cls, file: Path) -> "KeptSplit | None":
        """Read a kept split; None where there is none, or a file that is none: it is only for telling changes."""
        with suppress(OSError, BadInput, TypeError, KeyError):
            kept = read_json(file, most=_MAX_KEPT_BYTES)
            return cls(
                dataset=str(kept["dataset"]),
                name=str(kept["name"]),
                images_hash=str(kept["images_hash"]),
                training=tuple(map(str, kept["training"])),
                evaluation=tuple(map(str, kept["evaluation"])),
                seeded=kept["seed"] is not None,
            )
        return None

    @classmethod
    def find(cls, out: Path, name: str, images_hash: str) -> "KeptSplit | None":
        """Return the kept split of the images with a hash; None where none was kept.

        Args:
            out: Folder of all runs.
            name: Name of the images without their hash.
            images_hash: Hash of the training images.
        """
        return cls.load(_kept_file(out, name, images_hash))

    def save(self, out: Path) -> None:
        """Keep the split in the folder of all runs, one image a line; one that is there is replaced only if it differs.

        Args:
            out: Folder of all runs.
        """
        if self.find(out, self.name, self.images_hash) == self:
            return
        about = {"dataset": self.dataset, "name": self.name, "images_hash": self.images_hash}
        lists = {"training": list(self.training), "evaluation": list(self.evaluation)}
        seed = SPLIT_SEED if self.seeded else None
        write_json(_kept_file(out, self.name, self.images_hash), {**about, "seed": seed, **lists})

    def note_of_change(self, out: Path) -> str:
        """Return a line on what has changed since a search in the same folder of runs; "" where nothing has.

        Args:
            out: Folder of all runs.
        """
        same = self.find(out, self.name, self.images_hash)
        known = [same] if same else [self.load(file) for file in _kept_files(out, self.name)]
        last = next((each for each in known if each is not None and each.dataset == self.dataset), None)
        if last is None or last == self:
            return ""
        told = "runs on it are new ones" if same is None else "scores that are there are of the former"
        return (
            f"{self.dataset} is not as it was when {_kept_file(out, last.name, last.images_hash)} was written: "
            f"{self.describe_changes(last)}; {told}"
        )

    def describe_changes(self, earlier: "KeptSplit") -> str:
        """Return what tells the images from those of an earlier split, in a line.

        Args:
            earlier: The split as it was kept.
        """
        now, then = {*self.training, *self.evaluation}, {*earlier.training, *earlier.evaluation}
        trained, measured = {*self.training}, {*self.evaluation}
        moved = (trained & {*earlier.evaluation}) | (measured & {*earlier.training})
        parts = [
            _count_images(now - then, "added"),
            _count_images(then - now, "removed"),
            _count_images(moved, "moved between training and evaluation"),
        ]
        return ", ".join(filter(None, parts)) or "the images have the same names and other bytes"


def _count_images(names: Iterable[str], what: str) -> str:
    """So many images of a kind with the first of their names, as "2 images added (a/1.jpg, a/2.jpg)"; "" for none."""
    listed = sorted(names)
    if not listed:
        return ""
    more = ", ..." if len(listed) > _NAMED_IMAGES else ""
    plural = "s" if len(listed) > 1 else ""
    return f"{len(listed):,} image{plural} {what} ({', '.join(listed[:_NAMED_IMAGES])}{more})"


def _kept_file(out: Path, name: str, images_hash: str) -> Path:
    return out / _KEPT_FOLDER / f"{path_safe(name) or 'folder'}-{images_hash}.json"


def _kept_files(out: Path, name: str) -> Sequence[Path]:
    """The kept splits of folders of this name, the latest first."""
    digits = "[0-9a-f]" * 16
    found = (out / _KEPT_FOLDER).glob(f"{path_safe(name) or 'folder'}-{digits}.json")
    return sorted(found, key=lambda file: (-file.stat().st_mtime, file.name))


def own_images_name(source: DataSource, half: str | None, images_hash: str) -> str:
    """Name one's own images in rows: "flowers[1a2b3c4d]", of a half "flowersa[1a2b3c4d]".

    Args:
        source: The training images.
        half: Letter of the half that is meant; None for the whole.
        images_hash: Hash of the whole training split.
    """
    return display_name(f"{own_folder_name(source)}{half or ''}", images_hash[:8])
