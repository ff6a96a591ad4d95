"""What evaluation images show is told by their numbers and names alone; what tells it wrongly is refused."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sslticket.data.datasets.imagenet import GroundTruth, ImageNetLayout, parse_evaluation_name

Refused = Callable[..., AbstractContextManager[None]]

FISH, SHARK = "n01440764", "n01484850"


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ILSVRC2012_val_00000001.JPEG", (1, None)),
        ("ILSVRC2012_val_00050000_n01440764.JPEG", (50_000, FISH)),
        ("ilsvrc2012_val_00000007.png", (7, None)),
        ("val/ILSVRC2012_val_00000001.JPEG", (1, None)),
        ("ILSVRC2012_val_00000001 (1).JPEG", (1, None)),  # a copy of the same image
        ("ILSVRC2012_val_000000011.JPEG", None),
        ("ILSVRC2012_val_1.JPEG", None),
        ("ILSVRC2012_val_00000001_n01.JPEG", None),
        ("ILSVRC2012_test_00000001.JPEG", None),
        ("ILSVRC2010_val_00000001.JPEG", None),
        ("._ILSVRC2012_val_00000001.JPEG", None),
        ("00000001.JPEG", None),
    ],
)
def test_the_number_in_the_official_name_is_the_identity(name: str, known: tuple[int, str | None] | None) -> None:
    assert parse_evaluation_name(name) == known


@pytest.mark.parametrize(
    "text",
    [
        "ILSVRC2012_val_00000002.JPEG n01484850\nILSVRC2012_val_00000001.JPEG n01440764\n",
        "\ufeffImageId,PredictionString\r\nILSVRC2012_val_00000001,n01440764 1 2 3 4 n01440764 5 6 7 8\r\n"
        "ILSVRC2012_val_00000002,n01484850 1 2 3 4\r\n",
        "n01484850/ILSVRC2012_val_00000002.JPEG 3\nval/n01440764/ILSVRC2012_val_00000001.JPEG 1",
        "# what they show\n\nILSVRC2012_val_00000001_n01440764.JPEG\nILSVRC2012_val_00000002_n01484850.JPEG",
        "ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000002.JPEG\t0",
    ],
)
def test_a_list_pairs_names_with_classes_in_any_order(tmp_path: Path, text: str) -> None:
    (tmp_path / "val.txt").write_text(text, newline="", encoding="utf-8")
    (tmp_path / "synsets.txt").write_text(f"{SHARK}\n{FISH}\n")
    truth = GroundTruth.find(tmp_path, ImageNetLayout())
    assert truth is not None
    assert truth.wnids == {1: FISH, 2: SHARK}
    assert truth.classes == (FISH, SHARK)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ILSVRC2012_val_00000002.JPEG 2", "line 2"),  # there are two classes, 0 and 1
        ("ILSVRC2012_val_00000001.JPEG 0", "line 2"),  # another class than line 1 gives
        ("ILSVRC2012_val_00000002.JPEG", "line 2"),
        ("ILSVRC2012_val_00000002.JPEG n01440764 n01484850", "line 2"),
        ("ILSVRC2012_val_00000002_n01440764.JPEG n01484850", "line 2"),
    ],
)
def test_a_line_that_does_not_have_one_class_is_shown(tmp_path: Path, refused: Refused, line: str, words: str) -> None:
    (tmp_path / "val.txt").write_text(f"ILSVRC2012_val_00000001.JPEG 1\n{line}\n")
    (tmp_path / "synsets.txt").write_text(f"{SHARK}\n{FISH}\n")
    with refused(str(tmp_path / "val.txt"), words, repr(line), "does not have one class"):
        GroundTruth.find(tmp_path, ImageNetLayout())


def test_lists_of_other_things_are_named(tmp_path: Path, refused: Refused) -> None:
    labels = tmp_path / "imagenet_2012_validation_synset_labels.txt"
    for content, words in (
        (b"n01440764\nsalmon\n", "'salmon' where a class such as n01440764 belongs"),
        (b"", "'nothing'"),
        (b"n01440764\n\nn01484850\n", "holds '' where"),  # what follows would be other images' classes
        (b"\xff\xfe\x00", "is no text file"),
    ):
        labels.write_bytes(content)
        with refused(str(labels), words):
            GroundTruth.find(tmp_path, ImageNetLayout())
    labels.write_text(f"{FISH}\n{SHARK}\n")
    truth = GroundTruth.find(tmp_path, ImageNetLayout())
    assert truth is not None
    assert truth.class_of("a", 2) == SHARK
    with refused(str(labels), "the classes of 2 evaluation images, and not that of it.JPEG"):
        truth.class_of("it.JPEG", 3)


def test_without_any_list_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("cats/1.jpg 0\n")  # of another set
    assert GroundTruth.find(tmp_path, ImageNetLayout()) is None


def test_a_lost_line_is_seen_where_its_place_is_all_that_tells_of_which_image_it_is(
    tmp_path: Path, refused: Refused
) -> None:
    labels = tmp_path / "imagenet_2012_validation_synset_labels.txt"
    lines = [f"n{image * 7 % 1000:08d}\n" for image in range(50_000)]
    labels.write_text("".join(lines))
    truth = GroundTruth.find(tmp_path, ImageNetLayout())
    assert truth is not None
    assert truth.class_of("it.JPEG", 3) == "n00000014"
    for damaged in (lines[:7] + lines[8:], lines[:7] + lines[6:], lines[:-1]):
        labels.write_text("".join(damaged))
        with refused(str(labels), "not 50", "lines are missing or double"):
            GroundTruth.find(tmp_path, ImageNetLayout())
