from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

from sslticket.data.augment import Blur, Grayscale, HSVNoise, Jitter, Rotate, Solarize, View

Refused = Callable[..., AbstractContextManager[None]]
ALL = (
    Rotate(degrees=20),
    Jitter(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1),
    HSVNoise(),
    Grayscale(probability=0.2),
    Blur(probability=0.5),
    Solarize(),
)


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_a_probability_is_between_0_and_1(refused: Refused, probability: float) -> None:
    with refused("Grayscale must be in [0, 1]", f"got {probability:g}"):
        Grayscale(probability=probability)


@pytest.mark.parametrize("wrong", [{"kernel": 4}, {"kernel": -1}, {"sigma": (0.0, 1.0)}, {"sigma": (2.0, 1.0)}])
def test_a_blur_needs_an_odd_kernel_and_an_ordered_positive_sigma(refused: Refused, wrong: dict[str, Any]) -> None:
    (name, value), *_ = wrong.items()
    with refused(f"{name}={value}", "odd kernel", "sigma"):
        Blur(**wrong)


def test_at_another_size_lengths_follow_and_nothing_else() -> None:
    assert Blur(sigma=(0.1, 2.0), kernel=23, probability=0.5).rescaled(2) == Blur(
        sigma=(0.2, 4.0), kernel=45, probability=0.5
    )
    assert Blur(sigma=(1.0, 2.0), kernel=23).rescaled(0.25) == Blur(sigma=(0.25, 0.5), kernel=7)
    others = [transform for transform in ALL if not isinstance(transform, Blur)]
    assert [transform.rescaled(3) for transform in others] == others
    assert View(size=224, transforms=ALL).at_size(448).transforms == tuple(transform.rescaled(2) for transform in ALL)


def test_random_numbers_stay_in_their_ranges_and_fill_them() -> None:
    sampled = [transform.sample(np.random.default_rng(0), 4000) for transform in ALL]
    rotate, jitter, noise, _, blur, _ = sampled
    for values, low, high in (
        (rotate["angle"], -20, 20),
        (jitter["brightness"], 0.6, 1.4),
        (jitter["contrast"], 0, 2.5),  # from 1 - 1.5, but a factor is never negative
        (jitter["saturation"], 0.8, 1.2),
        (jitter["hue"], -0.1, 0.1),
        (np.log2(noise["power"]), -2, 2),
        (np.log2(noise["factor"]), -0.5, 0.5),
        (noise["shift"], -0.1, 0.1),
        (noise["hue"], -0.1, 0.1),
        (blur["sigma"], 0.1, 2),
    ):
        edge = 0.01 * (high - low)
        assert low - 1e-6 <= values.min() < low + edge
        assert high - edge < values.max() <= high + 1e-6
        # A uniform number's mean; five of its standard deviations.
        assert values.mean() == pytest.approx((low + high) / 2, abs=5 * (high - low) / np.sqrt(12 * 4000))


def test_each_image_has_its_own_probability_and_order() -> None:
    for transform in ALL:
        on = transform.sample(np.random.default_rng(0), 4000)["on"]
        assert on.mean() == pytest.approx(
            transform.probability, abs=5 * np.sqrt(transform.probability * (1 - transform.probability) / 4000)
        )
    order = ALL[1].sample(np.random.default_rng(0), 24_000)["order"]
    kinds, counts = np.unique(order, axis=0, return_counts=True)
    assert len(kinds) == 24
    assert abs(counts - 1000).max() < 160  # five standard deviations


def test_transforms_do_not_change_where_the_crop_is() -> None:
    plain, transformed = (
        View(size=32, crop="resized", flip=True, transforms=transforms).sample(8, 1, 7) for transforms in ((), ALL)
    )
    for one, other in zip(plain[:4], transformed[:4], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_slice_of_the_random_numbers_is_that_of_its_images() -> None:
    whole = View(size=32, transforms=ALL).sample(8, 1, 7)
    part = whole.slice_batch(slice(2, 5))
    for one, other in zip(part.transforms, whole.transforms, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name][2:5])
