"""Tables of Hugging Face become class folders, by names alone, or are refused before anything is written."""

import ctypes
import io
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from PIL import Image

from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.datasets.unpack import _TableProcesses, unpack_parquet
from sslticket.data.source import open_split
from sslticket.storage.leases import hold_alone, lease_path

pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

Refused = Callable[..., AbstractContextManager[None]]
Rows = Sequence[tuple[int, str | None, object]]


def image(shade: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 50, 200)).save(written, "PNG")
    return written.getvalue()


def table(path: Path, rows: Rows, names: list[str] | None) -> None:
    """Rows of shade, the image's name and label; `names` are those of the classes."""
    features = {"label": {"_type": "ClassLabel", "names": names}} if names else {}
    columns = {
        "image": [{"bytes": image(shade), "path": name} for shade, name, _ in rows],
        "label": [label for *_, label in rows],
    }
    content = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)


def unpacked(name: str, folder: Path, out: Path) -> dict[str, bytes]:
    unpack_parquet(get_dataset(name), folder, out, lambda what, total: lambda done: None)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_imagenets_classes_are_those_of_the_names_and_never_the_numbers(tmp_path: Path, refused: Refused) -> None:
    rows = [(1, "n01443537_5_n01443537.JPEG", 0), (2, "n01440764_7_n01440764.JPEG", 1)]
    table(tmp_path / "t/data/train-00000-of-00001.parquet", rows, ["goldfish", "tench"])
    # Where an image's name lacks the class, the training images tell which the number is.
    table(tmp_path / "t/data/validation-00000-of-00001.parquet", [(3, "ILSVRC2012_val_00000009.JPEG", 1)], None)
    with refused("calls a class 1"):
        unpacked("imagenet", tmp_path / "t", tmp_path / "no")
    table(
        tmp_path / "t/data/validation-00000-of-00001.parquet",
        [(3, "ILSVRC2012_val_00000009.JPEG", 1)],
        ["goldfish", "tench"],
    )
    assert unpacked("imagenet", tmp_path / "t", tmp_path / "out") == {
        "train/n01443537/n01443537_5.JPEG": image(1),
        "train/n01440764/n01440764_7.JPEG": image(2),
        "val/n01440764/ILSVRC2012_val_00000009.JPEG": image(3),
    }
    manifest = open_split("imagenet", "eval", tmp_path / "out").manifest
    assert [manifest.classes[label] for label in manifest.labels] == ["n01440764"]


@pytest.mark.parametrize(
    ("name", "rows", "names", "words"),
    [
        ("imagenet", [(1, "n01443537_5_n01443537.JPEG", 0), (2, "n01440764_7_n01440764.JPEG", 0)], None, "calls both"),
        (
            "imagenet",
            [(1, "n01443537_5_n01443537.JPEG", 0), (2, "n01443537_7_n01443537.JPEG", 1)],
            None,
            "several classes",
        ),
        ("imagenet", [(1, "5.JPEG", 0)], ["goldfish"], "WordNet name"),
        ("svhn", [(1, None, 3)], None, "nothing in it tells the name"),
        ("svhn", [(1, None, 3)], ["0", "1"], "none of its 2 classes"),
        ("svhn", [(1, None, -1)], ["0", "1"], "none of its 2 classes"),
        ("svhn", [(1, None, 0), (2, None, 1)], ["a/b", "a-b"], "several classes 'a-b'"),
        ("svhn", [(1, None, 0)], [".."], "nothing in it tells the name"),
    ],
)
def test_classes_that_are_not_told_by_name_are_refused_before_anything_is_written(
    tmp_path: Path,
    refused: Refused,
    name: str,
    rows: Rows,
    names: list[str],
    words: str,
) -> None:
    table(tmp_path / "tables/train-00000-of-00001.parquet", rows, names)
    with refused(str(tmp_path / "tables"), words):
        unpacked(name, tmp_path / "tables", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_images_without_names_of_their_own_are_known_by_their_rows(tmp_path: Path) -> None:
    for number in range(2):
        rows = [(10 * number + i, "image.png", i) for i in range(2)]
        table(tmp_path / f"tables/train-0000{number}-of-00002.parquet", rows, ["0", "1"])
    assert unpacked("svhn", tmp_path / "tables", tmp_path / "out") == {
        "train/0/train_00000000.png": image(0),
        "train/1/train_00000001.png": image(1),
        "train/0/train_00000002.png": image(10),
        "train/1/train_00000003.png": image(11),
    }


def test_an_interrupted_unpacking_goes_on_and_never_with_other_tables(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "tables/train-00000-of-00001.parquet"
    table(path, [(1, None, 0), (2, None, 1)], ["0", "1"])
    out, part = tmp_path / "out", tmp_path / "out.part"
    part.mkdir()
    (part / "unpack.json").write_text(json.dumps([[str(path), path.stat().st_size]]))
    (part / "train/0").mkdir(parents=True)
    (part / "train/0/train_00000000.png").write_bytes(image(1)[:50])  # cut short
    assert unpacked("svhn", tmp_path / "tables", out) == {
        "train/0/train_00000000.png": image(1),
        "train/1/train_00000001.png": image(2),
    }
    with refused(str(out), "is there already"):
        unpacked("svhn", tmp_path / "tables", out)
    (tmp_path / "other.part").mkdir()
    with refused(str(tmp_path / "other.part"), "of other tables"):
        unpacked("svhn", tmp_path / "tables", tmp_path / "other")


def test_damaged_tables_are_named(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "tables/train-00000-of-00001.parquet"
    table(path, [(1, None, 0)], ["0"])
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-4] + b"nope", b"<html>"):
        path.write_bytes(content)
        with refused(str(path), "damaged"):
            unpacked("svhn", tmp_path / "tables", tmp_path / "out")
    pq.write_table(pa.table({"pixels": [1]}), path)
    with refused(str(path), "has the columns pixels"):
        unpacked("svhn", tmp_path / "tables", tmp_path / "out")
    path.unlink()
    with refused("no parquet tables of svhn", str(tmp_path / "tables")):
        unpacked("svhn", tmp_path / "tables", tmp_path / "out")
    for home in ("cropped_digits", "full_numbers"):
        table(tmp_path / "tables" / home / "train-00000-of-00001.parquet", [(1, None, 0)], ["0"])
    with refused("cropped_digits", "full_numbers", "--data-root"):
        unpacked("svhn", tmp_path / "tables", tmp_path / "out")


def test_a_table_whose_reader_dies_is_named(tmp_path: Path, refused: Refused) -> None:
    with _TableProcesses() as children, refused("its reader died", "download them again"):
        list(children.each(ctypes.string_at, [(0,)]))


def test_two_commands_do_not_unpack_into_one_folder(tmp_path: Path, refused: Refused) -> None:
    table(tmp_path / "t/data/train-00000-of-00001.parquet", [(1, "n01443537_5_n01443537.JPEG", 0)], ["goldfish"])
    with hold_alone(lease_path(tmp_path / "out"), "unpacking", "", print), refused("another process is unpacking into"):
        unpacked("imagenet", tmp_path / "t", tmp_path / "out")
    assert not (tmp_path / "out.part").exists()
