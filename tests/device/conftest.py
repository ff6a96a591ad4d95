"""The searches, evaluations and analyses on the pretend accelerator."""

from collections.abc import Iterator
from typing import Any

import accelerate.accelerator
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from tests.device import pretend


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[pretend.Pretend]:
    """The pretend accelerator: what is computed in this test is computed there; nothing may be refused by it."""
    if reason := pretend.missing():
        pytest.skip(reason)
    made = Accelerator.__init__

    def make(self: Accelerator, *args: Any, mixed_precision: str = "no", **kwargs: Any) -> None:
        # accelerate knows float16 on devices of its own list alone, and its scaler for CUDA.
        half = mixed_precision == "fp16"
        made(self, *args, mixed_precision="no" if half else mixed_precision, **kwargs)
        if half:
            self.state._mixed_precision, self.native_amp = "fp16", True
            self.scaler = torch.amp.GradScaler(pretend.NAME)

    monkeypatch.setattr(accelerate.accelerator.Accelerator, "__init__", make)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", pretend.NAME)
    _forget()
    try:
        with pretend.Pretend() as there:
            yield there
    finally:
        _forget()
    assert not there.mixed, there.mixed


def _forget() -> None:
    """Accelerate keeps the first device that it was given."""
    AcceleratorState._reset_state(reset_partial_state=True)
    assert not PartialState._shared_state
