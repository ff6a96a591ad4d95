"""Which layers a search may prune: up to a depth, and without those that are named; all others stay dense."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from sslticket.errors import BadInput
from sslticket.masking.mask import CONVOLUTIONS, prunable


def layers(backbone: nn.Module, *, prune_up_to: str | None = None, exclude: Sequence[str] = ()) -> list[str]:
    """Names of the weights that may be pruned, in the network's order, which is that of `named_modules()`.

    Args:
        backbone: without its classification layer.
        prune_up_to: the last layer that may be pruned: "conv3" is the third convolution, shortcuts counted, whatever
            it is called; anything else is a layer's name. None for all.
        exclude: names of layers, or patterns of them as a shell has, such as "*.downsample.*".

    Raises:
        BadInput: if one of them names no layer, or no layer is left.
    """
    weights = {name.removesuffix(".weight"): name for name in prunable(backbone)}
    names = list(weights)
    if prune_up_to is not None:
        names = names[: names.index(_named(backbone, names, prune_up_to)) + 1]
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in weights):
            raise BadInput(f"--exclude {pattern} names no layer; {_hint(pattern, list(weights))}")
    chosen = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in exclude)]
    if not chosen:
        depth = f" among those up to {prune_up_to}" if prune_up_to is not None else ""
        raise BadInput(f"--exclude {' '.join(exclude)} leaves no layer{depth} that may be pruned; leave some in")
    return [weights[name] for name in chosen]


def shortened(names: Sequence[str], shown: int = 5) -> str:
    """The first of some names of weights, without their ending, and how many more there are; it fits a terminal."""
    first = ", ".join(name.removesuffix(".weight") for name in names[:shown])
    return first + (f" and {len(names) - shown} more" if len(names) > shown else "")


def described(recipe: Mapping[str, Any]) -> str:
    """Which layers the search of a recipe, in JSON values, may prune, in words; "" where it may prune all."""
    search = recipe.get("search", {})
    up_to, exclude = search.get("prune_up_to"), search.get("exclude")
    depth = [] if up_to is None else [f"up to {up_to}"]
    return ", ".join([*depth, *([f"without {' '.join(exclude)}"] if exclude else [])])


def _named(backbone: nn.Module, names: Sequence[str], prune_up_to: str) -> str:
    if counted := re.fullmatch(r"conv(\d+)", prune_up_to):
        convolutions = [name for name in names if _is_convolution(backbone, name)]
        if 1 <= int(counted[1]) <= len(convolutions):
            return convolutions[int(counted[1]) - 1]
        there = f"conv1 to conv{len(convolutions)}" if convolutions else "a linear layer, there are no convolutions"
        raise BadInput(f"--prune-up-to {prune_up_to} names no layer; give {there}, or a name such as {names[0]}")
    if prune_up_to not in names:
        raise BadInput(f"--prune-up-to {prune_up_to} names no layer; {_hint(prune_up_to, names)}")
    return prune_up_to


def _is_convolution(backbone: nn.Module, name: str) -> bool:
    # The names of an attention's weights are no module's.
    return isinstance(dict(backbone.named_modules()).get(name), CONVOLUTIONS)


def _hint(given: str, names: Sequence[str]) -> str:
    if near := get_close_matches(given, names, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(near)}?"
    return f"layers are {', '.join(names if len(names) < 6 else [*names[:4], '...', names[-1]])}"
