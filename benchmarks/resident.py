"""CIFAR-10 batches, padded, cropped, flipped and normalised: against batched torch, and against one image at a time.

Batched torch is written in two ways that are in use: a gather for each batch, and all images of an epoch at once, one
shift after the other, as airbench's loader does it (Jordan 2024, https://arxiv.org/abs/2404.00498).
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from compare import Line, Work, compared, in_turn
from images import Images
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from sslticket.data.loader import Sampler
from sslticket.data.source import DataSource, make_loader, open_split
from sslticket.processes.allocator import keep_freed_memory

_BATCH, _EPOCH, _ROUNDS = 512, 97, 5  # batches of 512 in an epoch, its last part left out
_FEW = 4  # batches a round of one image at a time


class _Arrays(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10 does it: an array becomes a PIL image, and that a tensor."""

    def __init__(self, source: DataSource) -> None:
        assert source.images is not None
        self._images, self._labels = np.asarray(source.images), source.manifest.labels
        about, view = source.dataset, source.dataset.train_view
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(view.size, padding=view.pad),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(about.mean, about.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), int(self._labels[index])


def lines(images: Images) -> list[Line]:
    """A line for each alternative."""
    with patch.dict(os.environ, SSLTICKET_CACHE=str(images.scratch / "cache")):
        source = open_split("cifar10", "train", images.cifar10)
    contenders = {"ours": _ours, "gather": _gather, "airbench": _airbench, "PIL": _one_by_one}
    turns = in_turn({name: partial(make, source) for name, make in contenders.items()}, _ROUNDS)
    than = {"gather": "batched torch, a gather a batch", "airbench": "batched torch, an epoch at once"}
    than["PIL"] = "DataLoader of PIL images"
    what = f"CIFAR-10 training batches of {_BATCH}, an image"
    return [
        compared(turns, what, words, other=other, unit="us", figure=lambda turn: turn.seconds / turn.told)
        for other, words in than.items()
    ]


def _ours(source: DataSource) -> Work:
    keep_freed_memory()  # as a command does when it starts
    loader = make_loader(
        source,
        (source.dataset.train_view,),
        Sampler(len(source.manifest), _BATCH, seed=0),
        augment_seed=0,
        device=torch.device("cpu"),
        threads=1,
        max_bad_images=0,
    )
    return lambda: sum(len(batch.labels) for batch in loader.train(0, _EPOCH))


def _padded(source: DataSource) -> Tensor:
    """All images as normalised floats with their borders, (N, 3, 40, 40): made once."""
    about = source.dataset
    pixels = torch.tensor(np.asarray(source.images)).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (about.mean, about.std))
    return F.pad(pixels.sub_(mean).div_(std), (about.train_view.pad,) * 4)


def _gather(source: DataSource) -> Work:
    padded, labels, size = _padded(source), torch.tensor(source.manifest.labels), source.dataset.train_view.size
    spare, within = padded.shape[-1] - size + 1, torch.arange(size)

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(padded))
        for chosen in order[: _EPOCH * _BATCH].split(_BATCH):
            rows = torch.randint(spare, (len(chosen), 1)) + within
            columns = torch.randint(spare, (len(chosen), 1)) + within
            columns = torch.where(torch.rand(len(chosen), 1) < 0.5, columns.flip(1), columns)
            crops = padded[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
            yield crops.permute(0, 3, 1, 2).contiguous(), labels[chosen]

    return _counting(epoch)


def _airbench(source: DataSource) -> Work:
    padded, labels, size = _padded(source), torch.tensor(source.manifest.labels), source.dataset.train_view.size
    spare, count = padded.shape[-1] - size + 1, len(padded)

    def epoch() -> Iterator[tuple[Tensor, Tensor]]:
        down, right = torch.randint(spare, (2, count))
        lower, crops = torch.empty(count, 3, size, padded.shape[-1]), torch.empty(count, 3, size, size)
        for shift in range(spare):
            lower[down == shift] = padded[down == shift, :, shift : shift + size]
        for shift in range(spare):
            crops[right == shift] = lower[right == shift, :, :, shift : shift + size]
        crops = torch.where((torch.rand(count) < 0.5).view(-1, 1, 1, 1), crops.flip(3), crops)
        for chosen in torch.randperm(count)[: _EPOCH * _BATCH].split(_BATCH):
            yield crops[chosen], labels[chosen]

    return _counting(epoch)


def _one_by_one(source: DataSource) -> Work:
    arrays = _Arrays(source)
    sampler = RandomSampler(arrays, num_samples=_BATCH * _FEW)
    loader = DataLoader(arrays, _BATCH, sampler=sampler)  # no worker: sending batches would cost it more
    return _counting(lambda: iter(loader))


def _counting(epoch: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> Work:
    return lambda: sum(len(labels) for _, labels in epoch())
