"""Files that are written whole or not at all, and bounded reading of files and JSON that may come from anywhere."""

import filecmp
import hashlib
import json
import math
import os
import re
import shutil
import socket
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from sslticket.errors import BadInput, WriteError, one_line, system_errno

# The only way to learn the mask is to set it; done once, before there are threads.
_UMASK = os.umask(0o077)
os.umask(_UMASK)
_ABANDONED_AFTER = 3600.0  # seconds without a write
_TEMPORARY_SUFFIX = re.compile(r"[^/]+\.\d+\.part")

NONBLOCKING: int = getattr(os, "O_NONBLOCK", 0)
"""The flag by which opening a pipe waits for nobody; Windows has no such pipes."""
MAX_JSON_BYTES = 1 << 22
"""Bytes of a JSON file, unless more are allowed: ten times the longest recipe's."""
_MAX_DEPTH = 32  # of JSON: a recipe is nested six times
_MAX_DIGITS = 40
_DAMAGED_FIX = "copy it anew, or delete it and run the command that made it again"


def cache_folder() -> Path:
    """The folder of what takes long to make or to get: $SSLTICKET_CACHE, or .cache/sslticket in the home folder."""
    return Path(os.environ.get("SSLTICKET_CACHE") or "~/.cache/sslticket").expanduser()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what was written there is flushed to disk and renamed into place at the end.

    If the block fails, nothing is left. The temporary name starts with a dot and holds machine and process, so a killed
    writer's remains are never taken for a file of ours, and two writers on a shared file system do not meet. The next
    writer of the file takes such remains away.

    Raises:
        WriteError: Naming `path`, if the system does not let it be written, whoever wrote in the block.
    """
    temporary = _temporary_path(path)
    try:
        with _errors_name_target(path, temporary):
            _prepare_folder(path)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_UMASK)  # libraries that write for themselves may leave it unreadable to others
            temporary.replace(path)
    finally:
        with suppress(OSError):  # the error that led here is the one to tell
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; what was written in it is flushed and renamed into place at the end.

    If the block fails, nothing is left. `path` may be there as an empty folder, or hold some of the very same files:
    then the others are put beside them.

    Raises:
        BadInput: If `path` holds anything else; nothing there is replaced.
        WriteError: As `atomic_write` does.
    """
    temporary = _temporary_path(path)
    try:
        with _errors_name_target(path, temporary):
            _prepare_folder(path)
            shutil.rmtree(temporary, ignore_errors=True)  # a killed writer's remains may have our number
            temporary.mkdir()
            yield temporary
            for file in temporary.iterdir():
                with file.open("rb") as written:
                    os.fsync(written.fileno())
            if not path.is_dir() or not any(path.iterdir()):
                temporary.replace(path)
                return
            there, made = ({file.name for file in folder.iterdir()} for folder in (path, temporary))
            same, _, _ = filecmp.cmpfiles(path, temporary, sorted(there & made), shallow=False)
            if set(same) != there:
                raise BadInput(f"{path} is there already and not empty; delete it or give another name")
            for name in sorted(made - there):
                (temporary / name).replace(path / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _errors_name_target(path: Path, temporary: Path) -> Iterator[None]:
    """Errors of the system name the file that was meant; libraries tell the temporary one's name, or none."""
    try:
        yield
    except Exception as error:
        number, name = system_errno(error), getattr(error, "filename", None)
        if number is None and not isinstance(error, OSError):
            raise
        if name is not None and not _is_target(name, path, temporary):  # one that was read meanwhile
            raise
        number = number or _probe_write_error(temporary)
        why = os.strerror(number) if number else one_line(error)
        raise WriteError(number, why, str(path)) from error


def _is_target(name: object, path: Path, temporary: Path) -> bool:
    named = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else Path(str(name))
    return named in (path, temporary, *path.parents) or temporary in named.parents


def _probe_write_error(path: Path) -> int | None:
    """Why nothing more can be written to a file; some libraries keep what the system said to themselves."""
    try:
        with path.open("ab") as file:
            file.write(bytes(1 << 20))
    except OSError as error:
        return error.errno
    return None


def _temporary_path(path: Path) -> Path:
    return path.parent / f"{_temporary_prefix(path)}.{socket.gethostname()}.{os.getpid()}.part"


def _temporary_prefix(path: Path) -> str:
    """What unfinished files of this one begin with; a hash where they would have too long a name, and it has not."""
    if len(os.fsencode(path.name)) <= 180 or len(os.fsencode(path.name)) > 255:
        return f".{path.name}"
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}"


