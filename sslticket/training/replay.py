"""A step of a small network as one launch: what the device does is written down once, and then done again and again.

The host takes five to ten times as long to launch a small network's kernels as a GPU takes to run them. A graph of them
is launched at once. It reads and writes the same memory each time, so images and learning rates are copied into the
memory that it was written down with. Python code runs no more: what it counts is counted here, and what it decides has
to be the same in every step (`Objective.steady`).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from sslticket.data.loader import Batch, Loader
from sslticket.data.resident import ResidentLoader
from sslticket.fit import SGD, Adam, Fit
from sslticket.training import numerics
from sslticket.training.net import Net
from sslticket.training.numerics import size_of
from sslticket.training.passes import Passes

_WARM = 3  # steps before: libraries choose their algorithms, and the optimiser makes its state


class Uncapturable(Exception):
    """A step cannot be written down, for the reason that is told."""


class Graph(Protocol):
    """Work of a device that can be launched as one."""

    def capture(self) -> AbstractContextManager[None]:
        """Writes down what is called inside; nothing of it is done.

        Raises:
            RuntimeError: inside or at the end, where something cannot be written down.
        """

    def replay(self) -> None:
        """Does what was written down."""


class CudaGraph:
    """CUDA's own.

    Attributes:
        failed: those whose capture failed in this process. Torch's allocator goes on asking them whose memory is
            wanted, so they stay.
    """

    failed: ClassVar[list["CudaGraph"]] = []

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    @contextmanager
    def capture(self) -> Iterator[None]:
        """See the protocol."""
        stream = torch.cuda.current_stream()
        try:
            # Other threads may talk to the device meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                yield
        except BaseException:
            torch.cuda.set_stream(stream)  # torch leaves its own in place
            self.failed.append(self)
            # The generator would go on as in a capture, and refuse to draw. What it draws next it is seeded for.
            device = torch.cuda.current_device()
            torch.cuda.default_generators[device].graphsafe_set_state(torch.Generator(f"cuda:{device}"))
            raise

    def replay(self) -> None:
        """See the protocol."""
        self._graph.replay()


GRAPHS: dict[str, Callable[[], Graph]] = {"cuda": CudaGraph}
"""By the type of a device."""


def graph_for(device: torch.device, net: Net, batches: Loader, fit: Fit) -> Callable[[], Graph] | None:
    """What makes the graph of a training, where the device has graphs and this training's steps are alike and small.

    A capture that failed is not tried again in the same process: the next would fail too, and each leaves something.
    """
    optimizers = [fit.optimizer] if net.learning is None else [fit.optimizer, net.learning.optimizer]
    fits = (
        net.objective.steady
        and isinstance(batches, ResidentLoader)
        and all(isinstance(each, SGD | Adam) for each in optimizers)
        and size_of(net.backbone) <= numerics.SMALL
        and not CudaGraph.failed
    )
    return GRAPHS.get(device.type) if fits else None


class Replay:
    """The steps of one training: the first few as they are, and then by a graph."""

    def __init__(self, make: Callable[[], Graph], optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        """Makes learning rates of the optimiser tensors on the device, which a graph can read anew in each step.

        They are float32 there, as torch's kernels want them, and not the host's float64.
        """
        self._make, self._warm, self._optimizer = make, _WARM, optimizer
        self._graph: Graph | None = None
        self._batch: Batch | None = None
        for group in optimizer.param_groups:
            group["lr"] = torch.full((), float(group["lr"]), device=device)

    def __call__(self, take: Callable[[Batch, float], Tensor], batch: Batch, progress: float, passes: Passes) -> Tensor:
        """The loss of a step, which `take` would return, (); and all that it does.

        Args:
            take: the step; what it does depends on the batch, and not on the progress.
            batch: its images, as many as in all steps.
            progress: of the training.
            passes: that `take` counts.

        Raises:
            Uncapturable: nothing of the step has been done, but random numbers may have been drawn for it.
        """
        # From the first step on in the memory that the graph reads: where images begin at another multiple of a few
        # bytes cuDNN looks for an algorithm anew, and no capture holds that.
        held = self._held(batch)
        if self._warm:
            self._warm -= 1
            return take(held, progress)
        before = passes.forward, passes.backward
        if self._graph is None:
            try:
                self._graph = self._written_down(take, held, progress)
            except RuntimeError as error:
                passes.forward, passes.backward = before
                # CUDA says at the end that something went wrong before; that is what tells more, in its first line.
                first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
                raise Uncapturable(str(first).partition("\n")[0] or type(first).__name__) from error
            self._counts = passes.forward - before[0], passes.backward - before[1]
        else:
            passes.forward, passes.backward = (sum(pair) for pair in zip(before, self._counts, strict=True))
        self._graph.replay()
        return self._loss.clone()

    def _held(self, batch: Batch) -> Batch:
        """The batch in memory that stays the same."""
        if self._batch is None:
            self._batch = Batch(tuple(view.clone() for view in batch.views), batch.label.clone(), batch.row.clone())
        else:
            for old, new in zip(_tensors(self._batch), _tensors(batch), strict=True):
                old.copy_(new)
        return self._batch

    def _written_down(self, take: Callable[[Batch, float], Tensor], batch: Batch, progress: float) -> Graph:
        graph = self._make()
        self._capturable(True)
        try:
            with graph.capture():
                self._loss = take(batch, progress)
        except RuntimeError:
            self._capturable(False)
            raise
        return graph

    def _capturable(self, now: bool) -> None:
        """Adam wants to be told, and warns of it where it takes a step by itself."""
        for group in self._optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = now


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    return (*batch.views, batch.label, batch.row)
