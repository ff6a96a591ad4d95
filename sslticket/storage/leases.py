"""Leases: which of several processes on a shared file system does a piece of work.

A lease is a file beside the file that is to be written. Its process keeps it locked, touches it now and then, and
deletes it in the end. On one machine a dead process's lock is gone, so its lease is free at once. Where another machine
made it, and locks may not be shared, it is free when it has not been touched for a while. Should two machines take such
a lease in the same moment, both do the work and write the same whole file: nothing is lost but time.
"""

import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sslticket.errors import BadInput
from sslticket.storage.files import remove_unfinished

EXPIRY_SECONDS = 600.0
"""Seconds without a touch after which another machine's lease is free."""
_HEARTBEAT_SECONDS = 30.0


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
    held: dict[Path, FileLock] = {}
    ended = threading.Event()
    try:
        for target in targets:
            if lock := _acquire(lease_path(target)):
                held[target] = lock
        if held:
            threading.Thread(target=_renew, args=([lease_path(target) for target in held], ended), daemon=True).start()
        yield list(held)
    finally:
        ended.set()
        for target, lock in held.items():
            # Deleted while it is still locked, so that nobody can take it in between and lose it.
            lease_path(target).unlink(missing_ok=True)
            lock.release()


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Deletes what killed processes left in folders of runs: unfinished files, and leases that nobody holds."""
    for folder in folders:
        with suppress(OSError):  # where nothing may be deleted, it stays
            remove_unfinished(folder)
            for path in list(folder.rglob(".*.claim")):
                if lock := _acquire(path):
                    path.unlink(missing_ok=True)
                    lock.release()


def _acquire(path: Path) -> FileLock | None:
    """The lock on a lease, which then has this machine's name in it; None where another process has the lease."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"{path.parent} cannot lock files ({reason}); put the run on a file system that can") from error
    owner = path.read_text(encoding="utf-8")  # of a new file nothing
    if owner not in ("", socket.gethostname()) and time.time() - path.stat().st_mtime < EXPIRY_SECONDS:
        lock.release()
        return None
    path.write_text(socket.gethostname(), encoding="utf-8")
    return lock


def _renew(paths: Sequence[Path], ended: threading.Event) -> None:
    while not ended.wait(_HEARTBEAT_SECONDS):
        for path in paths:
            with suppress(FileNotFoundError):
                os.utime(path)
