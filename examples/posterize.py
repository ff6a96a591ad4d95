"""A transform of one's own: images with few shades, each with another number of them.

Run       python recipes/supervised_digits.py --transforms examples/posterize.py:Posterize
          or Data(dataset="digits", transforms=(Posterize(bits=(2, 4), probability=0.5),)) in a recipe
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sslticket.data.augment import Transform, TransformParams
from sslticket.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Posterize(Transform):
    """Keep the highest bits of each shade.

    Attributes:
        bits: Fewest and most bits that are kept, from 1 to 8.
    """

    bits: tuple[int, int] = (2, 6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits[0] <= self.bits[1] <= 8:
            raise BadInput(f"bits must be two numbers from 1 to 8, the smaller first, got {self.bits}; give (2, 6)")

    def sample_params(self, rng: np.random.Generator, count: int) -> TransformParams:
        """`step`: (B,) float32, the distance between the shades that are left."""
        return {"step": np.exp2(8 - rng.integers(self.bits[0], self.bits[1], count, endpoint=True)).astype(np.float32)}

    def apply(self, pixels: Tensor, step: Tensor) -> Tensor:
        """Round (B, C, H, W) shades of 0 to 255 down to multiples of each image's step."""
        step = step.view(-1, 1, 1, 1)
        return pixels.div_(step).floor_().mul_(step)
