"""How large weights are, and which are zero by nature: those that training takes to zero by itself."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MACHINE_PRECISION = float(torch.finfo(torch.float32).eps)
"""A weight of at most this magnitude, 1.19e-7, is a zero: "thresholding at machine precision value" (Finding Winning
Tickets with Limited (or No) Supervision, Figure 6). The paper gives no number; its networks, as ours, are float32."""

BIN = 0.1
"""Width of a bin in log10|w|; ours. An edge lies at machine precision, so the counts above it are natural weights."""


def measured(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
    """What a row of kind `magnitudes` tells of these weights of a trained network.

    Args:
        state: the network's parameters.
        names: of its prunable weights.

    Returns:
        natural_density: fraction above machine precision; layers: name -> [above, total]; and `histogram`'s values.
    """
    layers = {name: [above(state[name]), state[name].numel()] for name in names}
    kept, total = (sum(counts) for counts in zip(*layers.values(), strict=True))
    return {"natural_density": kept / total, "layers": layers, **histogram([state[name] for name in names])}


def above(weights: Tensor) -> int:
    """How many are above machine precision."""
    return int((weights.abs() > MACHINE_PRECISION).sum())


def histogram(layers: Sequence[Tensor]) -> dict[str, Any]:
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
        numbers, counts = np.unique(np.ceil(np.log10(alive / MACHINE_PRECISION) / BIN).astype(int), return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            places[number] = places.get(number, 0) + count
    if not places:
        return {"bins": [], "counts": [], "zeros": zeros}
    first, last, zero = min(places), max(places), math.log10(MACHINE_PRECISION)
    return {
        "bins": [round(zero + BIN * number, 6) for number in range(first - 1, last + 1)],
        "counts": [places.get(number, 0) for number in range(first, last + 1)],
        "zeros": zeros,
    }
