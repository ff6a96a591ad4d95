"""Leases: which of several processes on a shared file system does a piece of work, and for how long it is believed.

A lease is a file beside the file that is to be written. It says in JSON whose it is: machine, process, and under SLURM
the job with its restarts. Its process keeps it locked, touches it every 15 seconds, and deletes it in the end. So a
lease is free

- at once, where this machine's own lock on it is gone, since a lock goes with its process;
- at once, for the same SLURM job when it runs again, since SLURM has ended the earlier run;
- for everybody, 75 seconds after its last sign: its process is dead, stopped, or cut off from the file system.

Ages are told by the file system's clock alone; those of machines may differ. A process that was stopped for longer goes
on with its work all the same: two then write the same whole file, and nothing is lost but time. So it is where two
machines whose file system does not share locks take an abandoned lease in the same moment.
"""

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from sslticket.errors import BadInput, one_line
from sslticket.storage.files import parse_json, remove_unfinished

EXPIRY_SECONDS = 75.0
"""Seconds without a sign after which a lease is free for everybody; five touches."""
HEARTBEAT_SECONDS = 15.0
_POLL_SECONDS = 1.0
_BIRTH_SECONDS = 2.0  # within which a new lease has its text
_GLANCE_SECONDS = 0.5  # for which others lock a lease at most, to look at it
_CLOCK_SECONDS = 30.0  # for which the difference of two clocks is remembered
_MAX_BYTES = 4096


class InHand(BadInput):
    """What was asked for is in the hands of another process that is alive."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that a lease names.

    Attributes:
        host: Name of its machine.
        pid: Its number there; None in a lease of versions up to 0.2, which has the machine's name alone.
        boot: The machine's boot id, since names of machines repeat; "" where the system has none.
        cluster: Name of the SLURM cluster; "" without SLURM, like the next three.
        job: Number of its SLURM job.
        array_job: Number of the job array that the job is in.
        array_task: Its number in the array.
        restart: How often SLURM had started the job again.
        since: When it took the lease, by its own clock.
    """

    host: str
    pid: int | None = None
    boot: str = ""
    cluster: str = ""
    job: str = ""
    array_job: str = ""
    array_task: str = ""
    restart: int = 0
    since: str = ""

    @classmethod
    def current(cls) -> "Holder":
        """This process."""
        restart = os.environ.get("SLURM_RESTART_COUNT", "0")
        return cls(
            host=socket.gethostname(),
            pid=os.getpid(),
            boot=_boot_id(),
            cluster=os.environ.get("SLURM_CLUSTER_NAME", ""),
            job=os.environ.get("SLURM_JOB_ID", ""),
            array_job=os.environ.get("SLURM_ARRAY_JOB_ID", ""),
            array_task=os.environ.get("SLURM_ARRAY_TASK_ID", ""),
            restart=int(restart) if restart.isdecimal() else 0,
            since=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        )

    @classmethod
    def parse(cls, text: bytes) -> "Holder":
        """The holder that a lease names; damaged text counts as the name of a machine, as all text once was."""
        try:
            found = parse_json(text, "a lease")
            types = {name: type(value) for name, value in asdict(cls(host="", pid=0)).items()}
            return cls(**{name: value for name, value in found.items() if type(value) is types.get(name)})
        except (ValueError, TypeError, AttributeError):
            return cls(host=text.decode(errors="replace").strip()[:255])

    def to_bytes(self) -> bytes:
        """The text of its lease."""
        told = {name: value for name, value in asdict(self).items() if value or name == "pid"}
        return (json.dumps(told, indent=2) + "\n").encode()

    def __str__(self) -> str:
        if self.job:
            number = f"{self.array_job}_{self.array_task}" if self.array_job and self.array_task else self.job
            restart = f" (restart {self.restart})" if self.restart else ""
            return f"job {number}{restart} on node {self.host}, pid {self.pid}"
        return f"{'a process' if self.pid is None else f'pid {self.pid}'} on {self.host or 'some machine'}"

    def shares_locks_with(self, other: "Holder") -> bool:
        """Whether both are on one machine, where a lock that nobody holds is a dead process's."""
        return self.host == other.host and (not self.boot or not other.boot or self.boot == other.boot)

    def is_earlier_run_of(self, other: "Holder") -> bool:
        """Whether it belongs to an earlier run of the same SLURM job."""
        same = bool(other.job) and (self.cluster, self.job) == (other.cluster, other.job)
        return same and self.restart < other.restart


