"""N:M patterns: of every M consecutive weights along a layer's inputs at most N are kept, as sparse tensor cores need.

The layout is that of NVIDIA's Automatic SParsity (Mishra et al. 2021, https://arxiv.org/abs/2104.08378; code in
https://github.com/NVIDIA/apex, apex/contrib/sparsity): groups lie along the second dimension of a weight, which is a
linear layer's features and, at one place of the kernel and for one output, a convolution's input channels.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from sslticket.errors import BadInput

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MOST = 1024  # weights in a group
_USUAL_SIZES = (4, 8, 16)


@dataclass(frozen=True)
class Pattern:
    """An N:M pattern.

    Attributes:
        kept: N, the most weights of a group that are kept.
        size: M, the weights of a group.
    """

    kept: int
    size: int

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """The pattern of words such as "2:4".

        Raises:
            BadInput: If they are none.
        """
        found = re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", text)
        if found is None or not int(found[1]) < int(found[2]) <= _MOST:
            raise BadInput(
                f"--pattern must be N:M with N below M and M at most {_MOST}, got {text[:40]!r}; give one such as 2:4, "
                "or leave it out"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """The pattern as `parse` takes it."""
        return f"{self.kept}:{self.size}"

    def most_kept(self, layer: Tensor) -> int:
        """How many weights of a layer the pattern lets stay."""
        return layer.numel() // self.size * self.kept

    def fits(self, layer: Tensor) -> bool:
        """Whether a layer's inputs can be cut into groups."""
        return layer.dim() > 1 and layer.shape[1] % self.size == 0

    def layers_that_fit(self, backbone: nn.Module, names: Sequence[str]) -> list[str]:
        """The weights of a network that the pattern can be laid on: the others stay dense.

        Depthwise convolutions have one input, first layers often three; transposed convolutions have their inputs in
        another dimension, and ASP leaves them alone too.

        Args:
            backbone: The network, with or without gates.
            names: Names of weights that may be pruned.

        Raises:
            BadInput: If none fits.
        """
        modules = dict(backbone.named_modules())
        found = [
            name
            for name in names
            if not isinstance(modules.get(name.rpartition(".")[0]), _TRANSPOSED) and self.fits(_weight(modules, name))
        ]
        if not found:
            raise BadInput(
                f"--pattern {self} needs layers whose inputs {self.size} divides, and of the {len(names)} that may be "
                "pruned none is such; give another pattern, or leave it out"
            )
        return found

    def best(self, scores: Mapping[str, Tensor], within: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of each group the N survivors with the highest scores, or all where it has fewer; ties to the earlier.

        Args:
            scores: Scores of every weight in the shapes of the weights, by name.
            within: For each layer the weights that survive, as bool tensors on the CPU.
        """
        return {name: self._best_of_layer(scores[name], alive) for name, alive in within.items()}

    def _best_of_layer(self, scores: Tensor, alive: Tensor) -> Tensor:
        survives, values = self._grouped(alive), self._grouped(scores.detach().cpu())
        # From the last to the first, so that a stable sort has the earlier of two equal ones at the higher place; what
        # is pruned comes lowest, and NaN, which whoever selects refuses, highest.
        turned = np.where(survives, values, -np.inf)[..., ::-1]
        order = np.argsort(turned, axis=-1, kind="stable")[..., -self.kept :]
        chosen = np.zeros(turned.shape, bool)
        np.put_along_axis(chosen, order, True, axis=-1)
        kept = (chosen[..., ::-1] & survives).reshape(*survives.shape[:-2], -1)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(kept, -1, 1)))

    def holds(self, mask: Mapping[str, Tensor]) -> bool:
        """Whether every layer of a mask keeps to the pattern."""
        return all(self.fits(layer) and self.densest_group(layer) <= self.kept for layer in mask.values())

    def is_full(self, mask: Mapping[str, Tensor]) -> bool:
        """Whether every group of every layer keeps exactly N weights."""
        return self.holds(mask) and all(int(layer.sum()) == self.most_kept(layer) for layer in mask.values())

    def densest_group(self, layer: Tensor) -> int:
        """The most weights that a group of a layer keeps."""
        return int(np.count_nonzero(self._grouped(layer), axis=-1).max())

    def _grouped(self, layer: Tensor) -> np.ndarray[Any, Any]:
        """A layer (K, C, ...) as (K, ..., C / M, M)."""
        last = np.moveaxis(layer.numpy(), 1, -1)
        return last.reshape(*last.shape[:-1], -1, self.size)


def _weight(modules: Mapping[str, nn.Module], name: str) -> Tensor:
    path, _, tensor = name.rpartition(".")
    return cast(Tensor, getattr(modules[path], tensor))


def kept_patterns(mask: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """The N:M patterns of usual sizes that a mask keeps to, with the layers that their M does not divide.

    Of each M the least N, if that is at most half of it; those that follow from a smaller M, as 4:8 from 2:4, are left
    out.

    Args:
        mask: For each layer the weights that survive.
    """
    found: dict[str, list[str]] = {}
    least = 1.0
    for size in _USUAL_SIZES:
        fitting = {name: layer for name, layer in mask.items() if Pattern(1, size).fits(layer)}
        kept = max((Pattern(1, size).densest_group(layer) for layer in fitting.values()), default=size)
        if 0 < kept <= size / 2 and kept / size < least:
            least = kept / size
            found[str(Pattern(kept, size))] = [name for name in mask if name not in fitting]
    return found


def full_pattern(mask: Mapping[str, Tensor]) -> Pattern | None:
    """The pattern of a usual size of which a mask keeps exactly N in every group of every layer; None for none."""
    for size in _USUAL_SIZES:
        kept = round(size * sum(int(layer.sum()) for layer in mask.values()) / sum(map(Tensor.numel, mask.values())))
        if 0 < kept < size and Pattern(kept, size).is_full(mask):
            return Pattern(kept, size)
    return None
