"""Memory that a process keeps instead of handing it back to the kernel."""

import os
import platform
import subprocess
import sys

import pytest

from sslticket.processes.allocator import wanted_settings

_PAGES_FETCHED = """
import resource
from sslticket.processes.allocator import keep_freed_memory
{before}
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    blocks = [np.ones(size << 17) for size in (5, 70, 3, 40)]  # MB of 8 bytes each
    del blocks
work()
start = faults()
for _ in range(5):
    work()
print(faults() - start)
"""
MMAP_MAX, TRIM_THRESHOLD = (-4, 0), (-1, -1)


def pages_fetched(*, kept: bool, **environment: str) -> int:
    """Pages that a process fetches from the kernel while it allocates and frees the same 118 MB five times."""
    code = _PAGES_FETCHED.format(before="keep_freed_memory()" if kept else "")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    # numpy asks for large pages, of which a few hold everything.
    command = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "NUMPY_MADVISE_HUGEPAGE": "0", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(command.stdout)


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")


@glibc
def test_freed_memory_is_not_fetched_from_the_kernel_again() -> None:
    assert pages_fetched(kept=True) < 200
    assert pages_fetched(kept=False) > 10_000


@glibc
def test_a_users_own_setting_wins() -> None:
    own = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    assert pages_fetched(kept=True, **own) > 10_000


def test_each_setting_is_left_to_the_user_who_names_it() -> None:
    assert wanted_settings({}) == [MMAP_MAX, TRIM_THRESHOLD]
    assert wanted_settings({"MALLOC_ARENA_MAX": "2"}) == [MMAP_MAX, TRIM_THRESHOLD]
    assert wanted_settings({"MALLOC_MMAP_MAX_": "65536"}) == [TRIM_THRESHOLD]
    assert wanted_settings({"MALLOC_MMAP_THRESHOLD_": "1000000"}) == [TRIM_THRESHOLD]
    assert wanted_settings({"MALLOC_TRIM_THRESHOLD_": "0"}) == [MMAP_MAX]
    tunables = "glibc.malloc.check=3:glibc.malloc.trim_threshold=0"
    assert wanted_settings({"GLIBC_TUNABLES": tunables}) == [MMAP_MAX]
