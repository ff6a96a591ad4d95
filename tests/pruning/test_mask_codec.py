import numpy as np
import pytest

from sslticket.pruning.mask import pack_mask, unpack_mask


@pytest.mark.parametrize("density", [0.0, 0.0005, 0.01, 0.05, 0.13, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 7, 8, 255, 256, 511, 10_007])
def test_what_is_unpacked_is_what_was_packed(size: int, density: float) -> None:
    alive = np.random.default_rng(size).random(size) < density
    coding, data = pack_mask(alive)
    assert data.dtype == np.uint8
    assert len(data) <= -(-size // 8)
    np.testing.assert_array_equal(unpack_mask(coding, data, size), alive)


@pytest.mark.parametrize("gap", [0, 1, 253, 254, 255, 256, 509, 510, 511, 765])
def test_gaps_around_the_escape_value(gap: int) -> None:
    alive = np.zeros(20_000, bool)
    alive[[gap, 2 * gap + 1]] = True
    coding, data = pack_mask(alive)
    assert coding == "gaps"
    np.testing.assert_array_equal(unpack_mask(coding, data, len(alive)), alive)


def test_at_one_percent_a_survivor_costs_little_more_than_a_byte() -> None:
    alive = np.random.default_rng(0).random(1_000_000) < 0.01
    coding, data = pack_mask(alive)
    assert coding == "gaps"
    assert len(data) < 1.1 * alive.sum()


@pytest.mark.parametrize(
    ("coding", "data", "size"),
    [
        ("bits", [255], 7),
        ("bits", [1, 1], 8),
        ("gaps", [255, 255], 1000),
        ("gaps", [10], 10),
        ("runs", [1], 8),
    ],
)
def test_bytes_that_describe_no_mask_of_this_size_are_refused(coding: str, data: list[int], size: int) -> None:
    with pytest.raises(ValueError, match=r"bits|gaps|survivor|coding"):
        unpack_mask(coding, np.array(data, np.uint8), size)
