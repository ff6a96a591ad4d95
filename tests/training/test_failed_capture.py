"""What a failed capture of a CUDA graph leaves behind is put in order; CUDA's own parts are played by stand-ins."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from sslticket.data.loader import Batch
from sslticket.training.network import PassCounter
from sslticket.training.numerics import CudaStepGraph, GraphReplay, NotCapturable


class Generator:
    """Remembers whose state it was given."""

    given: Any = None

    def graphsafe_set_state(self, other: object) -> None:
        self.given = other


class Fresh(torch.Generator):
    """A generator of a device that is not there."""

    def __new__(cls, device: str) -> "Fresh":
        made = super().__new__(cls, "cpu")  # type: ignore[call-arg]  # torch takes it
        made.wanted = device
        return made

    wanted: str


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """CUDA's parts that a capture touches; a capture that failed inside fails at its end too, on torch's stream."""
    there = SimpleNamespace(stream="own", generator=Generator())

    @contextmanager
    def graph(graph: object, capture_error_mode: str) -> Iterator[None]:
        there.stream = "torch's"
        try:
            yield
        except RuntimeError:
            raise RuntimeError("operation failed due to a previous error during capture") from None
        there.stream = "own"

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: there.stream)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(there, "stream", stream))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "default_generators", (there.generator,))
    monkeypatch.setattr(torch, "Generator", Fresh)
    monkeypatch.setattr(CudaStepGraph, "failed", [])
    return there


def attempt(fails: bool) -> None:
    """Three steps as they are, and one by a graph."""
    weight = torch.zeros(2, requires_grad=True)
    steps = GraphReplay(CudaStepGraph, torch.optim.SGD([weight], lr=0.1), torch.device("cpu"))
    batch, passes = (
        Batch((torch.zeros(1, 1, 2, 2),), torch.zeros(1), torch.zeros(1)),
        cast(PassCounter, SimpleNamespace()),
    )
    passes.forward = passes.backward = 0

    def take(batch: Batch, progress: float) -> Tensor:
        passes.forward += 1
        if fails and passes.forward > 3:
            raise RuntimeError("the host would wait\nand much more")
        return torch.zeros(())

    for _ in range(3):
        steps(take, batch, 0.0, passes)
    steps(take, batch, 0.0, passes)


def test_after_a_failed_capture_stream_and_generator_are_as_before(cuda: SimpleNamespace) -> None:
    with pytest.raises(NotCapturable, match=r"^the host would wait$"):
        attempt(fails=True)
    assert cuda.stream == "own"
    assert cuda.generator.given.wanted == "cuda:0"
    assert len(CudaStepGraph.failed) == 1


def test_a_capture_that_succeeds_changes_no_generator(cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaStepGraph, "replay", lambda self: None)
    attempt(fails=False)
    assert cuda.stream == "own"
    assert cuda.generator.given is None
    assert not CudaStepGraph.failed


def test_all_steps_see_their_images_in_the_same_memory(cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a library would look for its algorithm again inside the capture."""
    monkeypatch.setattr(CudaStepGraph, "replay", lambda self: None)
    steps = GraphReplay(
        CudaStepGraph, torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1), torch.device("cpu")
    )
    seen: list[tuple[int, float]] = []

    def take(batch: Batch, progress: float) -> Tensor:
        seen.append((batch.views[0].data_ptr(), float(batch.views[0].mean())))
        return torch.zeros(())

    whole = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 3, 3).contiguous()
    for view in whole.chunk(4):
        steps(
            take,
            Batch((view,), torch.zeros(1), torch.zeros(1)),
            0.0,
            cast(PassCounter, SimpleNamespace(forward=0, backward=0)),
        )
    assert len({place for place, _ in seen}) == 1
    assert [mean for _, mean in seen] == [0.0, 1.0, 2.0, 3.0]
