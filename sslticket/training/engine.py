"""The engine of a process: its accelerator, the loaders and loops built for it, and checks that processes agree."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
from sslticket.config.recipe import Precision
from sslticket.config.runtime import RuntimeConfig, cpu_only, hide_launcher_variables, rounding_variables
from sslticket.config.training import TrainConfig
from sslticket.data.augment import View
from sslticket.data.loader import LabelledStream, Loader, MemoryLoader, Sampler
from sslticket.data.source import DataSource, make_loader
from sslticket.errors import BadInput
from sslticket.objectives import distributed
from sslticket.processes.allocator import keep_freed_memory
from sslticket.pruning import pruned_model
from sslticket.pruning.compaction import Compaction
from sslticket.pruning.sparse_layers import can_compute, sparse_candidates
from sslticket.training.display import Stage
from sslticket.training.loop import TrainingLoop
from sslticket.training.memory import (
    DeviceMemory,
    MemoryModel,
    format_images,
    free_ended,
    min_accumulation_steps,
    note_ended,
)
from sslticket.training.network import MaskedNetwork
from sslticket.training.numerics import Numerics, compile_network, graph_class_for, is_compiled, state_size
from sslticket.training.progress import Progress, StatusFileTracker, Tracker
from sslticket.training.trackers import TrackerSet
from sslticket.training.trial import TRIAL_FROM_STEPS, Kernels, Trial, float32_passes

_SAME_FLAGS_FIX = "give the same flags to every process"
_PER_MACHINE_FIELDS = (
    *("tensorboard", "log", "quiet", "log_file"),
    *("data_root", "threads", "max_bad_images", "timeout", "snapshot_every"),
)
"""Settings that may differ between processes."""
_FACETS = ("level", "density", "control", "protocol", "seed")
"""The fields of a row that tell which of a run it is."""
Value = TypeVar("Value")
_MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_FILE_VISIBILITY_SECONDS = 90.0  # until all machines see a file that one has written: NFS asks again after up to 60
_KEPT_LOADERS = 2  # whose images further loaders share: those of a training, and those on which it is measured
_COLLECTIVE_TIMEOUT_MINUTES = 30.0  # that an operation of all processes may take; nobody works alone meanwhile


class Invariant(NamedTuple):
    """What must be the same in all processes.

    Attributes:
        description: What it is, as a sentence goes on after "process 2": "sees 1,437 training images".
        fix: What to do where processes differ.
    """

    description: str
    fix: str


def flag_invariant(name: str, value: object) -> Invariant:
    """The value of a flag, by the name of its field."""
    return Invariant(f"has --{name.replace('_', '-')} {value}", _SAME_FLAGS_FIX)


def program_invariants() -> dict[str, Invariant]:
    """The code that runs, and the libraries and variables that a result depends on."""
    invariants = {
        "code": Invariant(f"runs code with the hash {provenance.code_hash()}", "check out one commit on every machine")
    }
    for library, version in provenance.library_versions().items():
        invariants[library] = Invariant(f"has {library} {version}", "install the same versions on every machine")
    variables = ", ".join(rounding_variables("any")) or "no variable"
    invariants["environment"] = Invariant(f"has {variables} set that changes rounding", "set the same on every machine")
    return invariants


def runtime_invariants(runtime: RuntimeConfig) -> dict[str, Invariant]:
    """The settings of the machine on which a result depends."""
    settings = {field.name: getattr(runtime, field.name) for field in dataclasses.fields(runtime)}
    return {name: flag_invariant(name, value) for name, value in settings.items() if name not in _PER_MACHINE_FIELDS}


def first_mismatch(by_rank: Sequence[Mapping[str, Invariant]]) -> str | None:
    """The first difference between a process and process 0, with the fix, in one line; None where there is none.

    Args:
        by_rank: The invariants of each process.
    """
    for name in dict.fromkeys(name for each in by_rank for name in each):
        texts = [each[name].description if name in each else f"has no {name}" for each in by_rank]
        odd = [rank for rank, text in enumerate(texts) if text != texts[0]]
        if odd:
            alike = [str(rank) for rank in odd[1:] if texts[rank] == texts[odd[0]]]
            more = f" (and {', '.join(alike)})" if alike else ""
            fix = by_rank[0 if name in by_rank[0] else odd[0]][name].fix
            return f"process {odd[0]}{more} {texts[odd[0]]}, and process 0 {texts[0]}; {fix}"
    return None


@dataclass
class Engine:
    """Builds trainings on the machine at hand, alike for searches and evaluations.

    Attributes:
        runtime: The settings of the machine.
        precision: The precision of the forward and backward pass.
        accelerator: The accelerator of this process.
        memory_accumulation: Micro-batches of a step that the device's memory asks for; None where it asks for none.
        kernels: What trials have chosen for the training that is prepared.
        tracker_set: What follows trainings.
    """

    runtime: RuntimeConfig
    precision: Precision
    accelerator: Accelerator
    memory_accumulation: int | None = None
    kernels: Kernels = field(default_factory=Kernels)
    tracker_set: TrackerSet = field(default_factory=lambda: TrackerSet(()))
    _kept_loaders: list[tuple[DataSource, tuple[View, ...], MemoryLoader]] = field(default_factory=list)

    @classmethod
    def create(
        cls, runtime: RuntimeConfig, precision: Precision | None, trackers: TrackerSet | None = None
    ) -> "Engine":
        """The engine of this process, whatever launched it; sets what torch keeps for the whole process.

        Args:
            runtime: The settings of the machine.
            precision: The precision of the passes; None for the device's own.
            trackers: Trackers that are in use already; None for those of the settings, which are checked.

        Raises:
            BadInput: If the device cannot compute at this precision, a tracker was asked for and is not there, or
                launched processes do not meet.
        """
        keep_freed_memory()
        chosen = TrackerSet(runtime.trackers) if trackers is None else trackers
        if not torch.distributed.is_initialized():  # who starts processes by other means has done that too
            processes.check_launch()
        processes.set_patience(runtime.timeout * 60)
        if trackers is None and processes.rank() == 0:
            chosen.check()
        if precision == "fp16" and not torch.accelerator.is_available():
            raise BadInput("--precision fp16 does not work here: it needs a GPU; give bf16 or fp32")
        numerics = Numerics.resolve(runtime, precision)
        # The accelerator's state is global and keeps the first precision it was given; each engine has its own.
        AcceleratorState._reset_state()
        try:
            # Left to itself, accelerate would run launched CPU processes side by side, each on its own.
            processes.barrier()
            with _hide_environment():
                accelerator = Accelerator(
                    mixed_precision=_MIXED_PRECISION[numerics.precision],
                    cpu=cpu_only() or not torch.accelerator.is_available(),
                    kwargs_handlers=_distributed_kwargs(runtime),
                )
        except ValueError as error:
            raise BadInput(
                f"--precision {numerics.precision} does not work here: {str(error).splitlines()[0]}"
            ) from error
        if accelerator.num_processes != processes.world_size():
            raise BadInput(
                f"the launcher started {processes.world_size()} processes, and {accelerator.num_processes} have met; "
                "use torchrun or accelerate launch, and unset what other launchers, such as mpirun, have set"
            )
        numerics.apply()
        return cls(runtime, numerics.precision, accelerator, tracker_set=chosen)

    @property
    def numerics(self) -> Numerics:
        """How trainings compute here, before their length is known."""
        return Numerics.resolve(self.runtime, self.precision)

    def numerics_for(
        self,
        network: MaskedNetwork,
        steps: int,
        training: TrainConfig | None = None,
        source: DataSource | None = None,
    ) -> Numerics:
        """How a network's training of so many steps in all, on images of this source, computes here."""
        return self.numerics.for_training(
            steps,
            size=state_size(network.backbone),
            steady=network.objective.cuda_graph_safe,
            ghost_batch=None if training is None else training.ghost_batch,
            files=source is not None and source.images is None,
        )

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes files and prints; the others only compute."""
        return bool(self.accelerator.is_main_process)

    def accumulation_steps(self, network: MaskedNetwork, training: TrainConfig) -> int:
        """Micro-batches in which this process's share of a batch goes through a network, in training and for scores.

        Raises:
            BadInput: If the batch cannot be divided so, naming numbers with which it can.
        """
        normalised, objective = bool(distributed.batchnorm_layers(network)), network.objective
        steps = self.runtime.accumulation_steps(
            training.batch_size,
            training.ghost_batch,
            objective.name,
            whole=objective.needs_whole_batch,
            normalised=normalised,
        )
        if self.memory_accumulation is not None and self._may_choose_accumulation(network, training):
            return self.memory_accumulation
        return steps

    def _may_choose_accumulation(self, network: MaskedNetwork, training: TrainConfig) -> bool:
        """Whether the device may choose the number of micro-batches: nothing else sets it, and it changes no result."""
        given = self.runtime.accumulate is not None or training.ghost_batch is not None
        return not (given or network.objective.needs_whole_batch or distributed.batchnorm_layers(network))

    def fit_in_memory(
        self, network: MaskedNetwork, training: TrainConfig, memory: MemoryModel | None, *, recipe: bool = False
    ) -> str:
        """Chooses micro-batches that fit in this process's device, where they may be chosen.

        Args:
            network: The network, not on the device yet.
            training: How it is trained.
            memory: What the training needs; None where that is not known.
            recipe: Whether it is a recipe's training, which has flags; a protocol's has none.

        Returns:
            A line that says what was decided, or "".

        Raises:
            BadInput: If it cannot fit, with what would help.
        """
        self.memory_accumulation = None
        device = DeviceMemory.of_device(self.accelerator.device)
        if memory is None or device is None:
            return ""
        share = training.batch_size // self.accelerator.num_processes
        steps, fitting = self.accumulation_steps(network, training), min_accumulation_steps(memory, share, device.free)
        if self._may_choose_accumulation(network, training):
            # The same in all processes: dropout draws for each micro-batch by its number.
            self.memory_accumulation = steps = max(gather_object([fitting]))
        fixes = ["more processes"] if share > 1 else []
        fits = memory.estimate(share // fitting).total <= device.free
        if recipe and fits and not network.objective.needs_whole_batch:
            fixes.insert(0, f"--ghost-batch {share // fitting} (another recipe)")
        if self.precision == "fp32":
            fixes.append("--precision bf16")
        if warning := device.check(memory.estimate(share // steps), *fixes, "a device with more memory"):
            return warning
        if self.memory_accumulation is None or steps == 1:
            return ""
        share_text = f"a share of {format_images(share)}"
        return f"{share_text} goes through the network in {steps} parts, which the device's memory holds"

    def check_batch(self, training: TrainConfig) -> None:
        """Checks, before there is a network, that a protocol's batch can be shared by the processes.

        Raises:
            BadInput: Naming a number of processes that can share it; a protocol has no flags.
        """
        count = self.accelerator.num_processes
        if training.batch_size % count:
            fewer = next(each for each in range(count - 1, 0, -1) if training.batch_size % each == 0)
            raise BadInput(
                f"the protocol's batch of {training.batch_size} cannot be shared by {count} processes; start {fewer}, "
                "or another number that divides it"
            )
        self.runtime.accumulation_steps(
            training.batch_size, training.ghost_batch, "supervised", whole=False, normalised=False
        )

    def set_batchnorm_scheme(self, network: MaskedNetwork, training: TrainConfig) -> int:
        """Makes batch norm see the same images however many processes there are; returns `accumulation_steps`."""
        steps, whole = self.accumulation_steps(network, training), network.objective.needs_whole_batch
        distributed.set_batchnorm_scheme(
            network,
            batch_size=training.batch_size,
            ghost_batch=training.ghost_batch,
            processes=self.accelerator.num_processes,
            whole=whole,
        )
        return steps

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
        """This process's share of batches of views.

        Args:
            source: The images.
            views: The views of each image.
            batch_size: Images of a batch, in all processes together.
            order: Seed of the order.
            augment: Seed of the augmentation.
            labelled: The labelled stream, where a batch has images of two.
        """
        world_size, channels_last = self.accelerator.num_processes, self.numerics.channels_last
        channels_last = channels_last or self.kernels.channels_last
        sampler = Sampler(len(source.manifest), batch_size, order, self.accelerator.process_index, world_size, labelled)
        for one, its_views, kept in self._kept_loaders:
            if one is source and its_views == views:
                return kept.reseeded(sampler, augment, channels_last=channels_last)
        loader = make_loader(
            source,
            views,
            sampler,
            augment_seed=augment,
            device=self.accelerator.device,
            threads=self.runtime.decode_threads,
            max_bad_images=self.runtime.max_bad_images,
            keep_decoded=self.runtime.keep_decoded,
            decoder=self.runtime.decoder,
            channels_last=channels_last,
        )
        if isinstance(loader, MemoryLoader):
            # Preparing the images anew for each level and each measurement would take longer than a small one's steps.
            self._kept_loaders = [*self._kept_loaders, (source, views, loader)][-_KEPT_LOADERS:]
        return loader

    def choose_kernels(
        self,
        path: Path,
        network: MaskedNetwork,
        build: Callable[[], MaskedNetwork],
        load: Callable[[], Loader],
        training: TrainConfig,
        steps: int,
        *,
        earlier: Kernels | None = None,
    ) -> Kernels:
        """The kernels of a training: those of its file, or else what a trial chooses now.

        Args:
            path: The file, which is written where something is tried, before anything is trained.
            network: The network with its mask set; it stays as it is.
            build: Draws one like it, on which is tried.
            load: Makes a loader of the training's images.
            training: How it is trained.
            steps: Steps of the training in all.
            earlier: The kernels of the same network under another mask, whose layout stays; None to try layouts.
        """
        settled = Kernels()
        if earlier is not None:
            settled = Kernels(channels_last=earlier.channels_last, compiled=earlier.compiled, float32=earlier.float32)
        if self.accelerator.device.type != "cpu" or self.runtime.exact or steps < TRIAL_FROM_STEPS:
            return settled
        if (found := self.broadcast(Kernels.read(path) if self.is_main_process else None)) is not None:
            if found.sparse and (odd := set(found.sparse) - pruned_model.current_mask(network.backbone).keys()):
                raise BadInput(
                    f"{path} is damaged (it names {min(odd)}, which is no layer with a mask); delete it and run the "
                    "same command again"
                )
            # What flags say now holds.
            able = not found.sparse or all(self.gather(can_compute()))
            sparse = found.sparse if able and not self.numerics.compiled else ()
            layout = found.channels_last if self.runtime.channels_last is None else self.runtime.channels_last
            compiled = found.compiled and self.runtime.compile is None
            left_out = found.left_out if self._may_leave_out(network, training) else 0
            return dataclasses.replace(
                found,
                sparse=sparse,
                channels_last=layout,
                compiled=compiled,
                images_innermost=found.images_innermost and bool(sparse),
                left_out=left_out,
            )
        layouts = self._layouts(network) if earlier is None else (settled.channels_last,)
        # Alone: processes that time for themselves would not agree on whether it pays.
        alone = self.accelerator.num_processes == 1
        may_compile = earlier is None and self.runtime.fast and self.runtime.compile is None and alone
        mask = compaction = None
        # Compiled code knows no sparse layers.
        if network.mask_learning is None and not (self.numerics.compiled or settled.compiled):
            mask = pruned_model.current_mask(network.backbone)
            # All or none: numba may be broken in one process alone.
            tried = all(self.gather(bool(sparse_candidates(network.backbone, mask))))
            if self._may_leave_out(network, training):
                compaction = Compaction.plan(network.backbone, mask)
            mask = mask if tried or compaction is not None else None
        if len(layouts) == 1 and not may_compile and mask is None:
            return settled
        (batch,) = load().train(0, 1)
        trial = Trial(
            build=build,
            mask=mask,
            batch=next(batch.chunk(self.accumulation_steps(network, training))),
            layouts=layouts,
            compile_for=steps if may_compile else 0,
            compaction=compaction,
        )
        chosen, note = trial.choose(self.accelerator)
        if earlier is None and self.runtime.fast and self.precision == "bf16" and not self.numerics.compiled:
            chosen = trial.choose_precision(self.accelerator, chosen)
        chosen, note = self.broadcast((dataclasses.replace(chosen, float32=chosen.float32 or settled.float32), note))
        if self.is_main_process:
            chosen.write(path)
            if note:
                warnings.warn(note, stacklevel=2)
        return chosen

    def _may_leave_out(self, network: MaskedNetwork, training: TrainConfig) -> bool:
        """Whether channels may be left out: in one process, and where all numbers of a channel are normalised together.

        An objective of a user's may look at what layers hand on.
        """
        ghosts = network.objective.needs_whole_batch and training.ghost_batch not in (None, training.batch_size)
        alone, ours = self.accelerator.num_processes == 1, type(network.objective).__module__.startswith("sslticket.")
        return alone and ours and not ghosts and network.mask_learning is None and not self.numerics.compiled

    def _layouts(self, network: MaskedNetwork) -> tuple[bool, ...]:
        """The layouts that a trial may choose from, whether channels-last: weights of volumes have none to choose."""
        dims = {parameter.dim() for parameter in network.parameters()}
        free = self.runtime.channels_last is None and 4 in dims and 5 not in dims
        return (False, True) if free else (self.numerics.channels_last,)

    @contextmanager
    def prepare(
        self,
        network: MaskedNetwork,
        steps: int = 0,
        training: TrainConfig | None = None,
        kernels: Kernels | None = None,
    ) -> Iterator[torch.nn.Module]:
        """The network on its device, in the wrappers of distribution and mixed precision, until the block ends.

        Args:
            network: The network as drawn; it is compiled where that is asked for, or pays.
            steps: Steps for which it will be trained, in all.
            training: How it will be trained; None where it will not be.
            kernels: What a trial has chosen; None where there was none.
        """
        numerics, self.kernels = self.numerics_for(network, steps, training), kernels or Kernels()
        if numerics.channels_last or self.kernels.channels_last:
            network.to(memory_format=torch.channels_last)
        if numerics.compiled or self.kernels.compiled:
            compile_network(network)
        with float32_passes(self.accelerator) if self.kernels.float32 else nullcontext():
            with warnings.catch_warnings():
                # Newer torch has another name for it, which older ones and accelerate do not know.
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                with _hide_environment():
                    free_ended(self.accelerator.device, but=network)
                    # Told where it goes, accelerate looks for no sharded tensors: it would import a second's code to.
                    wrapped: torch.nn.Module = self.accelerator.prepare_model(network, device_placement=True)
            try:
                yield wrapped
            finally:
                self.kernels = Kernels()
                # Not accelerate's `free_memory`, which looks through all objects of the process for cycles.
                self.accelerator._models.clear()
                note_ended(network)
                distributed.reset_batchnorm(network)

    def make_loop(
        self,
        network: MaskedNetwork,
        wrapped: torch.nn.Module,
        loader: Loader,
        training: TrainConfig,
        *,
        set_size: int,
        seed: int,
        progress: Progress,
    ) -> TrainingLoop:
        """The training of a prepared network, with a fresh optimiser.

        Args:
            network: The network.
            wrapped: The same in the wrappers of `prepare`.
            loader: The images.
            training: How it is trained.
            set_size: Images of an epoch.
            seed: Seed of dropout and of whatever else draws random numbers in a step.
            progress: What shows the loss.

        Raises:
            BadInput: If the batch cannot be divided so, see `accumulation_steps`.
        """
        if self.accelerator.scaler is not None:
            # One for each training: its state must not reach the next level, or a restart would not repeat it.
            self.accelerator.scaler = torch.amp.GradScaler(self.accelerator.device.type)
        steps = self.set_batchnorm_scheme(network, training)
        replayed = steps == 1 and self._may_use_cuda_graph(network)
        return TrainingLoop(
            self.accelerator,
            network,
            wrapped,
            loader,
            training,
            set_size=set_size,
            seed=seed,
            accumulation_steps=steps,
            progress=progress,
            graph=graph_class_for(self.accelerator.device, network, loader, training) if replayed else None,
        )

    def _may_use_cuda_graph(self, network: MaskedNetwork) -> bool:
        """Whether steps may be launched as graphs: in one process, without a scaler, and not as compiled code."""
        return (
            self.accelerator.num_processes == 1
            and not self.runtime.exact
            and self.accelerator.scaler is None
            and not is_compiled(network)
        )

    def broadcast(self, value: Value) -> Value:
        """The first process's value, in all of them: where files decide, one process reads and the others follow."""
        processes.barrier()
        found: Value = broadcast_object_list([value])[0]
        return found

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, by rank, in each of them."""
        processes.barrier()
        found: list[Value] = gather_object([value])
        return found

    def check_invariants(self, invariants: Mapping[str, Invariant]) -> None:
        """Checks that all processes are about to do the same, with the same program and settings.

        Args:
            invariants: What else must be the same, in the order in which it is compared.

        Raises:
            BadInput: In all processes, with the first difference from process 0 and the fix.
        """
        if self.accelerator.num_processes == 1:
            return
        by_rank = self.gather(program_invariants() | runtime_invariants(self.runtime) | dict(invariants))
        if mismatch := first_mismatch(by_rank):
            raise BadInput(mismatch)

    def gather_until_equal(self, read: Callable[[], Value]) -> list[Value]:
        """What each process reads, by rank, once all read the same, or when that has taken too long."""
        late, pause = time.monotonic() + _FILE_VISIBILITY_SECONDS, 0.05
        while True:
            processes.barrier()  # what one of them writes before it comes here is there when they read
            seen = self.gather(read())
            if all(one == seen[0] for one in seen) or self.broadcast(time.monotonic() > late):
                return seen
            time.sleep(pause)
            pause = min(1.0, 2 * pause)

    def wait_for_file(self, path: Path) -> None:
        """Waits until all processes see a file that the first has written.

        Raises:
            BadInput: If one does not.
        """
        if blind := [str(rank) for rank, seen in enumerate(self.gather_until_equal(path.exists)) if not seen]:
            raise BadInput(f"{path} is not visible to process {', '.join(blind)}; give --out on a shared folder")

    def show_progress(
        self, samples: int, *, done: int = 0, show: bool = True, stages: Sequence[Stage] = ()
    ) -> Progress:
        """What shows how far this command is: nothing on all processes but the first; see `Progress`."""
        first, runtime = self.is_main_process, self.runtime
        log_file = runtime.log_file if first and show else None
        return Progress(samples, done=done, show=first and show and not runtime.quiet, log_file=log_file, stages=stages)

    def trackers(
        self, run: Path, name: str, about: Mapping[str, Any] | None = None, note: Callable[[str], object] = print
    ) -> tuple[Tracker, ...]:
        """The trackers of a training of this name in a run's folder: on the first process only.

        Args:
            run: The folder.
            name: The name.
            about: What tells it from other trainings of the run, such as its level.
            note: Shows a person a line.

        Raises:
            BadInput: If a tracker cannot be made.
        """
        if not self.is_main_process:
            return ()
        return StatusFileTracker(run, name), *self.tracker_set.open(run, name, about or {}, note)

    def log_rows(
        self, progress: Progress, run: Path, name: str, rows: Mapping[Path, Mapping[str, Any]], *files: Path
    ) -> None:
        """Sends rows that are written to trackers: those of the training that led to them, if there was one.

        Args:
            progress: What the training was shown by.
            run: The folder of the run.
            name: What stands for the training where there was none.
            rows: The rows by their files.
            *files: What else was written, such as a ticket.
        """
        if rows and self.tracker_set and self.is_main_process and not progress.has_open_trackers:
            first = next(iter(rows.values()))
            about = {key: first[key] for key in _FACETS if key in first}
            with progress.log_to(*self.trackers(run, name, about, progress.note)):
                pass
        progress.log_rows(rows, *files)

    def unreadable_images(self, *loaders: Loader) -> dict[str, str]:
        """Images that any process could not read, with the reasons."""
        by_rank = self.gather([dict(loader.unreadable) for loader in loaders])
        return {path: reason for own in by_rank for each in own for path, reason in each.items()}

    @property
    def device_name(self) -> str:
        """The device or devices that computed, for rows."""
        world_size = self.accelerator.num_processes
        device = self.accelerator.device
        if device.type == "cpu":
            name = f"cpu, {torch.get_num_threads()} threads"
        else:  # not every kind of device has names
            named = getattr(torch.get_device_module(device), "get_device_name", None)
            name = named(device) if named is not None else device.type
        return f"{world_size} x {name}" if world_size > 1 else name


def _hide_environment() -> AbstractContextManager[None]:
    """Hides from accelerate what our flags and the launcher have decided, while this lasts."""
    return hide_launcher_variables(processes.world_size() == 1 and not torch.distributed.is_initialized())


def _distributed_kwargs(runtime: RuntimeConfig) -> list[KwargsHandler]:
    """The settings of distributed training."""
    return [
        # Masks, and what else a step changes, are equal by construction, or one process's own until they are shared.
        DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
        # Processes that are gone are found by `processes`, and at once. This is for networks that are.
        InitProcessGroupKwargs(timeout=timedelta(minutes=max(_COLLECTIVE_TIMEOUT_MINUTES, runtime.timeout))),
    ]
