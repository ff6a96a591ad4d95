"""Memory that a process keeps: the C library hands none of it back to the kernel between two training steps.

A step allocates the same large blocks as the step before, activations above all. glibc by default maps each of them
from the kernel and unmaps it when it is freed, so every page is fetched and zeroed anew in every step; that may take as
long as the arithmetic. `keep_freed_memory` lets glibc keep what is freed for what is asked for next. A process then
holds the most that it has needed at once until it ends, which is what a training needs in its next step anyway.

Nothing changes on other C libraries, under another allocator that was preloaded, or on a GPU's own memory.
"""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple


class _Setting(NamedTuple):
    """One of glibc's settings (`man 3 mallopt`).

    Attributes:
        parameter: Its number in malloc.h.
        value: What it is set to.
        variables: Variables of the environment by which users set it, or what it acts with.
        tunables: The same as they are named in GLIBC_TUNABLES.
    """

    parameter: int
    value: int
    variables: tuple[str, ...]
    tunables: tuple[str, ...]


_SETTINGS = (
    # No block, however large, has a mapping of its own, which would end with the block.
    _Setting(
        -4, 0, ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_"), ("glibc.malloc.mmap_max", "glibc.malloc.mmap_threshold")
    ),
    # The end of the heap is not given back either; -1 is "never".
    _Setting(-1, -1, ("MALLOC_TRIM_THRESHOLD_",), ("glibc.malloc.trim_threshold",)),
)
_done = False


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the process, from now on; done once, later calls do nothing.

    Settings of the user's own, by MALLOC_* variables or GLIBC_TUNABLES, stay as they are.
    """
    global _done
    if _done or not sys.platform.startswith("linux"):
        return
    _done = True
    import ctypes  # not by every import of this package: most of its users allocate nothing

    # Not there in other C libraries, such as musl.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in wanted_settings(os.environ):
            mallopt(parameter, value)


def wanted_settings(environment: Mapping[str, str]) -> list[tuple[int, int]]:
    """The numbers and values of the settings that a user's environment leaves to us.

    Args:
        environment: Variables of the environment.
    """
    # Its entries are joined by colons; one setting's name may begin with another's.
    named = {entry.partition("=")[0] for entry in environment.get("GLIBC_TUNABLES", "").split(":")}
    return [
        (setting.parameter, setting.value)
        for setting in _SETTINGS
        if not any(environment.get(name) for name in setting.variables) and named.isdisjoint(setting.tunables)
    ]
