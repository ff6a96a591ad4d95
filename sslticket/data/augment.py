"""Views: how an image is resized, cropped, mirrored and transformed, as data, with the random numbers of a batch.

The random numbers are sampled here for the whole global batch and handed to whichever loader applies them. So an
augmentation is a pure function of (seed, step, position in the batch): it survives a restart, does not depend on the
number of processes, and means the same in every loader. No torch is imported here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from sslticket import registry
from sslticket.data.transforms import FormerNames, Transform, TransformParams
from sslticket.errors import BadInput
from sslticket.seeds import seeded_generator

CROP_ATTEMPTS = 10
"""Windows that a random resized crop proposes before it falls back to the centre, as torchvision does."""


class ViewParams(NamedTuple):
    """The random numbers of one view of B images; a loader turns them into pixels.

    Attributes:
        area: Proposed fractions of the image's area, (B, CROP_ATTEMPTS) float32; (B, 0) unless crop is "resized".
        ratio: Proposed widths / heights, (B, CROP_ATTEMPTS) float32; (B, 0) unless crop is "resized".
        place: Where the window lies between the top / left and bottom / right ends, (B, 2) float32 in [0, 1).
        flip: Whether the image is mirrored left to right, (B,) bool.
        transforms: The random numbers of each of the view's transforms.
    """

    area: np.ndarray
    ratio: np.ndarray
    place: np.ndarray
    flip: np.ndarray
    transforms: tuple[TransformParams, ...] = ()

    def slice_batch(self, rows: slice) -> "ViewParams":
        """Return the random numbers of some of the batch's images."""
        transforms = tuple({name: values[rows] for name, values in own.items()} for own in self.transforms)
        return ViewParams(self.area[rows], self.ratio[rows], self.place[rows], self.flip[rows], transforms)

    @classmethod
    def concatenate(cls, batches: Sequence["ViewParams"]) -> "ViewParams":
        """Join the random numbers of several batches of one view to those of a single batch."""
        if len(batches) == 1:
            return batches[0]
        transforms = tuple(
            {name: np.concatenate([own[name] for own in same]) for name in same[0]}
            for same in zip(*(batch.transforms for batch in batches), strict=True)
        )
        columns = zip(*(batch[:4] for batch in batches), strict=True)
        area, ratio, place, flip = (np.concatenate(column) for column in columns)
        return cls(area, ratio, place, flip, transforms)


