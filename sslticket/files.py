"""Files that are there whole or not at all."""

import fcntl
import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from sslticket.errors import BadInput

# The only way to learn the mask is to set it; done once, before there are threads.
_UMASK = os.umask(0o077)
os.umask(_UMASK)
_ABANDONED = 3600.0  # seconds without a write


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there is flushed to disk and renamed into place at the end.

    If the block fails, nothing is left. The temporary name starts with a dot and holds machine and process, so a killed
    writer's remains are never taken for a file of ours, and two writers on a shared file system do not meet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _unfinished(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)  # libraries that write for themselves may leave it unreadable to others
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; what was written in it is flushed and renamed into place at the end.

    `path` may be there only as an empty folder. If the block fails, nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _unfinished(path)
    shutil.rmtree(temporary, ignore_errors=True)  # a killed writer's remains may have our number
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unfinished(path: Path) -> Path:
    return path.parent / f".{path.name}.{socket.gethostname()}.{os.getpid()}.part"


def sweep(folder: Path) -> None:
    """Delete what writers that are gone left unfinished below a folder, in which others may be at work.

    A writer is gone if its process ran on this machine and is no more, or has written nothing for an hour.
    """
    for path in filter(Path.is_file, folder.rglob(".*.part")):
        with suppress(FileNotFoundError):  # renamed into place meanwhile
            pid = path.name.split(".")[-2]
            here = pid.isdigit() and path.name.endswith(f".{socket.gethostname()}.{pid}.part")
            if (here and not runs(int(pid))) or time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


def runs(pid: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process that makes a file until the block ends; others that come here wait, and then look again.

    Where the folder cannot be written, or its file system has no locks, nobody waits.
    """
    with ExitStack() as held:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.parent / f".{path.name}.lock"
            held.enter_context(_taken(lock))
            held.callback(lock.unlink, missing_ok=True)  # before it is let go: nothing stays behind
        yield


def _taken(lock: Path) -> TextIO:
    """An open file that this process alone has locked; the system lets go of it whenever the process ends."""
    while True:
        file = lock.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        except FileNotFoundError:
            pass
        except OSError:
            file.close()
            raise
        file.close()  # whoever held it took the file away, and another may be there by now


def read_bytes(path: Path, most: int) -> bytes:
    """All of a regular file, which is looked at before a byte of it is read.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        BadInput: if it is a pipe, a device or a folder, or has more bytes.
        OSError: if it is not there or cannot be read.
    """
    # A pipe that nobody writes to would be waited for.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123  # no path
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise BadInput(f"{path} is no file but a folder, a pipe or a device; give a file")
        if state.st_size > most:
            raise BadInput(f"{path} has {state.st_size:,} bytes where at most {most:,} are read; it is another file")
        content = file.read(most + 1)  # what grows meanwhile, or tells no size, ends here
    if len(content) > most:
        raise BadInput(f"{path} has more than the {most:,} bytes that are read; it is another file")
    return content


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one readable JSON object, whole."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write one measurement as a JSON-lines file of its own, whole: one file per measurement needs no locking."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(row, allow_nan=False) + "\n", encoding="utf-8")
