"""ImageNet training batches from JPEG files: random resized crops of 224 pixels, mirrored, normalised, by two threads.

The alternatives are torchvision's, with two worker processes: PIL, as in PyTorch's ImageNet example, and tensors
decoded by torchvision.io.
"""

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from compare import Line, in_turn, middle, rate, ratio
from images import Images
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from sslticket.data.datasets.base import Dataset
from sslticket.data.loader import Loader, Sampler
from sslticket.data.source import DataSource, make_loader, open_split
from sslticket.objectives.rotnet import four_rotations

_BATCH, _BATCHES, _REPEATS = 64, 24, 4
_PIL_AT_LEAST, _TENSORS_AT_LEAST, _ROTNET_AT_MOST = 1.8, 1.3, 1.1
_RECIPES = Path(__file__).parent.parent / "recipes"


def lines(images: Images) -> list[Line]:
    """Against both alternatives, and what RotNet adds in the loader and after it."""
    source = open_split("imagenet", "train", images.photographs)
    loader, rotnet = _loader(source, "supervised_resnet50"), _loader(source, "rotnet_resnet50")
    folder = str(images.photographs / "train")
    pil = _batches(ImageFolder(folder, _pil_transform(source.dataset)))
    tensors = _batches(ImageFolder(folder, _tensor_transform(source.dataset), loader=_decoded))

    def turned() -> Iterator[tuple[Tensor, Tensor]]:
        return (four_rotations(batch.views[0]) for batch in rotnet.train(0, _BATCHES))

    figures = in_turn(
        {
            "ours": rate(lambda: loader.train(0, _BATCHES), _BATCH),
            "PIL": rate(lambda: pil, _BATCH),
            "tensors": rate(lambda: tensors, _BATCH),
            "rotnet": rate(lambda: rotnet.train(0, _BATCHES), _BATCH),
            "turned": rate(turned, _BATCH),
        },
        _REPEATS,
    )
    ours, slower = f"{middle(figures, 'ours'):,.0f} images/s", ratio(figures, "ours", "rotnet")
    return [
        _faster(figures, ours, "PIL", "DataLoader, PIL", _PIL_AT_LEAST),
        _faster(figures, ours, "tensors", "DataLoader, torchvision.io", _TENSORS_AT_LEAST),
        Line(
            "RotNet recipe: loader, per source image",
            f"{middle(figures, 'rotnet'):,.0f} images/s",
            f"{ours} supervised recipe",
            f"{slower - 1:+.0%} time",
            f"<= {_ROTNET_AT_MOST - 1:+.0%}",
            slower <= _ROTNET_AT_MOST,
        ),
        Line(
            "RotNet recipe: loader, then the four turns on the CPU",
            f"{middle(figures, 'turned'):,.0f} images/s",
            f"{ours} supervised recipe",
            f"{ratio(figures, 'ours', 'turned') - 1:+.0%} time",
        ),
    ]


def _loader(source: DataSource, recipe: str) -> Loader:
    """The loader of a recipe, on its own view of the images."""
    chosen = runpy.run_path(str(_RECIPES / f"{recipe}.py"))["recipe"]
    return make_loader(
        source,
        chosen.views(source.dataset.train_view),
        Sampler(len(source.manifest), _BATCH, seed=0),
        augment_seed=0,
        device=torch.device("cpu"),
        threads=2,
        max_bad_images=0,
    )


def _faster(figures: dict[str, list[float]], ours: str, other: str, name: str, at_least: float) -> Line:
    faster = ratio(figures, "ours", other)
    return Line(
        f"ImageNet training batches of {_BATCH}, 1,000 photographs",
        ours,
        f"{middle(figures, other):,.0f} images/s {name}",
        f"{faster:.2f}x faster",
        f">= {at_least}x",
        faster >= at_least,
    )


def _batches(dataset: ImageFolder) -> DataLoader[tuple[Tensor, Tensor]]:
    sampler = RandomSampler(dataset, num_samples=_BATCH * _BATCHES)
    return DataLoader(dataset, _BATCH, sampler=sampler, num_workers=2, persistent_workers=True)


def _pil_transform(about: Dataset) -> Callable[[object], Tensor]:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(about.train_view.size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(about.mean, about.std),
        ]
    )


def _tensor_transform(about: Dataset) -> Callable[[object], Tensor]:
    return v2.Compose(
        [
            v2.RandomResizedCrop(about.train_view.size, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(about.mean, about.std),
        ]
    )


def _decoded(path: str) -> Tensor:
    return decode_image(path, mode=ImageReadMode.RGB)
