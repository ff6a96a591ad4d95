"""Transforms of real images, against torchvision's functions, PIL's and Python's own HSV."""

import colorsys
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as theirs

from sslticket.data.augment import (
    Blur,
    Grayscale,
    HSVNoise,
    Jitter,
    Rotate,
    Solarize,
    Transform,
    TransformParams,
    View,
    ViewParams,
)
from sslticket.data.augment_ops import TransformAndNormalize, apply_transforms, copy_all_to_device, list_pixel_ops
from sslticket.data.source import open_split

pytestmark = pytest.mark.data

# In shades of 255; the largest difference measured was 0.008, in a rotation, whose places torchvision rounds otherwise.
ALIKE = 0.05
BILINEAR = InterpolationMode.BILINEAR
FOUR = (theirs.adjust_brightness, theirs.adjust_contrast, theirs.adjust_saturation, theirs.adjust_hue)
STRONG = Jitter(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5)
ALL = (Rotate(degrees=20), STRONG, HSVNoise(), Grayscale(), Blur(sigma=(0.5, 2.0), kernel=7), Solarize())


@pytest.fixture(scope="module")
def small(few_cifar: Path) -> Tensor:
    """24 images of 32 pixels."""
    images = open_split("cifar10", "train", few_cifar).images
    assert images is not None
    return torch.from_numpy(images[:48:2].copy()).permute(0, 3, 1, 2).float().contiguous()


@pytest.fixture(scope="module")
def large(few_photographs: Path) -> Tensor:
    """Three images of 200 pixels."""
    files = sorted(few_photographs.glob("train/*/*.JPEG"))[:3]
    images = [theirs.pil_to_tensor(Image.open(file).convert("RGB")) for file in files]
    return torch.stack([theirs.center_crop(image, [200, 200]) for image in images]).float()


@pytest.fixture(params=["small", "large"])
def images(request: pytest.FixtureRequest) -> Tensor:
    chosen: Tensor = request.getfixturevalue(request.param)
    return chosen


def ours(pixels: Tensor, transform: Transform, **numbers: object) -> tuple[Tensor, TransformParams]:
    """The transformed images, and the random numbers of them, of which some may be given."""
    view = View(size=pixels.shape[3], transforms=(transform,))
    draws = view.sample(len(pixels), 3, "test")
    given = {name: np.asarray(value, draws.transforms[0][name].dtype) for name, value in numbers.items()}
    draws = draws._replace(transforms=(draws.transforms[0] | given,))
    return apply_transforms(pixels.clone(memory_format=torch.preserve_format), view, draws), draws.transforms[0]


def each(pixels: Tensor, change: Callable[[Tensor, int], Tensor]) -> Tensor:
    """torchvision's function of each image, as float of 0 to 1."""
    return torch.stack([change(image / 255, place) * 255 for place, image in enumerate(pixels)])


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def test_jitter_is_torchvisions_in_every_order(small: Tensor) -> None:
    orders = list(permutations(range(4)))
    found, drawn = ours(small, STRONG, order=orders)

    def expected(image: Tensor, place: int) -> Tensor:
        for number in orders[place]:
            image = FOUR[number](image, float(drawn[("brightness", "contrast", "saturation", "hue")[number]][place]))
        return image

    assert difference(found, each(small, expected)) < ALIKE
    backwards, _ = ours(small, STRONG, order=orders[::-1])
    assert ((backwards - found).abs().amax((1, 2, 3)) > 1).float().mean() > 0.75  # some numbers drawn do little


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_part_of_jitter_is_torchvisions_and_nearly_pils(images: Tensor, name: str) -> None:
    function = getattr(theirs, f"adjust_{name}")
    found, drawn = ours(images, Jitter(**{name: 0.5}))
    assert difference(found, each(images, lambda image, place: function(image, float(drawn[name][place])))) < ALIKE
    pil = [theirs.to_pil_image(image.byte()) for image in images]
    pil = [function(image, float(factor)) for image, factor in zip(pil, drawn[name], strict=True)]
    apart = (found - torch.stack([theirs.pil_to_tensor(image) for image in pil])).abs()
    # PIL drops fractions of the shades, and of the hue's 256 steps a turn, each of which is up to 6 shades.
    assert apart.mean() < 0.8
    assert apart.flatten().quantile(0.99) < (12 if name == "hue" else 2)


