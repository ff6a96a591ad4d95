"""Memory that is handed back to the kernel in every step, to be asked for again: pages provided anew, and their time.

Ours is a training step as the loop takes it; the alternative is the same step in plain torch, with the allocator as a
process finds it. What that one hands back changes from step to step, from nothing to everything: glibc moves its bounds
with the sizes of what was freed before. So there is no ratio of memory, but a bound for ours and both spreads.
"""

import resource
from functools import partial

import torch
import torch.nn.functional as F
from compare import Line, Turn, Work, alone, compared, in_turn
from images import Images
from steps import CLASSES, SameBatch, build, stepper
from torch import nn

from sslticket import models

_AT_MOST = 0.1  # MB a step, 24 pages: a thousandth of what plain torch takes at its worst
_WARM = 4  # steps after which a process has asked for the most that it needs at once
_CASES = (("lenet300", 1, 28, 60, 50, 9), ("resnet20", 3, 32, 128, 1, 7), ("vgg19", 3, 32, 64, 1, 4))


def lines(images: Images) -> list[Line]:
    """Pages and time of steps of three networks."""
    return [line for case in _CASES for line in _lines(*case)]


def _lines(model: str, channels: int, image_size: int, batch_size: int, steps: int, rounds: int) -> list[Line]:
    def ours() -> Work:
        make, noise = (
            partial(build, model, channels, image_size, density=0.1),
            SameBatch(batch_size, channels, image_size),
        )
        return stepper(make, noise.for_engine, batch_size, steps)

    bare = partial(_bare, model, channels, image_size, batch_size, steps)
    turns = in_turn({"ours": ours, "torch": bare}, rounds, warm=_WARM)
    what = f"training step, {model}, batch {batch_size}"
    memory = f"{what}: memory from the kernel"
    return [
        alone(turns, memory, target=_AT_MOST, unit="MB", per=steps, figure=_megabytes),
        alone(turns, f"{memory}, plain torch", ours="torch", unit="MB", per=steps, figure=_megabytes),
        compared(turns, f"{what}: time", "plain torch, no mask", other="torch", kind="of", per=steps),
    ]


def _megabytes(turn: Turn) -> float:
    return turn.faults * resource.getpagesize() / 1e6


def _bare(model: str, channels: int, image_size: int, batch_size: int, steps: int) -> Work:
    batch = SameBatch(batch_size, channels, image_size).batch
    images, labels = batch.views[0], batch.labels
    torch.manual_seed(0)
    backbone = models.create_model(model, channels=channels, image_size=image_size)
    features = models.num_features(backbone, channels=channels, image_size=image_size)
    net = nn.Sequential(backbone, nn.Linear(features, CLASSES)).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)

    def work() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()

    return work
