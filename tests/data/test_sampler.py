import numpy as np
import pytest

from sslticket.data.loader import LabelledStream, Sampler
from sslticket.errors import BadInput


def test_every_epoch_has_every_image_once_in_another_order() -> None:
    order = Sampler(10, 4, seed=1)
    stream = np.concatenate([order.indices(step) for step in range(10)]).reshape(4, 10)
    for epoch in stream:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in stream}) == 4


@pytest.mark.parametrize("world", [2, 3, 6])
def test_processes_share_the_same_global_batch(world: int) -> None:
    whole = Sampler(100, 12, seed=1)
    shares = [Sampler(100, 12, seed=1, rank=rank, world_size=world) for rank in range(world)]
    for step in (0, 8, 40):
        joined = np.concatenate([order.indices(step)[order.local_slice] for order in shares])
        np.testing.assert_array_equal(joined, whole.indices(step))


def test_a_batch_larger_than_the_set_runs_through_several_epochs() -> None:
    rows = Sampler(3, 10, seed=0).indices(0)
    assert np.bincount(rows).tolist() in ([3, 3, 4], [3, 4, 3], [4, 3, 3])


def test_the_labelled_stream_has_a_fixed_count_in_every_batch_and_epochs_of_its_own() -> None:
    order = Sampler(8 + 50, 12, seed=1, labelled=LabelledStream(8, 0.25))
    batches = np.stack([order.indices(step) for step in range(40)])
    known = batches < 8
    assert set(known.sum(axis=1)) == {3}
    for epoch in batches[known].reshape(-1, 8):
        assert sorted(epoch) == list(range(8))
    rest = batches[~known][: 7 * 50].reshape(7, 50)
    for epoch in rest:
        assert sorted(epoch) == list(range(8, 58))
    assert len({tuple(epoch) for epoch in rest}) == 7
    assert order.labelled is not None
    assert order.labelled.samples_per_epoch(12) == 8 * 4


@pytest.mark.parametrize("parts", [2, 3])
def test_both_streams_are_in_every_micro_batch(parts: int) -> None:
    order = Sampler(8 + 50, 12, seed=1, labelled=LabelledStream(8, 0.25))
    counts = [np.count_nonzero(part < 8) for step in range(5) for part in np.split(order.indices(step), parts)]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1


def test_processes_share_a_batch_of_two_streams() -> None:
    streams = LabelledStream(8, 0.5)
    whole = Sampler(58, 12, 1, labelled=streams)
    shares = [Sampler(58, 12, 1, rank, 3, streams) for rank in range(3)]
    joined = np.concatenate([order.indices(7)[order.local_slice] for order in shares])
    np.testing.assert_array_equal(joined, whole.indices(7))


@pytest.mark.parametrize("streams", [None, LabelledStream(8, 0.5)])
def test_a_replacement_is_the_next_readable_row_of_its_own_stream(streams: LabelledStream | None) -> None:
    order = Sampler(58, 12, 1, labelled=streams)
    row = int(order.indices(3)[5])
    after = np.concatenate([order.indices(3)[6:], order.indices(4), order.indices(5)])
    same = after if streams is None else after[(after < 8) == (row < 8)]
    bad = {row, int(same[0])}
    assert order.replacement(3, 5, bad) == next(int(other) for other in same if other not in bad)
    with pytest.raises(BadInput, match="at least one of the"):
        order.replacement(3, 5, set(range(58)))
