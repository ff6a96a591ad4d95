"""What each objective costs: its input from JPEG files, and its training step.

Input: source images a second of ImageNet photographs, all views of an image from one decoding, by two threads; against
torchvision's PIL transforms of the same views in a DataLoader with two workers, which decodes once an image as well.
Steps: of ResNet-20 on 32 x 32 pixels, against supervised steps with as many forward images.
"""

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from compare import Line, in_turn, middle, rate, ratio
from images import Images
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from sslticket.data.augment import Blur, Grayscale, HSVNoise, Jitter, Rotate, Solarize, Transform, View
from sslticket.data.loader import Batch, Sampler
from sslticket.data.source import DataSource, make_loader, open_split
from sslticket.objectives.barlowtwins import BarlowTwins
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.dino import DINO
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.s4l import S4LExemplar, S4LRotation
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.simsiam import SimSiam
from sslticket.objectives.supervised import Supervised
from sslticket.objectives.swav import SwAV
from sslticket.objectives.vicreg import VICReg
from sslticket.training.network import MaskedNetwork

_BATCH, _BATCHES, _ROUNDS = 32, 20, 3
_AT_LEAST = 1.8
_STEP_IMAGES = 32  # source images of a step
# MoCo v2's views are SimSiam's, and Barlow Twins' are BYOL's; RotNet and S4L-Rotation see the supervised view.
_INPUTS = (RotNet(), Exemplar(), S4LExemplar(), SimCLR(), SimSiam(), BYOL(), VICReg(), SwAV(), DINO())
# Heads small enough that the backbone takes most of a step, as ResNet-50's does beside the published ones.
_STEPS: tuple[Objective, ...] = (
    RotNet(),
    Exemplar(dim=128),
    S4LRotation(),
    S4LExemplar(exemplar=Exemplar(copies=4, dim=128, mining="hard", degrees=0.0)),
    SimCLR(),
    MoCoV2(queue=4096),
    BYOL(hidden=512),
    SimSiam(dim=512, predictor=128),
    BarlowTwins(hidden=512, dim=512),
    VICReg(hidden=512, dim=512),
    SwAV(hidden=512, prototypes=300),
    DINO(hidden=512, outputs=1024),
)


def lines(images: Images) -> list[Line]:
    """Two lines an objective."""
    source = open_split("imagenet", "train", images.photographs)
    return [*(_input(source, objective) for objective in _INPUTS), *map(_step, _STEPS)]


def _input(source: DataSource, objective: Objective) -> Line:
    views = objective.views(source.dataset.train_view)
    loader = make_loader(
        source,
        views,
        Sampler(len(source.manifest), _BATCH, seed=0),
        augment_seed=0,
        device=torch.device("cpu"),
        threads=2,
        max_bad_images=0,
    )
    photographs = ImageFolder(str(source.manifest.root))
    naive = _Views(photographs, [_transform(view, source.dataset.mean, source.dataset.std) for view in views])
    sampler = RandomSampler(naive, num_samples=_BATCH * _BATCHES)
    theirs = DataLoader(naive, _BATCH, sampler=sampler, num_workers=2, persistent_workers=True)
    figures = in_turn(
        {"ours": rate(lambda: loader.train(0, _BATCHES), _BATCH), "PIL": rate(lambda: theirs, _BATCH)}, _ROUNDS
    )
    faster = ratio(figures, "ours", "PIL")
    return Line(
        f"input of {objective.name}, {len(views)} views",
        f"{middle(figures, 'ours'):,.0f} images/s",
        f"{middle(figures, 'PIL'):,.0f} images/s DataLoader, PIL",
        f"{faster:.2f}x faster",
        f">= {_AT_LEAST}x",
        faster >= _AT_LEAST,
    )


class _Views(Dataset[tuple[Tensor, ...]]):
    """Every view of an image, decoded once."""

    def __init__(self, images: ImageFolder, each: list[Callable[[Any], Tensor]]) -> None:
        self._images, self._each = images, each

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image, _ = self._images[index]
        return tuple(make(image) for make in self._each)


def _transform(view: View, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Any], Tensor]:
    steps = [transforms.RandomResizedCrop(view.size, scale=view.scale, ratio=view.ratio)]
    steps += [transforms.RandomHorizontalFlip()] if view.flip else []
    steps += [transforms.RandomApply([_pil(effect)], p=effect.probability) for effect in view.transforms]
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])


def _pil(effect: Transform) -> Callable[[Any], Any]:
    match effect:
        case Rotate():
            return transforms.RandomRotation(effect.degrees, transforms.InterpolationMode.BILINEAR)
        case Jitter():
            return transforms.ColorJitter(effect.brightness, effect.contrast, effect.saturation, effect.hue)
        case Grayscale():
            return transforms.Grayscale(3)
        case Blur():
            return transforms.GaussianBlur(effect.kernel, effect.sigma)
        case Solarize():
            return transforms.RandomSolarize(effect.threshold, p=1.0)
        case HSVNoise():
            return lambda image: _hsv_noise(image, effect)
    raise AssertionError(effect)


def _hsv_noise(image: Image.Image, effect: HSVNoise) -> Image.Image:
    """As one would write it with PIL: three tables of 256 entries."""
    steps = np.arange(256) / 255
    tables = [(np.arange(256) + 255 * random.uniform(-effect.hue, effect.hue)) % 256]
    for _ in range(2):
        power = 2 ** random.uniform(-effect.power, effect.power)
        factor = 2 ** random.uniform(-effect.factor, effect.factor)
        tables.append(255 * np.clip(steps**power * factor + random.uniform(-effect.shift, effect.shift), 0, 1))
    return image.convert("HSV").point(np.concatenate(tables).astype(np.uint8).tolist()).convert("RGB")


def _step(objective: Objective) -> Line:
    views = tuple(view.at_size(None) for view in objective.views(View(size=32, crop="pad", pad=2, flip=True)))
    seen = _forward_images(objective, len(views)) * _STEP_IMAGES
    figures = in_turn(
        {"ours": _stepper(objective, len(views), _STEP_IMAGES), "labels": _stepper(Supervised(), 1, seen)}, 8
    )
    slower = ratio(figures, "ours", "labels")
    return Line(
        f"step of {objective.name}, {_STEP_IMAGES} images, {seen} forward",
        f"{1000 * middle(figures, 'ours'):.0f} ms",
        f"{1000 * middle(figures, 'labels'):.0f} ms supervised, {seen} images",
        f"{slower - 1:+.0%} time",
    )


def _forward_images(objective: Objective, views: int) -> int:
    """How many times each source image goes through the trained backbone in a step."""
    if isinstance(objective, MoCoV2):
        return 1  # the second view goes through the key encoder alone
    return 4 if isinstance(objective, RotNet | S4LRotation) else views


def _stepper(objective: Objective, views: int, count: int) -> Callable[[], float]:
    net = MaskedNetwork.build("resnet20", objective, channels=3, image_size=32, classes=10, seed=0)
    optimizer = torch.optim.SGD([weight for weight in net.parameters() if weight.requires_grad], lr=0.01, fused=True)
    images = tuple(torch.randn(count, 3, 32, 32) for _ in range(views))
    label = torch.arange(count) % 10
    if objective.labelled_fraction is not None:
        label[1::2] = -1
    batch = Batch(images, label, torch.arange(count))

    def measured() -> float:
        began = time.perf_counter()
        torch.stack(list(net(batch, 0.5).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(net, 0.5)
        return time.perf_counter() - began

    return measured
