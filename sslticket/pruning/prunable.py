"""Which layers a search may prune, and how large their weights are."""

import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslticket.errors import BadInput
from sslticket.pruning.mask import CONVOLUTIONS, prunable_weights


def layers_to_prune(backbone: nn.Module, *, prune_up_to: str | None = None, exclude: Sequence[str] = ()) -> list[str]:
    """Names of the weights that may be pruned, in the network's order, which is that of `named_modules()`.

    Args:
        backbone: without its classification layer.
        prune_up_to: the last layer that may be pruned: "conv3" is the third convolution, shortcuts counted, whatever
            it is called; anything else is a layer's name. None for all.
        exclude: names of layers, or patterns of them as a shell has, such as "*.downsample.*".

    Raises:
        BadInput: if one of them names no layer, or no layer is left.
    """
    weights = {name.removesuffix(".weight"): name for name in prunable_weights(backbone)}
    names = list(weights)
    if prune_up_to is not None:
        names = names[: names.index(_find_layer(backbone, names, prune_up_to)) + 1]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in weights):
            raise BadInput(f"--exclude {pattern} names no layer; {_suggest_layers(pattern, list(weights))}")
    chosen = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in exclude)]
    if not chosen:
        depth = f" among those up to {prune_up_to}" if prune_up_to is not None else ""
        raise BadInput(f"--exclude {' '.join(exclude)} leaves no layer{depth} that may be pruned; leave some in")
    return [weights[name] for name in chosen]


def shorten_names(names: Sequence[str], shown: int = 5) -> str:
    """The first of some names of weights, without their ending, and how many more there are; it fits a terminal."""
    first = ", ".join(name.removesuffix(".weight") for name in names[:shown])
    return first + (f" and {len(names) - shown} more" if len(names) > shown else "")


def describe_layers(recipe: Mapping[str, Any]) -> str:
    """Which layers the search of a recipe, in JSON values, may prune, in words; "" where it may prune all."""
    search = recipe.get("search", {})
    up_to, exclude = search.get("prune_up_to"), search.get("exclude")
    depth = [] if up_to is None else [f"up to {up_to}"]
    return ", ".join([*depth, *([f"without {' '.join(exclude)}"] if exclude else [])])


def _find_layer(backbone: nn.Module, names: Sequence[str], prune_up_to: str) -> str:
    if counted := re.fullmatch(r"conv(\d+)", prune_up_to):
        convolutions = [name for name in names if _is_convolution(backbone, name)]
        if 1 <= int(counted[1]) <= len(convolutions):
            return convolutions[int(counted[1]) - 1]
        there = f"conv1 to conv{len(convolutions)}" if convolutions else "a linear layer, there are no convolutions"
        raise BadInput(f"--prune-up-to {prune_up_to} names no layer; give {there}, or a name such as {names[0]}")
    if prune_up_to not in names:
        raise BadInput(f"--prune-up-to {prune_up_to} names no layer; {_suggest_layers(prune_up_to, names)}")
    return prune_up_to


def _is_convolution(backbone: nn.Module, name: str) -> bool:
    # The names of an attention's weights are no module's.
    return isinstance(dict(backbone.named_modules()).get(name), CONVOLUTIONS)


def _suggest_layers(given: str, names: Sequence[str]) -> str:
    if near := get_close_matches(given, names, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(near)}?"
    return f"layers are {', '.join(names if len(names) < 6 else [*names[:4], '...', names[-1]])}"


MACHINE_PRECISION = float(torch.finfo(torch.float32).eps)
"""A weight of at most this magnitude, 1.19e-7, is a zero: "thresholding at machine precision value" (Finding Winning
Tickets with Limited (or No) Supervision, Figure 6). The paper gives no number; its networks, as ours, are float32."""

LOG_BIN_WIDTH = 0.1
"""Width of a bin in log10|w|; ours. An edge lies at machine precision, so the counts above it are natural weights."""


def magnitude_statistics(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
    """What a row of kind `magnitudes` tells of these weights of a trained network.

    Args:
        state: the network's parameters.
        names: of its prunable weights.

    Returns:
        natural_density: fraction above machine precision; layers: name -> [above, total]; and `histogram`'s values.
    """
    layers = {name: [count_above_precision(state[name]), state[name].numel()] for name in names}
    kept, total = (sum(counts) for counts in zip(*layers.values(), strict=True))
    return {"natural_density": kept / total, "layers": layers, **magnitude_histogram([state[name] for name in names])}


def count_above_precision(weights: Tensor) -> int:
    """How many are above machine precision."""
    return int((weights.abs() > MACHINE_PRECISION).sum())


def magnitude_histogram(layers: Sequence[Tensor]) -> dict[str, Any]:
    """Weights by the logarithm of their magnitudes.

    Returns:
        bins: the n + 1 edges of log10|w|; counts: n numbers of weights, each above its lower edge and up to its upper
        one; zeros: weights that are exactly 0 and have no logarithm.
    """
    places: dict[int, int] = {}
    zeros = 0
    for layer in layers:
        magnitudes = layer.detach().abs().double().numpy().ravel()
        alive = magnitudes[magnitudes > 0]
        zeros += len(magnitudes) - len(alive)
        numbers, counts = np.unique(
            np.ceil(np.log10(alive / MACHINE_PRECISION) / LOG_BIN_WIDTH).astype(int), return_counts=True
        )
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            places[number] = places.get(number, 0) + count
    if not places:
        return {"bins": [], "counts": [], "zeros": zeros}
    first, last, zero = min(places), max(places), math.log10(MACHINE_PRECISION)
    return {
        "bins": [round(zero + LOG_BIN_WIDTH * number, 6) for number in range(first - 1, last + 1)],
        "counts": [places.get(number, 0) for number in range(first, last + 1)],
        "zeros": zeros,
    }
