"""Binary masks over the prunable weights of a backbone, and the one function that selects survivors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sslticket.errors import BadInput

State = dict[str, Tensor]  # backbone parameters and buffers by their clean names; heads never enter

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def prunable(backbone: nn.Module) -> list[str]:
    """Names of the weights that may be pruned: those of convolutional and linear layers, never biases or batch norm.

    The classification layer is a head and no part of the backbone, so it is left out (Morcos et al. 2019, A.1).
    """
    return [
        f"{name}.weight" if name else "weight"
        for name, module in backbone.named_modules()
        if isinstance(module, (*_CONVOLUTIONS, nn.Linear))
    ]


@dataclass(frozen=True, eq=False)
class Mask(Mapping[str, Tensor]):
    """Names of prunable weights -> bool tensors of their shapes; True survives."""

    layers: dict[str, Tensor]

    @classmethod
    def ones_like(cls, state: Mapping[str, Tensor], names: list[str]) -> "Mask":
        """The mask of the dense network."""
        return cls({name: torch.ones_like(state[name], dtype=torch.bool, device="cpu") for name in names})

    @classmethod
    def top(cls, scores: Mapping[str, Tensor], *, keep: int, within: "Mask") -> "Mask":
        """Exactly the `keep` highest scores of all layers together, among the survivors of `within`.

        Ties go to the earlier weight: layers in the order of `within`, then the flattened index.

        Raises:
            BadInput: if fewer than `keep` weights survive in `within`, `keep` is not positive, or a score is NaN.
        """
        flat = np.concatenate([_survivors(scores[name], alive) for name, alive in within.items()])
        chosen = _highest(flat, keep)
        layers, start = {}, 0
        for name, alive in within.items():
            stop = start + int(alive.sum())
            layer = torch.zeros_like(alive)
            layer[alive] = torch.from_numpy(chosen[start:stop])
            layers[name], start = layer, stop
        return cls(layers)

    @classmethod
    def top_per_layer(cls, scores: Mapping[str, Tensor], *, density: float, within: "Mask") -> "Mask":
        """In each layer exactly `round(size * density)` of its weights with the highest scores, at least one."""
        layers: dict[str, Tensor] = {}
        for name, alive in within.items():
            keep = max(1, kept(alive.numel(), density))
            layers |= cls.top(scores, keep=keep, within=cls({name: alive})).layers
        return cls(layers)

    def __getitem__(self, name: str) -> Tensor:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(layer.numel() for layer in self.values())

    @property
    def survivors(self) -> int:
        """Number of weights that remain."""
        return sum(int(layer.sum()) for layer in self.values())

    @property
    def density(self) -> float:
        """Fraction of the prunable weights that remain."""
        return self.survivors / self.total

    def counts(self) -> dict[str, tuple[int, int]]:
        """For each layer the weights that remain and all there are."""
        return {name: (int(layer.sum()), layer.numel()) for name, layer in self.items()}

    def equals(self, other: "Mask") -> bool:
        """Whether both keep the same weights of the same layers."""
        return list(self) == list(other) and all(torch.equal(self[name], other[name]) for name in self)

    def is_within(self, other: "Mask") -> bool:
        """Whether every survivor of this mask survives in the other: masks of a search nest."""
        return list(self) == list(other) and not any(bool((self[name] & ~other[name]).any()) for name in self)


def kept(total: int, density: float) -> int:
    """Whole weights at a density of `total`, computed from the total so that roundings do not pile up over levels."""
    return round(total * density)


def _survivors(scores: Tensor, alive: Tensor) -> np.ndarray:
    values = scores.detach().to("cpu").flatten().numpy()
    return values if bool(alive.all()) else values[alive.flatten().numpy()]


def _highest(values: np.ndarray, keep: int) -> np.ndarray:
    """Bool array that is True at exactly `keep` of the highest values; a partition, so linear in their number."""
    if not 1 <= keep <= len(values):
        raise BadInput(f"cannot keep {keep} of {len(values)} weights; give fewer levels or a smaller rate")
    # The partition puts NaN last, above every number, so one look at its top tells.
    parted = np.partition(values, len(values) - keep)
    if np.isnan(parted[len(values) - keep :]).any():
        raise BadInput("a score is not a number, so no weights can be ranked; look for a diverged training")
    threshold = parted[len(values) - keep]
    chosen: np.ndarray = values > threshold
    ties = np.flatnonzero(values == threshold)
    chosen[ties[: keep - np.count_nonzero(chosen)]] = True
    return chosen
