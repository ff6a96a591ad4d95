"""Augmentation described as data: what a view of an image is, which transforms follow its crop, and the random numbers that one batch of it needs.

The random numbers are sampled here for the whole global batch and handed to whichever loader applies them. So an augmentation is a pure function of (seed, step, position in the batch): it survives a restart, does not depend on the number of processes, and means the same in every loader.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from sslticket import registry
from sslticket.errors import BadInput
from sslticket.seeds import seeded_generator

TransformParams = dict[str, np.ndarray]  # each (B, ...); "on", (B,) bool, says which images get the effect


@dataclass(frozen=True, kw_only=True)
class Transform(ABC):
    """One step after the crop.

    Attributes:
        chance: probability, in [0, 1], that an image gets it.
    """

    chance: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.chance <= 1:
            raise BadInput(
                f"a chance of {self.chance:g} for {type(self).__name__} is no probability; give one in [0, 1]"
            )

    def sample(self, numbers: np.random.Generator, count: int) -> TransformParams:
        """The random numbers for `count` images."""
        return {"on": numbers.random(count) < self.chance} | self._sample(numbers, count)

    @abstractmethod
    def _sample(self, numbers: np.random.Generator, count: int) -> TransformParams: ...

    def rescaled(self, factor: float) -> "Transform":
        """The effect for images `factor` times as large: lengths in pixels follow, nothing else does."""
        return self


@dataclass(frozen=True, kw_only=True)
class Rotate(Transform):
    """A small rotation about the centre; bilinear, black where nothing is, as torchvision's `rotate`.

    Attributes:
        degrees: the largest angle to either side.
    """

    degrees: float

    def _sample(self, numbers: np.random.Generator, count: int) -> TransformParams:
        """`angle`: (B,) float32 degrees, counter-clockwise."""
        return {"angle": numbers.uniform(-self.degrees, self.degrees, count).astype(np.float32)}


@dataclass(frozen=True, kw_only=True)
class Jitter(Transform):
    """Brightness, contrast, saturation and hue, one after the other in random order, as torchvision's ColorJitter.

    Attributes:
        brightness, contrast, saturation: factors are drawn from [max(0, 1 - value), 1 + value].
        hue: a shift is drawn from [-hue, hue], in turns of the colour circle.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def _sample(self, numbers: np.random.Generator, count: int) -> TransformParams:
        """`brightness`, `contrast`, `saturation`, `hue`: (B,) float32; `order`: (B, 4) int64, a permutation each."""

        def factors(most: float) -> np.ndarray:
            return numbers.uniform(max(0.0, 1 - most), 1 + most, count).astype(np.float32)

        return {
            "brightness": factors(self.brightness),
            "contrast": factors(self.contrast),
            "saturation": factors(self.saturation),
            "hue": numbers.uniform(-self.hue, self.hue, count).astype(np.float32),
            "order": numbers.random((count, 4)).argsort(axis=1),
        }


@dataclass(frozen=True, kw_only=True)
class HSVNoise(Transform):
    """Colour noise of Dosovitskiy et al. 2016, section 3: S and V become `x ** power * factor + shift`, H is shifted.

    Zhai et al. 2019 (S4L, appendix) use the same ranges for training with 1% of the labels.

    Attributes:
        power: exponents are drawn from 2 ** U[-power, power].
        factor: factors from 2 ** U[-factor, factor].
        shift: added to S and V, from U[-shift, shift], in their range of 0 to 1.
        hue: added to H, from U[-hue, hue], in turns of the colour circle.
    """

    power: float = 2.0
    factor: float = 0.5
    shift: float = 0.1
    hue: float = 0.1

    def _sample(self, numbers: np.random.Generator, count: int) -> TransformParams:
        """`power`, `factor`, `shift`: (B, 2) float32, for S and V; `hue`: (B,) float32."""
        return {
            "power": np.exp2(numbers.uniform(-self.power, self.power, (count, 2))).astype(np.float32),
            "factor": np.exp2(numbers.uniform(-self.factor, self.factor, (count, 2))).astype(np.float32),
            "shift": numbers.uniform(-self.shift, self.shift, (count, 2)).astype(np.float32),
            "hue": numbers.uniform(-self.hue, self.hue, count).astype(np.float32),
        }


@dataclass(frozen=True, kw_only=True)
class Grayscale(Transform):
    """All channels become the luma (ITU-R 601), as torchvision's `rgb_to_grayscale`."""

    def _sample(self, numbers: np.random.Generator, count: int) -> TransformParams:
        return {}


