"""Effects on pixels, a batch at a time, on whatever device the batch is on; the same code for every loader.

Done by torch after the crop and not inside DALI: DALI's hue is not torchvision's, its operations have one order for all
images of a batch, and the resident loader needs them too. On a GPU they run there; nothing is copied.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslticket.data.views import Draws, View


@dataclass(frozen=True)
class Finish:
    """What happens to a crop last: the view's effects, then normalisation.

    Attributes:
        mean, scale: (C, 1, 1) float32; a pixel of 0 to 255 becomes (pixel - mean) * scale.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> "Finish":
        """From mean and standard deviation by channel, pixels from 0 to 1."""
        # In float32 from the start, and multiplied, as DALI does it, so that both loaders agree to the bit.
        shades = (255 * np.array(mean), 1 / (255 * np.array(std)))
        return cls(*(torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1) for values in shades))

    def __call__(self, pixels: Tensor, view: View, draws: Draws) -> Tensor:
        """Pixels of 0 to 255, (B, C, H, W) of any real dtype -> float32 of the same shape and memory format."""
        if view.effects:
            pixels = painted(pixels.float(), view, draws)
        return torch.sub(pixels, self.mean).mul_(self.scale)


def painted(pixels: Tensor, view: View, draws: Draws) -> Tensor:
    """The view's effects, one after the other.

    Args:
        pixels: (B, C, H, W) float32 of 0 to 255; may be changed in place.
        view: with the effects.
        draws: of these B images.

    Returns:
        (B, C, H, W) float32 of 0 to 255.
    """
    raise NotImplementedError
