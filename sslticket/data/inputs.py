"""What images a network is made for, as the recipe in a ticket tells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sslticket.data.catalogue import DATASETS


@dataclass(frozen=True)
class Inputs:
    """The images that a network takes.

    Attributes:
        channels: 3 for RGB, 1 for gray.
        image_size: side in pixels.
        mean, std: by channel, with which they are normalised; empty for colour images that were made gray.
    """

    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> "Inputs | None":
        """What the search showed its network; None where the recipe, JSON values, names no data set known here."""
        data = recipe.get("data")
        if not isinstance(data, Mapping) or data.get("dataset") not in DATASETS:
            return None
        dataset = DATASETS[data["dataset"]]
        augment = data.get("augment")
        first = augment[0] if isinstance(augment, list) else augment
        size = data.get("image_size") or (first["size"] if first else dataset.train.size)
        channels = data.get("channels") or dataset.channels
        if channels == dataset.channels:
            return cls(channels, size, dataset.mean, dataset.std)
        repeated = channels if dataset.channels == 1 else 0
        return cls(channels, size, dataset.mean * repeated, dataset.std * repeated)

    def __str__(self) -> str:
        kind = {1: "gray ", 3: "RGB "}.get(self.channels, "")
        return f"{kind}images of {self.image_size} by {self.image_size} pixels"
