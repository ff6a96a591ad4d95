"""Effects on pixels, a batch at a time, on whatever device the batch is on; the same arithmetic for every loader.

Done by torch after the crop and not inside DALI: DALI's hue is not torchvision's, its operations have one order for all
images of a batch, and the resident loader needs them too. On a GPU they run there: what was drawn for a batch becomes
`Stroke`s on the host, whose numbers go over in one copy, so that nothing is looked up on the device and nobody waits.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslticket.data import colours
from sslticket.data.effects import Blur, Drawn, Effect, Grayscale, HSVNoise, Jitter, Rotate, Solarize
from sslticket.data.geometry import blurred, gridded, rotated, tapped
from sslticket.data.handover import together
from sslticket.data.views import Draws, View

# On a CPU, images are worked on in parts that stay in a core's cache, large images alone; measured. In numbers:
_AT_ONCE, _LARGE = 2**19, 2**15


class Stroke(NamedTuple):
    """One change to some or all images of a batch.

    Attributes:
        change: of (B, C, H, W) pixels, which it may overwrite, and the numbers.
        numbers: of the B images that are changed.
        rows: which images of the batch these are, int64; None for all.
    """

    change: Callable[..., Tensor]
    numbers: tuple[np.ndarray, ...] = ()
    rows: np.ndarray | None = None

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """What must be where the pixels are."""
        return self.numbers if self.rows is None else (self.rows, *self.numbers)


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
        if pixels.is_cpu:
            return _in_parts(pixels.float(), draws, view, lambda planes: planes.sub_(self.mean).mul_(self.scale))
        wanted = strokes(view, draws, pixels.shape, at_once=True)
        numbers = together([array for stroke in wanted for array in stroke.arrays], pixels.device)
        return self.painted(pixels, wanted, iter(numbers))

    def painted(self, pixels: Tensor, wanted: Sequence[Stroke], numbers: Iterator[Tensor]) -> Tensor:
        """The same with strokes whose arrays are there already, in their order; the whole batch at once."""
        planes = _paint(pixels.float().contiguous(), wanted, numbers).sub_(self.mean).mul_(self.scale)
        same = planes.stride() == pixels.stride()
        return planes if same else torch.empty_like(pixels, dtype=torch.float32).copy_(planes)


def painted(pixels: Tensor, view: View, draws: Draws) -> Tensor:
    """The view's effects, one after the other, without normalisation.

    Args:
        pixels: (B, C, H, W) float32 of 0 to 255, C 3 or 1; changed in place.
        view: with the effects.
        draws: of these B images.

    Returns:
        `pixels`, still of 0 to 255.
    """
    return _in_parts(pixels, draws, view, lambda planes: planes)


def strokes(view: View, draws: Draws, shape: Sequence[int], *, at_once: bool) -> list[Stroke]:
    """What a view's effects do to a batch; a change of no image is none.

    Args:
        view: with the effects.
        draws: of the batch's B images.
        shape: of the batch, (B, C, H, W).
        at_once: few operations on the whole batch, as a GPU likes it, instead of many on few images each, as a CPU
            does. The results are the same to the bit.
    """
    found: list[Stroke] = []
    for effect, drawn in zip(view.effects, draws.effects, strict=True):
        if isinstance(effect, Jitter):
            found += _jitter_at_once(effect, drawn, shape[1]) if at_once else _jitter_by_turn(effect, drawn)
        else:
            found += _some(drawn["on"], drawn, partial(_stroke, effect, shape))
    return found


def _in_parts(pixels: Tensor, draws: Draws, view: View, last: Callable[[Tensor], Tensor]) -> Tensor:
    at_once = 1 if pixels[0].numel() > _LARGE else _AT_ONCE // pixels[0].numel()
    with _one_thread():
        for rows in (slice(start, start + at_once) for start in range(0, len(pixels), at_once)):
            part = pixels[rows]
            wanted = strokes(view, draws.part(rows), part.shape, at_once=False)
            numbers = together([array for stroke in wanted for array in stroke.arrays], pixels.device)
            # Channel by channel, as nearly every effect works.
            part.copy_(last(_paint(part.contiguous(), wanted, iter(numbers))))
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


def _paint(pixels: Tensor, wanted: Sequence[Stroke], numbers: Iterator[Tensor]) -> Tensor:
    """One stroke after the other, with their arrays in their order; `pixels` may be overwritten."""
    for stroke in wanted:
        if stroke.rows is None:
            changed = stroke.change(pixels, *(next(numbers) for _ in stroke.numbers))
            # On a CPU, memory that is in the cache is better than fresh memory.
            pixels = pixels.copy_(changed) if pixels.is_cpu and changed is not pixels else changed
        else:
            # Which images these are was known on the host: nothing has to be counted on the device.
            index = next(numbers)
            some = stroke.change(pixels.index_select(0, index), *(next(numbers) for _ in stroke.numbers))
            pixels.index_copy_(0, index, some)
    return pixels


def _some(on: np.ndarray, drawn: Drawn, stroke: Callable[[Drawn], Stroke]) -> list[Stroke]:
    """The stroke for these of the images, (B,) bool, the others left alone."""
    rows = np.flatnonzero(on)
    if len(rows) == len(on):
        return [stroke(drawn)]
    return [stroke({name: values[rows] for name, values in drawn.items()})._replace(rows=rows)] if len(rows) else []


def _stroke(effect: Effect, shape: Sequence[int], drawn: Drawn) -> Stroke:
    """All images with one effect."""
    height, width = shape[2:]
    match effect:
        case Rotate():
            return Stroke(rotated, gridded(drawn["angle"], height, width))
        case HSVNoise():
            powers = (drawn["power"], drawn["factor"], drawn["shift"])
            return Stroke(colours.hsv_noise, (*powers, *colours.turned(drawn["hue"])))
        case Grayscale():
            return Stroke(colours.grayscale)
        case Blur():
            return Stroke(blurred, tapped(drawn["sigma"], effect.kernel, height, width))
        case Solarize():
            return Stroke(partial(colours.solarize, threshold=effect.threshold))
    raise AssertionError(f"{type(effect).__name__} cannot be painted")


_JITTER: dict[str, Callable[..., Tensor]] = {  # in the order that `Jitter` numbers them
    "brightness": colours.brightness,
    "contrast": colours.contrast,
    "saturation": colours.saturation,
    "hue": colours.hue,
}
_HUE = list(_JITTER).index("hue")


def _jitter_by_turn(effect: Jitter, drawn: Drawn) -> list[Stroke]:
    found: list[Stroke] = []
    for turn in drawn["order"].T:
        for number, name in enumerate(_JITTER):
            if getattr(effect, name):
                found += _some(drawn["on"] & (turn == number), drawn, partial(_one_of_four, name))
    return found


def _one_of_four(name: str, drawn: Drawn) -> Stroke:
    return Stroke(_JITTER[name], colours.turned(drawn[name]) if name == "hue" else (drawn[name],))


def _jitter_at_once(effect: Jitter, drawn: Drawn, channels: int) -> list[Stroke]:
    """Up to three blends, the hue of all images, and up to three blends again.

    An image has three blends in all, in its own order, some before its hue and the others after. What it does not have
    at a place is a blend or a turn that changes no bit.
    """
    order = drawn["order"]
    turns = np.arange(order.shape[1])
    of_hue = (order == _HUE).argmax(axis=1)[:, None] if effect.hue else len(turns)
    wanted = drawn["on"][:, None] & np.isin(order, [n for n, name in enumerate(_JITTER) if getattr(effect, name)])
    found = _blends(drawn, wanted & (turns < of_hue), channels)
    if effect.hue:
        found.append(Stroke(colours.hue, colours.turned(np.where(drawn["on"], drawn["hue"], np.float32(0)))))
    return found + _blends(drawn, wanted & (turns > of_hue), channels)


def _blends(drawn: Drawn, wanted: np.ndarray, channels: int) -> list[Stroke]:
    """The blends of these turns, (B, 4) bool: each image's first together, then each image's second, and so on."""
    factors = np.stack([drawn[name] for name in _JITTER])
    found, place = [], wanted.cumsum(axis=1)
    for number in range(1, int(place.max(initial=0)) + 1):
        here = wanted & (place == number)
        which = drawn["order"][np.arange(len(here)), here.argmax(axis=1)]
        found.append(Stroke(colours.blended, (colours.blend(factors, which, here.any(axis=1), channels),)))
    return found
