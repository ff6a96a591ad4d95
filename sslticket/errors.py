"""The two ways a run ends early, how a wrong name is answered, and errors of others that have a fix."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from sslticket.escaping import terminal


class BadInput(ValueError):
    """What the user gave cannot be used; its one line names the thing and the fix (exit code 2)."""

    def __str__(self) -> str:
        return terminal(super().__str__())


class Diverged(ArithmeticError):
    """Training produced a non-finite loss; nothing is written from it (exit code 3)."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> BadInput:
    """An error for a `name` that is none of the `allowed`, naming the nearest ones, or all where none is near."""
    choices = sorted(set(allowed))
    near = get_close_matches(name, choices, n=3, cutoff=0.5)
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
_ASKED = r"ried to allocate ([\d.]+ ?\w+)"
_DEVICE = r"(GPU \d+) has a total capacity of ([\d.]+ \w+)(?: of which ([\d.]+ \w+) is free)?"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's or the machine's memory is not enough."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError)) and any(words in text for words in _NO_MEMORY)
    )


def out_of_memory(error: BaseException) -> str | None:
    """One line about memory that is not enough, and what helps; None for other errors."""
    if not is_out_of_memory(error):
        return None
    text = " ".join(str(error).split())
    asked, device = re.search(_ASKED, text), re.search(_DEVICE, text)
    told = [f"{asked[1]} more were asked for"] if asked else []
    where = "a GPU" if re.search("cuda|cublas|cudnn|engine", text, re.IGNORECASE) else "this machine"
    if device:
        where = device[1]
        told.append(f"it has {device[2]}" + (f", of which {device[3]} are free" if device[3] else ""))
    elif not asked and text:
        told.append(text[:200])
    about = f" ({'; '.join(told)})" if told else ""
    return (
        f"the memory of {where} is not enough{about}; give more processes, --precision bf16, --accumulate or "
        "--ghost-batch for smaller parts of a batch, or a smaller --image-size; --dry-run tells what is needed"
    )


def one_line(error: Exception) -> str:
    """What an error says, in one line; its kind, where it says nothing."""
    return terminal(" ".join(str(error).split())) or type(error).__name__
