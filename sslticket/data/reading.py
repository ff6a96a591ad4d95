"""The bytes of a manifest's images, one by one, as they lie on the disk."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sslticket.data.archives import Archives
from sslticket.data.manifest import Manifest

LONGEST = 2**28
"""Bytes of a file that are held in memory: no image needs more, and a file with holes may claim anything."""


def opened(path: Path) -> BinaryIO:
    """A regular file, to be read; nothing else is even touched, since a pipe waits for ever and a device may act.

    Raises:
        OSError: if it is no regular file, or cannot be opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # another came in its place meanwhile
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file")
    return file


def why(error: OSError) -> str:
    """Why a file cannot be read, in the system's words.

    Raises:
        OSError: the error itself, where this process has too many open files: that says nothing of the file.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise error
    return error.strerror or str(error)


def reader(manifest: Manifest) -> Callable[[int], bytes]:
    """Reads the file of a row's image, of a very long one the first part; nothing, where it cannot be read."""
    if manifest.archives:
        archives, places = Archives(manifest.archives), manifest.places
        return lambda row: archives.read(*places[row].tolist()).tobytes()

    def read(row: int) -> bytes:
        try:
            with opened(manifest.path(row)) as file:
                return file.read(LONGEST)
        except OSError:
            return b""

    return read
