"""A whole training step where the network is small: LeNet on Fashion-MNIST, input and all, against bare torch.

The alternative is the shortest loop that one would write for speed: all images as normalised floats in memory, a gather
a batch, cross-entropy, and torch's fused SGD. It has no masks, no schedule, and looks at no loss.
"""

import os
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from compare import Line, NotHere, Work, compared, in_turn
from images import Images
from steps import CLASSES, build, stepper
from torch import nn

from sslticket import Supervised, models
from sslticket.data.loader import Loader
from sslticket.data.source import DataSource, open_split
from sslticket.training.engine import Engine

_BATCH, _STEPS, _ROUNDS = 60, 200, 15
_AT_MOST = 1.25


def lines(images: Images) -> list[Line]:
    """With a mask of a fifth of the weights, as at a level of a search."""
    home = os.environ.get("SSLTICKET_TEST_DATA")
    if not home:
        raise NotHere("set SSLTICKET_TEST_DATA")
    source = open_split("fashion_mnist", "train", Path(home) / "fashion-mnist")
    turns = in_turn({"ours": lambda: _ours(source), "bare": lambda: _bare(source)}, _ROUNDS)
    what = f"LeNet step on Fashion-MNIST, batch {_BATCH}, mask of 20%, input and all"
    return [compared(turns, what, "bare torch, no mask", other="bare", kind="of", target=_AT_MOST, per=_STEPS)]


def _ours(source: DataSource) -> Work:
    views = Supervised().views(source.dataset.train_view)

    def load(engine: Engine) -> Loader:
        return engine.make_loader(source, views, batch_size=_BATCH, order=0, augment=0)

    make = partial(build, "lenet300", 1, 28, density=0.2)
    return stepper(make, load, _BATCH, _STEPS, tried=True, set_size=len(source.manifest))


def _bare(source: DataSource) -> Work:
    about = source.dataset
    pixels = torch.tensor(source.images).permute(0, 3, 1, 2).float().div_(255)
    pixels.sub_(about.mean[0]).div_(about.std[0])
    labels = torch.tensor(source.manifest.labels)
    backbone = models.create_model("lenet300", channels=1, image_size=28)
    features = models.num_features(backbone, channels=1, image_size=28)
    net = nn.Sequential(backbone, nn.Linear(features, CLASSES)).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
    batches = iter(torch.empty(0))

    def work() -> None:
        nonlocal batches
        for _ in range(_STEPS):
            chosen = next(batches, None)
            if chosen is None:
                batches = iter(torch.randperm(len(pixels)).split(_BATCH))
                chosen = next(batches)
            optimizer.zero_grad()
            F.cross_entropy(net(pixels[chosen]), labels[chosen]).backward()
            optimizer.step()

    return work
