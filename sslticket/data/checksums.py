"""MD5 sums of the official files, as their publishers or torchvision's downloads give them, and their comparison."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from sslticket.errors import BadInput

_CHUNK = 1 << 22

MD5 = {
    "imagenet": {
        "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
        "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
        "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
    },
    "places365": {
        "train_large_places365standard.tar": "67e186b496a84c929568076ed01a8aa1",
        "val_large.tar": "9b71c4993ad89d2d8bcbdc4aef38042f",
        "categories_places365.txt": "06c963b85866bd0649f97cb43dd16673",
        "places365_train_standard.txt": "30f37515461640559006b8329efbed1a",
        "places365_val.txt": "e9f2fd57bfd9d07630173f4e8708e4b1",
    },
    "places365_small": {
        "train_256_places365standard.tar": "53ca1c756c3d1e7809517cc47c5561c5",
        "val_256.tar": "e27b17d8d44f4af9a78502beb927f808",
        "categories_places365.txt": "06c963b85866bd0649f97cb43dd16673",
        "places365_train_standard.txt": "30f37515461640559006b8329efbed1a",
        "places365_val.txt": "e9f2fd57bfd9d07630173f4e8708e4b1",
    },
    "cifar10": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
    "cifar100": {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "meta": "7973b15100ade9c7d40fb424638fde48",
    },
    "svhn": {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
    },
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}
MD5["svhn_extra"] = MD5["svhn"]
_DEBIAN = {
    "t10k-images-idx3-ubyte.gz": "f78720b4224f21cce2f2ccf2d7a94c9a",
    "t10k-labels-idx1-ubyte.gz": "0d30e22e447f3c33dab9ed536400ac01",
    "train-images-idx3-ubyte.gz": "cf8536b0aa1a6ac5fa3f23001093305c",
    "train-labels-idx1-ubyte.gz": "10bea18fdb374794d4bb42e356e600c9",
}
"""The same files as Debian's package dataset-fashion-mnist compresses them."""


def official(dataset: str, folder: Path) -> dict[Path, tuple[str, ...]]:
    """The official files of a data set that lie in a folder, and the MD5 sums that each may have."""
    found = {folder / name: [digest] for name, digest in MD5.get(dataset, {}).items() if (folder / name).is_file()}
    if dataset == "fashion_mnist":
        for path, digests in found.items():
            digests.append(_DEBIAN[path.name])
    return {path: tuple(digests) for path, digests in found.items()}


def check(path: Path, expected: tuple[str, ...], advance: Callable[[int], object]) -> None:
    """Compare a file's MD5 sum.

    Args:
        path: the file.
        expected: the sums it may have, 32 hexadecimal digits each, the official one first.
        advance: called with the number of bytes read.

    Raises:
        BadInput: if the sum is another, or the file cannot be read.
    """
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                advance(len(chunk))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    if digest.hexdigest() not in expected:
        raise BadInput(
            f"{path} has the MD5 sum {digest.hexdigest()}, the official file {expected[0]}; it is truncated, damaged "
            "or another file: download it again"
        )
