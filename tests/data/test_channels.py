"""Gray and colour images for networks that take the other kind."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslticket.data.augment import View
from sslticket.data.loader import Batch, Sampler
from sslticket.data.source import DataSource, convert_channels, make_loader, open_split
from tests.data.conftest import Refused


def first(source: DataSource, *views: View) -> Batch:
    order = Sampler(len(source.manifest), 8, 0)
    batches = make_loader(source, views, order, augment_seed=0, device=torch.device("cpu"), threads=1, max_bad_images=0)
    return next(batches.once())


def test_grey_images_are_repeated_and_normalised_as_before() -> None:
    digits = open_split("digits", "eval")
    colour = convert_channels(digits, 3)
    assert colour.dataset.channels == 3
    assert colour.manifest.hash == digits.manifest.hash
    gray, repeated = first(digits, digits.dataset.eval_view).views[0], first(colour, colour.dataset.eval_view).views[0]
    assert repeated.shape == (8, 3, 8, 8)
    for channel in range(3):
        assert torch.equal(repeated[:, channel : channel + 1], gray)
    assert convert_channels(digits, 1) is digits


@pytest.mark.data
def test_of_colour_images_the_luma_is_taken_as_pil_takes_it(few_cifar: Path) -> None:
    cifar = open_split("cifar10", "train", few_cifar)
    gray = convert_channels(cifar, 1)
    assert gray.images is not None
    assert cifar.images is not None
    assert gray.images.shape == (60, 32, 32, 1)
    for image, luma in zip(cifar.images, gray.images, strict=True):
        assert np.array_equal(np.array(Image.fromarray(image).convert("L")), luma[..., 0])
    assert gray.dataset.mean == pytest.approx((0.299 * 0.4914 + 0.587 * 0.4822 + 0.114 * 0.4465,), rel=1e-4)
    assert first(gray, gray.dataset.eval_view).views[0].shape == (8, 1, 32, 32)


@pytest.mark.data
def test_photographs_are_decoded_in_grey(few_photographs: Path) -> None:
    photographs = open_split("imagenet", "eval", few_photographs)
    view = View(size=32, resize=36)
    colour, gray = (first(source, view).views[0] for source in (photographs, convert_channels(photographs, 1)))
    assert gray.shape == (8, 1, 32, 32)
    entry = photographs.dataset
    shades = colour * torch.tensor(entry.std).view(-1, 1, 1) + torch.tensor(entry.mean).view(-1, 1, 1)
    luma = (shades * torch.tensor([0.299, 0.587, 0.114]).view(-1, 1, 1)).sum(1, keepdim=True)
    mine = convert_channels(photographs, 1).dataset
    # The decoder rounds luma and colours on its own, before they are resized.
    assert (gray * mine.std[0] + mine.mean[0] - luma).abs().max() < 0.02


def test_other_channels_are_refused(refused: Refused) -> None:
    digits = open_split("digits", "eval")
    with refused("the channels of digits and of the network must be 1 or 3", "got 1 and 4"):
        convert_channels(digits, 4)
    odd = replace(digits, dataset=replace(digits.dataset, channels=4))
    with refused("got 4 and 3", "--channels"):
        convert_channels(odd, 3)
