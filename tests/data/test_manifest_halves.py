"""CIFAR-10a and CIFAR-10b: two halves that are always the same."""

import dataclasses
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from sslticket.data.manifest import Manifest, take_half
from tests.data.test_manifest import Refused, files, manifest


def cifar10() -> Manifest:
    """CIFAR-10's training labels are of any order; what a half takes depends on the places in the array alone."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5000))
    frame = pd.DataFrame({"item": np.arange(50_000), "label": labels})
    return Manifest(frame, tuple("0123456789"), "cifar10", "train", None)


def test_the_halves_of_cifar10_have_2500_images_of_each_class_and_nothing_in_common() -> None:
    whole = cifar10()
    a, b = take_half(whole, "a"), take_half(whole, "b")
    assert a.class_counts().tolist() == b.class_counts().tolist() == [2500] * 10
    assert sorted([*a.array_indices, *b.array_indices]) == list(range(50_000))
    for part in (a, b):
        np.testing.assert_array_equal(part.labels, whole.labels[part.array_indices])
    assert (a.dataset, b.dataset) == ("cifar10a", "cifar10b")


def test_they_are_the_same_for_ever_and_in_any_order_of_the_rows() -> None:
    whole = manifest(11, 8)
    assert take_half(whole, "a").hash == "0f1666b6be040483"
    mixed = dataclasses.replace(whole, frame=whole.frame.sample(frac=1, random_state=0))
    assert files(take_half(mixed, "a")) == files(take_half(whole, "a"))


def test_the_odd_image_goes_to_a() -> None:
    whole = manifest(11, 8, 2)
    assert take_half(whole, "a").class_counts().tolist() == [6, 4, 1]
    assert take_half(whole, "b").class_counts().tolist() == [5, 4, 1]
    assert files(take_half(whole, "a")) | files(take_half(whole, "b")) == files(whole)


def test_a_single_image_has_no_halves(refused: Refused) -> None:
    with refused("every class of imagenet must have 2 images", "got 1 of 'n001'", "--half"):
        take_half(manifest(4, 1), "b")


@pytest.mark.parametrize("which", ["a", "b"])
def test_a_subset_of_a_half_lies_within_it(which: Literal["a", "b"]) -> None:
    part = take_half(manifest(40, 20), which)
    tenth = part.subset(0.1, seed=3)
    assert files(tenth) < files(part)
    assert tenth.class_counts().tolist() == [2, 1]
