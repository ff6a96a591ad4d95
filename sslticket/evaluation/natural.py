"""Natural zeros: the weights that training takes to zero by itself, before anything is pruned."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sslticket.errors import BadInput
from sslticket.files import written_whole
from sslticket.masking.magnitudes import MACHINE_PRECISION
from sslticket.masking.mask import Mask


@dataclass(frozen=True, eq=False)
class Natural:
    """What is left of a dense network that was trained to convergence.

    Attributes:
        mask: weights above machine precision survive.
        told: where it comes from, as JSON values: model, protocol, seed, data_hash, how it computed, and the dense
            network's scores.
    """

    mask: Mask
    told: dict[str, Any]

    @classmethod
    def of(cls, trained: Mapping[str, Tensor], names: list[str], told: dict[str, Any]) -> "Natural":
        """From the weights at convergence.

        Args:
            trained: the backbone's parameters and buffers at the end of the training.
            names: of the prunable weights: last layer and batch norm are not counted (the paper's Appendix D).
            told: where they come from.

        Raises:
            BadInput: if none is above machine precision.
        """
        mask = Mask({name: trained[name].abs() > MACHINE_PRECISION for name in names})
        if not mask.survivors:
            raise BadInput(
                f"every weight of {told['model']} has gone to zero under {told['protocol']}; there is no adjusted "
                "random baseline; leave --controls adjusted out"
            )
        return cls(mask, told)

    def save(self, path: Path) -> None:
        """Write the mask, a bit a weight, whole or not at all."""
        bits = {name: torch.from_numpy(np.packbits(layer.numpy())) for name, layer in self.mask.items()}
        shapes = {name: list(layer.shape) for name, layer in self.mask.items()}
        header = json.dumps({"shapes": shapes, "told": self.told, "density": self.mask.density})
        with written_whole(path) as temporary:
            save_file(bits, temporary, metadata={"natural": header})

    @classmethod
    def load(cls, path: Path) -> "Natural":
        """Read what `save` wrote.

        Raises:
            BadInput: if the file is damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads(file.metadata()["natural"])
                layers = {
                    name: torch.from_numpy(_unpacked(file.get_tensor(name).numpy(), shape))
                    for name, shape in header["shapes"].items()
                }
            mask = Mask(layers)
            if mask.density != header["density"]:
                raise ValueError("its density is not the one it tells")
            return cls(mask, dict(header["told"]))
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise BadInput(f"{path} is damaged; delete it and run the same command again") from error


def _unpacked(bits: np.ndarray, shape: list[int]) -> np.ndarray:
    return np.unpackbits(bits, count=int(np.prod(shape, dtype=np.int64))).astype(bool).reshape(shape)
