"""Small pieces of the real data sets, and the one way in which bad input is refused."""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from sslticket.errors import BadInput

Refused = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def refused() -> Refused:
    """`with refused("this", "that"):` the block must raise BadInput, in one line that holds these words."""

    @contextmanager
    def expect(*words: str) -> Iterator[None]:
        with pytest.raises(BadInput) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert not [word for word in words if word not in message], message

    return expect


@pytest.fixture(scope="session")
def few_photographs(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 photographs as train/<wnid>/*.JPEG and val -> train; one lies on its side by its EXIF tag, one is gray."""
    root = tmp_path_factory.mktemp("photographs")
    with tarfile.open(test_data / "imagenet-1000.tar") as archive:
        members = [member for member in archive if member.isfile()]
        special = [member for member in members if "n02951585" in member.name or "n02096051" in member.name]
        archive.extractall(root, members=members[:28] + special, filter="data")
    (root / "val").symlink_to("train")
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or leaves packed images in the home folder, or finds data sets that happen to be on the machine."""
    monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SSLTICKET_DATA", raising=False)
