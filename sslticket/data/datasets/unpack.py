"""Public forms of data sets that are recognised but not read as they are, and what converts each of them.

Hugging Face's parquet tables are unpacked here to the class folders that every data set may lie in. Images are taken
byte for byte. Their classes are the names that the tables give, or for ImageNet the ones in the images' names; a number
alone is never believed to stand for the class of that index.
"""

import json
import multiprocessing
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sslticket.data.datasets.base import SPLITS, Dataset, Split
from sslticket.data.datasets.folders import is_hidden, is_image, path_below_root
from sslticket.errors import BadInput, one_line
from sslticket.storage.files import parse_json
from sslticket.storage.leases import hold_alone, lease_path

PARQUET_PATTERNS = (
    *("*.parquet", "*/*.parquet", "snapshots/*/*.parquet", "snapshots/*/*/*.parquet"),
    *(f"*/{split}/*.parquet" for split in ("train", "test", "validation", "valid", "extra")),
)
"""Where Hugging Face's tables lie in a folder that was downloaded, or in its cache."""

_UNZIP_COMMAND, _UNTAR_COMMAND = "python -m zipfile -e {file} {folder}", "tar -xf {file} -C {folder}"
# A class's archive goes when it is unpacked, so the same command goes on after an interruption.
_UNTAR_CLASSES_COMMAND = (
    'for f in {above}/n[0-9]*.tar; do d={folder}/train/$(basename "$f" .tar); mkdir -p "$d" && tar -xf "$f" -C "$d" '
    '&& rm "$f" || break; done'
)
_SORT_CIFAR_COMMAND = (
    "tail -n +2 {file} | tr -d '\\r' | while IFS=, read -r id class; do mkdir -p {folder}/train/$class && "
    "mv {folder}/train/$id.png {folder}/train/$class/; done"
)
_WRITE_SYNSETS_COMMAND = (
    "python -c \"import sys, torch; print(*torch.load(sys.argv[1])[1], sep='\\n')\" {file} > "
    "{folder}/imagenet_2012_validation_synset_labels.txt"
)
_GET_IDX_ADVICE = "get the four idx files from {home}"


@dataclass(frozen=True)
class Conversion:
    """A form that is not read.

    Attributes:
        datasets: Data sets that are published so; empty for all.
        patterns: Patterns below the data set's folder, any of which shows the form.
        description: Description of the form.
        command: Command to type; `{file}` is the file found, `{above}` its folder, `{folder}` the data set's.
        advice: Advice where no command can convert it.
        done_patterns: Patterns that show that the command was typed before.
        required_patterns: Patterns of which one has to be there too, where the form alone says little.
    """

    datasets: tuple[str, ...]
    patterns: tuple[str, ...]
    description: str
    command: str = ""
    advice: str = ""
    done_patterns: tuple[str, ...] = ()
    required_patterns: tuple[str, ...] = ("*",)


