"""Real images for the tests that ask for them; nothing here makes synthetic ones."""

import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import torch

# Python 3.11.2, which Debian 12 has, knows no filters yet; later ones warn where none is set.
if hasattr(tarfile, "data_filter"):
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)

# The nets here are tiny: a second thread gains little on a quiet machine and loses tenfold on a busy one.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands that tests start


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real images that SSLTICKET_TEST_DATA names; the test is skipped, saying so, without it."""
    folder = os.environ.get("SSLTICKET_TEST_DATA")
    if not folder:
        pytest.skip("set SSLTICKET_TEST_DATA to the folder of real test images")
    return Path(folder)


@pytest.fixture(scope="session")
def photographs(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 full-size ImageNet photographs, one a class, as an ImageNet root: train/<wnid>/*.JPEG and val -> train."""
    root = tmp_path_factory.mktemp("data") / "imagenet"
    with tarfile.open(test_data / "imagenet-1000.tar") as archive:
        archive.extractall(root)
    (root / "val").symlink_to("train")
    return root


@pytest.fixture(scope="session")
def cifar10(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 as folders of small JPEGs: train/<class>/*.jpg, test/<class>/*.jpg."""
    root = tmp_path_factory.mktemp("data") / "cifar10"
    with tarfile.open(test_data / "cifar10-jpeg.tar.xz") as archive:
        archive.extractall(root)
    return root


@pytest.fixture(scope="session")
def few_photographs(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 photographs as train/<wnid>/*.JPEG and val -> train; one lies on its side by its EXIF tag, one is gray."""
    root = tmp_path_factory.mktemp("photographs")
    with tarfile.open(test_data / "imagenet-1000.tar") as archive:
        members = [member for member in archive if member.isfile()]
        special = [member for member in members if "n02951585" in member.name or "n02096051" in member.name]
        archive.extractall(root, members=members[:28] + special)
    (root / "val").symlink_to("train")
    return root


@pytest.fixture(scope="session")
def few_cifar(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 6 CIFAR-10 images of each class as train/<class>/*.jpg and the first 6 as test/<class>/*.jpg."""
    root = tmp_path_factory.mktemp("cifar")
    taken: Counter[str] = Counter()

    def wanted(member: tarfile.TarInfo) -> bool:
        taken[folder := str(Path(member.name).parent)] += member.isfile()
        return not member.isfile() or taken[folder] <= 6

    with tarfile.open(test_data / "cifar10-jpeg.tar.xz") as archive:
        archive.extractall(root, members=[member for member in archive if wanted(member)])
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the home folder's cache, or finds data sets that happen to be on the machine."""
    monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SSLTICKET_DATA", raising=False)