class CropWindow(NamedTuple):
    """A crop in pixels of the (resized or padded) image, each (B,) int64."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray


@dataclass(frozen=True, kw_only=True)
class View(metaclass=FormerNames):
    """One view of an image: resize, crop, mirror, transforms, in this order; the loader normalises last.

    Attributes:
        size: Side of the square that comes out, in pixels.
        crop: "center"; "pad", a random `size` square of the image padded with black by `pad`; or "resized", a window of
            random area and shape resized to `size` (Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, as in
            torchvision's RandomResizedCrop).
        resize: Short side that the image is brought to before a center or pad crop; None leaves it as it is.
        pad: Black pixels added on each side before a "pad" crop.
        scale: Smallest and largest fraction of the area that a "resized" crop takes.
        ratio: Narrowest and widest width / height that a "resized" crop takes.
        flip: Whether half of the images are mirrored left to right.
        transforms: What is done to the crop after that, in this order.
    """

    size: int
    crop: Literal["center", "pad", "resized"] = "center"
    resize: int | None = None
    pad: int = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    transforms: tuple[Transform, ...] = field(default=(), metadata=registry.stored_as("effects"))

    def __post_init__(self) -> None:
        if self.size < 1:
            raise BadInput(f"the size of a view must be at least 1 pixel, got {self.size}; give --image-size 32")

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "View":
        """Make the view that a recipe's JSON values describe; those of earlier versions may lack later fields.

        Raises:
            BadInput: If a transform or a field is unknown, or a value is not possible.
        """
        return registry.settings_from_json(tree, {"View": cls}, "view")

    def at_size(self, size: int | None) -> "View":
        """Return the view at another output size, or this one for None: what it shows of an image stays the same.

        So the resize before the crop and the padding keep their proportions, and a view that took images as they are,
        whose size is the images', resizes them first.
        """
        if size is None or size == self.size:
            return self
        factor = size / self.size
        transforms = tuple(transform.rescaled(factor) for transform in self.transforms)
        if self.crop == "resized":
            return replace(self, size=size, transforms=transforms)
        before = self.size if self.resize is None else self.resize
        resize, pad = round(before * factor), round(self.pad * factor)
        return replace(self, size=size, resize=resize, pad=pad, transforms=transforms)

    def sample(self, count: int, seed: int, *path: str | int) -> ViewParams:
        """Sample the random numbers of `count` images, a pure function of the seed and the path (step, view)."""
        rng = seeded_generator(seed, *path)
        tries = CROP_ATTEMPTS if self.crop == "resized" else 0
        area = rng.uniform(self.scale[0], self.scale[1], (count, tries))
        ratio = np.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), (count, tries)))
        place = rng.random((count, 2), dtype=np.float32)
        flip = rng.random(count) < 0.5 if self.flip else np.zeros(count, bool)
        transforms = tuple(transform.sample(rng, count) for transform in self.transforms)
        return ViewParams(area.astype(np.float32), ratio.astype(np.float32), place, flip, transforms)

    def resized_crop_windows(self, height: np.ndarray, width: np.ndarray, params: ViewParams) -> CropWindow:
        """Place the windows of a "resized" crop in images of these heights and widths, (B,) each.

        The first proposed window that fits is taken; where none does, the largest central one within `ratio`.
        """
        full_height, full_width = height.astype(np.float32)[:, None], width.astype(np.float32)[:, None]
        area = params.area * (full_height * full_width)
        tall, wide = np.floor(np.sqrt(area / params.ratio) + 0.5), np.floor(np.sqrt(area * params.ratio) + 0.5)
        fits = (tall >= 1) & (tall <= full_height) & (wide >= 1) & (wide <= full_width)
        chosen, any_fits = fits.argmax(axis=1), fits.any(axis=1)
        each = np.arange(len(chosen))
        widest = np.floor(full_height[:, 0] * np.float32(self.ratio[1]) + 0.5)
        tallest = np.floor(full_width[:, 0] / np.float32(self.ratio[0]) + 0.5)
        tall = np.where(any_fits, tall[each, chosen], np.minimum(height, tallest)).astype(np.int64)
        wide = np.where(any_fits, wide[each, chosen], np.minimum(width, widest)).astype(np.int64)
        place = np.where(any_fits[:, None], params.place, np.float32(0.5))
        top = np.floor(place[:, 0] * (height - tall + 1)).astype(np.int64)
        left = np.floor(place[:, 1] * (width - wide + 1)).astype(np.int64)
        return CropWindow(top, left, tall, wide)

    def resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """Compute height and width of an image after `resize`, the long side rounded down as in torchvision."""
        if self.resize is None:
            return height, width
        short = min(height, width)
        return self.resize * height // short, self.resize * width // short

    def square_crop_windows(self, height: int, width: int, params: ViewParams) -> CropWindow:
        """Place the windows of a "pad" or "center" crop in images of one size; they may reach beyond it, into black."""
        side = np.full(len(params.flip), self.size)
        top, left = (self._crop_start(length, params.place[:, axis]) for axis, length in enumerate((height, width)))
        return CropWindow(top, left, side, side)

    def _crop_start(self, length: int, place: np.ndarray) -> np.ndarray:
        pad = self.pad if self.crop == "pad" else 0
        spare = length + 2 * pad - self.size
        missing, spare = max(-spare, 0), max(spare, 0)
        # Half to even, as torchvision's center crop rounds.
        middle = np.full(len(place), spare // 2 + (spare % 4 == 3))
        first = np.floor(place * np.float64(spare + 1)).astype(np.int64) if self.crop == "pad" else middle
        return first - pad - missing // 2
