"""Which files are images, what is left out, and what is not clear enough to be left out."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sslticket.config.recipe import Data
from sslticket.config.runtime import RuntimeConfig
from sslticket.data.datasets.folders import describe_left_out, is_image, path_below_root
from sslticket.data.source import open_split, verify_dataset
from sslticket.search.plan import TrainingImages
from tests.data.test_listing_cache import settle
from tests.data.test_source import picture
from tests.runs import recipe

Refused = Callable[..., AbstractContextManager[None]]

NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        picture(tmp_path / "train" / name)
        picture(tmp_path / "val" / name)
    return tmp_path


def files(root: Path) -> list[str]:
    return list(open_split("folder", "train", root).manifest.frame["file"])


@pytest.mark.parametrize(
    ("name", "right"),
    [
        *((name, True) for name in ("1.JPEG", "a/1.jpg", "a b/c/1.Png", "1.tar.ppm", "a.tar/1.tiff")),
        *((name, False) for name in ("README.txt", "a/Thumbs.db", "1.jpg.txt", "jpg", "1.gif", "a/1.jpg/")),
        *((name, False) for name in (".1.jpg", "a/._1.jpg", ".cache/1.jpg", "__MACOSX/a/1.jpg", "@eaDir/1.jpg")),
    ],
)
def test_an_image_is_known_by_its_suffix_and_is_nowhere_hidden(name: str, right: bool) -> None:
    assert is_image(name) == right


def test_a_path_has_one_spelling_below_the_root() -> None:
    assert [path_below_root(name) for name in ("a/1.jpg", "./a/1.jpg", "a//./1.jpg", ".", "a/")] == [
        *("a/1.jpg", "a/1.jpg", "a/1.jpg", "", "a")
    ]
    assert [path_below_root(name) for name in ("/a/1.jpg", "../1.jpg", "a/../1.jpg")] == [None] * 3


def test_what_is_no_image_is_left_out_counted_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = files(root)
    strays = ["README", "notes.txt", ".DS_Store", "a/Thumbs.db", "a/._1.png", "b/more/5.png", "b/2.png/6.png"]
    for name in (*strays, "lost+found/7.png", "__MACOSX/a/._1.png", ".git/8.png"):
        (root / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "train" / name).write_text("no image")
    source = open_split("folder", "train", root)
    assert list(source.manifest.frame["file"]) == expected
    inside = ["a/Thumbs.db", "a/._1.png", "b/more/", "b/2.png/"]
    assert {*source.left_out} == {"README", "notes.txt", ".DS_Store", "lost+found", "__MACOSX", ".git", *inside}
    TrainingImages.open(recipe(data=Data(dataset="folder", image_size=32)), RuntimeConfig(data_root=root))
    told = (
        "left out: 8 files that are no images (.DS_Store, .git, README, ...); 2 folders that are no class's (b/2.png/, "
    )
    told += "b/more/), with all that is in them"
    assert [f"among the training images of folder, {told}"] == caplog.messages
    findings = verify_dataset("folder", root, decode=0, md5=False, threads=1, stage=lambda *_: lambda _: None)
    assert (f"train: {told}", True) in list(findings)
    assert not open_split("folder", "eval", root).left_out
    assert describe_left_out([]) == ""


def test_what_was_left_out_is_kept_with_the_list_and_what_comes_is_seen(root: Path) -> None:
    (root / "train/a/notes.txt").touch()
    settle(root / "train/a", root / "train/b")
    assert [open_split("folder", "train", root).left_out for _ in range(2)] == [("a/notes.txt",)] * 2
    (root / "train/more.txt").touch()
    assert open_split("folder", "train", root).left_out == ("more.txt", "a/notes.txt")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_folder_that_leads_nowhere_is_refused(root: Path, split: str, refused: Refused) -> None:
    for target in (root / "not mounted", Path("c"), Path("../val/gone")):
        (root / split / "c").symlink_to(target)
        with refused(f"{root / split / 'c'} is a link to {target}, which cannot be reached", "remove the link"):
            open_split("folder", "train" if split == "train" else "eval", root)
        (root / split / "c").unlink()


def test_a_split_s_folder_that_leads_nowhere_is_refused(root: Path, refused: Refused) -> None:
    (root / "val").rename(root / "elsewhere")
    (root / "val").symlink_to(root / "gone")
    with refused(f"{root / 'val'} is a link to {root / 'gone'}"):
        open_split("folder", "eval", root)
    (root / "val").unlink()
    (root / "val").symlink_to(root / "elsewhere")
    assert len(open_split("folder", "eval", root).manifest) == 3


def test_links_to_class_folders_and_images_are_followed(root: Path) -> None:
    picture(root / "elsewhere/1.png")
    (root / "train/c").symlink_to(root / "elsewhere")
    (root / "train/a/3.png").symlink_to(root / "elsewhere/1.png")
    assert files(root) == ["a/1.png", "a/2.png", "a/3.png", "b/1.png", "c/1.png"]


def test_a_folder_that_would_be_two_classes_is_refused(root: Path, refused: Refused) -> None:
    (root / "train/c").symlink_to("a")
    with refused(f"{root / 'train/a'} and {root / 'train/c'} are one folder"):
        open_split("folder", "train", root)


@pytest.mark.parametrize("kind", ["file", "link to a file", "fifo"])
def test_what_is_no_folder_where_class_folders_are_is_refused(root: Path, kind: str, refused: Refused) -> None:
    place = root / "train/c"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "file":
        place.write_text("../elsewhere/c")  # what git leaves of a link on Windows
    else:
        place.symlink_to(root / "train/a/1.png")
    with refused(f"{place} is no folder"):
        open_split("folder", "train", root)


def test_a_class_of_the_training_images_must_be_a_folder_in_the_other_split_too(root: Path, refused: Refused) -> None:
    picture(root / "train/d.v1/1.png")
    (root / "val/d.v1").touch()
    with refused(f"{root / 'val/d.v1'} is no folder"):
        open_split("folder", "eval", root)


def test_a_folder_that_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    scandir = os.scandir

    def guarded(path: Path) -> "Iterator[os.DirEntry[str]]":
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with refused(f"cannot read the folder {root / 'train/b'}: Permission denied"):
        open_split("folder", "train", root)


def test_images_in_no_class_folder_are_refused(root: Path, refused: Refused) -> None:
    picture(root / "train/9.png")
    picture(root / "train/8.png")
    with refused(str(root / "train/8.png"), "beside the class folders", "(2 images do)", "move each"):
        open_split("folder", "train", root)


def test_images_deeper_than_the_class_folder_are_told_with_their_place(root: Path, refused: Refused) -> None:
    picture(root / "train/c/images/1.png")
    with refused(f"class folder {root / 'train/c'} has no images itself", str(root / "train/c/images")):
        open_split("folder", "train", root)


def test_what_is_no_regular_file_is_listed_without_being_opened(root: Path) -> None:
    os.mkfifo(root / "train/a/5.png")
    (root / "train/a/6.png").symlink_to("gone")
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(root / "train/a")  # a socket's path has at most 108 bytes
        listening.bind("7.png")
        os.chdir(here)
        assert files(root) == ["a/1.png", "a/2.png", "a/5.png", "a/6.png", "a/7.png", "b/1.png"]


@pytest.mark.parametrize(("train", "val"), [(NFC, NFD), (NFD, NFC), ("Dog", "dog")])
def test_classes_that_differ_in_case_or_composition_alone_are_named(
    root: Path, train: str, val: str, refused: Refused
) -> None:
    picture(root / "train" / train / "1.png")
    picture(root / "val" / val / "1.png")
    with refused(f"class {val!r}, which the training images call {train!r}", f"{val!a}, {train!a}", "rename"):
        open_split("folder", "eval", root)


def test_two_classes_that_read_the_same_are_refused_and_capitals_are_another_class(
    root: Path, refused: Refused
) -> None:
    picture(root / "train/A/1.png")
    assert open_split("folder", "train", root).manifest.classes == ("A", "a", "b")
    picture(root / "train" / NFC / "1.png")
    picture(root / "train" / NFD / "1.png")
    with refused("two classes that read", f"{NFC!a}", f"{NFD!a}"):
        open_split("folder", "train", root)
