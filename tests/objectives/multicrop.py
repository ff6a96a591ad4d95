"""Small nets, batches of global and local crops and a training loop, for the tests of SwAV and DINO."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from sslticket.config.training import SGD
from sslticket.data.loader import Batch
from sslticket.objectives.base import Objective
from sslticket.objectives.dino import DINO
from sslticket.objectives.multiview import Prototypes
from sslticket.objectives.swav import SwAV
from sslticket.training.network import MaskedNetwork
from sslticket.training.optim import build_optimizer

BOTH: list[Objective] = [
    SwAV(hidden=12, dim=6, prototypes=5, frozen_for=0.3),
    DINO(hidden=12, bottleneck=6, outputs=9, momentum=0.9, frozen_for=0.3, head_norm=True),
]
IDS = ["swav", "dino"]


def batch(count: int, step: int = 0, sizes: tuple[int, ...] = (16, 16, 7, 7, 7)) -> Batch:
    generator = torch.Generator().manual_seed(step)
    views = tuple(torch.randn(count, 3, size, size, generator=generator) for size in sizes)
    return Batch(views, torch.full((count,), -1), torch.arange(count))


def build(objective: Objective, seed: int = 0) -> MaskedNetwork:
    return MaskedNetwork.build("conv3", objective, channels=3, image_size=16, classes=10, seed=seed)


def sgd(net: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return build_optimizer(SGD(lr=lr, momentum=0.9, weight_decay=0.1), net.parameters())


def train(
    net: MaskedNetwork,
    start: int,
    stop: int,
    optimiser: torch.optim.Optimizer | None = None,
    rows: slice = slice(None),
    wrapped: nn.Module | None = None,
) -> list[Tensor]:
    """The steps of a training of 10, in the training loop's order, on these rows of batches of 8; their losses."""
    optimiser = optimiser or sgd(net)
    losses = []
    for step in range(start, stop):
        whole = batch(8, step)
        part = Batch(tuple(view[rows] for view in whole.views), whole.labels[rows], whole.indices[rows])
        optimiser.zero_grad()
        (loss,) = (wrapped or net)(part, step / 10).values()
        loss.backward()
        optimiser.step()
        net.objective.after_step(net, step / 10)
        losses.append(loss.detach())
    return losses


def waiting(net: MaskedNetwork) -> Prototypes:
    """What is frozen at first."""
    heads = cast(Any, net.heads)
    return cast(Prototypes, heads.prototypes if isinstance(net.objective, SwAV) else heads.student.directions)
