"""Two processes that want the same list or the same packed images at once: one makes them, the other waits."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslticket.data import decode
from sslticket.data.datasets import folders
from sslticket.data.datasets.folders import list_class_folders
from sslticket.storage.files import file_lock
from tests.digits import write_digits


@pytest.fixture
def slow() -> Callable[[Callable[..., Any]], tuple[Callable[..., Any], list[int]]]:
    """A function that takes as long as the other process needs to come, and how often it was called."""

    def slowed(real: Callable[..., Any]) -> tuple[Callable[..., Any], list[int]]:
        calls: list[int] = []

        def called(*given: Any) -> Any:
            calls.append(1)
            time.sleep(0.5)
            return real(*given)

        return called, calls

    return slowed


def twice(act: Callable[[], Any]) -> list[Any]:
    """What two threads get at once; a lock on a file holds between them as between processes."""
    with ThreadPoolExecutor(2) as pool:
        return [future.result() for future in [pool.submit(act), pool.submit(act)]]


def test_images_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: Any) -> None:
    images = list_class_folders(write_digits(tmp_path, train=2) / "train", None)
    decoded, calls = slow(decode._decode_all)
    monkeypatch.setattr(decode, "_decode_all", decoded)
    (one, _), (other, _) = twice(lambda: decode.cached_image_array(images, 8, 1))
    assert len(calls) == 1
    assert one.shape == (20, 8, 8, 1)
    assert np.array_equal(one, other)


def test_a_folder_is_listed_once(tmp_path: Path, slow: Any) -> None:
    make, calls = slow(lambda: {"files": folders.join_names(["a/1.png", "b/2.png"])})
    stamp = folders.Stamp("a state of long ago", 0.0)
    found = twice(lambda: folders.split_names(folders.cached_arrays(tmp_path, stamp, make)["files"]))
    assert len(calls) == 1
    assert found == [["a/1.png", "b/2.png"]] * 2


def test_nobody_waits_where_nothing_can_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with file_lock(tmp_path / "file" / "a"), file_lock(tmp_path / "file" / "a"):
        pass
