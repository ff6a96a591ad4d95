"""Augmentation as data: views of an image, the transforms that follow a view's crop, and their random numbers.

The random numbers are sampled here for the whole global batch and handed to whichever loader applies them. So an
augmentation is a pure function of (seed, step, position in the batch): it survives a restart, does not depend on the
number of processes, and means the same in every loader.

A transform describes what is done, samples the random numbers of a batch on the host, and says which operations on
pixels they become. One's own is a subclass of `Transform` with `apply`, and `sample_params` where it has random numbers
(examples/posterize.py). No torch is imported here: built-in transforms name a function of `augment_ops`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from sslticket.errors import BadInput
from sslticket.registry import settings_from_json, stored_as
from sslticket.seeds import seeded_generator

if TYPE_CHECKING:
    from torch import Tensor

TransformParams = dict[str, np.ndarray]
"""The random numbers of one transform for B images, (B, ...) each; "on", (B,) bool, says which images it changes."""


class PixelOp(NamedTuple):
    """One change to some or all images of a batch.

    Attributes:
        function: Takes (B, C, H, W) float32 pixels of 0 to 255, which it may overwrite, and the parameters as tensors;
            returns the changed pixels. A name is that of a function of `augment_ops`.
        params: The parameters of the B images that are changed.
        rows: Which images of the batch these are, (B,) int64; None for all.
    """

    function: Callable[..., "Tensor"] | str
    params: tuple[np.ndarray, ...] = ()
    rows: np.ndarray | None = None

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All that has to be on the device where the pixels are."""
        return self.params if self.rows is None else (self.rows, *self.params)


class FormerNames(type):
    """Lets classes be made with the field names of earlier versions, as recipes of that time have them."""

    def __call__(cls, *args: Any, **settings: Any) -> Any:
        """Make an instance; `chance` is today's `probability`, and `effects` are `transforms`."""
        former = {"chance": "probability", "effects": "transforms"}
        fields = getattr(cls, "__dataclass_fields__", {})
        return super().__call__(
            *args, **{name if name in fields else former.get(name, name): value for name, value in settings.items()}
        )


