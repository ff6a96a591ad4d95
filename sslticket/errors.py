"""Errors that end a run with one line for a person: the project's own, and what to say about those of libraries."""

import errno
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

from sslticket.escaping import escape_terminal


class BadInput(ValueError):
    """What the user gave cannot be used; its one line names the thing and the fix (exit code 2)."""

    def __str__(self) -> str:
        return escape_terminal(super().__str__())


class WriteError(OSError):
    """A file that cannot be written; `filename` is the one that was to be written, whatever its temporary name."""


class Diverged(ArithmeticError):
    """Training produced a non-finite loss; no ticket and no score are written from it (exit code 3).

    Attributes:
        step: Optimiser steps up to and with that of the loss.
        steps: Optimiser steps of the whole training.
        lr: Learning rate of that step.
    """

    def __init__(self, message: str, *, step: int = 0, steps: int = 0, lr: float = 0.0) -> None:
        super().__init__(message)
        self.step, self.steps, self.lr = step, steps, lr


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> BadInput:
    """An error for a `name` that is none of the `allowed`, naming the nearest ones, or all where none is near."""
    choices = sorted(set(allowed))
    written = {choice.lower(): choice for choice in choices}
    near = get_close_matches(name, choices, n=3, cutoff=0.5)
    if not near and name.lower() in written:
        near = [written[name.lower()]]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(choices)}"
    return BadInput(f"unknown {kind} {name!r}; {hint}")


# How libraries say it, none of which has a class of its own for it: CUDA and torch on it, torch on a CPU, cuBLAS and
# cuDNN, and DALI. Torch finds no "engine" of cuDNN's where none has room for its workspace; that an operation has none
# at all does not happen to convolutions of these types.
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "alloc_failed",
    "cudaerrormemoryallocation",
    "allocation failed",
    "cannot allocate memory",
    "unable to find an engine",
)
_REQUESTED = r"ried to allocate ([\d.]+ ?\w+)"
_DEVICE = r"(GPU \d+) has a total capacity of ([\d.]+ \w+)(?: of which ([\d.]+ \w+) is free)?"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's or the machine's memory is not enough."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError)) and any(words in text for words in _NO_MEMORY)
    )


def out_of_memory_message(error: BaseException) -> str | None:
    """One line about memory that is not enough, and what helps; None for other errors."""
    if not is_out_of_memory(error):
        return None
    text = " ".join(str(error).split())
    requested, device = re.search(_REQUESTED, text), re.search(_DEVICE, text)
    details = [f"{requested[1]} more were asked for"] if requested else []
    where = "a GPU" if re.search("cuda|cublas|cudnn|engine", text, re.IGNORECASE) else "this machine"
    if device:
        where = device[1]
        details.append(f"it has {device[2]}" + (f", of which {device[3]} are free" if device[3] else ""))
    elif not requested and text:
        details.append(text[:200])
    more = f" ({'; '.join(details)})" if details else ""
    return (
        f"the memory of {where} is not enough{more}; give more processes, --precision bf16, --accumulate or "
        "--ghost-batch for smaller parts of a batch, or a smaller --image-size; --dry-run shows what is needed"
    )


_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors says it
_NO_SPACE, _MAKE_ROOM = "no space is left on the device", "free some, or give {place}"
_NO_PERMISSION, _CHANGE_PERMISSIONS = "permission is denied", "change its permissions, or give {place}"
_NO_ANSWER, _CHECK_FILE_SYSTEM = "its file system does not answer as it should", "look after it"
_FILE_NOT_FOLDER = "a file lies where a folder has to be"
_REASONS = {
    errno.ENOSPC: (_NO_SPACE, _MAKE_ROOM),
    errno.EDQUOT: ("the quota is used up", _MAKE_ROOM),
    errno.EFBIG: ("it would be larger than a file may be", "raise the limit (ulimit -f), or give {place}"),
    errno.EROFS: ("the file system is read-only", "give {place}"),
    errno.EACCES: (_NO_PERMISSION, _CHANGE_PERMISSIONS),
    errno.EPERM: (_NO_PERMISSION, _CHANGE_PERMISSIONS),
    errno.ENAMETOOLONG: ("the name is too long", "give {place}"),
    errno.ELOOP: ("its symbolic links lead in a circle", "mend them, or give {place}"),
    errno.ENOTDIR: (_FILE_NOT_FOLDER, "move it away, or give {place}"),
    errno.EEXIST: (_FILE_NOT_FOLDER, "move it away, or give {place}"),
    errno.EISDIR: ("a folder lies where a file has to be", "move it away, or give {place}"),
    errno.ENOTEMPTY: ("a folder with files lies there", "move it away, or give {place}"),
    errno.ENOENT: ("it is not there, or is gone", "bring it back, or give {place}"),
    errno.EMFILE: ("this process may not have so many files open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("this machine may not have so many files open", "end other programs"),
    errno.EAGAIN: ("the system has no more processes, threads or locks to give", "raise the limit (ulimit -u)"),
    errno.EIO: (_NO_ANSWER, _CHECK_FILE_SYSTEM),
    errno.ESTALE: (_NO_ANSWER, _CHECK_FILE_SYSTEM),
    errno.ETIMEDOUT: (_NO_ANSWER, _CHECK_FILE_SYSTEM),
    errno.EREMOTEIO: (_NO_ANSWER, _CHECK_FILE_SYSTEM),
}


def system_errno(error: BaseException) -> int | None:
    """The number by which the system says why; None where an error is none of the system's, or does not say."""
    if isinstance(error, OSError):
        return error.errno
    if "start new thread" in str(error):  # the only word that Python has for it
        return errno.EAGAIN
    found = _OS_ERROR.search(str(error))
    return int(found[1]) if found else None


def system_error_message(error: BaseException, place: str = "another place") -> str | None:
    """One line about what the system refuses: the file, why, and what helps; None for other errors.

    Args:
        error: The error that was raised.
        place: Where else could be written, with the flag if there is one.
    """
    if isinstance(error, UnicodeError):
        return f"{one_line(error)}; save what is read as UTF-8, or set PYTHONUTF8=1"
    if "determine home directory" in str(error):  # in a container, for one, a user may have no name either
        return "this user has no home folder; set HOME, or set SSLTICKET_CACHE and SSLTICKET_DATA to folders"
    number = system_errno(error)
    if number is None and not isinstance(error, OSError):
        return None
    why, fix = _REASONS.get(number or 0, ("", "give {place}"))
    if not why:
        why = os.strerror(number) if number else one_line(error)
    name = getattr(error, "filename", None)
    what = "" if name is None else f"{os.fsdecode(name) if isinstance(name, bytes) else name}: "
    wrote = "cannot write " if isinstance(error, WriteError) else ""
    return f"{wrote}{what}{why}; {fix.format(place=place)}; the same command goes on from what is finished"


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its kind, where it says nothing."""
    return escape_terminal(" ".join(str(error).split())) or type(error).__name__