@dataclass(frozen=True, kw_only=True)
class Held:
    """A lease in the hands of another process, at one look.

    Attributes:
        holder: The process.
        sign: When it last gave a sign of life, by the file system's clock.
        silent: Seconds since then.
        by_lock: Whether its lock tells that it lives, so that the lease is its until it ends.
    """

    holder: Holder
    sign: float
    silent: float
    by_lock: bool

    @property
    def until(self) -> str:
        """When it is free, in words that go on a sentence."""
        if self.by_lock:
            return "as soon as it ends"
        then = time.localtime(time.time() + max(0.0, EXPIRY_SECONDS - self.silent))
        return f"at {time.strftime('%H:%M:%S', then)} unless it gives a sign before"


class Lease:
    """A lease that this process has: its file, open and locked."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor

    def renew(self) -> None:
        """Gives a sign of life; the time is the file system's, not this machine's."""
        with suppress(OSError):  # a file system that is away may come back before the lease is lost
            os.utime(self._descriptor)

    def release(self) -> None:
        """Deletes it while it is still locked, so that nobody can take it in between and lose it."""
        with suppress(OSError):
            if self.is_ours:
                _delete(self._descriptor, self.path)
        os.close(self._descriptor)

    @property
    def is_ours(self) -> bool:
        """Whether it is still this process's: another may have taken it where this one was stopped for long."""
        return _is_at(self._descriptor, self.path)


def lease_path(target: Path) -> Path:
    """The lease on a file that is to be written, ".<name>.claim"; readers of rows leave names with a dot alone."""
    return target.parent / f".{target.name}.claim"


