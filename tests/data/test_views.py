import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from sslticket.data.augment import View


def test_windows_are_distributed_as_torchvisions() -> None:
    view = View(size=224, crop="resized")
    count, height, width = 4000, 375, 500
    window = view.resized_crop_windows(np.full(count, height), np.full(count, width), view.sample(count, 0, "test"))
    torch.manual_seed(0)
    transform, image = v2.RandomResizedCrop(224), torch.empty(3, height, width)
    drawn = [transform.make_params([image]) for _ in range(count)]
    theirs = np.array([[params[side] for side in ("top", "left", "height", "width")] for params in drawn])
    ours = np.stack(window, axis=1)
    for of in (
        lambda w: w[:, 2] * w[:, 3] / (height * width),
        lambda w: np.log(w[:, 3] / w[:, 2]),
        lambda w: w[:, 0] / (height - w[:, 2] + 1),
        lambda w: w[:, 1] / (width - w[:, 3] + 1),
    ):
        # Two samples of 4000 differ by less than 0.044 in their distributions, 999 times in 1000 (Kolmogorov-Smirnov).
        grid = np.sort(np.concatenate([of(ours), of(theirs)]))
        steps = (np.searchsorted(np.sort(of(each)), grid, side="right") / count for each in (ours, theirs))
        assert abs(np.subtract(*steps)).max() < 0.044


@pytest.mark.parametrize(("height", "width"), [(10, 400), (400, 10), (1, 1)])
def test_where_no_window_fits_the_middle_is_taken(height: int, width: int) -> None:
    view = View(size=8, crop="resized", scale=(0.9, 1.0))
    window = view.resized_crop_windows(np.array([height]), np.array([width]), view.sample(1, 0, "test"))
    top, left, tall, wide = (int(side[0]) for side in window)
    assert (tall, wide) == {(10, 400): (10, 13), (400, 10): (13, 10), (1, 1): (1, 1)}[height, width]
    assert (top, left) == ((height - tall + 1) // 2, (width - wide + 1) // 2)


@pytest.mark.parametrize("side", range(28, 37))
def test_the_center_crop_is_torchvisions(side: int) -> None:
    image = torch.arange(side * 40).view(1, side, 40)
    view = View(size=32)
    window = view.square_crop_windows(side, 40, view.sample(1, 0))
    top, left = int(window.top[0]), int(window.left[0])
    padded = torch.nn.functional.pad(image, (8, 8, 8, 8))
    ours = padded[:, top + 8 : top + 40, left + 8 : left + 40]
    assert torch.equal(ours, v2.functional.center_crop(image, [32, 32]))


def test_padded_crops_take_every_position_equally_often() -> None:
    view = View(size=32, crop="pad", pad=2)
    window = view.square_crop_windows(32, 32, view.sample(25_000, 0))
    counts = np.bincount((window.top + 2) * 5 + window.left + 2, minlength=25)
    assert len(counts) == 25
    assert abs(counts - 1000).max() < 150  # five standard deviations


def test_the_short_side_is_torchvisions() -> None:
    view = View(size=224, resize=256)
    for height, width in ((375, 500), (500, 333), (256, 256), (97, 1201)):
        expected = v2.functional.resize(torch.zeros(1, height, width), [256], antialias=True).shape[1:]
        assert view.resized_shape(height, width) == tuple(expected)


def test_random_numbers_depend_on_seed_and_path_alone() -> None:
    view = View(size=32, crop="resized", flip=True)
    again = [view.sample(8, 1, 7, 0), view.sample(8, 1, 7, 0).slice_batch(slice(None))]
    for one, other in zip(*again, strict=True):
        np.testing.assert_array_equal(one, other)
    for other in (view.sample(8, 2, 7, 0), view.sample(8, 1, 8, 0), view.sample(8, 1, 7, 1)):
        assert not np.array_equal(again[0].position, other.position)
