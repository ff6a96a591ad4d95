"""What every training needs beside net and data: the accelerator, and loaders and loops built for it."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, gather_object

from sslticket.data.loader import Loader
from sslticket.data.opening import Source, loader
from sslticket.data.order import Labelled, Order
from sslticket.data.views import View
from sslticket.errors import BadInput
from sslticket.fit import Fit
from sslticket.machine import Machine
from sslticket.objectives import batchnorm
from sslticket.recipe import Precision
from sslticket.training.listeners import StatusFile, TensorBoard, writer
from sslticket.training.loop import Loop
from sslticket.training.net import Net
from sslticket.training.progress import Listener, Progress

Value = TypeVar("Value")
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass
class Workbench:
    """Builds trainings on the machine at hand, alike for searches and evaluations."""

    machine: Machine
    precision: Precision
    accelerator: Accelerator

    @classmethod
    def on(cls, machine: Machine, precision: Precision) -> "Workbench":
        """The workbench of this process, whatever launched it.

        Raises:
            BadInput: if the device cannot compute at this precision, or TensorBoard was asked for and is not there.
        """
        if machine.tensorboard:
            writer()
        if precision == "fp16" and not torch.accelerator.is_available():
            raise BadInput("--precision fp16 does not work here: it needs a GPU; give bf16 or fp32")
        # The accelerator's state is global and keeps the first precision it was given; each workbench has its own.
        AcceleratorState._reset_state()
        try:
            # Left to itself, accelerate would run launched CPU processes side by side, each on its own.
            accelerator = Accelerator(
                mixed_precision=_MIXED[precision],
                cpu=not torch.accelerator.is_available(),
                # Running statistics are each process's own until they are shared, by their means.
                kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
            )
        except ValueError as error:
            raise BadInput(f"--precision {precision} does not work here: {str(error).splitlines()[0]}") from error
        assert accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1")), "launched processes do not meet"
        return cls(machine, precision, accelerator)

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks; the others only compute."""
        return bool(self.accelerator.is_main_process)

    def parts(self, net: Net, fit: Fit) -> int:
        """In how many parts this process's share of a global batch goes through a net, in training and for scores.

        Raises:
            BadInput: if the batch cannot be shared or cut so, naming what would do.
        """
        normalised, objective = bool(batchnorm.layers(net)), net.objective
        return self.machine.parts(
            fit.batch_size, fit.ghost_batch, objective.name, whole=objective.whole_batch, normalised=normalised
        )

    def check_batch(self, fit: Fit) -> None:
        """Whether a global batch of labelled images can be shared by the processes, before there is a net.

        Raises:
            BadInput: naming what would do.
        """
        self.machine.parts(fit.batch_size, fit.ghost_batch, "supervised", whole=False, normalised=False)

    def arranged(self, net: Net, fit: Fit) -> int:
        """Let a net's batch norm see what the training says, however many processes there are; returns `parts`."""
        parts, whole = self.parts(net, fit), net.objective.whole_batch
        batchnorm.arrange(
            net,
            batch_size=fit.batch_size,
            ghost_batch=fit.ghost_batch,
            processes=self.accelerator.num_processes,
            whole=whole,
        )
        return parts

    def loader(
        self,
        source: Source,
        views: tuple[View, ...],
        *,
        batch_size: int,
        order: int,
        augment: int,
        labelled: Labelled | None = None,
    ) -> Loader:
        """Batches of these views of the source's images, this process's share."""
        processes = self.accelerator.num_processes
        return loader(
            source,
            views,
            Order(len(source.manifest), batch_size, order, self.accelerator.process_index, processes, labelled),
            augment_seed=augment,
            device=self.accelerator.device,
            threads=self.machine.decoders,
            max_bad_images=self.machine.max_bad_images,
            channels_last=self.machine.channels_last,
        )

    @contextmanager
    def prepared(self, net: Net) -> Iterator[torch.nn.Module]:
        """The net on its device, in the wrappers that distribution and mixed precision need, until the block ends."""
        if self.machine.channels_last:
            net.to(memory_format=torch.channels_last)
        if self.machine.compile:
            net.backbone.compile()
        with warnings.catch_warnings():
            # Newer torch has another name for it, which older ones and accelerate do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            wrapped: torch.nn.Module = self.accelerator.prepare_model(net)
        try:
            yield wrapped
        finally:
            self.accelerator.free_memory()
            batchnorm.plain(net)

    def loop(
        self,
        net: Net,
        wrapped: torch.nn.Module,
        batches: Loader,
        fit: Fit,
        *,
        set_size: int,
        seed: int,
        progress: Progress,
    ) -> Loop:
        """The training of a prepared net, with a fresh optimiser.

        Raises:
            BadInput: if the batch cannot be shared or cut so, see `parts`.
        """
        return Loop(
            self.accelerator,
            net,
            wrapped,
            batches,
            fit,
            set_size=set_size,
            seed=seed,
            parts=self.arranged(net, fit),
            progress=progress,
        )

    def agreed(self, value: Value) -> Value:
        """The first process's value, on all of them: where files decide, one looks and the others follow."""
        found: Value = broadcast_object_list([value])[0]
        return found

    def listeners(self, run: Path, name: str) -> tuple[Listener, ...]:
        """Who listens to a training of this name in a run's folder: on the first process only."""
        if not self.first:
            return ()
        board = (TensorBoard(run / "tensorboard" / name),) if self.machine.tensorboard else ()
        return (StatusFile(run), *board)

    def bad_images(self, *loaders: Loader) -> dict[str, str]:
        """Images that any process could not read, with the reasons."""
        found = [dict(batches.bad) for batches in loaders]
        return {path: reason for part in gather_object(found) for path, reason in part.items()}

    @property
    def device_name(self) -> str:
        """What computed, for the rows."""
        processes = self.accelerator.num_processes
        device = self.accelerator.device
        name = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        )
        return f"{processes} x {name}" if processes > 1 else name
