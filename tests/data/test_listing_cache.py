"""Lists of images are kept, and made anew when what they list has changed."""

import os
from pathlib import Path

import pytest

from sslticket.data.source import open_split
from tests.data.test_source import picture

LONG_AGO = 1_600_000_000


def settle(*folders: Path) -> None:
    """As if nothing in them had changed for years."""
    for folder in folders:
        os.utime(folder, (LONG_AGO, LONG_AGO))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        picture(tmp_path / "train" / name)
    settle(tmp_path / "train/a", tmp_path / "train/b")
    return tmp_path


def files(root: Path) -> list[str]:
    manifest = open_split("imagenet", "train", root).manifest
    assert [manifest.classes[label] for label in manifest.labels] == [file[0] for file in manifest.frame["file"]]
    return list(manifest.frame["file"])


def test_a_list_is_kept_as_long_as_the_class_folders_say_they_are_unchanged(root: Path) -> None:
    assert files(root) == ["a/1.png", "a/2.png", "b/1.png"]
    picture(root / "train/a/3.png")
    settle(root / "train/a")  # a lie: the list is from the cache
    assert files(root) == ["a/1.png", "a/2.png", "b/1.png"]


def test_whatever_comes_or_goes_makes_a_new_list(root: Path) -> None:
    files(root)
    picture(root / "train/a/3.png")
    assert files(root) == ["a/1.png", "a/2.png", "a/3.png", "b/1.png"]
    (root / "train/a/1.png").unlink()
    assert files(root) == ["a/2.png", "a/3.png", "b/1.png"]
    picture(root / "train/c/1.png")
    assert files(root) == ["a/2.png", "a/3.png", "b/1.png", "c/1.png"]
    (root / "train/b").rename(root / "train/d")
    assert files(root) == ["a/2.png", "a/3.png", "c/1.png", "d/1.png"]


def test_what_has_just_changed_is_not_kept(root: Path) -> None:
    picture(root / "train/a/3.png")
    state = (root / "train/a").stat()
    assert len(files(root)) == 4
    picture(root / "train/a/4.png")  # within the same tick of the clock
    os.utime(root / "train/a", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert len(files(root)) == 5


def test_another_root_has_a_list_of_its_own(root: Path, tmp_path: Path) -> None:
    files(root)
    picture(tmp_path / "other/train/a/9.png")
    settle(tmp_path / "other/train/a")
    assert files(tmp_path / "other") == ["a/9.png"]


def test_a_damaged_cache_or_none_is_no_obstacle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(root)
    (kept,) = Path(os.environ["SSLTICKET_CACHE"]).glob("lists/*.npz")
    whole = kept.read_bytes()
    for damaged in (b"", whole[:100], whole[: len(whole) // 2], b"x" * len(whole)):
        kept.write_bytes(damaged)
        assert files(root) == ["a/1.png", "a/2.png", "b/1.png"]
    assert kept.read_bytes() == whole
    (root / "file").touch()
    monkeypatch.setenv("SSLTICKET_CACHE", str(root / "file"))
    assert files(root) == ["a/1.png", "a/2.png", "b/1.png"]


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    folder = tmp_path / "train/a"
    picture(folder / "1.png")
    odd = os.fsdecode(b"caf\xe9\n.png")
    (folder / "1.png").rename(folder / odd)
    settle(folder)
    assert files(tmp_path) == files(tmp_path) == [f"a/{odd}"]