CONVERSIONS = (
    Conversion(
        (),
        PARQUET_PATTERNS,
        "Hugging Face's parquet",
        "sslticket data unpack {name} {unpacked} --data-root {folder}",
    ),
    Conversion(
        ("imagenet",),
        ("*_images*.tar.gz", "data/*_images*.tar.gz"),
        "Hugging Face's compressed archives",
        "gunzip {above}/*_images*.tar.gz",
    ),
    Conversion(
        ("imagenet",),
        ("train/n[0-9]*.tar", "ILSVRC2012_img_train/n[0-9]*.tar", "n[0-9]*.tar"),
        "the archives of single classes",
        _UNTAR_CLASSES_COMMAND,
    ),
    Conversion(("imagenet",), ("imagenet-object-localization-challenge*.zip",), "Kaggle's archive", _UNZIP_COMMAND),
    Conversion(("imagenet",), ("imagenet_object_localization[0-9]*.tar.gz",), "Kaggle's archive", _UNTAR_COMMAND),
    Conversion(
        ("imagenet",),
        ("meta.bin",),
        "torchvision's file of the classes, a pickle that is not opened",
        _WRITE_SYNSETS_COMMAND,
        done_patterns=("imagenet_2012_*.txt",),
        required_patterns=("ILSVRC2012_img_val.tar", "val/ILSVRC2012_val_*"),
    ),
    Conversion(
        ("imagenet",),
        ("ILSVRC2012_devkit_t12*.zip",),
        "the development kit packed anew",
        _UNZIP_COMMAND,
        done_patterns=("ILSVRC2012_devkit_t12/data/meta.mat", "data/meta.mat", "meta.mat"),
    ),
    Conversion(
        ("imagenet",),
        ("*-00000-of-01024", "*tfrecord*", "*/*tfrecord*", "*.beton", "*.lmdb", "imagenet*train-*.tar"),
        "the records or shards of another program",
        advice="get the archives that they were made of from {home}",
    ),
    Conversion(
        ("cifar10",),
        ("cifar-10-python.tar*", "cifar-10-batches-py.tar*", "cifar-10-binary.tar*"),
        "the archive as downloaded",
        _UNTAR_COMMAND,
    ),
    Conversion(
        ("cifar100",), ("cifar-100-python.tar*", "cifar-100-binary.tar*"), "the archive as downloaded", _UNTAR_COMMAND
    ),
    Conversion(
        ("cifar10", "cifar100"),
        ("cifar-10*-matlab.tar*", "cifar-10-batches-mat/*.mat", "cifar-100-matlab/*.mat"),
        "the MATLAB version",
        advice="get the python version from {home}",
    ),
    Conversion(
        ("cifar10",),
        ("trainLabels.csv",),
        "Kaggle's training images",
        _SORT_CIFAR_COMMAND,
        done_patterns=("train/*/*.png",),
    ),
    Conversion(
        ("svhn", "svhn_extra"),
        ("train.tar.gz", "test.tar.gz", "extra.tar.gz", "*/digitStruct.mat"),
        "format 1, the full numbers",
        "for f in train test extra; do curl -o {folder}/${{f}}_32x32.mat {home}/${{f}}_32x32.mat; done",
    ),
    Conversion(
        ("mnist", "fashion_mnist"),
        ("processed/training.pt", "*/processed/training.pt"),
        "what earlier versions of torchvision made of the idx files, a pickle that is not opened",
        advice=_GET_IDX_ADVICE,
    ),
    Conversion(("mnist",), ("mnist.pkl.gz", "mnist.pkl"), "another division of the images", advice=_GET_IDX_ADVICE),
    Conversion(
        ("mnist",), ("train.csv",), "the part of the images that a competition of Kaggle has", advice=_GET_IDX_ADVICE
    ),
    Conversion(
        ("places365", "places365_small"),
        ("filelist_places365-standard.tar",),
        "the archive of the lists as downloaded",
        _UNTAR_COMMAND,
        done_patterns=("places365_val.txt", "*/places365_val.txt"),
    ),
    Conversion(
        ("places365_small",),
        ("places365standard_easyformat.tar",),
        "the archive of class folders as downloaded",
        _UNTAR_COMMAND,
        done_patterns=("places365_standard",),
    ),
    Conversion(
        ("places365", "places365_small"),
        ("train_*_places365challenge.tar", "data_*challenge"),
        "Places365-Challenge, another set",
        advice="get Places365-Standard from {home}",
    ),
    Conversion(("tiny_imagenet",), ("tiny-imagenet-200.zip",), "the archive as downloaded", _UNZIP_COMMAND),
)


def conversion_advice(dataset: Dataset, folders: Iterable[Path]) -> str | None:
    """Return what a form in one of the folders is that is not read, and what to type; None where there is none."""
    for folder in folders:
        for cure in CONVERSIONS:
            if cure.datasets and dataset.name not in cure.datasets:
                continue
            file = next(iter(_first_matches(folder, cure.patterns)), None)
            if (
                file is not None
                and _first_matches(folder, cure.required_patterns)
                and not _first_matches(folder, cure.done_patterns)
            ):
                return _conversion_message(cure, dataset, folder, file)
    return None


