"""Hugging Face's parquet tables of images, unpacked to the class folders that every data set may lie in.

Images are taken byte for byte. Their classes are the names that the tables tell, or for ImageNet the ones in the
images' names; a number alone is never believed to stand for the class of that place.
"""

import json
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sslticket.data.cures import PARQUET
from sslticket.data.dataset import SPLITS, Dataset, Split
from sslticket.data.folders import below_root, is_hidden, is_image
from sslticket.errors import BadInput, one_line
from sslticket.files import parse_json

_AT_ONCE = 64  # images in memory
_IMAGES, _LABELS = ("image", "img", "jpg", "png"), ("label", "labels", "fine_label", "cls")
_WNID = re.compile(r"n\d{8}")
_STARTS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"}


@dataclass(frozen=True)
class Rows:
    """What a table tells of its images, without their pixels.

    Attributes:
        column: that the images are in.
        names: of the images' files, where the table tells them.
        classes: of the images: names where the table tells them, else numbers.
    """

    column: str
    names: list[str | None]
    classes: list[str | int | None]


def unpack(
    dataset: Dataset, folder: Path, out: Path, stage: Callable[[str, int], Callable[[int], object]]
) -> dict[Split, int]:
    """Write train/<class>/ and val/<class>/ below `out`, which appears when all of it is written.

    Interrupted, the same call goes on: an image that is there with the right length is not written again.

    Args:
        dataset: in the catalogue.
        folder: that the tables lie in.
        out: the new folder.
        stage: told what begins and how many images that are; returns what is called with how many are done.

    Returns:
        How many images each split has.

    Raises:
        BadInput: if there are no tables, they are damaged or do not tell each image's class by name, or `out` is there.
    """
    tables = _tables(dataset, folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already; give a new folder")
    part = out.with_name(f"{out.name}.part")
    with _Children() as children:
        known = dict[str | int | None, str]()
        plans = {split: _plan(dataset, split, paths, children, known) for split, paths in tables.items()}
        _begin(part, [path for paths in tables.values() for path in paths])
        for split, plan in plans.items():
            root = part / ("train" if split == "train" else "val")
            advance = stage(split, sum(len(files) for _, _, files in plan))
            for name in {file.rpartition("/")[0] for _, _, files in plan for file in files}:
                (root / name).mkdir(parents=True, exist_ok=True)
            work = [(path, column, files, root) for path, column, files in plan]
            for done in children.each(_write, work):
                advance(done)
    (part / "unpack.json").unlink()
    out.parent.mkdir(parents=True, exist_ok=True)
    part.replace(out)
    return {split: sum(len(files) for _, _, files in plan) for split, plan in plans.items()}


def _begin(part: Path, tables: Sequence[Path]) -> None:
    """Note what is unpacked, so that another set is never mixed with what an interrupted command left."""
    about = json.dumps([[str(path.resolve()), path.stat().st_size] for path in tables])
    note = part / "unpack.json"
    if part.exists() and (not note.is_file() or note.read_text() != about):
        raise BadInput(f"{part} holds what was unpacked of other tables; delete it, or give another folder")
    part.mkdir(parents=True, exist_ok=True)
    note.write_text(about)


def _tables(dataset: Dataset, folder: Path) -> dict[Split, list[Path]]:
    """The tables of each split."""
    found = sorted({path for pattern in PARQUET for path in folder.glob(pattern)})
    if not found:
        raise BadInput(f"no parquet tables of {dataset.name} found in {folder}; give their folder with --data-root")
    words = {path: _split_word(path) for path in found}
    evaluation = next((some for some in (("validation", "valid", "val"), ("test",)) if {*some} & {*words.values()}), ())
    wanted: dict[Split, tuple[str, ...]] = {
        "train": ("train", "extra") if dataset.name == "svhn_extra" else ("train",),
        "eval": evaluation,
    }
    tables: dict[Split, list[Path]] = {}
    for split in SPLITS:
        tables[split] = [path for word in wanted[split] for path in found if words[path] == word]
        homes = {path.parent if path.stem.startswith(words[path]) else path.parent.parent for path in tables[split]}
        if len(homes) > 1:
            one, other = sorted(homes)[:2]
            raise BadInput(f"{one} and {other} both hold tables; give one of them with --data-root, such as {one}")
    return {split: paths for split, paths in tables.items() if paths}


def _split_word(path: Path) -> str:
    """The split that a table's name or its folder's begins with, "" where neither tells it."""
    for name in (path.name, path.parent.name):
        if found := re.match(r"(train|validation|valid|val|test|extra)(?![a-z])", name):
            return found[1]
    return ""


def _plan(
    dataset: Dataset,
    split: Split,
    paths: Sequence[Path],
    children: "_Children",
    known: dict[str | int | None, str],
) -> list[tuple[Path, str, list[str]]]:
    """Every table, the column of its images, and what file each of them becomes, below the split's folder.

    `known` are the folders of the classes that other splits told, by what their tables call them; it is added to.
    """
    rows = list(children.each(_look, [(path, dataset.name == "cifar100") for path in paths]))
    names = [below_root(name.rpartition("/")[2]) if name and is_image(name) else None for e in rows for name in e.names]
    told = [own for each in rows for own in each.classes]
    by_wnid = dataset.name in ("imagenet", "tiny_imagenet")
    for own, name in zip(told, names, strict=True):
        folder = _wnid(own, name) if by_wnid else _folder(own)
        if folder is None and own not in known:
            what = "WordNet name such as n01440764" if by_wnid else "name"
            raise BadInput(
                f"{paths[0]} calls a class {own!r}, and nothing in it tells the {what} of that; get the tables with "
                f"their description, or the data set from {dataset.home}"
            )
        if folder is not None and known.setdefault(own, folder) != folder:
            raise BadInput(f"{paths[0]} calls both {known[own]} and {folder} class {own!r}; get it again")
    if len(set(known.values())) < len(known):
        twice = Counter(known.values()).most_common(1)[0][0]
        raise BadInput(f"{paths[0]} and the tables beside it call several classes {twice!r}; get them again")
    own_names = [re.sub(r"_n\d{8}(\.\w+)$", r"\1", name) if name and by_wnid else name for name in names]
    files = [f"{known[own]}/{name}" for own, name in zip(told, own_names, strict=True)]
    if None in names or len(set(files)) < len(files):  # an image without a name of its own is known by its row
        files = [f"{known[own]}/{split}_{row:08d}" for row, own in enumerate(told)]
    left = iter(files)
    return [(path, each.column, list(islice(left, len(each.names)))) for path, each in zip(paths, rows, strict=True)]


def _wnid(own: str | int | None, name: str | None) -> str | None:
    """A class's WordNet name: the table's own, or that in an image's name."""
    found = _WNID.findall(name or "")
    return own if isinstance(own, str) and _WNID.fullmatch(own) else str(found[-1]) if found else None


def _folder(own: str | int | None) -> str | None:
    """A class's name as a folder may have it; a number is no name."""
    if not isinstance(own, str):
        return None
    name = own.replace("/", "-")
    return None if not name or "\0" in name or is_hidden(name) else name


def _look(path: Path, fine: bool) -> Rows:
    """In a process of its own: names and labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path)
    schema = table.schema_arrow
    column = next((name for name in _IMAGES if name in schema.names), None)
    label = next((name for name in (("fine_label",) if fine else _LABELS) if name in schema.names), None)
    if column is None or label is None:
        raise BadInput(f"{path} has the columns {', '.join(schema.names)}, and needs an image and a label; get another")
    kind = schema.field(column).type
    named = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    content = table.read(columns=[label, *([f"{column}.path"] if named else [])])
    about = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"), f"the description in {path}")
    feature = about.get("info", {}).get("features", {}).get(label, {})
    classes = feature.get("names") or []
    values = content[label].to_pylist()
    if classes and any(isinstance(value, int) and not 0 <= value < len(classes) for value in values):
        raise BadInput(f"{path} has labels that are none of its {len(classes)} classes; get it again")
    return Rows(
        column,
        [each and each["path"] for each in content[column].to_pylist()] if named else [None] * len(values),
        [classes[value] if classes and isinstance(value, int) else value for value in values],
    )


def _write(path: Path, column: str, files: Sequence[str], root: Path) -> int:
    """In a process of its own: the images of a table; returns how many there are."""
    import pyarrow.parquet as pq

    images = (
        image["bytes"] if isinstance(image, dict) else image
        for batch in pq.ParquetFile(path).iter_batches(_AT_ONCE, columns=[column])
        for image in batch.column(0).to_pylist()
    )
    for file, content in zip(files, images, strict=True):
        if not isinstance(content, bytes):
            raise BadInput(f"{path} names its images and does not hold them; get the tables that do")
        end = (
            ""
            if is_image(file)
            else "." + next((e for start, e in _STARTS.items() if content.startswith(start)), "png")
        )
        target = root / f"{file}{end}"
        if not target.is_file() or target.stat().st_size != len(content):
            target.write_bytes(content)
    return len(files)


class _Children:
    """Processes that read tables: the reader is not ours, and a forged table may end the process that it is read in."""

    def __enter__(self) -> "_Children":
        self._pool = ProcessPoolExecutor(min(8, os.cpu_count() or 1), multiprocessing.get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def each(self, work: Callable[..., Any], given: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """What `work` makes of each, whose first part is the table's path, in order.

        Raises:
            BadInput: naming the table, if it cannot be read or its reader dies.
        """
        futures = [self._pool.submit(work, *each) for each in given]
        for future, (path, *_) in zip(futures, given, strict=True):
            try:
                yield future.result()
            except ModuleNotFoundError as error:
                raise BadInput("reading parquet needs pyarrow; type: pip install 'sslticket[parquet]'") from error
            except BadInput:
                raise
            except BrokenExecutor as error:
                raise BadInput(
                    f"{path} or a table beside it is damaged: its reader died; download them again"
                ) from error
            except OSError as error:
                if not error.strerror:
                    raise BadInput(f"{path} is damaged ({one_line(error)}); download it again") from error
                raise BadInput(
                    f"cannot unpack {path}: {error.strerror} ({error.filename}); the same command goes on from there"
                ) from error
            except Exception as error:  # a damaged table can raise nearly anything
                raise BadInput(f"{path} is damaged or no table of images ({one_line(error)}); get it again") from error