def test_blur_is_torchvisions(images: Tensor) -> None:
    found, drawn = ours(images, Blur(sigma=(0.1, 3.0), kernel=13))
    sigma = [[float(value)] * 2 for value in drawn["sigma"]]
    assert difference(found, each(images, lambda image, i: theirs.gaussian_blur(image, [13, 13], sigma[i]))) < ALIKE


def test_a_kernel_too_wide_to_be_mirrored_is_the_widest_that_can_be(small: Tensor) -> None:
    corner = small[:, :, :8, :8].contiguous()
    found, _ = ours(corner, Blur(sigma=(6.0, 6.0), kernel=23))
    assert difference(found, each(corner, lambda image, _: theirs.gaussian_blur(image, [15, 15], [6.0, 6.0]))) < ALIKE
    assert difference(ours(small[:, :, :1, :1], Blur())[0], small[:, :, :1, :1]) == 0


def test_rotation_is_torchvisions(images: Tensor) -> None:
    found, drawn = ours(images, Rotate(degrees=180))

    def expected(image: Tensor, place: int) -> Tensor:
        turned: Tensor = theirs.rotate(image, float(drawn["angle"][place]), interpolation=BILINEAR)
        return turned

    assert difference(found, each(images, expected)) < ALIKE
    quarter, _ = ours(images, Rotate(degrees=180), angle=[90] * len(images))
    assert difference(quarter, torch.rot90(images, 1, dims=(2, 3))) < ALIKE


@pytest.mark.parametrize("threshold", [0, 128, 200])
def test_solarize_is_torchvisions_and_pils(images: Tensor, threshold: int) -> None:
    found, _ = ours(images, Solarize(threshold=threshold))
    assert difference(found, each(images, lambda image, _: theirs.solarize(image, threshold / 255))) < ALIKE
    pil = [theirs.solarize(theirs.to_pil_image(image.byte()), threshold) for image in images]
    assert difference(found, torch.stack([theirs.pil_to_tensor(image) for image in pil]).float()) < ALIKE


def test_grayscale_is_torchvisions_and_nearly_pils(images: Tensor) -> None:
    found, _ = ours(images, Grayscale())
    assert difference(found, each(images, lambda image, _: theirs.rgb_to_grayscale(image, 3))) < ALIKE
    pil = torch.stack([theirs.pil_to_tensor(theirs.to_pil_image(image.byte()).convert("L")) for image in images])
    assert difference(found, pil.expand_as(found)) < 1.1


def test_hsv_noise_is_what_python_makes_of_hsv(images: Tensor) -> None:
    images = images.clone()
    images[:, :, 0, :4] = torch.tensor([0.0, 1.0, 90.0, 255.0])  # gray, where the hue is red's by definition
    found, drawn = ours(images, HSVNoise())
    rows, columns = np.random.default_rng(0).integers(0, images.shape[3], (2, 40))
    for place, (before, after) in enumerate(zip(images, found, strict=True)):
        power, factor, shift = (drawn[name][place] for name in ("power", "factor", "shift"))
        for row, column in [(0, 0), (0, 1), (0, 2), (0, 3), *zip(rows, columns, strict=True)]:
            hue, *rest = colorsys.rgb_to_hsv(*(before[:, row, column] / 255).tolist())
            saturation, value = np.clip(np.array(rest) ** power * factor + shift, 0, 1).tolist()
            expected = colorsys.hsv_to_rgb((hue + float(drawn["hue"][place])) % 1, saturation, value)
            np.testing.assert_allclose(after[:, row, column], np.multiply(expected, 255), atol=ALIKE)


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
def test_the_probability_decides_which_images_are_changed(small: Tensor, transform: Transform) -> None:
    always, _ = ours(small, transform)
    found, drawn = ours(small, replace(transform, probability=0.4))
    assert 0 < drawn["on"].sum() < len(small)
    on = torch.from_numpy(drawn["on"])
    assert torch.equal(found[~on], small[~on])
    assert torch.equal(found[on], always[on])
    assert (found[on] != small[on]).flatten(1).any(1).all()


