"""ImageNet training input from JPEG files on a CPU, an image: random resized crops of 224 pixels, mirrored, normalised.

The alternatives see the same photographs in the same order. Each is written as its users write it and as those do who
care for speed, who collate bytes and normalise a whole batch at once (as timm's loader does). None has worker
processes: sending batches between processes would cost it more of the processor's time.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from compare import Line, Turns, Work, compared, in_turn
from images import Images
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from sslticket.data.loader import Loader, Sampler
from sslticket.data.source import DataSource, make_loader, open_split
from sslticket.objectives.base import Objective
from sslticket.objectives.rotnet import RotNet, four_rotations
from sslticket.objectives.supervised import Supervised
from sslticket.processes.allocator import keep_freed_memory

_BATCH, _BATCHES, _ROUNDS = 32, 4, 7
_ALL = 256  # photographs, whose headers are all known after the warm rounds
_FEW = 64  # photographs of a subset that fits in memory
_PIL, _TENSORS, _FITS, _ROTNET = 2.3, 1.7, 6.0, 6.0  # times that ours must be faster
_ENDLESS = 10**6  # batches
_MEAN, _STD = (torch.tensor(values).view(3, 1, 1) for values in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))


def lines(images: Images) -> list[Line]:
    """All photographs, a subset whose pixels fit in memory, and RotNet's four turns of each photograph."""
    os.environ["SSLTICKET_CACHE"] = str(images.scratch / "cache")  # where decoded images are kept
    whole = open_split("imagenet", "train", images.photographs)
    source, few = (replace(whole, manifest=whole.manifest.evenly_spaced(count)) for count in (_ALL, _FEW))
    return [*_all(source), *_subset(few), *_rotations(source)]


def _all(source: DataSource) -> list[Line]:
    turns = in_turn(
        {
            "ours": partial(_ours, source, Supervised()),
            "PIL": partial(_theirs, source, _plain_pil),
            "PIL bytes": partial(_theirs, source, _pil_bytes, bytes_of=True),
            "tensors": partial(_theirs, source, _tensor_bytes, bytes_of=True),
        },
        _ROUNDS,
        warm=2,
    )
    what = "ImageNet training input, an image"
    return [
        _faster(turns, what, "PIL", "DataLoader, PIL, as PyTorch's example", _PIL),
        _faster(turns, what, "PIL bytes", "DataLoader, PIL, bytes collated", _PIL),
        _faster(turns, what, "tensors", "DataLoader, torchvision.io, bytes collated", _TENSORS),
    ]


def _subset(source: DataSource) -> list[Line]:
    turns = in_turn(
        {
            "ours": partial(_ours, source, Supervised(), keep=True),
            "PIL": partial(_theirs, source, _plain_pil),
            "PIL bytes": partial(_theirs, source, _pil_bytes, bytes_of=True),
            "kept": partial(_theirs, source, _kept_bytes, bytes_of=True),
        },
        _ROUNDS,
        warm=2,  # all is kept, and compared, after two
    )
    what = f"the same, a subset that fits ({_FEW} photographs)"
    return [
        _faster(turns, what, "PIL", "DataLoader, PIL, as PyTorch's example", _FITS),
        _faster(turns, what, "PIL bytes", "DataLoader, PIL, bytes collated", _FITS),
        _faster(turns, what, "kept", "DataLoader of decoded bytes kept in RAM", None),
    ]


def _rotations(source: DataSource) -> list[Line]:
    def turned() -> Work:
        batches = _loader(source, RotNet()).train(0, _ENDLESS)
        return lambda: [len(four_rotations(batch.views[0])) for batch in islice(batches, _BATCHES)]

    turns = in_turn(
        {
            "ours": turned,
            "collated": partial(_theirs, source, _pil_bytes, bytes_of=True, turned=True),
            "each": partial(_theirs, source, _plain_pil),
        },
        _ROUNDS,
        warm=2,
    )
    per = _BATCH * _BATCHES
    what = "RotNet's input, a rotated image"
    one = {**turns, "each": [replace(turn, seconds=4 * turn.seconds) for turn in turns["each"]]}  # decodes each anew
    return [
        compared(one, what, name, other=other, target=_ROTNET, per=4 * per)
        for other, name in (
            ("collated", "DataLoader, PIL, bytes turned and normalised in collating"),
            ("each", "DataLoader, PIL, each turned image a decoding of its own"),
        )
    ]


