"""What every training needs beside net and data: the accelerator, and loaders and loops built for it."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    KwargsHandler,
    broadcast_object_list,
    gather_object,
)

from sslticket import processes, surroundings
from sslticket.data.loader import Loader
from sslticket.data.opening import Source, loader
from sslticket.data.order import Labelled, Order
from sslticket.data.views import View
from sslticket.errors import BadInput
from sslticket.fit import Fit
from sslticket.machine import Machine
from sslticket.objectives import batchnorm
from sslticket.recipe import Precision
from sslticket.training.agreement import Fact, difference, program, settings
from sslticket.training.listeners import StatusFile, TensorBoard, writer
from sslticket.training.loop import Loop
from sslticket.training.memory import Needs, Room, images, smallest_parts
from sslticket.training.net import Net
from sslticket.training.numerics import Numerics, compile_parts, is_compiled, size_of
from sslticket.training.progress import Listener, Progress
from sslticket.training.replay import graph_for

Value = TypeVar("Value")
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_LAG = 90.0  # seconds until all machines see a file that one of them has written: NFS looks again after up to 60
_STUCK = 30.0  # minutes that an operation of all processes may take; nobody works alone meanwhile


@dataclass
class Workbench:
    """Builds trainings on the machine at hand, alike for searches and evaluations.

    Attributes:
        machine: its settings.
        precision: of the passes.
        accelerator: of this process.
        cut: parts in which a share goes through the network for want of memory, where nothing else says it.
    """

    machine: Machine
    precision: Precision
    accelerator: Accelerator
    cut: int | None = None

    @classmethod
    def on(cls, machine: Machine, precision: Precision | None) -> "Workbench":
        """The workbench of this process, whatever launched it; torch's settings of the process become the machine's.

        Args:
            machine: at hand.
            precision: of the passes; None for the device's own.

        Raises:
            BadInput: if the device cannot compute at this precision, TensorBoard was asked for and is not there, or
                launched processes do not meet.
        """
        if machine.tensorboard:
            writer()
        if not torch.distributed.is_initialized():  # who starts processes by other means has done that too
            processes.check()
        processes.patience(machine.timeout * 60)
        if precision == "fp16" and not torch.accelerator.is_available():
            raise BadInput("--precision fp16 does not work here: it needs a GPU; give bf16 or fp32")
        numerics = Numerics.of(machine, precision)
        # The accelerator's state is global and keeps the first precision it was given; each workbench has its own.
        AcceleratorState._reset_state()
        try:
            # Left to itself, accelerate would run launched CPU processes side by side, each on its own.
            processes.assemble()
            with _hidden():
                accelerator = Accelerator(
                    mixed_precision=_MIXED[numerics.precision],
                    cpu=surroundings.cpu_only() or not torch.accelerator.is_available(),
                    kwargs_handlers=_together(machine),
                )
        except ValueError as error:
            raise BadInput(
                f"--precision {numerics.precision} does not work here: {str(error).splitlines()[0]}"
            ) from error
        if accelerator.num_processes != processes.world():
            raise BadInput(
                f"the launcher started {processes.world()} processes, and {accelerator.num_processes} have met; use "
                "torchrun or accelerate launch, and unset what other launchers, such as mpirun, have set"
            )
        numerics.apply()
        return cls(machine, numerics.precision, accelerator)

    @property
    def numerics(self) -> Numerics:
        """How trainings compute here, before it is known which."""
        return Numerics.of(self.machine, self.precision)

    def numerics_of(self, net: Net, steps: int, fit: Fit | None = None) -> Numerics:
        """How a net's training of so many steps, all in all, computes here."""
        ghost_batch = None if fit is None else fit.ghost_batch
        return self.numerics.over(
            steps, size=size_of(net.backbone), steady=net.objective.steady, ghost_batch=ghost_batch
        )

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
        parts = self.machine.parts(
            fit.batch_size, fit.ghost_batch, objective.name, whole=objective.whole_batch, normalised=normalised
        )
        return self.cut if self.cut is not None and self._may_cut(net, fit) else parts

    def _may_cut(self, net: Net, fit: Fit) -> bool:
        """Whether the number of parts is nobody's but the device's: nothing gives it, and it changes nothing."""
        given = self.machine.accumulate is not None or fit.ghost_batch is not None
        return not (given or net.objective.whole_batch or batchnorm.layers(net))

    def make_room(self, net: Net, fit: Fit, needs: Needs | None, *, recipe: bool = False) -> str:
        """See that a training fits on this process's device, in parts that are small enough where they may be.

        Args:
            net: that is trained; not on the device yet.
            fit: how.
            needs: what it needs; None where nobody can tell.
            recipe: it is a recipe's, which has flags; a protocol has none.

        Returns:
            What was decided, for a person, or "".

        Raises:
            BadInput: if it cannot fit, with what would help.
        """
        self.cut = None
        room = Room.on(self.accelerator.device)
        if needs is None or room is None:
            return ""
        share = fit.batch_size // self.accelerator.num_processes
        parts, fitting = self.parts(net, fit), smallest_parts(needs, share, room.free)
        if self._may_cut(net, fit):
            # All processes alike: dropout draws for each part by its number.
            self.cut = parts = max(gather_object([fitting]))
        fixes = ["more processes"] if share > 1 else []
        fits = needs.need(share // fitting).total <= room.free
        if recipe and fits and not net.objective.whole_batch:
            fixes.insert(0, f"--ghost-batch {share // fitting} (another recipe)")
        if self.precision == "fp32":
            fixes.append("--precision bf16")
        if warning := room.check(needs.need(share // parts), *fixes, "a device with more memory"):
            return warning
        told = f"a share of {images(share)} goes through the network in {parts} parts, which the device's memory holds"
        return told if self.cut is not None and parts > 1 else ""

    def check_batch(self, fit: Fit) -> None:
        """Whether a protocol's batch can be shared by the processes, before there is a net.

        Raises:
            BadInput: naming what would do; a protocol has no flags.
        """
        count = self.accelerator.num_processes
        if fit.batch_size % count:
            fewer = next(each for each in range(count - 1, 0, -1) if fit.batch_size % each == 0)
            raise BadInput(
                f"the protocol's batch of {fit.batch_size} cannot be shared by {count} processes; start {fewer}, or "
                "another number that divides it"
            )
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
            channels_last=self.numerics.channels_last,
        )

    @contextmanager
    def prepared(self, net: Net, steps: int = 0, fit: Fit | None = None) -> Iterator[torch.nn.Module]:
        """The net on its device, in the wrappers that distribution and mixed precision need, until the block ends.

        Args:
            net: as drawn; it is compiled where that is asked for, or pays.
            steps: that it will be trained, all in all.
            fit: how; None where it will not be.
        """
        numerics = self.numerics_of(net, steps, fit)
        if numerics.channels_last:
            net.to(memory_format=torch.channels_last)
        if numerics.compiled:
            compile_parts(net)
        with warnings.catch_warnings():
            # Newer torch has another name for it, which older ones and accelerate do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            with _hidden():
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
        if self.accelerator.scaler is not None:
            # One a training: what a level has taught it must not reach the next, or a restart would not repeat it.
            self.accelerator.scaler = torch.amp.GradScaler(self.accelerator.device.type)
        parts = self.arranged(net, fit)
        replayed = parts == 1 and self._may_replay(net)
        return Loop(
            self.accelerator,
            net,
            wrapped,
            batches,
            fit,
            set_size=set_size,
            seed=seed,
            parts=parts,
            progress=progress,
            graph=graph_for(self.accelerator.device, net, batches, fit) if replayed else None,
        )

    def _may_replay(self, net: Net) -> bool:
        """Whether steps of one part may be launched as graphs: in one process, without a scaler, and as the net is."""
        return (
            self.accelerator.num_processes == 1
            and not self.machine.exact
            and self.accelerator.scaler is None
            and not is_compiled(net)
        )

    def agreed(self, value: Value) -> Value:
        """The first process's value, on all of them: where files decide, one looks and the others follow."""
        processes.assemble()
        found: Value = broadcast_object_list([value])[0]
        return found

    def gathered(self, value: Value) -> list[Value]:
        """The values of all processes, by rank, on each of them."""
        processes.assemble()
        found: list[Value] = gather_object([value])
        return found

    def compare(self, facts: Mapping[str, Fact]) -> None:
        """See that all processes are about to do the same, with the same program on the same kind of machine.

        Args:
            facts: what else must be the same, in the order in which differences are told.

        Raises:
            BadInput: on all processes, telling who differs in what from process 0, and the fix.
        """
        if self.accelerator.num_processes == 1:
            return
        told = self.gathered(program() | settings(self.machine) | dict(facts))
        if odd := difference(told):
            raise BadInput(odd)

    def sights(self, look: Callable[[], Value]) -> list[Value]:
        """What each process sees, by rank, when all see the same, or when that has taken too long."""
        late, pause = time.monotonic() + _LAG, 0.05
        while True:
            processes.assemble()  # what one of them writes before it comes here is there when they look
            seen = self.gathered(look())
            if all(one == seen[0] for one in seen) or self.agreed(time.monotonic() > late):
                return seen
            time.sleep(pause)
            pause = min(1.0, 2 * pause)

    def shared(self, path: Path) -> None:
        """Wait until all processes see a file that the first has written.

        Raises:
            BadInput: if one does not.
        """
        if blind := [str(rank) for rank, seen in enumerate(self.sights(path.exists)) if not seen]:
            raise BadInput(f"{path} is not visible to process {', '.join(blind)}; give --out on a shared folder")

    def listeners(self, run: Path, name: str) -> tuple[Listener, ...]:
        """Who listens to a training of this name in a run's folder: on the first process only."""
        if not self.first:
            return ()
        board = (TensorBoard(run / "tensorboard" / name),) if self.machine.tensorboard else ()
        return (StatusFile(run), *board)

    def bad_images(self, *loaders: Loader) -> dict[str, str]:
        """Images that any process could not read, with the reasons."""
        found = self.gathered([dict(batches.bad) for batches in loaders])
        return {path: reason for own in found for part in own for path, reason in part.items()}

    @property
    def device_name(self) -> str:
        """What computed, for the rows."""
        processes = self.accelerator.num_processes
        device = self.accelerator.device
        if device.type == "cpu":
            name = f"cpu, {torch.get_num_threads()} threads"
        else:  # not every kind of device has names
            named = getattr(torch.get_device_module(device), "get_device_name", None)
            name = named(device) if named is not None else device.type
        return f"{processes} x {name}" if processes > 1 else name


def _hidden() -> AbstractContextManager[None]:
    """While this lasts, accelerate sees of the environment what we have not decided."""
    return surroundings.hidden(processes.world() == 1 and not torch.distributed.is_initialized())


def _together(machine: Machine) -> list[KwargsHandler]:
    """How processes train together."""
    return [
        # Masks, and what else a step changes, are equal by construction, or one process's own until they are shared.
        DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
        # Of processes that are gone `processes` tells, and at once. This is for networks that are.
        InitProcessGroupKwargs(timeout=timedelta(minutes=max(_STUCK, machine.timeout))),
    ]
