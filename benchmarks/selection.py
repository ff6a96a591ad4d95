"""Choosing the survivors among all of ResNet-50's prunable weights, by magnitude and globally."""

import copy
from collections.abc import Callable

import torch
from compare import Line, in_turn, middle, ratio, seconds
from images import Images
from torch import nn
from torch.nn.utils import prune

from sslticket import models
from sslticket.pruning.mask import Mask, StateDict, num_kept
from sslticket.pruning.prunable import prunable_weights

_DENSITY, _RATE = 0.2, 0.2
_AT_LEAST = 8.0


@torch.no_grad()
def lines(images: Images) -> list[Line]:
    """From all weights to 20% of them at once; then a fifth of those survivors less, as at a level of a search."""
    torch.manual_seed(0)
    dense = models.create_model("resnet50")
    names = prunable_weights(dense)
    state = {name: value.detach() for name, value in dense.state_dict().items()}
    ones = Mask.ones_like(state, names)
    sparse = copy.deepcopy(dense)
    _prune(sparse, names, 1 - _DENSITY)
    within, size = _select(state, _DENSITY, ones), f"{ones.total / 1e6:.1f} M"
    return [
        _compared(
            f"{_DENSITY:.0%} of ResNet-50's {size} weights", state, _DENSITY, ones, dense, 1 - _DENSITY, _AT_LEAST
        ),
        _compared(f"{1 - _RATE:.0%} of the survivors", state, (1 - _RATE) * _DENSITY, within, sparse, _RATE, None),
    ]


def _compared(
    what: str, state: StateDict, density: float, within: Mask, net: nn.Module, amount: float, at_least: float | None
) -> Line:
    figures = in_turn(
        {"ours": seconds(lambda: _select(state, density, within)), "torch": _pruning(net, list(within), amount)}, 5
    )
    faster = ratio(figures, "torch", "ours")
    return Line(
        f"select {what}",
        f"{middle(figures, 'ours'):.3f} s",
        f"{middle(figures, 'torch'):.3f} s torch.nn.utils.prune",
        f"{faster:.1f}x faster",
        f">= {at_least:g}x" if at_least else "",
        faster >= at_least if at_least else None,
    )


def _select(state: StateDict, density: float, within: Mask) -> Mask:
    return Mask.top({name: state[name].abs() for name in within}, keep=num_kept(within.total, density), within=within)


def _pruning(net: nn.Module, names: list[str], amount: float) -> Callable[[], float]:
    def measured() -> float:
        twin = copy.deepcopy(net)  # outside the clock: pruning the same one again would be another task
        return seconds(lambda: _prune(twin, names, amount))()

    return measured


def _prune(net: nn.Module, names: list[str], amount: float) -> None:
    layers = [(net.get_submodule(name.removesuffix(".weight")), "weight") for name in names]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=amount)