@dataclass(frozen=True, kw_only=True)
class Blur(Transform):
    """Gaussian blur with mirrored borders, as torchvision's `gaussian_blur`.

    Attributes:
        sigma: smallest and largest standard deviation, in pixels.
        kernel: pixels that each output pixel is made of along a line; odd.
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    kernel: int = 23

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0 or self.kernel < 1 or not 0 < self.sigma[0] <= self.sigma[1]:
            raise BadInput(f"{self} cannot blur; give an odd kernel and 0 < smallest sigma <= largest sigma")

    def _sample(self, numbers: np.random.Generator, count: int) -> TransformParams:
        """`sigma`: (B,) float32."""
        return {"sigma": numbers.uniform(*self.sigma, count).astype(np.float32)}

    def rescaled(self, factor: float) -> "Blur":
        """See the base class."""
        kernel = 2 * math.ceil((self.kernel - 1) / 2 * factor) + 1
        return replace(self, sigma=(self.sigma[0] * factor, self.sigma[1] * factor), kernel=kernel)


@dataclass(frozen=True, kw_only=True)
class Solarize(Transform):
    """Shades from the threshold on are turned into their negatives, as torchvision's `solarize`.

    Attributes:
        threshold: from 0 to 255.
    """

    threshold: float = 128.0

    def _sample(self, numbers: np.random.Generator, count: int) -> TransformParams:
        return {}


TRANSFORMS: Mapping[str, type[Transform]] = {
    kind.__name__: kind for kind in (Rotate, Jitter, HSVNoise, Grayscale, Blur, Solarize)
}
"""Those that JSON values may name."""


CROP_ATTEMPTS = (
    10  # windows that a random resized crop proposes before it falls back to the centre, as torchvision does
)


class ViewParams(NamedTuple):
    """The random numbers of one view of B images; a loader turns them into pixels."""

    area: np.ndarray  # (B, TRIES) float32, proposed fraction of the image's area; (B, 0) unless crop is "resized"
    ratio: np.ndarray  # (B, TRIES) float32, proposed width / height; (B, 0) unless crop is "resized"
    place: np.ndarray  # (B, 2) float32 in [0, 1): where the window lies between the top / left and bottom / right ends
    flip: np.ndarray  # (B,) bool, mirror left to right
    transforms: tuple[TransformParams, ...] = ()  # one for each of the view's effects

    def slice_batch(self, rows: slice) -> "ViewParams":
        """The draws of some of the batch's images."""
        effects = tuple({name: values[rows] for name, values in drawn.items()} for drawn in self.transforms)
        return ViewParams(self.area[rows], self.ratio[rows], self.place[rows], self.flip[rows], effects)

    @classmethod
    def concatenate(cls, parts: Sequence["ViewParams"]) -> "ViewParams":
        """The draws of several batches of one view as those of a single batch."""
        if len(parts) == 1:
            return parts[0]
        effects = tuple(
            {name: np.concatenate([drawn[name] for drawn in same]) for name in same[0]}
            for same in zip(*(part.transforms for part in parts), strict=True)
        )
        area, ratio, place, flip = (np.concatenate(same) for same in zip(*(part[:4] for part in parts), strict=True))
        return cls(area, ratio, place, flip, effects)


