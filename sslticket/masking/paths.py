"""The weights of a mask that lie on a path from the image to the features ("effective sparsity")."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from sslticket.masking.mask import Mask
from sslticket.masking.reach import Reach, reached
from sslticket.masking.trace import Trace


class Paths:
    """The paths of one network; looking for them leaves no trace in it."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._flow = _Flow(trace.graph)

    @classmethod
    def of(cls, backbone: nn.Module, *, channels: int, image_size: int) -> "Paths":
        """See `Trace.of`."""
        return cls(Trace.of(backbone, channels=channels, image_size=image_size))

    def effective(self, mask: Mask) -> Mask:
        """The survivors of the mask that lie on a path from a pixel to a feature (Vysogorets & Kempe 2021).

        A path leads through surviving weights and whatever is not pruned. Biases, embeddings of positions and other
        additions begin none. Where activations multiply activations (attention, squeeze and excite), both lie on the
        path if neither is 0; a sigmoid or a softmax is not 0 where all that leads to it was pruned. Normalisations
        connect nothing. What makes a constant by which activations are multiplied, such as the bias of an attention by
        relative position, counts where an image meets it. Nothing depends on the values of weights.
        """
        names = {name: clean for name, clean in self._trace.names().items() if clean in mask}
        leaves = {clean: mask[clean].float().requires_grad_() for clean in names.values()}
        state = {
            name: Reach(fixed=leaves[names[name]]) if name in names else value
            for name, value in self._trace.state.items()
        }
        image = Reach(image=torch.ones_like(self._trace.image))
        with torch.enable_grad():
            features = self._flow.run(*self._trace.arguments(state, image))
            there = features.image if isinstance(features, Reach) else None
        if there is None or not there.requires_grad:
            return Mask({name: torch.zeros_like(layer) for name, layer in mask.items()})
        found = torch.autograd.grad(there.sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        return Mask({name: mask[name] & (slope > 0.5) for name, slope in zip(leaves, found, strict=True)})


def effective(backbone: nn.Module, mask: Mask, *, channels: int, image_size: int) -> Mask:
    """The survivors of a mask that lie on a path from the image to the features; see `Paths.effective`.

    Args:
        backbone: with or without gates; only how it is connected matters, and it stays as it is.
        mask: over some or all of its prunable weights; all others are there.
        channels: of the images.
        image_size: side of the square images, in pixels: a kernel's corner that sees only padding is on no path.
    """
    return Paths.of(backbone, channels=channels, image_size=image_size).effective(mask)


class _Flow(fx.Interpreter):
    """Runs a graph with `Reach` for what depends on the image or on the mask, and with constants for the rest."""

    def run_node(self, n: fx.Node) -> Any:
        """See the base class."""
        self._out = n.meta.get("val")
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """See the base class."""
        if any(isinstance(one, Reach) for one in pytree.tree_leaves((args, kwargs))):
            return reached(target, args, dict(kwargs), self._out)
        with torch.no_grad():
            return super().call_function(target, args, dict(kwargs))
