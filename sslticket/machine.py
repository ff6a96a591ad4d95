"""Where and how a run computes: none of it decides which tickets come out, so none of it is in a recipe's key."""

import os
from dataclasses import dataclass
from pathlib import Path

from sslticket.errors import BadInput
from sslticket.units import Span


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Settings of the machine at hand.

    Attributes:
        data_root: folder of the dataset; None looks in $SSLTICKET_DATA and the system's places.
        threads: that decode images, per process; None for the processors there are, shared by the local processes.
        accumulate: parts in which a process's share of a batch goes through the network, to save memory; None for as
            many as the device's memory asks for, where that changes nothing.
        channels_last: memory layout of images and weights; faster on GPUs with tensor cores.
        compile: compile the backbone with torch.compile.
        max_bad_images: unreadable images that are skipped before a run gives up.
        probe: how often the accuracy of a nearest-neighbour probe on the frozen features is measured in a training,
            such as "10ep" or "500it", and at its end; None never does.
        tensorboard: write TensorBoard's event files to the run's folder.
    """

    data_root: Path | None = None
    threads: int | None = None
    accumulate: int | None = None
    channels_last: bool = False
    compile: bool = False
    max_bad_images: int = 100
    probe: str | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if any(count is not None and count < 1 for count in (self.accumulate, self.threads)):
            raise BadInput("--accumulate and --threads count from 1")
        if self.max_bad_images < 0:
            raise BadInput("--max-bad-images cannot be negative; 0 stops at the first unreadable image")
        if self.probe is not None and Span.parse(self.probe).amount <= 0:
            raise BadInput(f"a probe every {self.probe} never ends; give --probe a length such as 10ep")

    def part(self, batch_size: int) -> int:
        """Images of a global batch that go through the network at once, in this process."""
        return batch_size // (int(os.environ.get("WORLD_SIZE", "1")) * (self.accumulate or 1))

    @property
    def decoders(self) -> int:
        """Threads that decode images in this process."""
        if self.threads is not None:
            return self.threads
        return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
