"""The searches, evaluations and analyses on the pretend accelerator."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from tests.device import pretend

Device = Callable[[], AbstractContextManager[pretend.Pretend]]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Enters the pretend accelerator: what is computed inside its block is computed there.

    Nothing may be refused there, also where somebody catches the error.
    """
    if reason := pretend.missing():
        pytest.skip(reason)
    made = Accelerator.__init__

    def make(self: Accelerator, *args: Any, mixed_precision: str = "no", **kwargs: Any) -> None:
        # accelerate knows float16 on devices of its own list alone, and its scaler for CUDA.
        half = mixed_precision == "fp16"
        # Here, since the variable is one of those that accelerate is not shown.
        with mock.patch.dict("os.environ", ACCELERATE_TORCH_DEVICE=pretend.NAME):
            made(self, *args, mixed_precision="no" if half else mixed_precision, **kwargs)
        if half:
            self.state._mixed_precision, self.native_amp = "fp16", True
            self.scaler = torch.amp.GradScaler(pretend.NAME)

    @contextmanager
    def plugged_in() -> Iterator[pretend.Pretend]:
        # Accelerate keeps the first device that it was given.
        AcceleratorState._reset_state(reset_partial_state=True)
        with (
            mock.patch.object(Accelerator, "__init__", make),
            pretend.Pretend() as there,
        ):
            yield there
        AcceleratorState._reset_state(reset_partial_state=True)
        assert not there.mixed, there.mixed

    yield plugged_in
    AcceleratorState._reset_state(reset_partial_state=True)  # where the block ended with an error


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Gradients in float16 overflow while they are scaled by more than 2**15: at the first step, where it is 2**16.

    Filled with the scales that there were.
    """
    scaled, scales = torch.amp.GradScaler.scale, list[float]()

    def scale(self: torch.amp.GradScaler, outputs: Any) -> Any:
        large = scaled(self, outputs)
        now = pretend.raw(self._scale)
        scales.extend([float(now)] if now > 2**15 else [])
        return large * torch.inf if now > 2**15 else large

    monkeypatch.setattr(torch.amp.GradScaler, "scale", scale)
    return scales
