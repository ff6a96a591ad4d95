"""Trainings that can be stopped at any step: the same command goes on from there, with the same bits.

Everything that trains goes through `resumable`: a search's levels, evaluations, natural zeros, and the endpoints of
analyses. Now and then a snapshot of the training is kept beside the run's files: network, optimiser, loss scaling, and
what has been counted. The processes agree at which step; the first copies all to the CPU, and a thread writes it. When
a signal asks the run to end, a snapshot is kept at the end of the step, and all leave.

Images, their augmentation and dropout are functions of the step, so nothing else is needed. They are so whatever the
number of processes: another number goes on with the same images. What each process has for itself, the running
statistics of batch norm, is kept of each, and is their mean for another number of processes.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import gather

from sslticket.errors import BadInput, Diverged, one_line
from sslticket.processes import signals
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import StateDict
from sslticket.storage import tensorfile
from sslticket.training import checkpoint
from sslticket.training.engine import Engine
from sslticket.training.loop import TrainingLoop
from sslticket.training.network import MaskedNetwork
from sslticket.training.progress import Progress
from sslticket.training.trial import file_stem

SNAPSHOT_FOLDER = ".snapshots"
"""In the folder of a run; all in it may be deleted at any time."""
_NUM_KEPT = 2  # a latest one that is damaged costs the time since the one before
_MAX_SHARE = 0.01  # of the time, for what a training waits for
_AGREE_SECONDS = 1.0  # between two questions of several processes whether anything is to be done
_FIRST_AGREEMENT = 8  # steps, before it is known how long one takes
_END_SHARE = 0.1  # of the interval: a training that has gone on for so long without a snapshot is kept at its end too
_STATISTICS = "statistics"
_COMPANION = "companion/"
_FIX = "delete it and run the same command again"


class Companion(Protocol):
    """What counts beside a training and goes on with it, such as the masks that a search compares."""

    def snapshot_state(self) -> tuple[dict[str, Any], StateDict]:
        """What it has counted, as values of JSON and tensors by name; called on all processes."""

    def restore_state(self, values: Mapping[str, Any], tensors: StateDict) -> None:
        """Goes on from there."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a snapshot says beside its tensors.

    Attributes:
        about: What tells its training from all others.
        step: Optimiser steps taken.
        ended: Whether nothing was left to be trained.
        seconds: Seconds of training.
        loss: The loss when it was last checked; None before the first step.
        collapsed_steps: Steps in a row at a collapsed embedding's loss, in each process.
        forward_images: Images that went forward through the backbone and its copies.
        backward_images: Those of them that gradients went back through.
        unreadable: Images that could not be read, with reasons.
        computed: On which devices and how it was computed so far.
        companion: What the training's companion has counted.
        state: What of the training is no tensor.
    """

    about: dict[str, str]
    step: int
    ended: bool
    seconds: float
    loss: float | None
    collapsed_steps: list[int]
    forward_images: int
    backward_images: int
    unreadable: dict[str, str]
    computed: dict[str, list[str]]
    companion: dict[str, Any]
    state: dict[str, Any]

    @classmethod
    def read(cls, path: Path, *, whole: bool) -> tuple["Header", StateDict]:
        """Reads a snapshot's file, or its header alone.

        Raises:
            BadInput: If it is damaged.
            OSError: If it is not there.
        """
        header, tensors = tensorfile.read_tensor_file(path, "training", what="snapshot", fix=_FIX, whole=whole)
        header.pop("hash", None)
        kinds = {
            **dict.fromkeys(("about", "unreadable", "computed", "companion", "state"), (dict,)),
            **dict.fromkeys(("step", "forward_images", "backward_images"), (int,)),
            "seconds": (int, float),
            "loss": (int, float, type(None)),
            "collapsed_steps": (list,),
            "ended": (bool,),
        }
        fits = header.keys() == kinds.keys() and all(type(header[name]) in kinds[name] for name in kinds)
        if not fits or not tensorfile.is_int_between(header["step"], 0, 1 << 60):
            raise BadInput(f"{path} is no whole snapshot (it does not say what was counted); {_FIX}")
        return cls(**header), tensors


class ResumableTraining:
    """A training, as far as it is done; see `resumable`.

    Attributes:
        step: Optimiser steps taken.
        ended: Whether nothing is left to be trained.
        resumed_at: The step at which it goes on from a snapshot; None where it began anew.
        seconds: Seconds of training, those before a restart included.
        unreadable: Images that could not be read before a restart, with reasons.
    """

    def __init__(
        self,
        engine: Engine,
        loop: TrainingLoop,
        progress: Progress,
        *,
        files: "SnapshotFiles",
        about: Mapping[str, str],
        start: int,
        computed: Mapping[str, str],
        companion: Companion | None = None,
    ) -> None:
        """Takes a training at its start; see `resumable` for the arguments."""
        self._engine, self._loop, self._progress, self._companion = engine, loop, progress, companion
        self._about, self._files, self._writer = dict(about), files, _Writer(files)
        self._computed = {name: [value] for name, value in computed.items()}
        self.step, self.ended, self.seconds = start, False, 0.0
        self.resumed_at: int | None = None
        self.unreadable: dict[str, str] = {}
        self._every = engine.runtime.snapshot_every * 60
        self._kept_step, self._kept_at = start, time.monotonic()
        self._due_at = self._kept_at + self._every
        self._segment_began: float | None = None
        self._agreement = _Agreement(engine, start)
        self._signal: int | None = None

    @property
    def computed(self) -> dict[str, str]:
        """On which devices and how all of it was computed, for rows."""
        texts = {name: "; ".join(dict.fromkeys(filter(None, values))) for name, values in self._computed.items()}
        return {name: text for name, text in texts.items() if text}

    def run_to(self, stop: int) -> None:
        """Takes the steps up to one, as far as they are not taken yet.

        Raises:
            Diverged: See `TrainingLoop.run`.
            Stopped: If a signal asks this process, or another of the run, to end.
        """
        if stop <= self.step:
            return
        if self.step > self._kept_step and self.is_due(self.step):
            self.act(self.step)
        with self.timed():
            self._loop.run(self.step, stop)
            self.step = stop

    @contextmanager
    def timed(self) -> Iterator[None]:
        """What is done in this block counts as training."""
        self._segment_began = time.monotonic()
        try:
            yield
        finally:
            self.seconds, self._segment_began = self._seconds_now, None

    def finish(self) -> None:
        """Says that nothing is left to be trained; what is measured then may take long.

        Raises:
            Stopped: If a signal has asked for it.
        """
        self.ended = True
        late = bool(self._every) and time.monotonic() - self._kept_at >= self._every * _END_SHARE
        if self._ask(self.step, late):
            self.act(self.step)

    def is_due(self, step: int) -> bool:
        """See `Interruption`."""
        if self._agreement.is_alone or self._agreement.is_due(step):
            return self._ask(step, bool(self._every) and time.monotonic() >= self._due_at)
        return False

    def _ask(self, step: int, time_has_come: bool) -> bool:
        wanted = time_has_come and not self._writer.is_busy
        self._signal, due = self._agreement.decide(step, signals.requested_signal(), wanted)
        return due or self._signal is not None

    def act(self, step: int) -> None:
        """See `Interruption`: keeps a snapshot, and leaves where a signal asks for it."""
        if step > self._kept_step:
            self._keep(step)
        if self._signal is not None:
            self._writer.wait()
            kept = self._engine.broadcast(self._writer.error is None)  # nobody leaves before it is written
            self._tell_error()
            signals.obey(self._signal, kept=kept)

    def resume(self) -> None:
        """Goes on from the newest snapshot of this very training, where there is one."""
        engine, found = self._engine, None
        if engine.is_main_process:
            self._about["network"] = _network_hash(self._loop.network)
            found = self._files.newest(self._about, self._progress)
        path = engine.broadcast(None if found is None else found[0])
        if path is None:
            return
        engine.wait_for_file(path)
        header, tensors = Header.read(path, whole=True) if found is None else found[1:]
        checkpoint.restore_training(path, tensors, header.state, self._loop, engine.accelerator)
        if _STATISTICS in tensors:
            self._restore_statistics(tensors[_STATISTICS])
        self._restore_counts(header)
        if self._companion is not None:
            own = {name: value for name, value in tensors.items() if name.startswith(_COMPANION)}
            self._companion.restore_state(
                header.companion, {name.removeprefix(_COMPANION): value for name, value in own.items()}
            )

    def _restore_counts(self, header: Header) -> None:
        loop, processes = self._loop, self._engine.accelerator.num_processes
        alike = len(header.collapsed_steps) == processes
        place = self._engine.accelerator.process_index
        loop.collapsed_steps = header.collapsed_steps[place] if alike else max(header.collapsed_steps)
        loop.loss = loop.loss if header.loss is None else header.loss
        loop.forward_images, loop.backward_images = header.forward_images, header.backward_images
        self._progress.skip(header.step, (header.step - self.step) * loop.batch_size)
        self.step = self.resumed_at = self._kept_step = header.step
        self.ended, self.seconds, self.unreadable = header.ended, header.seconds, header.unreadable
        for name, values in self._computed.items():
            self._computed[name] = [*header.computed.get(name, []), *values]

    def _restore_statistics(self, by_process: torch.Tensor) -> None:
        alike = len(by_process) == self._engine.accelerator.num_processes
        place = self._engine.accelerator.process_index
        row = by_process[place] if alike else by_process.double().mean(dim=0)
        own = _running_statistics(self._loop.network)
        for value, stored in zip(own, torch.split(row, [value.numel() for value in own]), strict=True):
            value.copy_(stored.view_as(value))

    def _keep(self, step: int) -> None:
        """Copies the training, and has it written."""
        began, engine, loop = time.monotonic(), self._engine, self._loop
        unreadable = self.unreadable | engine.unreadable_images(loop.loader)
        collapsed = engine.gather(loop.collapsed_steps)
        counted, companion_tensors = ({}, {}) if self._companion is None else self._companion.snapshot_state()
        own = _running_statistics(loop.network) if engine.accelerator.num_processes > 1 else []
        statistics = gather(torch.cat([value.flatten().float() for value in own])[None]) if own else None
        if engine.is_main_process:
            tensors, state = checkpoint.training_state(loop, engine.accelerator)
            tensors |= {f"{_COMPANION}{name}": value for name, value in companion_tensors.items()}
            if statistics is not None:
                tensors[_STATISTICS] = statistics.cpu()
            header = Header(
                about=self._about,
                step=step,
                ended=self.ended,
                seconds=self._seconds_now,
                loss=loop.loss if step else None,
                collapsed_steps=collapsed,
                forward_images=loop.forward_images,
                backward_images=loop.backward_images,
                unreadable=unreadable,
                computed=self._computed,
                companion=counted,
                state=state,
            )
            self._tell_error()
            self._writer.start(step, header, tensors)
        self._kept_step, self._kept_at = step, time.monotonic()
        self._due_at = self._kept_at + max(self._every, (self._kept_at - began) / _MAX_SHARE)

    @property
    def _seconds_now(self) -> float:
        began = self._segment_began
        return self.seconds if began is None else self.seconds + time.monotonic() - began

    def end(self) -> None:
        """Waits for what is being written."""
        self._writer.wait()
        self._tell_error()

    def _tell_error(self) -> None:
        if self._writer.error is not None:
            self._progress.note(f"no snapshot was kept: {self._writer.error}")
            self._writer.error = None

    def unreadable_images(self, *others: Any) -> dict[str, str]:
        """Images that any process could not read in this training or in other loaders, with reasons."""
        return self.unreadable | self._engine.unreadable_images(self._loop.loader, *others)


@contextmanager
def resumable(
    engine: Engine,
    loop: TrainingLoop,
    progress: Progress,
    *,
    run: Path,
    name: str,
    about: Mapping[str, object],
    start: int,
    computed: Mapping[str, str],
    companion: Companion | None = None,
) -> Iterator[ResumableTraining]:
    """A training that goes on from where the same command was stopped; signals wait for the end of a step meanwhile.

    Its snapshots stay when it ends: delete them by `delete_snapshots` once its result is there.

    Args:
        engine: The engine of this process.
        loop: The training, ready to take its first step.
        progress: What shows it.
        run: Folder of the run that it belongs to.
        name: Its name within the run.
        about: What decides where it ends, in words; the network as it stands, masks included, is looked at too.
        start: Its first step.
        computed: The device, and how it computes; "" for what rows leave out.
        companion: What counts beside it.

    Raises:
        BadInput: If a snapshot of just this training does not fit.
    """
    training = ResumableTraining(
        engine,
        loop,
        progress,
        files=SnapshotFiles(run, name),
        about={key: str(value) for key, value in about.items()},
        start=start,
        computed=computed,
        companion=companion,
    )
    loop.interruption = training
    with signals.put_off():
        try:
            training.resume()
            yield training
        except Diverged:  # so would every training from here on
            if engine.is_main_process:
                training.end()
                delete_snapshots(run, name)
            raise
        finally:
            loop.interruption = None  # each would keep the other, and a network with them
            training.end()


class SnapshotFiles:
    """The files of one training's snapshots, which only the first process writes.

    Attributes:
        own: Those that are of this very training, oldest first.
    """

    def __init__(self, run: Path, name: str) -> None:
        """Names them after the training, which may have a longer name than a file."""
        self._run, self._name = run, name
        self.own: list[Path] = []

    def path(self, step: int) -> Path:
        """Where the snapshot at a step lies."""
        return self._run / SNAPSHOT_FOLDER / f"{file_stem(self._name)}.step-{step:010d}.safetensors"

    def newest(self, about: Mapping[str, str], progress: Progress) -> tuple[Path, Header, StateDict] | None:
        """The newest that is whole and of this very training; of others a note says why they are left out."""
        for path in sorted(_files_of(self._run, self._name), reverse=True):
            try:
                header, tensors = Header.read(path, whole=False)
                odd = [name for name in about if header.about.get(name) != about[name]]
                if odd or header.about.keys() != about.keys():
                    why = f"it is of another {odd[0]}" if odd else "another version wrote it"
                    progress.note(f"left out {path.name}: {why}")
                    continue
                header, tensors = Header.read(path, whole=True)
            except (BadInput, OSError) as error:
                progress.note(f"left out {path.name}, an earlier one is looked for: {one_line(error)}")
                continue
            self.own = [path]
            progress.note(f"goes on from the snapshot at step {header.step:,}")
            return path, header, tensors
        return None

    def rotate(self, newest: Path) -> None:
        """Deletes all but the newest of them and those before it, as many as are kept."""
        self.own = [*(path for path in self.own if path != newest), newest][-_NUM_KEPT:]
        for path in _files_of(self._run, self._name):
            if path not in self.own:
                path.unlink(missing_ok=True)


def delete_snapshots(run: Path, name: str, *, but: str | None = None) -> None:
    """Deletes the snapshots of trainings: their results are there.

    Args:
        run: Folder of the run.
        name: Name of the training; one that ends in "*" is of all whose names begin so.
        but: Name of a training whose snapshots stay.
    """
    kept = [] if but is None else _files_of(run, but)
    with suppress(OSError):
        for path in _files_of(run, name):
            if path not in kept:
                path.unlink(missing_ok=True)
        (run / SNAPSHOT_FOLDER).rmdir()  # where it is empty


def _files_of(run: Path, name: str) -> list[Path]:
    begins = name.removesuffix("*") if name.endswith("*") else f"{file_stem(name)}.step-"
    with suppress(OSError):
        there = (run / SNAPSHOT_FOLDER).iterdir()
        return [path for path in there if path.name.startswith(begins) and path.suffix == ".safetensors"]
    return []


class _Writer:
    """Writes one snapshot at a time in a thread.

    Attributes:
        error: Why the last one was not written; None where it was.
    """

    def __init__(self, files: SnapshotFiles) -> None:
        self._files = files
        self._thread: threading.Thread | None = None
        self.error: str | None = None

    @property
    def is_busy(self) -> bool:
        """Whether one is being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, step: int, header: Header, tensors: StateDict) -> None:
        """Begins to write, when the one before is written."""
        self.wait()
        self._thread = threading.Thread(target=self._write, args=(self._files.path(step), header, tensors))
        self._thread.start()

    def wait(self) -> None:
        """Waits until it is written."""
        if self._thread is not None:
            self._thread.join()

    def _write(self, path: Path, header: Header, tensors: StateDict) -> None:
        try:
            tensorfile.write_tensor_file(path, "training", asdict(header), tensors)
            self._files.rotate(path)
        except Exception as error:  # a disk that is full may have room again; a thread's fault would be seen by nobody
            self.error = one_line(error)