def _faster(turns: Turns, what: str, other: str, than: str, target: float | None) -> Line:
    return compared(turns, what, than, other=other, target=target, per=_BATCH * _BATCHES)


def _loader(source: DataSource, objective: Objective, *, keep: bool = False) -> Loader:
    keep_freed_memory()  # as a command does when it starts
    return make_loader(
        source,
        objective.views(source.dataset.train_view),
        Sampler(len(source.manifest), _BATCH, seed=0),
        augment_seed=0,
        device=torch.device("cpu"),
        threads=1,
        max_bad_images=0,
        keep_decoded=None if keep else 0.0,  # by default what fits is kept, as the whole of ImageNet would not be
    )


def _ours(source: DataSource, objective: Objective, *, keep: bool = False) -> Work:
    batches = _loader(source, objective, keep=keep).train(0, _ENDLESS)
    return lambda: [len(batch.labels) for batch in islice(batches, _BATCHES)]


class _Photographs(Dataset[tuple[Any, int]]):
    def __init__(self, source: DataSource, make: Callable[[str], Any]) -> None:
        self._files = [str(source.manifest.root / file) for file in source.manifest.frame["file"]]
        self._labels, self._make = source.manifest.labels, make

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._make(self._files[index]), int(self._labels[index])


def _theirs(
    source: DataSource, make: Callable[[], Callable[[str], Any]], *, bytes_of: bool = False, turned: bool = False
) -> Work:
    """A DataLoader over the photographs that ours takes in the same round."""
    dataset, sampler = _Photographs(source, make()), Sampler(len(source.manifest), _BATCH, seed=0)
    order = (sampler.indices(step).tolist() for step in range(_ENDLESS))
    collate = partial(_collate, turned=turned) if bytes_of else None
    batches = iter(DataLoader(dataset, batch_sampler=order, collate_fn=collate))
    return lambda: [len(labels) for _, labels in islice(batches, _BATCHES)]


def _collate(items: Sequence[tuple[Tensor, int]], *, turned: bool) -> tuple[Tensor, Tensor]:
    """Bytes into one batch, which is normalised as a whole."""
    images, labels = torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])
    if turned:
        images = torch.cat([images.rot90(turn, (2, 3)) for turn in range(4)])
        labels = torch.arange(4).repeat_interleave(len(items))
    return images.float().sub_(_MEAN).div_(_STD), labels


def _open(path: str) -> Image.Image:
    with Path(path).open("rb") as file:
        return Image.open(file).convert("RGB")


def _plain_pil() -> Callable[[str], Tensor]:
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    crop, flip = transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()
    return transforms.Compose([_open, crop, flip, transforms.ToTensor(), normalize])


def _pil_bytes() -> Callable[[str], Tensor]:
    crop, flip = transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()
    return transforms.Compose([_open, crop, flip, transforms.PILToTensor()])


def _tensor_bytes() -> Callable[[str], Tensor]:
    crop, flip = v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()
    return lambda path: flip(crop(decode_image(path, mode=ImageReadMode.RGB)))


def _kept_bytes() -> Callable[[str], Tensor]:
    """Decoded once, then cut, resized and mirrored from memory."""
    kept: dict[str, Tensor] = {}
    crop, flip = v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()

    def make(path: str) -> Tensor:
        if path not in kept:
            kept[path] = decode_image(path, mode=ImageReadMode.RGB)
        return flip(crop(kept[path]))

    return make