def _prepare_folder(path: Path) -> None:
    """Make the folder of a file that is to be written, and take away what killed writers of it left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begins = f"{_temporary_prefix(path)}."
    with suppress(OSError):
        for other in path.parent.iterdir():
            if other.name.startswith(begins) and _TEMPORARY_SUFFIX.fullmatch(other.name.removeprefix(begins)):
                _remove_if_abandoned(other)


def save_if_possible(compiled: Any) -> Any:
    """A function that numba compiles, and keeps on disk if that can be written: a full one would else be an error."""
    cache: Any = getattr(compiled, "_cache", None)
    if (save := getattr(cache, "save_overload", None)) is not None:

        def save_or_not(*given: Any) -> None:
            with suppress(OSError):
                save(*given)

        cache.save_overload = save_or_not
    return compiled


def remove_unfinished(folder: Path) -> None:
    """Delete what writers that are gone left unfinished below a folder, in which others may be at work.

    A writer is gone if its process ran on this machine and is no more, or has written nothing for an hour.
    """
    for path in list(folder.rglob(".*.part")):
        if path.is_file() or _TEMPORARY_SUFFIX.search(path.name):
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    """Delete an unfinished file or folder if its writer is gone."""
    with suppress(FileNotFoundError):  # renamed into place meanwhile
        pid = path.name.split(".")[-2]
        here = pid.isdigit() and path.name.endswith(f".{socket.gethostname()}.{pid}.part")
        last = max(file.stat().st_mtime for file in (path, *path.glob("*")))
        if (here and not process_exists(int(pid))) or time.time() - last > _ABANDONED_AFTER:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def process_exists(pid: int) -> bool:
    """Whether there is such a process on this machine."""
    import psutil  # a signal would tell, too, but on Windows end it

    return bool(psutil.pid_exists(pid))


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Be the only process that makes a file until the block ends; others that come here wait, and then look again.

    Where the folder cannot be written, or its file system has no locks, nobody waits.
    """
    from filelock import FileLock  # takes a while, and few commands lock anything

    lock = path.parent / f".{path.name}.lock"
    with ExitStack() as held:
        with suppress(OSError, NotImplementedError):
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(lock))
            held.callback(lock.unlink, missing_ok=True)  # before it is let go: nothing stays behind
        yield


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A file that is open for reading, and its size in bytes.

    Raises:
        BadInput: If it is a folder, or a pipe or a device, which might be waited for for ever.
        OSError: If it is not there or cannot be read.
    """
    with open(path, "rb", opener=_nonblocking_opener) as file:  # Path.open has no opener
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise BadInput(f"{path} is no file but a pipe or a device; give a file")
        yield file, state.st_size


def _nonblocking_opener(path: str, flags: int) -> int:
    return os.open(path, flags | NONBLOCKING)


def read_bytes(path: Path, most: int) -> bytes:
    """All of a regular file, whose size is looked at before a byte of it is read.

    Args:
        path: Path of the file.
        most: Bytes that it may have.

    Raises:
        BadInput: If it is no regular file, or has more bytes.
        OSError: If it is not there or cannot be read.
    """
    with open_regular(path) as (file, size):
        if size > most:
            raise BadInput(f"{path} has more than the {most:,} bytes that such a file may have; it is another file")
        content = file.read(size + 1)  # memory for so much is taken at once
    if len(content) > size:
        raise BadInput(f"{path} grew while it was read; run the same command again when it is whole")
    return content


def read_json(path: Path, *, most: int = MAX_JSON_BYTES, finite: bool = True, fix: str = _DAMAGED_FIX) -> Any:
    """The value in a JSON file, by `parse_json`.

    Raises:
        BadInput: Naming the file, if it is too large, no regular file, or no such JSON.
        OSError: If it is not there or cannot be read.
    """
    return parse_json(read_bytes(path, most), str(path), most=most, finite=finite, fix=fix)


def parse_json(
    text: bytes | str, what: str, *, most: int = MAX_JSON_BYTES, finite: bool = True, fix: str = _DAMAGED_FIX
) -> Any:
    """The value of JSON text that may come from anywhere: the only place where JSON is read.

    Args:
        text: The text, in UTF-8 if it is bytes.
        what: What it is, such as its file, for an error.
        most: Bytes or characters that it may have.
        finite: Whether NaN and infinities are refused.
        fix: What to do about text that is refused.

    Raises:
        BadInput: If it is longer, no JSON, nested more than 32 times, holds a key twice, a whole number of more than
            40 digits, or a character that is none.
    """
    try:
        if len(text) > most:
            raise ValueError(f"it is longer than {most:,} bytes")
        plain = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = (_FINITE_DECODER if finite else _ANY_DECODER).decode(plain)
        if plain.count("[") + plain.count("{") > _MAX_DEPTH and _is_nested_deeper(value, _MAX_DEPTH):
            raise ValueError(f"it is nested more than {_MAX_DEPTH} times")
        # Names of files that are no UTF-8 hold halves of characters, by the rule of `os.fsdecode`, and no others do.
        if "\\u" in plain:
            json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except RecursionError:
        raise BadInput(f"{what} is damaged (it is nested more than {_MAX_DEPTH} times); {fix}") from None
    except ValueError as error:
        raise BadInput(f"{what} is damaged ({_json_fault(error)}); {fix}") from None
    return value


def _json_fault(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8"
    if isinstance(error, UnicodeEncodeError):
        return "it holds half a character"
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    return one_line(error)


def _is_nested_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} is in it twice")
    return found


def _bounded_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _finite_float(digits: str) -> float:
    if math.isfinite(number := float(digits)):
        return number
    raise ValueError(f"a number that is not finite, {digits[:40]}")


_ANY_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_int=_bounded_int)
_FINITE_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_int=_bounded_int, parse_float=_finite_float, parse_constant=_finite_float
)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one readable JSON object, whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_row(path: Path, row: Mapping[str, Any]) -> None:
    """Write one measurement as a JSON-lines file of its own, whole: one file per measurement needs no locking."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(row, allow_nan=False) + "\n", encoding="utf-8")
