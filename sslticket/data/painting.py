"""Effects on pixels, a batch at a time, on whatever device the batch is on; the same code for every loader.

Done by torch after the crop and not inside DALI: DALI's hue is not torchvision's, its operations have one order for all
images of a batch, and the resident loader needs them too. On a GPU they run there; nothing is copied.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sslticket.data import colours
from sslticket.data.effects import Blur, Drawn, Effect, Grayscale, HSVNoise, Jitter, Rotate, Solarize
from sslticket.data.geometry import blurred, rotated
from sslticket.data.views import Draws, View

# On a CPU, images are worked on in parts that stay in a core's cache, large images alone; measured. In numbers:
_AT_ONCE, _LARGE = 2**19, 2**15


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
        if not view.effects:
            return torch.sub(pixels, self.mean).mul_(self.scale)

        def finished(part: Tensor, drawn: Draws) -> None:
            _paint(part, drawn, view)
            part.sub_(self.mean).mul_(self.scale)

        return _in_parts(pixels.float(), draws, finished)


def painted(pixels: Tensor, view: View, draws: Draws) -> Tensor:
    """The view's effects, one after the other.

    Args:
        pixels: (B, C, H, W) float32 of 0 to 255, C 3 or 1; changed in place.
        view: with the effects.
        draws: of these B images.

    Returns:
        `pixels`, still of 0 to 255.
    """
    return _in_parts(pixels, draws, partial(_paint, view=view))


def _in_parts(pixels: Tensor, draws: Draws, change: Callable[[Tensor, Draws], None]) -> Tensor:
    at_once = len(pixels)
    if pixels.is_cpu:
        at_once = 1 if pixels[0].numel() > _LARGE else _AT_ONCE // pixels[0].numel()
    with _one_thread() if pixels.is_cpu else nullcontext():
        for rows in (slice(start, start + at_once) for start in range(0, len(pixels), at_once)):
            part = pixels[rows]
            planes = part.contiguous()  # channel by channel, as nearly every effect works
            change(planes, draws.part(rows))
            part.copy_(planes)
    return pixels


@contextmanager
def _one_thread() -> Iterator[None]:
    # Work this fine is not worth sharing out, and where the cores are busy decoding, torch's threads would spend many
    # times as long waiting for each other as they save.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _paint(pixels: Tensor, draws: Draws, view: View) -> None:
    for effect, drawn in zip(view.effects, draws.effects, strict=True):
        _change(pixels, np.flatnonzero(drawn["on"]), drawn, partial(_with, effect))


def _change(pixels: Tensor, rows: np.ndarray, drawn: Drawn, change: Callable[[Tensor, Drawn], Tensor]) -> None:
    """Changes these images in place, the others not at all."""
    if len(rows) == len(pixels):
        pixels.copy_(change(pixels, drawn))
    elif len(rows):
        index = torch.from_numpy(rows).to(pixels.device)
        some = {name: values[rows] for name, values in drawn.items()}
        pixels.index_copy_(0, index, change(pixels.index_select(0, index), some))


def _with(effect: Effect, pixels: Tensor, drawn: Drawn) -> Tensor:
    """All the images with one effect; they may be changed in place."""
    match effect:
        case Rotate():
            return rotated(pixels, drawn["angle"])
        case Jitter():
            return _jittered(pixels, effect, drawn)
        case HSVNoise():
            return colours.hsv_noise(pixels, drawn["power"], drawn["factor"], drawn["shift"], drawn["hue"])
        case Grayscale():
            return colours.grayscale(pixels)
        case Blur():
            return blurred(pixels, drawn["sigma"], effect.kernel)
        case Solarize():
            return colours.solarize(pixels, effect.threshold)
    raise AssertionError(f"{type(effect).__name__} cannot be painted")


_JITTER = {  # in the order that `Jitter` numbers them
    "brightness": colours.brightness,
    "contrast": colours.contrast,
    "saturation": colours.saturation,
    "hue": colours.hue,
}


def _jittered(pixels: Tensor, effect: Jitter, drawn: Drawn) -> Tensor:
    for turn in drawn["order"].T:
        for number, name in enumerate(_JITTER):
            if getattr(effect, name):
                _change(pixels, np.flatnonzero(turn == number), drawn, partial(_with_one_of_four, name))
    return pixels


def _with_one_of_four(name: str, pixels: Tensor, drawn: Drawn) -> Tensor:
    return _JITTER[name](pixels, drawn[name])
