"""Where and how a run computes: none of it decides which tickets come out, so none of it is in a recipe's key."""

import os
from dataclasses import dataclass
from pathlib import Path

from sslticket.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Settings of the machine at hand.

    Attributes:
        data_root: folder of the dataset; None looks in $SSLTICKET_DATA and the system's places.
        threads: that decode images, per process; None for the processors there are, shared by the local processes.
        accumulate: parts in which a process's share of a batch goes through the network, to save memory.
        channels_last: memory layout of images and weights; faster on GPUs with tensor cores.
        compile: compile the backbone with torch.compile.
        max_bad_images: unreadable images that are skipped before a run gives up.
    """

    data_root: Path | None = None
    threads: int | None = None
    accumulate: int = 1
    channels_last: bool = False
    compile: bool = False
    max_bad_images: int = 100

    def __post_init__(self) -> None:
        if self.accumulate < 1 or (self.threads is not None and self.threads < 1):
            raise BadInput("--accumulate and --threads count from 1")
        if self.max_bad_images < 0:
            raise BadInput("--max-bad-images cannot be negative; 0 stops at the first unreadable image")

    @property
    def decoders(self) -> int:
        """Threads that decode images in this process."""
        if self.threads is not None:
            return self.threads
        return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