@dataclass(frozen=True, kw_only=True)
class Transform(metaclass=FormerNames):
    """One step after the crop of a view.

    Attributes:
        probability: Probability, in [0, 1], that an image is changed; every image on its own.
        operation: Name of the function of `augment_ops` that changes images, in place of `apply`.
    """

    operation: ClassVar[str] = ""
    probability: float = field(default=1.0, metadata=stored_as("chance"))

    def __init_subclass__(cls) -> None:
        if not cls.operation and cls.apply is Transform.apply and cls.pixel_ops is Transform.pixel_ops:
            raise TypeError(f"the transform {cls.__name__} must define apply(self, pixels, ...)")

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise BadInput(
                f"the probability of {type(self).__name__} must be in [0, 1], got {self.probability:g}; "
                "give 1 for all images"
            )

    def sample(self, rng: np.random.Generator, count: int) -> TransformParams:
        """Sample the random numbers of `count` images."""
        return {"on": rng.random(count) < self.probability} | self.sample_params(rng, count)

    def sample_params(self, rng: np.random.Generator, count: int) -> TransformParams:
        """Sample the transform's own random numbers of `count` images, (count, ...) each; none by default."""
        return {}

    def device_params(self, params: TransformParams, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Compute on the host what `apply` is given after the pixels; by default the random numbers in their order.

        Args:
            params: The random numbers of the B images that are changed.
            height: Height of the images, in pixels.
            width: Width of the images, in pixels.
        """
        return tuple(values for name, values in params.items() if name != "on")

    def apply(self, pixels: "Tensor", *args: Any, **kwargs: Any) -> "Tensor":
        """Change all images of a batch; overridden by every transform of one's own.

        Args:
            pixels: Images, (B, C, H, W) float32 of 0 to 255 with C 3 or 1, which may be overwritten.
            *args: What `device_params` gives, as tensors on the device of the pixels.
            **kwargs: Nothing; it lets subclasses name their parameters.

        Returns:
            The changed images, of the same shape and range.
        """
        raise NotImplementedError

    def pixel_ops(self, params: TransformParams, shape: Sequence[int], *, merged: bool) -> list[PixelOp]:
        """List the operations that change a batch; none where no image is changed.

        Args:
            params: The random numbers of the B images.
            shape: Shape of the batch, (B, C, H, W).
            merged: Few operations on the whole batch, as suits a GPU, in place of many on few images each, as suits a
                CPU. The results are the same to the bit.
        """
        function = self.operation or self.apply
        return _on_subset(params["on"], params, lambda own: PixelOp(function, self.device_params(own, *shape[2:])))

    def rescaled(self, factor: float) -> "Transform":
        """Return the transform for images `factor` times as large: lengths in pixels follow, nothing else does."""
        return self


def _on_subset(on: np.ndarray, params: TransformParams, op: Callable[[TransformParams], PixelOp]) -> list[PixelOp]:
    """The operation on these images, (B,) bool, the others left alone; none where there are none."""
    rows = np.flatnonzero(on)
    if len(rows) == len(on):
        return [op(params)]
    return [op({name: values[rows] for name, values in params.items()})._replace(rows=rows)] if len(rows) else []


@dataclass(frozen=True, kw_only=True)
class Rotate(Transform):
    """A small rotation about the centre; bilinear, black where nothing is, as torchvision's `rotate`.

    Attributes:
        degrees: Largest angle to either side.
    """

    operation = "rotate"
    degrees: float

    def sample_params(self, rng: np.random.Generator, count: int) -> TransformParams:
        """`angle`: (B,) float32 degrees, counter-clockwise."""
        return {"angle": rng.uniform(-self.degrees, self.degrees, count).astype(np.float32)}

    def device_params(self, params: TransformParams, height: int, width: int) -> tuple[np.ndarray, ...]:
        """The terms of each output pixel's position in the input that depend on its column, and on its row.

        Returns:
            (2, B, width) and (2, B, height) float32, to the right and down from the centre; half a canvas counts as 1.
        """
        angle = np.radians(params["angle"])[:, None]
        cos, sin = np.cos(angle), np.sin(angle)
        across, down = (np.arange(side) - (side - 1) / 2 for side in (width, height))
        by_column = np.stack((cos * across * 2 / width, sin * across * 2 / height))
        by_row = np.stack((-sin * down * 2 / width, cos * down * 2 / height))
        return by_column.astype(np.float32), by_row.astype(np.float32)


_JITTER = ("brightness", "contrast", "saturation", "hue")  # as `Jitter` numbers them in `order`
_HUE = _JITTER.index("hue")


@dataclass(frozen=True, kw_only=True)
class Jitter(Transform):
    """Brightness, contrast, saturation and hue, one after the other in random order, as torchvision's ColorJitter.

    Attributes:
        brightness: Factors are uniform in [max(0, 1 - brightness), 1 + brightness].
        contrast: Factors are uniform in [max(0, 1 - contrast), 1 + contrast].
        saturation: Factors are uniform in [max(0, 1 - saturation), 1 + saturation].
        hue: A shift is uniform in [-hue, hue], in turns of the colour circle.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def sample_params(self, rng: np.random.Generator, count: int) -> TransformParams:
        """`brightness`, `contrast`, `saturation`, `hue`: (B,) float32; `order`: (B, 4) int64, a permutation each."""
        strengths = (self.brightness, self.contrast, self.saturation)
        factors = [rng.uniform(max(0.0, 1 - most), 1 + most, count).astype(np.float32) for most in strengths]
        return dict(zip(_JITTER, factors, strict=False)) | {
            "hue": rng.uniform(-self.hue, self.hue, count).astype(np.float32),
            "order": rng.random((count, 4)).argsort(axis=1),
        }

    def pixel_ops(self, params: TransformParams, shape: Sequence[int], *, merged: bool) -> list[PixelOp]:
        """See the base class.

        Merged, these are up to three blends, the hue of all images, and up to three blends again: an image has three
        blends in all, in its own order, some before its hue and the others after. What it does not have at a position
        is a blend or a turn that changes no bit.
        """
        on, order = params["on"], params["order"]
        used = [number for number, name in enumerate(_JITTER) if getattr(self, name)]
        if not merged:
            return [
                op
                for turn in order.T
                for number in used
                for op in _on_subset(on & (turn == number), params, partial(_adjustment, number))
            ]
        turns = np.arange(order.shape[1])
        hue_turn = (order == _HUE).argmax(axis=1)[:, None] if self.hue else len(turns)
        wanted = on[:, None] & np.isin(order, used)
        ops = _blends(params, wanted & (turns < hue_turn), shape[1])
        if self.hue:
            ops.append(PixelOp("adjust_hue", hue_params(np.where(on, params["hue"], np.float32(0)))))
        return ops + _blends(params, wanted & (turns > hue_turn), shape[1])


def _adjustment(number: int, params: TransformParams) -> PixelOp:
    """One of the four adjustments of a jitter."""
    name = _JITTER[number]
    return PixelOp(f"adjust_{name}", hue_params(params[name]) if name == "hue" else (params[name],))


def _blends(params: TransformParams, wanted: np.ndarray, channels: int) -> list[PixelOp]:
    """The blends of these turns, (B, 4) bool: each image's first together, then each image's second, and so on."""
    factors = np.stack([params[name] for name in _JITTER])
    images, position, ops = np.arange(len(wanted)), wanted.cumsum(axis=1), []
    for number in range(1, int(position.max(initial=0)) + 1):
        here = wanted & (position == number)
        kind, on = params["order"][images, here.argmax(axis=1)], here.any(axis=1)
        if channels == 1:
            on = on & (kind != 2)  # a gray image has no saturation
        factor = np.where(on, factors[kind, images], np.float32(1))
        mean, luma = (np.where(on & (kind == which), 1 - factor, np.float32(0)) for which in (1, 2))
        low, high = np.where(on, 0, -np.inf), np.where(on, 255, np.inf)
        ops.append(PixelOp("blend", (np.stack((factor, mean, luma, low, high)).astype(np.float32),)))
    return ops


def hue_params(turns: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `augment_ops.adjust_hue` needs for turns of the colour circle, (B,), positive from red to green.

    A turn by a third sends red to green, green to blue, blue to red; that leaves at most a sixth to turn.
    """
    thirds = np.rint(3 * turns).astype(np.int64)
    sixths = (6 * turns - 2 * thirds).astype(np.float32)
    return (sixths, (np.arange(3) - thirds[:, None]) % 3) if thirds.any() else (sixths,)


@dataclass(frozen=True, kw_only=True)
class HSVNoise(Transform):
    """Colour noise: S and V become `x ** power * factor + shift`, H is shifted.

    It is that of Dosovitskiy et al. 2016, section 3 (https://arxiv.org/abs/1406.6909); Zhai et al. 2019 (S4L, appendix,
    https://arxiv.org/abs/1905.03670) use the same ranges for training with 1% of the labels.

    Attributes:
        power: Exponents are 2 ** u, u uniform in [-power, power].
        factor: Factors are 2 ** u, u uniform in [-factor, factor].
        shift: What is added to S and V is uniform in [-shift, shift], in their range of 0 to 1.
        hue: What is added to H is uniform in [-hue, hue], in turns of the colour circle.
    """

    operation = "add_hsv_noise"
    power: float = 2.0
    factor: float = 0.5
    shift: float = 0.1
    hue: float = 0.1

    def sample_params(self, rng: np.random.Generator, count: int) -> TransformParams:
        """`power`, `factor`, `shift`: (B, 2) float32, for S and V; `hue`: (B,) float32."""
        return {
            "power": np.exp2(rng.uniform(-self.power, self.power, (count, 2))).astype(np.float32),
            "factor": np.exp2(rng.uniform(-self.factor, self.factor, (count, 2))).astype(np.float32),
            "shift": rng.uniform(-self.shift, self.shift, (count, 2)).astype(np.float32),
            "hue": rng.uniform(-self.hue, self.hue, count).astype(np.float32),
        }

    def device_params(self, params: TransformParams, height: int, width: int) -> tuple[np.ndarray, ...]:
        """`power`, `factor`, `shift` as they are, and the hue as `augment_ops.adjust_hue` takes it."""
        return (params["power"], params["factor"], params["shift"], *hue_params(params["hue"]))


@dataclass(frozen=True, kw_only=True)
class Grayscale(Transform):
    """All channels become the luma (ITU-R BT.601), as torchvision's `rgb_to_grayscale`."""

    operation = "to_grayscale"


_NEGLIGIBLE_WEIGHT = 1e-5  # of the middle weight; less is left out, together less than a hundredth of a shade


@dataclass(frozen=True, kw_only=True)
class Blur(Transform):
    """Gaussian blur with mirrored borders, as torchvision's `gaussian_blur`.

    Attributes:
        sigma: Smallest and largest standard deviation, in pixels.
        kernel: Pixels that each output pixel is made of along a line; odd. Where mirroring would need pixels beyond the
            far border, the largest kernel that does without is taken: 2 * side - 1.
    """

    operation = "gaussian_blur"
    sigma: tuple[float, float] = (0.1, 2.0)
    kernel: int = 23

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % 2 == 0 or self.kernel < 1 or not 0 < self.sigma[0] <= self.sigma[1]:
            raise BadInput(
                f"a blur must have an odd kernel and 0 < smallest sigma <= largest sigma, got {self}; "
                "give Blur(sigma=(0.1, 2.0), kernel=23)"
            )

    def sample_params(self, rng: np.random.Generator, count: int) -> TransformParams:
        """`sigma`: (B,) float32."""
        return {"sigma": rng.uniform(*self.sigma, count).astype(np.float32)}

    def device_params(self, params: TransformParams, height: int, width: int) -> tuple[np.ndarray, ...]:
        """Weights of the middle and of the neighbours to one side, along a row and along a column.

        Returns:
            (B, up to radius + 1) float32 each; counted to both sides, an image's weights sum to 1.
        """
        sigma, found = params["sigma"].astype(np.float64)[:, None], []
        for side in (width, height):
            weights = np.exp(-0.5 * (np.arange(min(self.kernel // 2, side - 1) + 1) / sigma) ** 2)
            # By image and not by batch, so that an image looks the same whichever others are blurred with it.
            weights[weights < _NEGLIGIBLE_WEIGHT] = 0
            weights /= 2 * weights.sum(axis=1, keepdims=True) - weights[:, :1]
            found.append(weights[:, weights.any(axis=0)].astype(np.float32))
        return tuple(found)

    def rescaled(self, factor: float) -> "Blur":
        """See the base class."""
        kernel = 2 * math.ceil((self.kernel - 1) / 2 * factor) + 1
        return replace(self, sigma=(self.sigma[0] * factor, self.sigma[1] * factor), kernel=kernel)


@dataclass(frozen=True, kw_only=True)
class Solarize(Transform):
    """Shades from the threshold on are turned into their negatives, as torchvision's `solarize`.

    Attributes:
        threshold: First shade that is turned, from 0 to 255.
    """

    operation = "solarize"
    threshold: float = 128.0

    def device_params(self, params: TransformParams, height: int, width: int) -> tuple[np.ndarray, ...]:
        """The threshold for each image, (B,) float32."""
        return (np.full(len(params["on"]), self.threshold, np.float32),)


CROP_ATTEMPTS = 10
"""Windows that a random resized crop proposes before it falls back to the centre, as torchvision does."""


class ViewParams(NamedTuple):
    """The random numbers of one view of B images; a loader turns them into pixels.

    Attributes:
        area: Proposed fractions of the image's area, (B, CROP_ATTEMPTS) float32; (B, 0) unless crop is "resized".
        ratio: Proposed widths / heights, (B, CROP_ATTEMPTS) float32; (B, 0) unless crop is "resized".
        position: Where the window lies between the top / left and bottom / right ends, (B, 2) float32 in [0, 1).
        flip: Whether the image is mirrored left to right, (B,) bool.
        transforms: The random numbers of each of the view's transforms.
    """

    area: np.ndarray
    ratio: np.ndarray
    position: np.ndarray
    flip: np.ndarray
    transforms: tuple[TransformParams, ...] = ()

    def slice_batch(self, rows: slice) -> "ViewParams":
        """Return the random numbers of some of the batch's images."""
        transforms = tuple({name: values[rows] for name, values in own.items()} for own in self.transforms)
        return ViewParams(self.area[rows], self.ratio[rows], self.position[rows], self.flip[rows], transforms)

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
        area, ratio, position, flip = (np.concatenate(column) for column in columns)
        return cls(area, ratio, position, flip, transforms)


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
    transforms: tuple[Transform, ...] = field(default=(), metadata=stored_as("effects"))

    def __post_init__(self) -> None:
        if self.size < 1:
            raise BadInput(f"the size of a view must be at least 1 pixel, got {self.size}; give --image-size 32")

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "View":
        """Make the view that a recipe's JSON values describe; those of earlier versions may lack later fields.

        Raises:
            BadInput: If a transform or a field is unknown, or a value is not possible.
        """
        return settings_from_json(tree, {"View": cls}, "view")

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
        area = ratio = np.zeros((count, 0), np.float32)
        if self.crop == "resized":
            tries = (count, CROP_ATTEMPTS)
            area = rng.uniform(self.scale[0], self.scale[1], tries).astype(np.float32)
            ratio = np.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), tries)).astype(np.float32)
        position = rng.random((count, 2), dtype=np.float32)
        flip = rng.random(count) < 0.5 if self.flip else np.zeros(count, bool)
        transforms = tuple(transform.sample(rng, count) for transform in self.transforms)
        return ViewParams(area, ratio, position, flip, transforms)

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
        position = np.where(any_fits[:, None], params.position, np.float32(0.5))
        top = np.floor(position[:, 0] * (height - tall + 1)).astype(np.int64)
        left = np.floor(position[:, 1] * (width - wide + 1)).astype(np.int64)
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
        top, left = (self._crop_start(length, params.position[:, axis]) for axis, length in enumerate((height, width)))
        return CropWindow(top, left, side, side)

    def _crop_start(self, length: int, position: np.ndarray) -> np.ndarray:
        pad = self.pad if self.crop == "pad" else 0
        spare = length + 2 * pad - self.size
        missing, spare = max(-spare, 0), max(spare, 0)
        # Half to even, as torchvision's center crop rounds.
        middle = np.full(len(position), spare // 2 + (spare % 4 == 3))
        first = np.floor(position * np.float64(spare + 1)).astype(np.int64) if self.crop == "pad" else middle
        return first - pad - missing // 2
