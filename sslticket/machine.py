"""Where and how a run computes: none of it decides which tickets come out, so none of it is in a recipe's key.

What changes the rounding is told in every row all the same, see `sslticket.training.numerics`. What batch norm sees of
a batch would be decided here, by the number of processes and of parts; so a recipe says it (`Fit.ghost_batch`), and
parts follow.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from sslticket import processes as launched
from sslticket.errors import BadInput
from sslticket.units import Span


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Settings of the machine at hand.

    Attributes:
        data_root: folder of the dataset; None looks in $SSLTICKET_DATA and the system's places.
        threads: that decode images, per process; None for the processors there are, shared by the local processes.
        accumulate: parts in which a process's share of a batch goes through the network, to save memory; None for what
            the recipe's ghost batch asks for, or for as many as the device's memory does where that changes nothing.
        exact: turn off what is fast but rounds otherwise, and a GPU takes by itself: bf16, channels-last, TF32, the
            search for cuDNN's fastest algorithms, compiling and CUDA graphs. What other flags ask for they get.
        channels_last: memory layout of images and weights; faster on GPUs with tensor cores. None for yes on CUDA.
        compile: compile network, heads and slow copies with torch.compile. None for yes on CUDA, where it pays: in a
            training of 10,000 steps or more, whose steps are not launched as graphs, and whose statistics of batch norm
            are not shared by several processes.
        max_bad_images: unreadable images that are skipped before a run gives up.
        probe: how often the accuracy of a nearest-neighbour probe on the frozen features is measured in a training,
            such as "10ep" or "500it", and at its end; None never does.
        tensorboard: write TensorBoard's event files to the run's folder.
        timeout: minutes without a sign of life after which a process, of several, is given up and all others end.
    """

    data_root: Path | None = None
    threads: int | None = None
    accumulate: int | None = None
    exact: bool = False
    channels_last: bool | None = None
    compile: bool | None = None
    max_bad_images: int = 100
    probe: str | None = None
    tensorboard: bool = False
    timeout: float = 5.0

    def __post_init__(self) -> None:
        if any(count is not None and count < 1 for count in (self.accumulate, self.threads)):
            raise BadInput("--accumulate and --threads count from 1")
        if self.max_bad_images < 0:
            raise BadInput("--max-bad-images cannot be negative; 0 stops at the first unreadable image")
        if self.probe is not None and Span.parse(self.probe).amount <= 0:
            raise BadInput(f"a probe every {self.probe} never ends; give --probe a length such as 10ep")
        if not 0 < self.timeout < float("inf"):
            raise BadInput(f"no process can be waited for {self.timeout:g} minutes; give --timeout above 0, such as 5")

    @property
    def processes(self) -> int:
        """That train together, on all machines."""
        return launched.world()

    def parts(self, batch: int, ghost: int | None, task: str, *, whole: bool, normalised: bool) -> int:
        """In how many parts this process's share of a global batch goes through the network.

        Args:
            batch: images in a global batch.
            ghost: images of it whose batch-norm statistics are taken together; None for all.
            task: the objective's name.
            whole: the objective compares the images of a batch with each other, so a share has to stay whole.
            normalised: the network has batch norm, so parts without a ghost batch would change what is learnt.

        Raises:
            BadInput: if the batch cannot be shared or cut so, naming what would do.
        """
        share, given = self._share(batch, ghost), self.accumulate or 1
        if whole and given > 1:
            raise BadInput(
                f"{task} compares the images of a batch, so --accumulate must be 1, got {given}; leave it out, and "
                "start more processes or give a smaller --batch-size"
            )
        if ghost is not None and not whole:
            if self.accumulate not in (None, share // ghost):
                raise BadInput(
                    f"--accumulate must be {share // ghost} for a share of {share} in ghost batches of {ghost}, got "
                    f"{given}; leave it out"
                )
            return share // ghost
        if share % given:
            raise BadInput(
                f"--accumulate {given} does not cut the {share} images of a process into equal parts; leave it out, or "
                f"give --batch-size a multiple of {self.processes * given}"
            )
        if normalised and given > 1:
            raise BadInput(
                f"--accumulate must be 1 where batch norm sees the whole batch, got {given}; leave it out; what it "
                f"sees is the recipe's to say, such as --ghost-batch {share // given}"
            )
        return given

    def _share(self, batch: int, ghost: int | None) -> int:
        """Images of a global batch that are this process's."""
        share, odd = divmod(batch, self.processes)
        if odd:
            raise BadInput(
                f"a batch of {batch} cannot be shared by {self.processes} processes; give --batch-size a multiple of "
                f"{self.processes}"
            )
        if ghost is not None and share % ghost:
            counts = [count for count in range(1, batch // ghost + 1) if batch // ghost % count == 0]
            raise BadInput(
                f"a batch of {batch} in ghost batches of {ghost} cannot be shared by {self.processes} processes; start "
                f"{' or '.join(map(str, counts))} (--nproc-per-node of torchrun, --num_processes of accelerate launch)"
            )
        return share

    def part(self, batch: int, ghost: int | None, task: str, *, whole: bool, normalised: bool) -> int:
        """Images of a global batch that an objective sees at once, in this process; see `parts`."""
        return batch // (self.processes * self.parts(batch, ghost, task, whole=whole, normalised=normalised))

    @property
    def decoders(self) -> int:
        """Threads that decode images in this process."""
        if self.threads is not None:
            return self.threads
        return max(1, len(os.sched_getaffinity(0)) // launched.local_world())
