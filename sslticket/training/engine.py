"""The engine of a process: its accelerator, the loaders and loops that are built for it, and the checks that all processes do the same."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

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

from sslticket import processes, provenance
from sslticket.config import runtime
from sslticket.config.recipe import Precision
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import TrainConfig
from sslticket.data.augment import View
from sslticket.data.loader import LabelledStream, Loader, Sampler
from sslticket.data.source import DataSource, make_loader
from sslticket.errors import BadInput
from sslticket.objectives import distributed
from sslticket.training.loop import TrainingLoop
from sslticket.training.memory import DeviceMemory, MemoryModel, format_images, min_accumulation_steps
from sslticket.training.network import MaskedNetwork
from sslticket.training.numerics import Numerics, compile_network, graph_class_for, is_compiled, state_size
from sslticket.training.progress import Progress, Tracker
from sslticket.training.trackers import StatusFileTracker, TensorBoardTracker, tensorboard_writer_class

_SAME_FLAGS_FIX = "give the same flags to every process"
_PER_MACHINE_FIELDS = (
    "data_root",
    "threads",
    "max_bad_images",
    "tensorboard",
    "timeout",
)  # of the machine; they may differ


class Invariant(NamedTuple):
    """What a process has before it, where all must have the same.

    Attributes:
        description: what it is, as a sentence goes on after "process 2": "sees 1,437 training images".
        fix: what to do where another process says otherwise.
    """

    description: str
    fix: str


def flag_invariant(name: str, value: object) -> Invariant:
    """Of a flag, by the name of its field."""
    return Invariant(f"has --{name.replace('_', '-')} {value}", _SAME_FLAGS_FIX)


def program_invariants() -> dict[str, Invariant]:
    """Of the code that runs, and of the libraries that a result depends on."""
    facts = {
        "code": Invariant(f"runs code with the hash {provenance.code_hash()}", "check out one commit on every machine")
    }
    for library, version in provenance.library_versions().items():
        facts[library] = Invariant(f"has {library} {version}", "install the same versions on every machine")
    outside = ", ".join(runtime.rounding_variables("any")) or "no variable"
    facts["surroundings"] = Invariant(f"has {outside} set that changes rounding", "set the same on every machine")
    return facts


def runtime_invariants(machine: RuntimeConfig) -> dict[str, Invariant]:
    """Of those settings of the machine on which a result depends."""
    given = {field.name: getattr(machine, field.name) for field in dataclasses.fields(machine)}
    return {name: flag_invariant(name, value) for name, value in given.items() if name not in _PER_MACHINE_FIELDS}


def first_mismatch(told: Sequence[Mapping[str, Invariant]]) -> str | None:
    """Who says otherwise than process 0, of what, and the fix, in one line; None where all say the same.

    Args:
        told: what each process says, by rank; what they differ in first is told.
    """
    first = told[0]
    for name in dict.fromkeys(name for each in told for name in each):
        says = [each[name].description if name in each else f"has no {name}" for each in told]
        odd = [rank for rank, text in enumerate(says) if text != says[0]]
        if odd:
            alike = [str(rank) for rank in odd[1:] if says[rank] == says[odd[0]]]
            more = f" (and {', '.join(alike)})" if alike else ""
            fix = (first if name in first else told[odd[0]])[name].fix
            return f"process {odd[0]}{more} {says[odd[0]]}, and process 0 {says[0]}; {fix}"
    return None


Value = TypeVar("Value")
_MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_FILE_VISIBILITY_SECONDS = (
    90.0  # seconds until all machines see a file that one of them has written: NFS looks again after up to 60
)
_COLLECTIVE_TIMEOUT_MINUTES = 30.0  # minutes that an operation of all processes may take; nobody works alone meanwhile


@dataclass
class Engine:
    """Builds trainings on the machine at hand, alike for searches and evaluations.

    Attributes:
        runtime: its settings.
        precision: of the passes.
        accelerator: of this process.
        memory_accumulation: parts in which a share goes through the network for want of memory, where nothing else says it.
    """

    runtime: RuntimeConfig
    precision: Precision
    accelerator: Accelerator
    memory_accumulation: int | None = None

    @classmethod
    def create(cls, machine: RuntimeConfig, precision: Precision | None) -> "Engine":
        """The workbench of this process, whatever launched it; torch's settings of the process become the machine's.

        Args:
            machine: at hand.
            precision: of the passes; None for the device's own.

        Raises:
            BadInput: if the device cannot compute at this precision, TensorBoard was asked for and is not there, or
                launched processes do not meet.
        """
        if machine.tensorboard:
            tensorboard_writer_class()
        if not torch.distributed.is_initialized():  # who starts processes by other means has done that too
            processes.check_launch()
        processes.set_patience(machine.timeout * 60)
        if precision == "fp16" and not torch.accelerator.is_available():
            raise BadInput("--precision fp16 does not work here: it needs a GPU; give bf16 or fp32")
        numerics = Numerics.resolve(machine, precision)
        # The accelerator's state is global and keeps the first precision it was given; each workbench has its own.
        AcceleratorState._reset_state()
        try:
            # Left to itself, accelerate would run launched CPU processes side by side, each on its own.
            processes.barrier()
            with _hide_environment():
                accelerator = Accelerator(
                    mixed_precision=_MIXED_PRECISION[numerics.precision],
                    cpu=runtime.cpu_only() or not torch.accelerator.is_available(),
                    kwargs_handlers=_distributed_kwargs(machine),
                )
        except ValueError as error:
            raise BadInput(
                f"--precision {numerics.precision} does not work here: {str(error).splitlines()[0]}"
            ) from error
        if accelerator.num_processes != processes.world_size():
            raise BadInput(
                f"the launcher started {processes.world_size()} processes, and {accelerator.num_processes} have met; use "
                "torchrun or accelerate launch, and unset what other launchers, such as mpirun, have set"
            )
        numerics.apply()
        return cls(machine, numerics.precision, accelerator)

    @property
    def numerics(self) -> Numerics:
        """How trainings compute here, before it is known which."""
        return Numerics.resolve(self.runtime, self.precision)

    def numerics_for(self, net: MaskedNetwork, steps: int, fit: TrainConfig | None = None) -> Numerics:
        """How a net's training of so many steps, all in all, computes here."""
        ghost_batch = None if fit is None else fit.ghost_batch
        return self.numerics.for_training(
            steps, size=state_size(net.backbone), steady=net.objective.cuda_graph_safe, ghost_batch=ghost_batch
        )

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes files and talks; the others only compute."""
        return bool(self.accelerator.is_main_process)

    def accumulation_steps(self, net: MaskedNetwork, fit: TrainConfig) -> int:
        """In how many parts this process's share of a global batch goes through a net, in training and for scores.

        Raises:
            BadInput: if the batch cannot be shared or cut so, naming what would do.
        """
        normalised, objective = bool(distributed.batchnorm_layers(net)), net.objective
        parts = self.runtime.accumulation_steps(
            fit.batch_size, fit.ghost_batch, objective.name, whole=objective.needs_whole_batch, normalised=normalised
        )
        return (
            self.memory_accumulation
            if self.memory_accumulation is not None and self._may_choose_accumulation(net, fit)
            else parts
        )

    def _may_choose_accumulation(self, net: MaskedNetwork, fit: TrainConfig) -> bool:
        """Whether the number of parts is nobody's but the device's: nothing gives it, and it changes nothing."""
        given = self.runtime.accumulate is not None or fit.ghost_batch is not None
        return not (given or net.objective.needs_whole_batch or distributed.batchnorm_layers(net))

    def fit_in_memory(
        self, net: MaskedNetwork, fit: TrainConfig, needs: MemoryModel | None, *, recipe: bool = False
    ) -> str:
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
        self.memory_accumulation = None
        room = DeviceMemory.of_device(self.accelerator.device)
        if needs is None or room is None:
            return ""
        share = fit.batch_size // self.accelerator.num_processes
        parts, fitting = self.accumulation_steps(net, fit), min_accumulation_steps(needs, share, room.free)
        if self._may_choose_accumulation(net, fit):
            # All processes alike: dropout draws for each part by its number.
            self.memory_accumulation = parts = max(gather_object([fitting]))
        fixes = ["more processes"] if share > 1 else []
        fits = needs.estimate(share // fitting).total <= room.free
        if recipe and fits and not net.objective.needs_whole_batch:
            fixes.insert(0, f"--ghost-batch {share // fitting} (another recipe)")
        if self.precision == "fp32":
            fixes.append("--precision bf16")
        if warning := room.check(needs.estimate(share // parts), *fixes, "a device with more memory"):
            return warning
        told = f"a share of {format_images(share)} goes through the network in {parts} parts, which the device's memory holds"
        return told if self.memory_accumulation is not None and parts > 1 else ""

    def check_batch(self, fit: TrainConfig) -> None:
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
        self.runtime.accumulation_steps(fit.batch_size, fit.ghost_batch, "supervised", whole=False, normalised=False)

    def set_batchnorm_scheme(self, net: MaskedNetwork, fit: TrainConfig) -> int:
        """Let a net's batch norm see what the training says, however many processes there are; returns `parts`."""
        parts, whole = self.accumulation_steps(net, fit), net.objective.needs_whole_batch
        distributed.set_batchnorm_scheme(
            net,
            batch_size=fit.batch_size,
            ghost_batch=fit.ghost_batch,
            processes=self.accelerator.num_processes,
            whole=whole,
        )
        return parts

    def make_loader(
        self,
        source: DataSource,
        views: tuple[View, ...],
        *,
        batch_size: int,
        order: int,
        augment: int,
        labelled: LabelledStream | None = None,
    ) -> Loader:
        """Batches of these views of the source's images, this process's share."""
        processes = self.accelerator.num_processes
        return make_loader(
            source,
            views,
            Sampler(len(source.manifest), batch_size, order, self.accelerator.process_index, processes, labelled),
            augment_seed=augment,
            device=self.accelerator.device,
            threads=self.runtime.decode_threads,
            max_bad_images=self.runtime.max_bad_images,
            channels_last=self.numerics.channels_last,
        )

    @contextmanager
    def prepare(self, net: MaskedNetwork, steps: int = 0, fit: TrainConfig | None = None) -> Iterator[torch.nn.Module]:
        """The net on its device, in the wrappers that distribution and mixed precision need, until the block ends.

        Args:
            net: as drawn; it is compiled where that is asked for, or pays.
            steps: that it will be trained, all in all.
            fit: how; None where it will not be.
        """
        numerics = self.numerics_for(net, steps, fit)
        if numerics.channels_last:
            net.to(memory_format=torch.channels_last)
        if numerics.compiled:
            compile_network(net)
        with warnings.catch_warnings():
            # Newer torch has another name for it, which older ones and accelerate do not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            with _hide_environment():
                wrapped: torch.nn.Module = self.accelerator.prepare_model(net)
        try:
            yield wrapped
        finally:
            self.accelerator.free_memory()
            distributed.reset_batchnorm(net)

    def make_loop(
        self,
        net: MaskedNetwork,
        wrapped: torch.nn.Module,
        batches: Loader,
        fit: TrainConfig,
        *,
        set_size: int,
        seed: int,
        progress: Progress,
    ) -> TrainingLoop:
        """The training of a prepared net, with a fresh optimiser.

        Raises:
            BadInput: if the batch cannot be shared or cut so, see `parts`.
        """
        if self.accelerator.scaler is not None:
            # One a training: what a level has taught it must not reach the next, or a restart would not repeat it.
            self.accelerator.scaler = torch.amp.GradScaler(self.accelerator.device.type)
        parts = self.set_batchnorm_scheme(net, fit)
        replayed = parts == 1 and self._may_use_cuda_graph(net)
        return TrainingLoop(
            self.accelerator,
            net,
            wrapped,
            batches,
            fit,
            set_size=set_size,
            seed=seed,
            parts=parts,
            progress=progress,
            graph=graph_class_for(self.accelerator.device, net, batches, fit) if replayed else None,
        )

    def _may_use_cuda_graph(self, net: MaskedNetwork) -> bool:
        """Whether steps of one part may be launched as graphs: in one process, without a scaler, and as the net is."""
        return (
            self.accelerator.num_processes == 1
            and not self.runtime.exact
            and self.accelerator.scaler is None
            and not is_compiled(net)
        )

    def broadcast(self, value: Value) -> Value:
        """The first process's value, on all of them: where files decide, one looks and the others follow."""
        processes.barrier()
        found: Value = broadcast_object_list([value])[0]
        return found

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, by rank, on each of them."""
        processes.barrier()
        found: list[Value] = gather_object([value])
        return found

    def check_invariants(self, facts: Mapping[str, Invariant]) -> None:
        """See that all processes are about to do the same, with the same program on the same kind of machine.

        Args:
            facts: what else must be the same, in the order in which differences are told.

        Raises:
            BadInput: on all processes, telling who differs in what from process 0, and the fix.
        """
        if self.accelerator.num_processes == 1:
            return
        told = self.gather(program_invariants() | runtime_invariants(self.runtime) | dict(facts))
        if odd := first_mismatch(told):
            raise BadInput(odd)

    def gather_until_equal(self, look: Callable[[], Value]) -> list[Value]:
        """What each process sees, by rank, when all see the same, or when that has taken too long."""
        late, pause = time.monotonic() + _FILE_VISIBILITY_SECONDS, 0.05
        while True:
            processes.barrier()  # what one of them writes before it comes here is there when they look
            seen = self.gather(look())
            if all(one == seen[0] for one in seen) or self.broadcast(time.monotonic() > late):
                return seen
            time.sleep(pause)
            pause = min(1.0, 2 * pause)

    def wait_for_file(self, path: Path) -> None:
        """Wait until all processes see a file that the first has written.

        Raises:
            BadInput: if one does not.
        """
        if blind := [str(rank) for rank, seen in enumerate(self.gather_until_equal(path.exists)) if not seen]:
            raise BadInput(f"{path} is not visible to process {', '.join(blind)}; give --out on a shared folder")

    def trackers(self, run: Path, name: str) -> tuple[Tracker, ...]:
        """Who listens to a training of this name in a run's folder: on the first process only."""
        if not self.is_main_process:
            return ()
        board = (TensorBoardTracker(run / "tensorboard" / name),) if self.runtime.tensorboard else ()
        return (StatusFileTracker(run), *board)

    def unreadable_images(self, *loaders: Loader) -> dict[str, str]:
        """Images that any process could not read, with the reasons."""
        found = self.gather([dict(batches.unreadable) for batches in loaders])
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


def _hide_environment() -> AbstractContextManager[None]:
    """While this lasts, accelerate sees of the environment what we have not decided."""
    return runtime.hide_launcher_variables(processes.world_size() == 1 and not torch.distributed.is_initialized())


def _distributed_kwargs(machine: RuntimeConfig) -> list[KwargsHandler]:
    """How processes train together."""
    return [
        # Masks, and what else a step changes, are equal by construction, or one process's own until they are shared.
        DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
        # Of processes that are gone `processes` tells, and at once. This is for networks that are.
        InitProcessGroupKwargs(timeout=timedelta(minutes=max(_COLLECTIVE_TIMEOUT_MINUTES, machine.timeout))),
    ]