def _first_matches(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the paths that fit the first of the patterns that any fits, sorted."""
    return next(filter(None, (sorted(folder.glob(pattern)) for pattern in patterns)), [])


def _conversion_message(cure: Conversion, dataset: Dataset, folder: Path, file: Path) -> str:
    unpacked = folder.absolute().with_name(f"{folder.absolute().name}-unpacked")
    found = {"file": file, "above": file.parent, "folder": folder, "unpacked": unpacked}
    quoted = {name: shlex.quote(str(place)) for name, place in found.items()}
    say = (cure.command or cure.advice).format(name=dataset.name, home=dataset.homepage, **quoted)
    then = f"; then give --data-root {quoted['unpacked']}" if cure.patterns is PARQUET_PATTERNS else ""
    return f"{file} is {cure.description}, which is not read as it is; {'type: ' if cure.command else ''}{say}{then}"


_IMAGES_IN_MEMORY = 64  # images in memory
_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img", "jpg", "png"), ("label", "labels", "fine_label", "cls")
_WNID = re.compile(r"n\d{8}")
_MAGIC_BYTES = {
    b"\x89PNG": "png",
    b"\xff\xd8\xff": "jpg",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}


@dataclass(frozen=True)
class TableRows:
    """The rows of a table without the images' pixels.

    Attributes:
        column: Column that the images are in.
        names: Names of the images' files, where the table has them.
        classes: Classes of the images: names where the table has them, else numbers.
    """

    column: str
    names: list[str | None]
    classes: list[str | int | None]


def unpack_parquet(
    dataset: Dataset,
    folder: Path,
    out: Path,
    stage: Callable[[str, int], Callable[[int], object]],
    note: Callable[[str], object] = print,
) -> dict[Split, int]:
    """Write train/<class>/ and val/<class>/ below `out`, which appears when all of it is written.

    Interrupted, the same call goes on: an image that is there with the right length is not written again.

    Args:
        dataset: Data set that the tables hold.
        folder: Folder that the tables lie in.
        out: Folder to write, a new one.
        stage: Function that is called with what begins and its number of images; it returns a function that is called
            with the number of those that are done.
        note: Shows a person what is waited for.

    Returns:
        The number of images of each split.

    Raises:
        BadInput: If there are no tables, they are damaged or do not name each image's class, or `out` is there.
        InHand: If another process is unpacking there.
    """
    tables = _find_tables(dataset, folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already; give a new folder")
    part, fix = out.with_name(f"{out.name}.part"), "; wait for it or give another OUT"
    with hold_alone(lease_path(out), f"unpacking into {out}", fix, note), _TableProcesses() as children:
        known = dict[str | int | None, str]()
        plans = {split: _plan_split(dataset, split, paths, children, known) for split, paths in tables.items()}
        _note_tables(part, [path for paths in tables.values() for path in paths])
        for split, plan in plans.items():
            root = part / ("train" if split == "train" else "val")
            advance = stage(split, sum(len(files) for _, _, files in plan))
            for name in {file.rpartition("/")[0] for _, _, files in plan for file in files}:
                (root / name).mkdir(parents=True, exist_ok=True)
            work = [(path, column, files, root) for path, column, files in plan]
            for done in children.each(_write_images, work):
                advance(done)
        (part / "unpack.json").unlink()
        part.replace(out)
    return {split: sum(len(files) for _, _, files in plan) for split, plan in plans.items()}


def _note_tables(part: Path, tables: Sequence[Path]) -> None:
    """Note what is unpacked, so that another set is never mixed with what an interrupted command left."""
    about = json.dumps([[str(path.resolve()), path.stat().st_size] for path in tables])
    note = part / "unpack.json"
    if part.exists() and (not note.is_file() or note.read_text() != about):
        raise BadInput(f"{part} holds what was unpacked of other tables; delete it, or give another folder")
    part.mkdir(parents=True, exist_ok=True)
    note.write_text(about)


def _find_tables(dataset: Dataset, folder: Path) -> dict[Split, list[Path]]:
    """The tables of each split."""
    found = sorted({path for pattern in PARQUET_PATTERNS for path in folder.glob(pattern)})
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


def _plan_split(
    dataset: Dataset,
    split: Split,
    paths: Sequence[Path],
    children: "_TableProcesses",
    known: dict[str | int | None, str],
) -> list[tuple[Path, str, list[str]]]:
    """Every table, the column of its images, and what file each of them becomes, below the split's folder.

    `known` are the folders of the classes that other splits told, by what their tables call them; it is added to.
    """
    rows = list(children.each(_read_rows, [(path, dataset.name == "cifar100") for path in paths]))
    names = [
        path_below_root(name.rpartition("/")[2]) if name and is_image(name) else None for e in rows for name in e.names
    ]
    told = [own for each in rows for own in each.classes]
    by_wnid = dataset.name in ("imagenet", "tiny_imagenet")
    for own, name in zip(told, names, strict=True):
        folder = _wnid_of_image(own, name) if by_wnid else _class_folder_name(own)
        if folder is None and own not in known:
            what = "WordNet name such as n01440764" if by_wnid else "name"
            raise BadInput(
                f"{paths[0]} calls a class {own!r}, and nothing in it tells the {what} of that; get the tables with "
                f"their description, or the data set from {dataset.homepage}"
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


def _wnid_of_image(own: str | int | None, name: str | None) -> str | None:
    """A class's WordNet name: the table's own, or that in an image's name."""
    found = _WNID.findall(name or "")
    return own if isinstance(own, str) and _WNID.fullmatch(own) else str(found[-1]) if found else None


def _class_folder_name(own: str | int | None) -> str | None:
    """A class's name as a folder may have it; a number is no name."""
    if not isinstance(own, str):
        return None
    name = own.replace("/", "-")
    return None if not name or "\0" in name or is_hidden(name) else name


def _read_rows(path: Path, fine: bool) -> TableRows:
    """In a process of its own: names and labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path)
    schema = table.schema_arrow
    column = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
    label = next((name for name in (("fine_label",) if fine else _LABEL_COLUMNS) if name in schema.names), None)
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
    return TableRows(
        column,
        [each and each["path"] for each in content[column].to_pylist()] if named else [None] * len(values),
        [classes[value] if classes and isinstance(value, int) else value for value in values],
    )


def _write_images(path: Path, column: str, files: Sequence[str], root: Path) -> int:
    """In a process of its own: the images of a table; returns how many there are."""
    import pyarrow.parquet as pq

    images = (
        image["bytes"] if isinstance(image, dict) else image
        for batch in pq.ParquetFile(path).iter_batches(_IMAGES_IN_MEMORY, columns=[column])
        for image in batch.column(0).to_pylist()
    )
    for file, content in zip(files, images, strict=True):
        if not isinstance(content, bytes):
            raise BadInput(f"{path} names its images and does not hold them; get the tables that do")
        end = (
            ""
            if is_image(file)
            else "." + next((e for start, e in _MAGIC_BYTES.items() if content.startswith(start)), "png")
        )
        target = root / f"{file}{end}"
        if not target.is_file() or target.stat().st_size != len(content):
            target.write_bytes(content)
    return len(files)


class _TableProcesses:
    """Processes that read tables: the reader is not ours, and a forged table may end the process that it is read in."""

    def __enter__(self) -> "_TableProcesses":
        self._pool = ProcessPoolExecutor(min(8, os.cpu_count() or 1), multiprocessing.get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def each(self, work: Callable[..., Any], given: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """What `work` makes of each, whose first part is the table's path, in order.

        Raises:
            BadInput: Naming the table, if it cannot be read or its reader dies.
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
