"""Which weights of a backbone may be pruned, which of them a search prunes, and how large they are."""

import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sslticket.errors import BadInput
from sslticket.pruning.gates import Gate

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # of PyTorch's attention


def prunable_weights(backbone: nn.Module) -> list[str]:
    """Names of the weights that may be pruned: of convolutions, linear layers and PyTorch's attention, in its order.

    Biases and batch norm are never pruned. The classification layer is a head and no part of the backbone, so it is
    left out (Morcos et al. 2019, appendix A.1, https://arxiv.org/abs/1906.02773). `MaskCoverage` finds
    what else activations are multiplied by.
    """

    def tensors(module: nn.Module) -> list[str]:
        attention = _ATTENTION_WEIGHTS if isinstance(module, nn.MultiheadAttention) else ()
        names = ("weight",) if isinstance(module, (*CONVOLUTIONS, nn.Linear)) else attention
        return [name for name in names if _is_trained(module, name)]

    return [
        f"{path}.{tensor}" if path else tensor
        for path, module in backbone.named_modules()
        for tensor in tensors(module)
    ]


def _is_trained(module: nn.Module, name: str) -> bool:
    """Whether a weight is a parameter, gated or not, and is not computed from others as by `weight_norm`."""
    if not parametrize.is_parametrized(module, name):
        return dict(module.named_parameters(recurse=False)).get(name) is not None
    steps = cast(nn.ModuleDict, module.parametrizations)[name]
    return isinstance(cast(nn.ModuleList, steps)[0], Gate)


def layers_to_prune(backbone: nn.Module, *, prune_up_to: str | None = None, exclude: Sequence[str] = ()) -> list[str]:
    """Names of the weights that a search may prune, in the order of `named_modules()`; all others stay dense.

    Args:
        backbone: A network without its classification layer.
        prune_up_to: The last layer that may be pruned: "conv3" is the third convolution, shortcuts counted, whatever
            it is called; anything else is a layer's name. None for all.
        exclude: Names of layers, or patterns of names as a shell has, such as "*.downsample.*".

    Raises:
        BadInput: If one of them names no layer, or no layer is left.
    """
    weights = {name.removesuffix(".weight"): name for name in prunable_weights(backbone)}
    names = list(weights)
    if prune_up_to is not None:
        names = names[: names.index(_find_layer(backbone, names, prune_up_to)) + 1]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in weights):
            raise BadInput(f"--exclude must name a layer, got {pattern}; {_suggest_layers(pattern, list(weights))}")
    chosen = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in exclude)]
    if not chosen:
        depth = f" among those up to {prune_up_to}" if prune_up_to is not None else ""
        raise BadInput(
            f"--exclude must leave a layer{depth} that may be pruned, got {' '.join(exclude)}; exclude fewer layers"
        )
    return [weights[name] for name in chosen]


def _find_layer(backbone: nn.Module, names: Sequence[str], prune_up_to: str) -> str:
    if counted := re.fullmatch(r"conv(\d+)", prune_up_to):
        # The names of an attention's weights are no module's.
        modules = dict(backbone.named_modules())
        convolutions = [name for name in names if isinstance(modules.get(name), CONVOLUTIONS)]
        if 1 <= int(counted[1]) <= len(convolutions):
            return convolutions[int(counted[1]) - 1]
        known = f"conv1 to conv{len(convolutions)}" if convolutions else "a linear layer, there are no convolutions"
        raise BadInput(
            f"--prune-up-to must name a layer, got {prune_up_to}; give {known}, or a name such as {names[0]}"
        )
    if prune_up_to not in names:
        raise BadInput(f"--prune-up-to must name a layer, got {prune_up_to}; {_suggest_layers(prune_up_to, names)}")
    return prune_up_to


def _suggest_layers(given: str, names: Sequence[str]) -> str:
    if near := get_close_matches(given, names, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(near)}?"
    return f"layers are {', '.join(names if len(names) < 6 else [*names[:4], '...', names[-1]])}"


def shorten_names(names: Sequence[str], limit: int = 5) -> str:
    """The first names of weights without their ending, and how many more there are, short enough for a terminal."""
    first = ", ".join(name.removesuffix(".weight") for name in names[:limit])
    return first + (f" and {len(names) - limit} more" if len(names) > limit else "")


def describe_layers(recipe: Mapping[str, Any]) -> str:
    """In words, which layers the search of a recipe in JSON values may prune; "" where it may prune all."""
    search = recipe.get("search", {})
    up_to, exclude = search.get("prune_up_to"), search.get("exclude")
    depth = [] if up_to is None else [f"up to {up_to}"]
    return ", ".join([*depth, *([f"without {' '.join(exclude)}"] if exclude else [])])


MACHINE_PRECISION = float(torch.finfo(torch.float32).eps)
"""A weight of at most this magnitude, 1.19e-7, is a zero: "thresholding at machine precision value" (Finding Winning
Tickets with Limited (or No) Supervision, Figure 6). The paper gives no number; its networks, as ours, are float32."""

LOG_BIN_WIDTH = 0.1
"""Width of a bin in log10|w|; ours. An edge lies at machine precision, so the counts above it are natural weights."""


def magnitude_statistics(state: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
    """The values of a row of kind `magnitudes` for weights of a trained network.

    Args:
        state: Parameters of the network by name.
        names: Names of its prunable weights.

    Returns:
        `natural_density`, the fraction above machine precision; `layers`, name -> [number above, total]; and the values
            of `magnitude_histogram`.
    """
    layers = {name: [count_above_precision(state[name]), state[name].numel()] for name in names}
    above, total = (sum(counts) for counts in zip(*layers.values(), strict=True))
    return {"natural_density": above / total, "layers": layers, **magnitude_histogram([state[name] for name in names])}


def count_above_precision(weights: Tensor) -> int:
    """Number of weights whose magnitude is above machine precision."""
    return int((weights.abs() > MACHINE_PRECISION).sum())


def magnitude_histogram(layers: Sequence[Tensor]) -> dict[str, Any]:
    """Counts of weights by the logarithm of their magnitudes.

    Returns:
        `bins`, the n + 1 edges of log10|w|; `counts`, n numbers of weights, each above its lower edge and up to its
            upper one; `zeros`, the number of weights that are exactly 0 and have no logarithm.
    """
    count_of_bin: dict[int, int] = {}
    zeros = 0
    for layer in layers:
        magnitudes = layer.detach().abs().double().numpy().ravel()
        alive = magnitudes[magnitudes > 0]
        zeros += len(magnitudes) - len(alive)
        numbers, counts = np.unique(
            np.ceil(np.log10(alive / MACHINE_PRECISION) / LOG_BIN_WIDTH).astype(int), return_counts=True
        )
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            count_of_bin[number] = count_of_bin.get(number, 0) + count
    if not count_of_bin:
        return {"bins": [], "counts": [], "zeros": zeros}
    first, last, zero = min(count_of_bin), max(count_of_bin), math.log10(MACHINE_PRECISION)
    return {
        "bins": [round(zero + LOG_BIN_WIDTH * number, 6) for number in range(first - 1, last + 1)],
        "counts": [count_of_bin.get(number, 0) for number in range(first, last + 1)],
        "zeros": zeros,
    }
