"""CIFAR-10 batches: from memory and augmented a batch at a time, against image by image in worker processes."""

import os
from unittest.mock import patch

import numpy as np
import torch
from compare import Line, in_turn, middle, rate, ratio
from images import Images
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from sslticket.data.loader import Sampler
from sslticket.data.source import DataSource, make_loader, open_split

_BATCH, _OURS, _THEIRS = 512, 50, 20  # batches a round: as many as take each about two seconds
_AT_LEAST = 40_000


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
    """Pad, crop, flip and normalise."""
    root = images.cifar10
    with patch.dict(os.environ, SSLTICKET_CACHE=str(images.scratch / "cache")):
        source = open_split("cifar10", "train", root)
    loader = make_loader(
        source,
        (source.dataset.train_view,),
        Sampler(len(source.manifest), _BATCH, seed=0),
        augment_seed=0,
        device=torch.device("cpu"),
        threads=2,
        max_bad_images=0,
    )
    arrays = _Arrays(source)
    theirs = DataLoader(
        arrays,
        _BATCH,
        sampler=RandomSampler(arrays, num_samples=_BATCH * _THEIRS),
        num_workers=2,
        persistent_workers=True,
    )
    figures = in_turn(
        {"ours": rate(lambda: loader.train(0, _OURS), _BATCH), "torch": rate(lambda: iter(theirs), _BATCH)}, 5
    )
    speed = middle(figures, "ours")
    return [
        Line(
            f"CIFAR-10 training batches of {_BATCH} from memory",
            f"{speed:,.0f} images/s",
            f"{middle(figures, 'torch'):,.0f} images/s DataLoader, 2 workers",
            f"{ratio(figures, 'ours', 'torch'):.1f}x faster",
            f">= {_AT_LEAST:,} images/s",
            speed >= _AT_LEAST,
        )
    ]
