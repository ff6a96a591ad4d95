"""Small gated networks whose losses are given by hand."""

from collections.abc import Callable, Iterator
from typing import Literal, cast

import torch
from torch import Tensor, nn

from sslticket.masking import gate
from sslticket.masking.criteria.base import Criterion, Scores, Subject
from sslticket.masking.mask import Mask, prunable
from sslticket.search.cut import cut
from sslticket.search.lab import Lab
from sslticket.search.selection import Selection


def subject(
    backbone: nn.Module,
    losses: Callable[[float], Iterator[Tensor]] | None = None,
    *,
    channels: int = 1,
    size: int = 4,
    seed: int = 0,
) -> Subject:
    """The backbone with open gates on it; without losses where none are given."""

    def none(temperature: float) -> Iterator[Tensor]:
        raise AssertionError("this criterion looks at images")

    gate.attach(backbone, prunable(backbone))
    return Subject(backbone, channels, size, seed, losses or none, reduce=lambda tensor: tensor)


def ones(backbone: nn.Module) -> Mask:
    return Mask.ones_like(gate.stored(backbone), prunable(backbone))


class Bench:
    """A lab that only scores, and whose net keeps the last mask."""

    def __init__(self, about: Subject) -> None:
        self._subject = about

    def scores(self, criterion: Criterion, mask: Mask) -> Scores:
        gate.set_mask(self._subject.backbone, mask)
        return criterion.scores(self._subject, list(mask))


def cut_down(
    about: Subject, criterion: Criterion, density: float, scope: Literal["global", "layer"] = "global"
) -> Mask:
    """What the criterion keeps of the dense network, in all its rounds."""
    selection, bench = Selection(rate=1 - density, scope=scope), cast(Lab, Bench(about))
    return cut(bench, criterion, selection, ones(about.backbone), start=0, level=1)


def linear(*layers: list[list[float]]) -> nn.Sequential:
    """Linear layers without biases with ReLU between them, in float64."""
    net = nn.Sequential()
    for weights in layers:
        matrix = torch.tensor(weights, dtype=torch.float64)
        layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64)
        layer.weight.data.copy_(matrix)
        net.extend([layer, nn.ReLU()])
    return net[:-1]
