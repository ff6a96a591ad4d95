import numpy as np
import pytest

from sslticket.data.order import Order


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    order = Order(10, 4, seed=1)
    stream = np.concatenate([order.rows(step) for step in range(10)]).reshape(4, 10)
    for epoch in stream:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in stream}) == 4


@pytest.mark.parametrize("world", [2, 3, 6])
def test_processes_share_the_same_global_batch(world: int) -> None:
    whole = Order(100, 12, seed=1)
    shares = [Order(100, 12, seed=1, rank=rank, world=world) for rank in range(world)]
    for step in (0, 8, 40):
        joined = np.concatenate([order.rows(step)[order.share] for order in shares])
        np.testing.assert_array_equal(joined, whole.rows(step))


def test_a_batch_larger_than_the_set_runs_through_several_epochs() -> None:
    rows = Order(3, 10, seed=0).rows(0)
    assert np.bincount(rows).tolist() in ([3, 3, 4], [3, 4, 3], [4, 3, 3])
