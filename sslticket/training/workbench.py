"""What every training needs beside net and data: the accelerator, and loaders and loops built for it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object

from sslticket.data.loader import Loader
from sslticket.data.opening import Source, loader
from sslticket.data.order import Labelled, Order
from sslticket.data.views import View
from sslticket.errors import BadInput
from sslticket.fit import Fit
from sslticket.machine import Machine
from sslticket.recipe import Precision
from sslticket.training.listeners import StatusFile, TensorBoard, writer
from sslticket.training.loop import Loop
from sslticket.training.net import Net
from sslticket.training.numerics import Numerics, compile_parts, is_compiled, size_of
from sslticket.training.progress import Listener, Progress
from sslticket.training.replay import graph_for

Value = TypeVar("Value")
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass
class Workbench:
    """Builds trainings on the machine at hand, alike for searches and evaluations."""

    machine: Machine
    precision: Precision
    accelerator: Accelerator

    @classmethod
    def on(cls, machine: Machine, precision: Precision | None) -> "Workbench":
        """The workbench of this process, whatever launched it; torch's settings of the process become the machine's.

        Args:
            machine: at hand.
            precision: of the passes; None for the device's own.

        Raises:
            BadInput: if the device cannot compute at this precision, or TensorBoard was asked for and is not there.
        """
        if machine.tensorboard:
            writer()
        if precision == "fp16" and not torch.accelerator.is_available():
            raise BadInput("--precision fp16 does not work here: it needs a GPU; give bf16 or fp32")
        numerics = Numerics.of(machine, precision)
        # The accelerator's state is global and keeps the first precision it was given; each workbench has its own.
        AcceleratorState._reset_state()
        try:
            # Left to itself, accelerate would run launched CPU processes side by side, each on its own.
            accelerator = Accelerator(
                mixed_precision=_MIXED[numerics.precision], cpu=not torch.accelerator.is_available()
            )
        except ValueError as error:
            raise BadInput(
                f"--precision {numerics.precision} does not work here: {str(error).splitlines()[0]}"
            ) from error
        assert accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1")), "launched processes do not meet"
        numerics.apply()
        return cls(machine, numerics.precision, accelerator)

    @property
    def numerics(self) -> Numerics:
        """How trainings compute here, before it is known which."""
        return Numerics.of(self.machine, self.precision)

    def numerics_of(self, net: Net, steps: int) -> Numerics:
        """How a net's training of so many steps, all in all, computes here."""
        return self.numerics.over(steps, size=size_of(net.backbone), steady=net.objective.steady)

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks; the others only compute."""
        return bool(self.accelerator.is_main_process)

    def check_batch(self, batch_size: int) -> None:
        """Whether a global batch can be shared by the processes and cut into the parts they accumulate.

        Raises:
            BadInput: naming the multiple that would do.
        """
        processes, parts = self.accelerator.num_processes, self.machine.accumulate
        if batch_size % (processes * parts):
            raise BadInput(
                f"a batch of {batch_size} cannot be shared by {processes} processes in {parts} parts each; "
                f"give --batch-size a multiple of {processes * parts}"
            )

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
            channels_last=self.numerics.channels_last,
        )

    @contextmanager
    def prepared(self, net: Net, steps: int = 0) -> Iterator[torch.nn.Module]:
        """The net on its device, in the wrappers that distribution and mixed precision need, until the block ends.

        Args:
            net: as drawn; it is compiled where that is asked for, or pays.
            steps: that it will be trained, all in all.
        """
        numerics = self.numerics_of(net, steps)
        if numerics.channels_last:
            net.to(memory_format=torch.channels_last)
        if numerics.compiled:
            compile_parts(net)
        wrapped: torch.nn.Module = self.accelerator.prepare_model(net)
        try:
            yield wrapped
        finally:
            self.accelerator.free_memory()

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
        """The training of a prepared net, with a fresh optimiser."""
        if self.accelerator.scaler is not None:
            # One a training: what a level has taught it must not reach the next, or a restart would not repeat it.
            self.accelerator.scaler = torch.amp.GradScaler(self.accelerator.device.type)
        return Loop(
            self.accelerator,
            net,
            wrapped,
            batches,
            fit,
            set_size=set_size,
            seed=seed,
            accumulate=self.machine.accumulate,
            progress=progress,
            graph=graph_for(self.accelerator.device, net, batches, fit) if self._may_replay(net) else None,
        )

    def _may_replay(self, net: Net) -> bool:
        """Whether steps may be launched as graphs: one process and one part, without a scaler and as the net is."""
        alone = self.accelerator.num_processes == self.machine.accumulate == 1
        return alone and not self.machine.exact and self.accelerator.scaler is None and not is_compiled(net)

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
            f"cpu, {torch.get_num_threads()} threads"
            if device.type == "cpu"
            else torch.get_device_module(device).get_device_name(device)
        )
        return f"{processes} x {name}" if processes > 1 else name
