"""Small gated networks whose losses are given by hand."""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from sslticket.pruning import pruned_model
from sslticket.pruning.criteria import Criterion, Scores, ScoringInput, prune_to_level
from sslticket.pruning.mask import Mask, SparsitySchedule
from sslticket.pruning.prunable import prunable_weights


def subject(
    backbone: nn.Module,
    losses: Callable[[float], Iterator[Tensor]] | None = None,
    *,
    channels: int = 1,
    size: int = 4,
    seed: int = 0,
) -> ScoringInput:
    """The backbone with open gates on it; without losses where none are given."""

    def none(temperature: float) -> Iterator[Tensor]:
        raise AssertionError("this criterion looks at images")

    pruned_model.attach_gates(backbone, prunable_weights(backbone))
    return ScoringInput(backbone, channels, size, seed, losses or none, mean_over_processes=lambda tensor: tensor)


def ones(backbone: nn.Module) -> Mask:
    return Mask.ones_like(pruned_model.stored_state(backbone), prunable_weights(backbone))


def cut_down(
    inputs: ScoringInput, criterion: Criterion, density: float, scope: Literal["global", "layer"] = "global"
) -> Mask:
    """What the criterion keeps of the dense network, in all its rounds."""

    def scores(criterion: Criterion, mask: Mask) -> Scores:
        pruned_model.set_mask(inputs.backbone, mask)
        return criterion.scores(inputs, list(mask))

    schedule = SparsitySchedule(rate=1 - density, scope=scope)
    return prune_to_level(scores, criterion, schedule, ones(inputs.backbone), start=0, level=1)


def linear(*layers: list[list[float]]) -> nn.Sequential:
    """Linear layers without biases with ReLU between them, in float64."""
    net = nn.Sequential()
    for weights in layers:
        matrix = torch.tensor(weights, dtype=torch.float64)
        layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, dtype=torch.float64)
        layer.weight.data.copy_(matrix)
        net.extend([layer, nn.ReLU()])
    return net[:-1]
