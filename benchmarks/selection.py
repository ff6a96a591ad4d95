"""Choosing the survivors among all of ResNet-50's prunable weights, by magnitude and globally."""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from compare import Line, Timed, compared, in_turn, timed
from images import Images
from torch import Tensor, nn
from torch.nn.utils import prune

from sslticket import models
from sslticket.pruning.mask import Mask, StateDict, num_kept
from sslticket.pruning.prunable import prunable_weights

_DENSITY, _RATE, _ROUNDS = 0.2, 0.2, 3
_AT_LEAST = 8.0  # of the library's function


def lines(images: Images) -> list[Line]:
    """From all weights to 20% of them at once; then a fifth of those survivors less, as at a level of a search."""
    contenders = {"ours": _ours, "prune": _pruning, "kthvalue": _kthvalue, "partition": _partition}
    found = []
    for what, later in (("20% of ResNet-50's 23.5 M weights", False), ("80% of those survivors", True)):
        turns = in_turn({name: partial(make, later) for name, make in contenders.items()}, _ROUNDS)
        for other, than, target in (
            ("prune", "torch.nn.utils.prune", None if later else _AT_LEAST),
            ("kthvalue", "three lines with torch.kthvalue", None),
            ("partition", "three lines with np.partition", None),
        ):
            found.append(compared(turns, f"select {what}", than, other=other, target=target, unit="ms"))
    return found


def _weights() -> tuple[nn.Module, StateDict]:
    torch.manual_seed(0)
    net = models.create_model("resnet50")
    state = net.state_dict()
    return net, {name: state[name].detach() for name in prunable_weights(net)}


def _masks(weights: StateDict) -> tuple[Mask, Mask]:
    """All weights, and a fifth of them."""
    ones = Mask.ones_like(weights, list(weights))
    return ones, _select(weights, _DENSITY, ones)


def _select(weights: StateDict, density: float, within: Mask) -> Mask:
    scores = {name: weights[name].abs() for name in within}
    return Mask.top(scores, keep=num_kept(within.total, density), within=within)


@torch.no_grad()
def _ours(later: bool) -> Callable[[], object]:
    _, weights = _weights()
    ones, fifth = _masks(weights)
    if later:
        return lambda: _select(weights, (1 - _RATE) * _DENSITY, fifth)
    return lambda: _select(weights, _DENSITY, ones)


@torch.no_grad()
def _kthvalue(later: bool) -> Callable[[], object]:
    _, weights = _weights()
    ones, fifth = _masks(weights)

    def first() -> dict[str, Tensor]:
        scores = torch.cat([weights[name].abs().flatten() for name in weights])
        threshold = torch.kthvalue(scores, len(scores) - num_kept(ones.total, _DENSITY)).values
        return {name: weights[name].abs() > threshold for name in weights}

    def again() -> dict[str, Tensor]:
        scores = torch.cat([weights[name][fifth[name]].abs() for name in weights])
        threshold = torch.kthvalue(scores, round(_RATE * len(scores))).values
        return {name: (weights[name].abs() > threshold) & fifth[name] for name in weights}

    return again if later else first


@torch.no_grad()
def _partition(later: bool) -> Callable[[], object]:
    _, tensors = _weights()
    weights = {name: tensor.numpy() for name, tensor in tensors.items()}
    fifth = {name: mask.numpy() for name, mask in _masks(tensors)[1].layers.items()}

    def first() -> dict[str, np.ndarray]:
        scores = np.concatenate([np.abs(weights[name]).ravel() for name in weights])
        place = len(scores) - num_kept(len(scores), _DENSITY)
        threshold = np.partition(scores, place)[place]
        return {name: np.abs(weights[name]) >= threshold for name in weights}

    def again() -> dict[str, np.ndarray]:
        scores = np.concatenate([np.abs(weights[name][fifth[name]]) for name in weights])
        place = round(_RATE * len(scores))
        threshold = np.partition(scores, place)[place]
        return {name: (np.abs(weights[name]) >= threshold) & fifth[name] for name in weights}

    return again if later else first


@torch.no_grad()
def _pruning(later: bool) -> Callable[[], object]:
    net, weights = _weights()
    if later:
        _prune(net, weights, 1 - _DENSITY)

    @torch.no_grad()
    def work() -> Timed:
        twin = copy.deepcopy(net)  # outside the clock: pruning the same one again would be another task
        return timed(lambda: _prune(twin, weights, _RATE if later else 1 - _DENSITY))

    return work


def _prune(net: nn.Module, weights: StateDict, amount: float) -> None:
    layers = [(net.get_submodule(name.removesuffix(".weight")), "weight") for name in weights]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=amount)
