"""What each objective costs: its input from JPEG files, and its training step.

Input: all views of an image from one decoding, against torchvision's PIL transforms of the same views in a DataLoader,
which decodes once an image as well; the blur is PIL's own, as SimCLR's, MoCo's and lightly's users take it. Steps: of
ResNet-20 on 32 x 32 pixels, against supervised steps with as many forward images.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import Line, Work, compared, in_turn
from images import Images
from PIL import Image, ImageFilter
from steps import SameBatch, build, stepper
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from sslticket.data.augment import Blur, Grayscale, HSVNoise, Jitter, Rotate, Solarize, Transform, View
from sslticket.data.loader import Sampler
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
from sslticket.processes.allocator import keep_freed_memory

_BATCH, _ROUNDS, _WARM = 24, 6, 4
_AT_LEAST = 1.8
_ALL, _ENDLESS = 96, 10**6  # photographs, whose headers are all known after the warm rounds; batches
_STEP_IMAGES, _STEP_ROUNDS = 32, 5  # source images of a step
# MoCo v2's views are SimSiam's, and Barlow Twins' are BYOL's; S4L-Rotation sees the supervised view, as RotNet does.
_INPUTS = (Exemplar(), S4LExemplar(), SimCLR(), SimSiam(), BYOL(), VICReg(), SwAV(), DINO())
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
    """The lines of the objectives' inputs; `objective_steps` has their steps."""
    whole = open_split("imagenet", "train", images.photographs)
    source = replace(whole, manifest=whole.manifest.evenly_spaced(_ALL))
    return [_input(source, objective) for objective in _INPUTS]


def step_lines() -> list[Line]:
    """A line for the step of each objective."""
    return [_step(objective) for objective in _STEPS]


def _input(source: DataSource, objective: Objective) -> Line:
    views = objective.views(source.dataset.train_view)
    sampler = Sampler(len(source.manifest), _BATCH, seed=0)
    turns = in_turn(
        {"ours": partial(_ours, source, views, sampler), "PIL": partial(_theirs, source, views, sampler)},
        _ROUNDS,
        warm=_WARM,
    )
    what = f"input of {objective.name}, {len(views)} views, a source image"
    return compared(turns, what, "DataLoader, PIL", other="PIL", target=_AT_LEAST, per=_BATCH)


def _ours(source: DataSource, views: tuple[View, ...], sampler: Sampler) -> Work:
    keep_freed_memory()  # as a command does when it starts
    loader = make_loader(
        source,
        views,
        sampler,
        augment_seed=0,
        device=torch.device("cpu"),
        threads=1,
        max_bad_images=0,
        keep_decoded=0.0,
    )
    batches = loader.train(0, _ENDLESS)
    return lambda: len(next(batches).labels)


def _theirs(source: DataSource, views: tuple[View, ...], sampler: Sampler) -> Work:
    about = source.dataset
    dataset = _Views(source, [_transform(view, about.mean, about.std) for view in views])
    order = (sampler.indices(step).tolist() for step in range(_ENDLESS))  # the images that ours takes
    batches = iter(DataLoader(dataset, batch_sampler=order))
    return lambda: len(next(batches))


class _Views(Dataset[tuple[Tensor, ...]]):
    """Every view of an image, decoded once."""

    def __init__(self, source: DataSource, each: list[Callable[[Any], Tensor]]) -> None:
        self._files = [source.manifest.root / file for file in source.manifest.frame["file"]]
        self._each = each

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image = _open(self._files[index])
        return tuple(make(image) for make in self._each)


def _open(path: Path) -> Image.Image:
    with path.open("rb") as file:
        return Image.open(file).convert("RGB")


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
            return lambda image: image.filter(ImageFilter.GaussianBlur(random.uniform(*effect.sigma)))
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
    views = len(objective.views(View(size=32, crop="pad", pad=2, flip=True)))
    seen = _forward_images(objective, views) * _STEP_IMAGES
    turns = in_turn(
        {
            "ours": partial(_stepper, objective, views, _STEP_IMAGES),
            "labels": partial(_stepper, Supervised(), 1, seen),
        },
        _STEP_ROUNDS,
    )
    what = f"step of {objective.name}, {_STEP_IMAGES} source images, {seen} forward"
    return compared(turns, what, "of labels, as many forward", other="labels", kind="more")


def _forward_images(objective: Objective, views: int) -> int:
    """How many times each source image goes through the trained backbone in a step."""
    if isinstance(objective, MoCoV2):
        return 1  # the second view goes through the key encoder alone
    return 4 if isinstance(objective, RotNet | S4LRotation) else views


def _stepper(objective: Objective, views: int, count: int) -> Work:
    loader = SameBatch(count, 3, 32, views)
    if objective.labelled_fraction is not None:
        loader.batch.labels[1::2] = -1
    return stepper(partial(build, "resnet20", 3, 32, objective=objective), loader.for_engine, count, 1)
