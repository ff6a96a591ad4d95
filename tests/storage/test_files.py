"""Files of several writers in one folder."""

import errno
import os
import resource
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from sslticket.errors import BadInput, WriteError
from sslticket.storage.files import atomic_write, atomic_write_folder, remove_unfinished


def test_what_dead_writers_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    host, gone = socket.gethostname(), 2**30  # no system has so many processes
    (tmp_path / "rows").mkdir()
    names = {
        f".a.jsonl.{host}.{gone}.part": False,
        f".a.jsonl.{host}.{os.getppid()}.part": True,
        f".a.jsonl.elsewhere.{gone}.part": True,
        f".old.jsonl.elsewhere.{gone}.part": False,
        ".old.jsonl.part": False,
        ".a.jsonl.claim": True,
        "a.part": True,
    }
    for name in names:
        (tmp_path / "rows" / name).write_text("half")
        if name.startswith(".old"):
            os.utime(tmp_path / "rows" / name, (time.time() - 3700,) * 2)
    with atomic_write(tmp_path / "rows" / "b.jsonl") as unfinished:
        unfinished.write_text("whole")
        remove_unfinished(tmp_path)
    assert (tmp_path / "rows" / "b.jsonl").read_text() == "whole"
    assert {path.name for path in (tmp_path / "rows").iterdir()} == {
        "b.jsonl",
        *(name for name, stays in names.items() if stays),
    }


def test_the_next_writer_takes_away_what_killed_writers_of_the_same_file_left(tmp_path: Path) -> None:
    host, gone = socket.gethostname(), 2**30
    (tmp_path / f".out.{host}.{gone}.part").mkdir()
    (tmp_path / f".out.{host}.{gone}.part" / "a").write_text("half")
    stays = {f".a.csv.{host}.{os.getppid()}.part", f".b.csv.{host}.{gone}.part", ".a.csv.draft.part", ".a.csv.swp"}
    for name in (*stays, f".a.csv.{host}.{gone}.part"):
        (tmp_path / name).write_text("half")
    with atomic_write(tmp_path / "a.csv") as unfinished:
        unfinished.write_text("whole")
    with atomic_write_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "out", *stays}


def test_a_folder_that_holds_some_of_the_same_files_is_completed_and_any_other_refused(tmp_path: Path) -> None:
    def write() -> None:
        with atomic_write_folder(tmp_path / "out") as folder:
            for name in "ab":
                (folder / name).write_text(name)

    write()
    write()
    (tmp_path / "out" / "b").unlink()
    write()
    assert (tmp_path / "out" / "b").read_text() == "b"
    for name, text in (("a", "mine"), ("c", "mine")):
        (tmp_path / "out" / name).write_text(text)
        with pytest.raises(BadInput, match="is there already and not empty; delete it or give another name"):
            write()
        assert (tmp_path / "out" / name).read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", [None, "temporary", "parent"])
def test_an_error_names_the_file_that_was_meant(tmp_path: Path, name: str | None) -> None:
    path = tmp_path / "a.csv"

    def fail(unfinished: Path) -> None:
        unfinished.write_text("half")
        names = {None: (), "temporary": (str(unfinished),), "parent": (str(tmp_path),)}
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *names[name])

    with pytest.raises(WriteError) as refused, atomic_write(path) as unfinished:
        fail(unfinished)
    assert (refused.value.filename, refused.value.errno) == (str(path), errno.ENOSPC)
    assert not list(tmp_path.iterdir())


def test_errors_of_other_files_and_of_ours_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing, atomic_write(tmp_path / "a.csv"):
        (tmp_path / "elsewhere" / "b.csv").read_text()
    assert missing.value.filename == str(tmp_path / "elsewhere" / "b.csv")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "a.csv"):
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_a_library_that_does_not_say_why_it_cannot_write_has_the_system_asked(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with (
            pytest.raises(WriteError) as refused,
            atomic_write(tmp_path / "a.npy") as unfinished,
            unfinished.open("wb") as file,
        ):
            np.save(file, np.zeros(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (refused.value.filename, refused.value.errno) == (str(tmp_path / "a.npy"), errno.EFBIG)


def test_a_name_as_long_as_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120 + ".csv")
    with atomic_write(path) as unfinished:
        unfinished.write_text("whole")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
