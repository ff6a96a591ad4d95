"""What may be done to a cut-out crop: turning, colours, blur; as data, with the random numbers a batch of it needs.

An effect only describes and draws; `painting` turns the numbers into pixels. Each has a `chance`: the probability with
which an image gets it, on its own.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sslticket.errors import BadInput

Drawn = dict[str, np.ndarray]  # each (B, ...); "on", (B,) bool, says which images get the effect


@dataclass(frozen=True, kw_only=True)
class Effect(ABC):
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

    def draw(self, numbers: np.random.Generator, count: int) -> Drawn:
        """The random numbers for `count` images."""
        return {"on": numbers.random(count) < self.chance} | self._draw(numbers, count)

    @abstractmethod
    def _draw(self, numbers: np.random.Generator, count: int) -> Drawn: ...

    def scaled(self, factor: float) -> "Effect":
        """The effect for images `factor` times as large: lengths in pixels follow, nothing else does."""
        return self


@dataclass(frozen=True, kw_only=True)
class Rotate(Effect):
    """A small rotation about the centre; bilinear, black where nothing is, as torchvision's `rotate`.

    Attributes:
        degrees: the largest angle to either side.
    """

    degrees: float

    def _draw(self, numbers: np.random.Generator, count: int) -> Drawn:
        """`angle`: (B,) float32 degrees, counter-clockwise."""
        return {"angle": numbers.uniform(-self.degrees, self.degrees, count).astype(np.float32)}


@dataclass(frozen=True, kw_only=True)
class Jitter(Effect):
    """Brightness, contrast, saturation and hue, one after the other in random order, as torchvision's ColorJitter.

    Attributes:
        brightness, contrast, saturation: factors are drawn from [max(0, 1 - value), 1 + value].
        hue: a shift is drawn from [-hue, hue], in turns of the colour circle.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def _draw(self, numbers: np.random.Generator, count: int) -> Drawn:
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
class HSVNoise(Effect):
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

    def _draw(self, numbers: np.random.Generator, count: int) -> Drawn:
        """`power`, `factor`, `shift`: (B, 2) float32, for S and V; `hue`: (B,) float32."""
        return {
            "power": np.exp2(numbers.uniform(-self.power, self.power, (count, 2))).astype(np.float32),
            "factor": np.exp2(numbers.uniform(-self.factor, self.factor, (count, 2))).astype(np.float32),
            "shift": numbers.uniform(-self.shift, self.shift, (count, 2)).astype(np.float32),
            "hue": numbers.uniform(-self.hue, self.hue, count).astype(np.float32),
        }


@dataclass(frozen=True, kw_only=True)
class Grayscale(Effect):
    """All channels become the luma (ITU-R 601), as torchvision's `rgb_to_grayscale`."""

    def _draw(self, numbers: np.random.Generator, count: int) -> Drawn:
        return {}


@dataclass(frozen=True, kw_only=True)
class Blur(Effect):
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

    def _draw(self, numbers: np.random.Generator, count: int) -> Drawn:
        """`sigma`: (B,) float32."""
        return {"sigma": numbers.uniform(*self.sigma, count).astype(np.float32)}

    def scaled(self, factor: float) -> "Blur":
        """See the base class."""
        kernel = 2 * math.ceil((self.kernel - 1) / 2 * factor) + 1
        return replace(self, sigma=(self.sigma[0] * factor, self.sigma[1] * factor), kernel=kernel)


@dataclass(frozen=True, kw_only=True)
class Solarize(Effect):
    """Shades from the threshold on are turned into their negatives, as torchvision's `solarize`.

    Attributes:
        threshold: from 0 to 255.
    """

    threshold: float = 128.0

    def _draw(self, numbers: np.random.Generator, count: int) -> Drawn:
        return {}


EFFECTS: Mapping[str, type[Effect]] = {
    kind.__name__: kind for kind in (Rotate, Jitter, HSVNoise, Grayscale, Blur, Solarize)
}
"""Those that JSON values may name."""
