"""Natural zeros: the weights that training takes to zero by itself, before anything is pruned."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sslticket import tensors
from sslticket.errors import BadInput, one_line
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
        header = {"shapes": shapes, "told": self.told, "density": self.mask.density}
        tensors.write(path, "natural", header, bits)

    @classmethod
    def load(cls, path: Path) -> "Natural":
        """Read what `save` wrote.

        Raises:
            BadInput: if the file is damaged.
        """
        fix = "delete it and run the same command again"
        header, bits = tensors.read(path, "natural", what="file of natural zeros", fix=fix)
        try:
            shapes, told, density = header["shapes"], dict(header["told"]), header["density"]
            if not shapes or shapes.keys() != bits.keys():
                raise ValueError("its layers are not the ones that it tells")
            mask = Mask(
                {name: torch.from_numpy(_unpacked(bits[name].numpy(), shape)) for name, shape in shapes.items()}
            )
            if mask.density != density:
                raise ValueError("its density is not the one it tells")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{path} is damaged ({one_line(error)}); {fix}") from None
        return cls(mask, told)


def _unpacked(bits: np.ndarray, shape: object) -> np.ndarray:
    if bits.dtype != np.uint8 or bits.ndim != 1 or not tensors.is_shape(shape, 8 * len(bits)):
        raise ValueError(f"{len(bits):,} bytes of bits for the shape {str(shape)[:80]}")
    sides = cast(list[int], shape)
    return np.unpackbits(bits, count=math.prod(sides)).view(bool).reshape(sides)
