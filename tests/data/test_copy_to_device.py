"""Numbers that go over to a device together arrive as they were."""

import numpy as np
import pytest
import torch

from sslticket.data.augment_ops import copy_all_to_device, copy_to_device

ARRAYS = [
    np.arange(7, dtype=np.int64),
    np.array([True, False, True]),
    np.linspace(0, 1, 10, dtype=np.float32).reshape(2, 5).T,  # not contiguous
    np.empty((0, 3), np.float32),
    np.array([[1], [2]], np.uint8),
    np.arange(4, dtype=np.float64),
]


def test_on_a_cpu_nothing_is_copied() -> None:
    found = copy_all_to_device(ARRAYS, torch.device("cpu"))
    for tensor, array in zip(found, ARRAYS, strict=True):
        assert np.shares_memory(tensor.numpy(), array) or not array.size
        np.testing.assert_array_equal(tensor.numpy(), array)
    assert np.shares_memory(copy_to_device(ARRAYS[0], torch.device("cpu")).numpy(), ARRAYS[0])


def test_elsewhere_all_arrays_go_over_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[torch.Tensor] = []

    def there(values: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        assert non_blocking
        copies.append(values.clone())
        values.fill_(0)  # what arrives must not depend on the buffer any more
        return copies[-1]

    monkeypatch.setattr(torch.Tensor, "to", there)
    found = copy_all_to_device(ARRAYS, torch.device("mps"))
    assert len(copies) == 1
    for tensor, array in zip(found, ARRAYS, strict=True):
        assert tensor.dtype == torch.from_numpy(array.copy()).dtype
        np.testing.assert_array_equal(tensor.numpy(), array)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_copy_waits_for_nothing_and_survives_its_source() -> None:
    device = torch.device("cuda")
    busy = torch.randn(4096, 4096, device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = []
        for number in range(50):
            busy = busy @ busy
            found.append(copy_all_to_device([np.full(1000, number), np.full(3, number, np.float32)], device)[0])
            found.append(copy_to_device(np.full(1000, number), device))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [int(values.min()) for values in found] == [int(values.max()) for values in found]
    assert [int(values[0]) for values in found] == [number for number in range(50) for _ in range(2)]