class _Agreement:
    """How several processes come to act at the same step, for a collective operation about once a second.

    At a step that all know, each says which signal it has received, and the first whether it is time for a snapshot,
    and at which step they will ask next.
    """

    def __init__(self, engine: Engine, start: int) -> None:
        """Begins with a training."""
        self._accelerator = engine.accelerator
        self._asked_step, self._asked_at, self._gap = start, time.monotonic(), _FIRST_AGREEMENT

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to ask."""
        return bool(self._accelerator.num_processes == 1)

    def is_due(self, step: int) -> bool:
        """Whether the processes ask each other after this step."""
        return step >= self._asked_step + self._gap

    def decide(self, step: int, signal: int | None, wanted: bool) -> tuple[int | None, bool]:
        """The signal that one of the processes has received, and whether the first wants a snapshot."""
        if self.is_alone:
            return signal, wanted
        now, first = time.monotonic(), self._accelerator.is_main_process
        rate = (step - self._asked_step) / max(now - self._asked_at, 1e-6)
        gap = min(max(1, round(rate * _AGREE_SECONDS)), 2 * self._gap)
        own = torch.tensor([signal or 0, first and wanted, gap if first else 0], device=self._accelerator.device)
        torch.distributed.all_reduce(own, torch.distributed.ReduceOp.MAX)
        found: Sequence[int] = own.tolist()
        self._asked_step, self._asked_at, self._gap = step, now, max(1, found[2])
        return found[0] or None, bool(found[1])


def _running_statistics(network: MaskedNetwork) -> list[torch.Tensor]:
    """The buffers that each process moves by its own images, see `sync_buffers`."""
    ends = ("running_mean", "running_var")
    return [value for name, value in network.named_buffers() if name.rpartition(".")[2] in ends]


def _network_hash(network: MaskedNetwork) -> str:
    """A hash of a network as it stands, masks and scores included."""
    tensors = pruned_model.read_state(network) | {
        f"mask/{name}": layer for name, layer in pruned_model.current_mask(network.backbone).items()
    }
    scores = {f"score/{name}": value.detach().cpu() for name, value in pruned_model.gate_scores(network).items()}
    return tensorfile.tensors_hash({}, tensors | scores)
