"""MD5 sums of official files."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from torchvision import datasets
from torchvision.datasets import imagenet

from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.source import check_md5

Refused = Callable[..., AbstractContextManager[None]]


def test_the_sums_are_torchvisions() -> None:
    theirs = {
        "imagenet": dict(imagenet.ARCHIVE_META.values()),
        "mnist": dict(datasets.MNIST.resources),
        "fashion_mnist": dict(datasets.FashionMNIST.resources),
        "svhn": {name: digest for _, name, digest in datasets.SVHN.split_list.values()},
        "cifar10": dict([*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list]),
        "cifar100": dict([*datasets.CIFAR100.train_list, *datasets.CIFAR100.test_list]),
    }
    for name, one in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        theirs[name][one.meta["filename"]] = one.meta["md5"]
    places = datasets.Places365
    lists = [places._CATEGORIES_META, places._FILE_LIST_META["train-standard"], places._FILE_LIST_META["val"]]
    for name, small in (("places365", False), ("places365_small", True)):
        archives = [places._IMAGES_META["train-standard", small], places._IMAGES_META["val", small]]
        theirs[name] = dict([*lists, *archives])
    ours = {name: {file: sums[0] for file, sums in get_dataset(name).layout.md5.items()} for name in theirs}
    assert ours == theirs


def test_a_wrong_sum_is_refused_and_a_right_one_is_not(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "test_batch"
    path.write_bytes(b"not CIFAR")
    ((found, expected),) = get_dataset("cifar10").layout.checksums(tmp_path).items()
    assert found == path
    with refused(str(path), hashlib.md5(b"not CIFAR").hexdigest(), *expected, "download it again"):
        check_md5(path, expected, lambda _: None)
    read: list[int] = []
    check_md5(path, (hashlib.md5(b"not CIFAR").hexdigest(),), read.append)
    assert sum(read) == 9


@pytest.mark.data
def test_debians_files_are_known_too(test_data: Path) -> None:
    files = get_dataset("fashion_mnist").layout.checksums(test_data / "fashion-mnist")
    assert len(files) == 4
    for path, expected in files.items():
        check_md5(path, expected, lambda _: None)