class CropWindow(NamedTuple):
    """A crop in pixels of the (resized or padded) image, each (B,) int64."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray


@dataclass(frozen=True, kw_only=True)
class View:
    """One view of an image: resize, crop, mirror, effects, in this order; the loader normalises last.

    Attributes:
        size: side of the square that comes out, in pixels.
        crop: "center"; "pad", a random `size` square of the image padded with black by `pad`; or "resized", a window of
            random area and shape resized to `size` (Szegedy et al. 2015, as in torchvision's RandomResizedCrop).
        resize: the short side the image is brought to before a center or pad crop; None leaves it as it is.
        pad: black pixels added on each side before a "pad" crop.
        scale: smallest and largest fraction of the area that a "resized" crop takes.
        ratio: narrowest and widest width / height that a "resized" crop takes.
        flip: mirror half of the images left to right.
        effects: what is done to the crop after that, in this order.
    """

    size: int
    crop: Literal["center", "pad", "resized"] = "center"
    resize: int | None = None
    pad: int = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    effects: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise BadInput(f"an image size of {self.size} pixels is too small; give at least 1")

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "View":
        """The view that a recipe's JSON values describe; those of earlier versions may lack later fields.

        Raises:
            BadInput: naming the effect or the field that is unknown, or what cannot be.
        """
        effects = tuple(registry.settings_from_json(effect, TRANSFORMS, "effect") for effect in tree.get("effects", ()))
        return registry.settings_from_json({**tree, "effects": effects}, {"View": cls}, "view")

    def at_size(self, size: int | None) -> "View":
        """The same view at another output size, or this one for None: what it shows of an image stays the same.

        So the resize before the crop and the padding keep their proportions, and a view that took images as they are,
        whose size is the images', resizes them first.
        """
        if size is None or size == self.size:
            return self
        factor = size / self.size
        effects = tuple(effect.rescaled(factor) for effect in self.effects)
        if self.crop == "resized":
            return replace(self, size=size, effects=effects)
        before = self.size if self.resize is None else self.resize
        return replace(self, size=size, resize=round(before * factor), pad=round(self.pad * factor), effects=effects)

    def sample(self, count: int, seed: int, *path: str | int) -> ViewParams:
        """The random numbers for `count` images, a pure function of the seed and the path (step, view)."""
        numbers = seeded_generator(seed, *path)
        tries = CROP_ATTEMPTS if self.crop == "resized" else 0
        area = numbers.uniform(self.scale[0], self.scale[1], (count, tries))
        ratio = np.exp(numbers.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), (count, tries)))
        place = numbers.random((count, 2), dtype=np.float32)
        flip = numbers.random(count) < 0.5 if self.flip else np.zeros(count, bool)
        effects = tuple(effect.sample(numbers, count) for effect in self.effects)
        return ViewParams(area.astype(np.float32), ratio.astype(np.float32), place, flip, effects)

    def resized_crop_windows(self, height: np.ndarray, width: np.ndarray, draws: ViewParams) -> CropWindow:
        """The windows of a "resized" crop in images of these heights and widths, (B,) each.

        The first proposed window that fits is taken; where none does, the largest central one within `ratio`.
        """
        full_height, full_width = height.astype(np.float32)[:, None], width.astype(np.float32)[:, None]
        area = draws.area * (full_height * full_width)
        tall, wide = np.floor(np.sqrt(area / draws.ratio) + 0.5), np.floor(np.sqrt(area * draws.ratio) + 0.5)
        fits = (tall >= 1) & (tall <= full_height) & (wide >= 1) & (wide <= full_width)
        chosen, any_fits = fits.argmax(axis=1), fits.any(axis=1)
        each = np.arange(len(chosen))
        widest = np.floor(full_height[:, 0] * np.float32(self.ratio[1]) + 0.5)
        tallest = np.floor(full_width[:, 0] / np.float32(self.ratio[0]) + 0.5)
        tall = np.where(any_fits, tall[each, chosen], np.minimum(height, tallest)).astype(np.int64)
        wide = np.where(any_fits, wide[each, chosen], np.minimum(width, widest)).astype(np.int64)
        place = np.where(any_fits[:, None], draws.place, np.float32(0.5))
        top = np.floor(place[:, 0] * (height - tall + 1)).astype(np.int64)
        left = np.floor(place[:, 1] * (width - wide + 1)).astype(np.int64)
        return CropWindow(top, left, tall, wide)

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after `resize`, the long side rounded down as in torchvision."""
        if self.resize is None:
            return height, width
        short = min(height, width)
        return self.resize * height // short, self.resize * width // short

    def square_crop_windows(self, height: int, width: int, draws: ViewParams) -> CropWindow:
        """The windows of a "pad" or "center" crop in images of this size; they may reach beyond it, into black."""
        side = np.full(len(draws.flip), self.size)
        return CropWindow(
            self._crop_start(height, draws.place[:, 0]), self._crop_start(width, draws.place[:, 1]), side, side
        )

    def _crop_start(self, length: int, place: np.ndarray) -> np.ndarray:
        pad = self.pad if self.crop == "pad" else 0
        spare = length + 2 * pad - self.size
        missing, spare = max(-spare, 0), max(spare, 0)
        # Half to even, as torchvision's center crop rounds.
        middle = np.full(len(place), spare // 2 + (spare % 4 == 3))
        first = np.floor(place * np.float64(spare + 1)).astype(np.int64) if self.crop == "pad" else middle
        return first - pad - missing // 2
