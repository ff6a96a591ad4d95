"""Small gated networks whose losses are given by hand."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from sslticket.masking import gate
from sslticket.masking.criteria.base import Scores, Subject
from sslticket.masking.mask import Mask, prunable
from sslticket.search.cut import Scope, cut


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

    def scores(self, criterion: object, mask: Mask) -> Scores:
        gate.set_mask(self._subject.backbone, mask)
        return criterion.scores(self._subject, list(mask))  # type: ignore[attr-defined]


def cut_down(about: Subject, criterion: object, density: float, scope: Scope = "global") -> Mask:
    """What the criterion keeps of the dense network, in all its rounds."""
    bench = Bench(about)
    return cut(bench, criterion, ones(about.backbone), density=density, scope=scope)  # type: ignore[arg-type]


def linear(*layers: list[list[float]]) -> nn.Sequential:
    """Linear layers without biases with ReLU between them, in float64."""
    net = nn.Sequential()
    for weights in layers:
        matrix = torch.tensor(weights, dtype=torch.float64)
        layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64)
        layer.weight.data.copy_(matrix)
        net.extend([layer, nn.ReLU()])
    return net[:-1]