@pytest.mark.parametrize("transform", ALL, ids=lambda transform: type(transform).__name__)
def test_what_an_image_becomes_does_not_depend_on_the_others(images: Tensor, transform: Transform) -> None:
    view = View(size=images.shape[3], transforms=(transform,))
    draws = view.sample(len(images), 3)
    whole = apply_transforms(images.clone(), view, draws)
    for part in (slice(0, 1), slice(1, 3), slice(3, 7), slice(7, 24)):
        assert torch.equal(apply_transforms(images[part].clone(), view, draws.slice_batch(part)), whole[part])


def test_transformed_pixels_are_normalised_like_others(images: Tensor) -> None:
    finish = TransformAndNormalize.from_mean_std((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), torch.device("cpu"))
    view = View(size=images.shape[3], transforms=(Jitter(brightness=0.4, probability=0.5),))
    draws = view.sample(len(images), 3)
    expected = finish(apply_transforms(images.clone(), view, draws), replace(view, transforms=()), draws)
    assert torch.equal(finish(images.clone(), view, draws), expected)


def all_at_once(finish: TransformAndNormalize, pixels: Tensor, view: View, draws: ViewParams) -> Tensor:
    """As on a GPU: few operations on the whole batch."""
    wanted = list_pixel_ops(view, draws, pixels.shape, merged=True)
    numbers = copy_all_to_device([array for op in wanted for array in op.arrays], pixels.device)
    return finish.apply_ops(pixels.clone(memory_format=torch.preserve_format), wanted, iter(numbers))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "transforms",
    [
        *((transform,) for transform in ALL),
        *((replace(transform, probability=0.4),) for transform in ALL),
        (Jitter(contrast=0.5, hue=0.3),),
        (Jitter(brightness=0.5, saturation=0.5, probability=0.6),),
        (HSVNoise(), Blur(), STRONG),  # the shades that come to the jitter may lie a little beyond 255
        tuple(replace(transform, probability=0.7) for transform in ALL),
    ],
)
def test_merging_the_operations_of_a_batch_changes_no_bit(
    small: Tensor, transforms: tuple[Transform, ...], channels: int
) -> None:
    images = small[:, :channels].contiguous(memory_format=torch.channels_last)
    finish = TransformAndNormalize.from_mean_std(
        (0.4, 0.5, 0.6)[:channels], (0.1, 0.2, 0.3)[:channels], torch.device("cpu")
    )
    view = View(size=32, transforms=transforms)
    for seed in range(3):
        draws = view.sample(len(images), seed)
        found = all_at_once(finish, images, view, draws)
        assert torch.equal(found, finish(images.clone(memory_format=torch.preserve_format), view, draws))
        assert found.stride() == images.stride()


def test_a_jitter_of_a_whole_batch_is_at_most_six_blends_and_one_hue(small: Tensor) -> None:
    view = View(size=32, transforms=(replace(STRONG, probability=0.8),))
    wanted = list_pixel_ops(view, view.sample(len(small), 3), small.shape, merged=True)
    assert len(wanted) == 7
    assert all(op.rows is None for op in wanted)


def test_channels_last_changes_the_memory_alone(images: Tensor) -> None:
    view = View(size=images.shape[3], transforms=tuple(replace(transform, probability=0.7) for transform in ALL))
    draws = view.sample(len(images), 3)
    plain = apply_transforms(images.clone(), view, draws)
    last = apply_transforms(images.clone(memory_format=torch.channels_last), view, draws)
    assert torch.equal(plain, last)
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert plain.min() > -ALIKE
    assert plain.max() < 255 + ALIKE


def test_one_channel_is_transformed_as_three_alike(images: Tensor) -> None:
    gray = images.mean(1, keepdim=True)
    transforms = (Rotate(degrees=20), replace(STRONG, saturation=0), Blur(), Solarize(threshold=90))
    for transform in transforms:
        one, three = ours(gray, transform)[0], ours(gray.expand(-1, 3, -1, -1).contiguous(), transform)[0]
        # The luma's weights add up to 0.9999.
        assert difference(one.expand_as(three), three) < ALIKE
    for without_colour in (Jitter(saturation=0.8, hue=0.5), Grayscale()):
        assert torch.equal(ours(gray, without_colour)[0], gray)
    noisy, drawn = ours(gray, HSVNoise())
    power, factor, shift = (
        torch.from_numpy(drawn[name][:, 1]).view(-1, 1, 1, 1) for name in ("power", "factor", "shift")
    )
    assert difference(noisy, ((gray / 255) ** power * factor + shift).clamp(0, 1) * 255) < ALIKE
