"""Lists of images and of classes, in every form in which people have them."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sslticket.data.manifest import Manifest
from sslticket.data.own_images import hash_images
from sslticket.data.source import open_split
from tests.data.test_source import picture

Refused = Callable[..., AbstractContextManager[None]]

WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")
PICK = [(wnid, f"{wnid}_{place}") for wnid in WNIDS for place in range(2)]
ROOT = Path("/data/imagenet/train")


def of(names: Sequence[str], root: Path | None = ROOT, archives: tuple[Path, ...] = ()) -> Manifest:
    """Images whose classes are their folders."""
    classes = tuple(sorted({name.rpartition("/")[0] for name in names}))
    labels = [classes.index(name.rpartition("/")[0]) for name in names]
    frame = pd.DataFrame({"file": pd.Series(list(names), dtype=object), "label": labels})
    return Manifest(frame, classes, "imagenet", "train", root, archives)


@pytest.fixture
def whole() -> Manifest:
    return of([f"{wnid}/{wnid}_{place}.JPEG" for wnid in WNIDS for place in range(4)])


@pytest.fixture
def keep(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str, end: str = "\n", encoding: str = "utf-8") -> Path:
        path = tmp_path / "list.txt"
        path.write_bytes("".join(line + end for line in lines).encode(encoding))
        return path

    return write


FORMS: dict[str, list[str]] = {
    "bare names": [f"{name}.JPEG" for _, name in PICK],
    "below the split": [f"{wnid}/{name}.JPEG" for wnid, name in PICK],
    "below the set": [f"train/{wnid}/{name}.JPEG" for wnid, name in PICK],
    "below its folder": [f"imagenet/train/{wnid}/{name}.JPEG" for wnid, name in PICK],
    "absolute": [f"/data/imagenet/train/{wnid}/{name}.JPEG" for wnid, name in PICK],
    "from find": [f"./{wnid}/{name}.JPEG" for wnid, name in PICK],
    "from find, one folder above": [f"./train/{wnid}/{name}.JPEG" for wnid, name in PICK],
    "Windows": [f".\\train\\{wnid}\\{name}.JPEG" for wnid, name in PICK],
    "label after a space": [f"{wnid}/{name}.JPEG {WNIDS.index(wnid)}" for wnid, name in PICK],
    "label after a tab": [f"{name}.JPEG\t{WNIDS.index(wnid)}" for wnid, name in PICK],
    "label after a comma": [f"{name}.JPEG, {WNIDS.index(wnid)}" for wnid, name in PICK],
    "label after a semicolon": [f"{name}.JPEG;{WNIDS.index(wnid)}" for wnid, name in PICK],
    "more columns": ["path\tclass\tset", *(f"train/{wnid}/{name}.JPEG\t{wnid}\ttrain" for wnid, name in PICK)],
    "label before": [f"{WNIDS.index(wnid)} {wnid}/{name}.JPEG" for wnid, name in PICK],
    "labels of another numbering": [f"{name}.JPEG {100 - WNIDS.index(wnid)}" for wnid, name in PICK],
    "quoted": [f'"{wnid}/{name}.JPEG",{wnid}' for wnid, name in PICK],
    "a heading": ["filename,label", *(f"{name}.JPEG,{wnid}" for wnid, name in PICK)],
    "Kaggle's boxes": [
        "ImageId,PredictionString",
        *(f"{name},{wnid} 13 17 304 230 {wnid} 1 2 3 4" for wnid, name in PICK),
    ],
    "Kaggle's train_cls.txt": [f"{wnid}/{name} {number}" for number, (wnid, name) in enumerate(PICK, 1)],
    "a mark of byte order": ["\ufeff" + PICK[0][1] + ".JPEG", *(f"{name}.JPEG" for _, name in PICK[1:])],
    "a remark": ["# chosen by hand", *(f"{name}.JPEG" for _, name in PICK)],
    "empty lines, spaces and repetitions": ["", *(f"  {name}.JPEG " for _, name in PICK), "", PICK[0][1] + ".JPEG"],
    "macOS's copies": [f"{wnid}/{start}{name}.JPEG" for wnid, name in PICK for start in ("", "._")],
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_name_the_same_images(form: str, whole: Manifest, keep: Callable[..., Path]) -> None:
    part = whole.restrict_to_list(keep(*FORMS[form]))
    assert list(part.frame["file"]) == [f"{wnid}/{name}.JPEG" for wnid, name in PICK]
    assert (part.classes, part.labels.tolist()) == (WNIDS, [0, 0, 1, 1, 2, 2, 3, 3])


@pytest.mark.parametrize(("end", "encoding"), [("\r\n", "utf-8"), ("\r", "utf-8"), ("\r\n", "utf-16")])
def test_lists_of_other_systems_are_read(end: str, encoding: str, whole: Manifest, keep: Callable[..., Path]) -> None:
    assert len(whole.restrict_to_list(keep(*FORMS["bare names"], end=end, encoding=encoding))) == 8


def test_lists_name_what_is_in_an_archive_as_in_the_folder(keep: Callable[..., Path]) -> None:
    root = ROOT.parent / "ILSVRC2012_img_train.tar"
    archive = of(["a/1.jpg", "a/2.jpg", "b/1.jpg"], root, (root,))
    for lines in (["a/2.jpg", "b/1.jpg"], ["train/a/2.jpg", "train/b/1.jpg"], [f"{ROOT}/a/2.jpg", f"{ROOT}/b/1.jpg"]):
        assert list(archive.restrict_to_list(keep(*lines)).frame["file"]) == ["a/2.jpg", "b/1.jpg"]


def test_names_may_hold_spaces_commas_and_a_hash(keep: Callable[..., Path]) -> None:
    names = ["#1/a b.jpg", "my cats/x, y.jpg", "my cats/x.jpg"]
    assert len(of(names).restrict_to_list(keep(*names))) == 3
    assert len(of(names).restrict_to_list(keep(*(f"{name} {name[0]}" for name in names)))) == 3
    assert len(of(names).restrict_to_list(keep(*(f'"{name}",{name[0]}' for name in names)))) == 3


def test_labels_may_be_classes_whose_names_hold_spaces(keep: Callable[..., Path]) -> None:
    some = of(["my cats/1.jpg", "my dogs/2.jpg"])
    for divider in ("\t", ",", " "):
        assert len(some.restrict_to_list(keep(*(f"{file[8:]}{divider}{file[:7]}" for file in some.frame["file"])))) == 2


def test_text_that_is_composed_otherwise_is_the_same_name(keep: Callable[..., Path]) -> None:
    assert len(of(["caf\u00e9/1.jpg"]).restrict_to_list(keep("cafe\u0301/1.jpg"))) == 1


def test_bytes_that_are_no_text_are_the_name_that_the_file_has(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a/caf\xe9.jpg\n")
    assert len(of(["a/caf\udce9.jpg"]).restrict_to_list(tmp_path / "list.txt")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "b/1.jpg",  # a's 1.jpg is another image
        "val/a/1.jpg",
        "cifar/train/a/1.jpg",
        "/elsewhere/train/a/1.jpg",
        "../a/1.jpg",
        "a/1.png",
        "/data/imagenet/train/b/.cache/../1.jpg",
    ],
)
def test_another_image_s_path_is_no_name_of_this_one(line: str, keep: Callable[..., Path], refused: Refused) -> None:
    with refused("1 of the 3 images", f"line 2 {line!r}", "imagenet at /data/imagenet/train"):
        of(["a/1.jpg", "a/2.jpg", "b/2.jpg"]).restrict_to_list(keep("a/2.jpg", line, "b/2.jpg"))


def test_a_name_without_its_suffix_is_enough_where_one_image_has_it(
    keep: Callable[..., Path], refused: Refused
) -> None:
    assert len(of(["a/1.jpg", "a/2.jpg"]).restrict_to_list(keep("1", "a/2"))) == 2
    with refused("1 names", "line 2 'a/1'", "write them as class/name"):
        of(["a/1.jpg", "a/1.png", "a/2.jpg"]).restrict_to_list(keep("a/2", "a/1"))


def test_labels_that_do_not_fit_the_classes_one_to_one_are_refused_with_the_line(
    whole: Manifest, keep: Callable[..., Path], refused: Refused
) -> None:
    right = FORMS["label after a space"]
    wrong = f"{WNIDS[0]}/{PICK[1][1]}.JPEG"
    with refused("line 2", f"{wrong} 3", "label '3' is that of 'n01491361'"):
        whole.restrict_to_list(keep(right[-1], f"{wrong} 3", *right))
    with refused("line 2", "its label is '7', and '0' in line 1"):
        whole.restrict_to_list(keep(right[0], f"{wrong} 7", *right[2:]))
    with refused("line 2", "its label is 'n01491361', another class"):
        whole.restrict_to_list(keep(f"{PICK[0][1]}.JPEG n01440764", f"{wrong} n01491361"))
    with refused("line 2", "has no label"):
        whole.restrict_to_list(keep(right[0], wrong, *right[2:]))


CLASSES: dict[str, list[str]] = {
    "names": [WNIDS[2], WNIDS[0]],
    "names and words": [f"{WNIDS[2]} great white shark, white shark", f"{WNIDS[0]} tench, Tinca tinca"],
    "after a tab": [f"{WNIDS[2]}\tshark", f"{WNIDS[0]}\ttench"],
    "from find": [f"./{WNIDS[2]}", f"./{WNIDS[0]}/"],
    "numbered": [f"1 {WNIDS[2]}", f"0 {WNIDS[0]}"],
    "a remark": ["# ImageNet-2", WNIDS[0], WNIDS[2]],
}


@pytest.mark.parametrize("form", CLASSES)
def test_a_list_of_classes_has_all_their_images_numbered_anew(
    form: str, whole: Manifest, keep: Callable[..., Path]
) -> None:
    part = whole.restrict_to_list(keep(*CLASSES[form]))
    assert part.hash == whole.take_classes([WNIDS[0], WNIDS[2]]).hash
    assert (part.classes, part.class_counts().tolist()) == ((WNIDS[0], WNIDS[2]), [4, 4])


def test_a_class_that_is_not_there_is_shown_with_its_line(
    whole: Manifest, keep: Callable[..., Path], refused: Refused
) -> None:
    with refused("names classes", "line 2 'n09999999 nothing' is none"):
        whole.restrict_to_list(keep(f"{WNIDS[0]} tench", "n09999999 nothing", WNIDS[1]))
    with refused("1 of the 2 images", "line 2 'n01443537'"):
        whole.restrict_to_list(keep(f"{PICK[0][1]}.JPEG", WNIDS[1]))


@pytest.mark.parametrize(
    "lines",
    [
        [f"{WNIDS[0]},{WNIDS[1]}"],
        [f"{WNIDS[0]} {WNIDS[1]} {WNIDS[2]}", WNIDS[3]],
        [",".join(f"{name}.JPEG" for _, name in PICK), f"{PICK[0][1]}.JPEG"],
        ["; ".join(f"{wnid}/{name}.JPEG" for wnid, name in PICK[:2]), *FORMS["bare names"][2:]],
    ],
)
def test_several_names_on_one_line_are_refused(
    lines: list[str], whole: Manifest, keep: Callable[..., Path], refused: Refused
) -> None:
    with refused("several names on one line, line 1", "each on its own"):
        whole.restrict_to_list(keep(*lines))


@pytest.mark.parametrize("lines", [["# chosen by hand"], ["image"], ["filename,label"], ["._a.JPEG"]])
def test_a_list_that_names_nothing_is_refused(
    lines: list[str], whole: Manifest, keep: Callable[..., Path], refused: Refused
) -> None:
    with refused("names nothing", f"line 1 {lines[0]!r}"):
        whole.restrict_to_list(keep(*lines))


def test_an_array_s_images_are_named_by_their_number(keep: Callable[..., Path], refused: Refused) -> None:
    frame = pd.DataFrame({"item": np.arange(6), "label": [0, 1, 0, 1, 0, 1]})
    array = Manifest(frame, ("cat", "dog"), "cifar10", "train", None)
    assert array.restrict_to_list(keep("4", "0", "3")).array_indices.tolist() == [0, 3, 4]
    assert array.restrict_to_list(keep("4 0", "3 1")).array_indices.tolist() == [3, 4]
    assert array.restrict_to_list(keep("dog")).array_indices.tolist() == [1, 3, 5]
    with refused("1 of the 3 images", "line 3 '6'", "cifar10"):
        array.restrict_to_list(keep("0", "1", "6"))
    with refused("line 2", "class 'dog'"):
        array.restrict_to_list(keep("4 0", "3 0"))


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xd8\xff\xe0\0\x10JFIF", "not a text file"), (b"\n \n", "is empty")]
)
def test_files_that_are_no_lists_are_refused(
    content: bytes, words: str, whole: Manifest, tmp_path: Path, refused: Refused
) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with refused(str(tmp_path / "list.txt"), words):
        whole.restrict_to_list(tmp_path / "list.txt")
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with refused(f"cannot read the subset list {place}", "no regular file"):
            whole.restrict_to_list(place)


def test_the_images_hash_does_not_depend_on_spaces_order_and_repetitions(
    tmp_path: Path, keep: Callable[..., Path]
) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        picture(tmp_path / "train" / name)
    source = open_split("folder", "train", tmp_path)
    (tmp_path / "other.txt").write_text("\n b/1.png\r\na/2.png \na/2.png")
    assert hash_images(source, [keep("a/2.png", "b/1.png")]) == hash_images(source, [tmp_path / "other.txt"])
