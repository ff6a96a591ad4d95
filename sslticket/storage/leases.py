"""Which of several processes on a shared file system does a piece of work: who holds the claim beside its file.

A claim is a file that its process keeps locked, touches now and then, and deletes in the end. On one machine a dead
process's lock is gone, so its claim is free at once. Where another machine made it, and locks may not be shared, it is
free when it has not been touched for a while. Should two machines take such a claim in the same moment, both do the
work and write the same whole file: nothing is lost but time.
"""

import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from sslticket.errors import BadInput
from sslticket.storage.files import remove_unfinished

EXPIRY_SECONDS = 600.0  # seconds without a touch after which another machine's claim is free
_HEARTBEAT_SECONDS = 30.0  # seconds between touches


def lease_path(target: Path) -> Path:
    """The claim on a file that is to be written; report and search leave names with a dot alone."""
    return target.parent / f".{target.name}.claim"


@contextmanager
def hold_leases(targets: Sequence[Path]) -> Iterator[list[Path]]:
    """Those of the files to be written that are now this process's to write, until the block ends.

    Raises:
        BadInput: if the file system has no locks.
    """
    taken: dict[Path, TextIO] = {}
    ended = threading.Event()
    try:
        for target in targets:
            if file := _acquire(lease_path(target)):
                taken[target] = file
        if taken:
            threading.Thread(target=_renew, args=([lease_path(target) for target in taken], ended), daemon=True).start()
        yield list(taken)
    finally:
        ended.set()
        for target, file in taken.items():
            # Deleted while it is still locked, so that nobody can take it in between and lose it.
            lease_path(target).unlink(missing_ok=True)
            file.close()


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Delete what killed processes left in folders of runs: unfinished files, and claims that nobody holds."""
    for folder in folders:
        with suppress(OSError):  # where nothing may be deleted, it stays
            remove_unfinished(folder)
            for path in list(folder.rglob(".*.claim")):
                if file := _acquire(path):
                    path.unlink(missing_ok=True)
                    file.close()


def _acquire(path: Path) -> TextIO | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            descriptor, new = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                descriptor, new = os.open(path, os.O_RDWR), False
            except FileNotFoundError:
                continue
        file = os.fdopen(descriptor, "r+", encoding="utf-8")
        if not _try_lock(file, path):
            file.close()
            return None
        # Whoever held it may have deleted it between our opening and locking: then we hold a file that is gone.
        with suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                break
        file.close()
    owner = file.read()
    if not new and owner != socket.gethostname() and time.time() - path.stat().st_mtime < EXPIRY_SECONDS:
        file.close()
        return None
    file.seek(0)
    file.truncate()
    file.write(socket.gethostname())
    file.flush()
    return file


def _try_lock(file: TextIO, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        reason = error.strerror or str(error)
        raise BadInput(f"{path.parent} cannot lock files ({reason}); put the run on a file system that can") from error
    return True


def _renew(paths: Sequence[Path], ended: threading.Event) -> None:
    while not ended.wait(_HEARTBEAT_SECONDS):
        for path in paths:
            with suppress(FileNotFoundError):
                os.utime(path)