@contextmanager
def hold_leases(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Takes the leases on files, as far as no other process has them, until the block ends.

    Args:
        targets: Files that are to be written.

    Yields:
        Those of the files that are now this process's to write.

    Raises:
        BadInput: If the file system has no locks.
    """
    with ExitStack() as held:
        mine = []
        for target in targets:
            lease = take_lease(lease_path(target))
            if isinstance(lease, Lease):
                held.callback(lease.release)
                mine.append((target, lease))
        if mine:
            held.enter_context(_renewed([lease for _, lease in mine]))
        yield [target for target, _ in mine]


@contextmanager
def hold_alone(path: Path, what: str, fix: str, note: Callable[[str], object]) -> Iterator[Lease]:
    """Holds a lease that only one process may have, until the block ends.

    Of another's lease it waits for the next sign, up to 75 seconds after the last: its process may be dead.

    Args:
        path: The lease.
        what: What its holder does, such as "searching in runs/a".
        fix: What to do if another is at it.
        note: Shows a person what it waits for.

    Yields:
        The lease.

    Raises:
        InHand: If another process gives a sign of life.
        BadInput: If the file system has no locks.
    """
    found, first, noted = take_lease(path), None, False
    began = time.monotonic()
    while isinstance(found, Held):
        first = first or found
        waited = time.monotonic() - began
        # An earlier run of the same job is about to end; others may have locked the lease only to look at it.
        patience = EXPIRY_SECONDS if found.holder.is_earlier_run_of(Holder.current()) else _GLANCE_SECONDS
        another = (found.sign, found.holder) != (first.sign, first.holder) and patience < EXPIRY_SECONDS
        if another or (found.by_lock and waited > patience):
            when = "as soon as it ends" if found.by_lock else f"{EXPIRY_SECONDS:.0f} s after its last sign of life"
            raise InHand(f"another process is {what}: {found.holder}; it is free {when}{fix}")
        if not noted and waited > _GLANCE_SECONDS:
            note(f"waiting for {found.holder}, which was {what}; it is free {found.until}")
            noted = True
        time.sleep(_GLANCE_SECONDS / 2 if waited < _GLANCE_SECONDS else _POLL_SECONDS)
        found = take_lease(path)
    with ExitStack() as held:
        held.callback(found.release)
        held.enter_context(_renewed([found]))
        yield found


def take_lease(path: Path) -> Lease | Held:
    """The lease, if it is free; else in whose hands it is.

    Raises:
        BadInput: If the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        # Made by the one process whose call succeeds, on any file system, shared locks or not.
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            if lease := _begin(path, descriptor):
                return lease
        if held := _free(path):
            return held


def look_at_lease(path: Path) -> Held | None:
    """In whose hands a lease is, which stays as it is; None where it is free."""
    return _free(path, delete=False)


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Deletes what killed processes left in folders of runs: unfinished files, and leases that nobody holds."""
    for folder in folders:
        with suppress(OSError):  # where nothing may be deleted, it stays
            remove_unfinished(folder)
            for path in list(folder.rglob(".*.claim")):
                _free(path)


def _begin(path: Path, descriptor: int) -> Lease | None:
    """This process's new lease, locked and with its text; None where another took it meanwhile."""
    try:
        if _lock(descriptor, path, patience=_GLANCE_SECONDS) and _is_at(descriptor, path):
            os.write(descriptor, Holder.current().to_bytes())
            os.fsync(descriptor)
            return Lease(path, descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _free(path: Path, *, delete: bool = True) -> Held | None:
    """Deletes a lease that is free; else tells in whose hands it is."""
    try:
        descriptor = os.open(path, os.O_RDWR)  # opened anew each time: network file systems then ask for its true age
    except FileNotFoundError:
        return None
    except PermissionError:  # another user's
        descriptor = os.open(path, os.O_RDONLY)
    try:
        locked, here = _lock(descriptor, path), Holder.current()
        if not _is_at(descriptor, path):
            return None
        held = _held(descriptor, path, here, locked=locked)
        if not _is_free(held, here, locked=locked):
            return held
        if delete:
            # Another may have locked it to look at it, and make its own in the next moment.
            if not locked:
                _lock(descriptor, path, patience=_GLANCE_SECONDS)
            if _is_at(descriptor, path):
                _delete(descriptor, path)
        return None
    finally:
        os.close(descriptor)


def _is_free(held: Held, here: Holder, *, locked: bool) -> bool:
    if held.by_lock:
        return False
    if held.holder.host == "":  # being made at this moment, or as versions up to 0.2 left .lock
        return held.silent > _BIRTH_SECONDS
    if locked and held.holder.shares_locks_with(here):
        return True
    return held.holder.is_earlier_run_of(here) or held.silent >= EXPIRY_SECONDS


def _held(descriptor: int, path: Path, here: Holder, *, locked: bool) -> Held:
    """What a look at a lease shows; `locked` says whether this process could lock it."""
    holder, sign = Holder.parse(os.pread(descriptor, _MAX_BYTES, 0)), os.fstat(descriptor).st_mtime
    same_kernel = holder.shares_locks_with(here) or (holder.boot and holder.boot == here.boot)
    # A lock that another machine's process seems to hold may be a dead one's, which its server still keeps.
    by_lock = not locked and bool(same_kernel or not holder.host)
    return Held(holder=holder, sign=sign, silent=abs(_now(path.parent) - sign), by_lock=by_lock)


def _lock(descriptor: int, path: Path, *, patience: float = 0.0) -> bool:
    """Locks a lease, if its lock is free or gets free within so many seconds."""
    from filelock import lock_descriptor  # takes a while, and few commands take leases

    end = time.monotonic() + patience
    while True:
        try:
            with suppress(PermissionError):  # how some network file systems say that another has it
                if lock_descriptor(descriptor, blocking=False):
                    return True
        except OSError as error:
            why = one_line(error)
            raise BadInput(
                f"{path.parent} is on a file system that locks no files ({why}); give another folder with --out"
            ) from error
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _delete(descriptor: int, path: Path) -> None:
    """Deletes an open lease, and none that another process has put in its place meanwhile."""
    aside = path.parent / f".lease-{threading.get_native_id()}.{socket.gethostname()}.{os.getpid()}.part"
    with suppress(FileNotFoundError):
        path.rename(aside)  # which is one process's doing, while looking and deleting are two acts
        if not _is_at(descriptor, aside):
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


@contextmanager
def _renewed(leases: Sequence[Lease]) -> Iterator[None]:
    """Gives a sign of life for leases, now and then, until the block ends."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            for lease in leases:
                lease.renew()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # before the files are closed: their numbers would be others' then


_clocks: dict[int, tuple[float, float]] = {}
"""By file system when it was asked for its time, and what its clock then was ahead of this process's."""


def _now(folder: Path) -> float:
    """The time by the clock that gives files of a folder their times, which may be a server's."""
    device, here = folder.stat().st_dev, time.monotonic()
    asked, ahead = _clocks.get(device, (-_CLOCK_SECONDS, 0.0))
    if here - asked >= _CLOCK_SECONDS:
        try:
            with tempfile.TemporaryFile(dir=folder, prefix=".now.", suffix=".part") as file:
                ahead = os.fstat(file.fileno()).st_mtime - here
        except OSError:  # where this process may only look
            ahead = time.time() - here
        _clocks[device] = here, ahead
    return here + ahead


@cache
def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""
