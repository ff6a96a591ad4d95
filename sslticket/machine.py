"""Where and how a run computes: none of it decides which tickets come out, so none of it is in a recipe's key.

What changes the rounding is told in every row all the same, see `sslticket.training.numerics`.
"""

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
        accumulate: parts in which a process's share of a batch goes through the network, to save memory.
        exact: turn off what is fast but rounds otherwise, and a GPU takes by itself: bf16, channels-last, TF32, the
            search for cuDNN's fastest algorithms, compiling and CUDA graphs. What other flags ask for they get.
        channels_last: memory layout of images and weights; faster on GPUs with tensor cores. None for yes on CUDA.
        compile: compile network, heads and slow copies with torch.compile. None for yes on CUDA, where a training has
            10,000 steps or more, so that it pays.
        max_bad_images: unreadable images that are skipped before a run gives up.
        probe: how often the accuracy of a nearest-neighbour probe on the frozen features is measured in a training,
            such as "10ep" or "500it", and at its end; None never does.
        tensorboard: write TensorBoard's event files to the run's folder.
        timeout: minutes without a sign of life after which a process, of several, is given up and all others end.
    """

    data_root: Path | None = None
    threads: int | None = None
    accumulate: int = 1
    exact: bool = False
    channels_last: bool | None = None
    compile: bool | None = None
    max_bad_images: int = 100
    probe: str | None = None
    tensorboard: bool = False
    timeout: float = 5.0

    def __post_init__(self) -> None:
        if self.accumulate < 1 or (self.threads is not None and self.threads < 1):
            raise BadInput("--accumulate and --threads count from 1")
        if self.max_bad_images < 0:
            raise BadInput("--max-bad-images cannot be negative; 0 stops at the first unreadable image")
        if self.probe is not None and Span.parse(self.probe).amount <= 0:
            raise BadInput(f"a probe every {self.probe} never ends; give --probe a length such as 10ep")
        if not 0 < self.timeout < float("inf"):
            raise BadInput(f"no process can be waited for {self.timeout:g} minutes; give --timeout above 0, such as 5")

    def part(self, batch_size: int) -> int:
        """Images of a global batch that go through the network at once, in this process."""
        return batch_size // (int(os.environ.get("WORLD_SIZE", "1")) * self.accumulate)

    @property
    def decoders(self) -> int:
        """Threads that decode images in this process."""
        if self.threads is not None:
            return self.threads
        return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
