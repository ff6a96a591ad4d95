"""Standard output and error as a command needs them: there, in whatever encoding, and no reason to fail."""

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

from sslticket.errors import Unwritten


@contextmanager
def ready() -> Iterator[None]:
    """Inside this block both are open and take every text, and the log forgives every disk.

    A letter that the terminal's encoding lacks is written as its number. What is told on standard error while a command
    works is lost where it cannot be written, as on a full disk; the work goes on. Of standard output that is an error.
    """
    _open()
    before = getattr(sys.stdout, "errors", None)
    _encode(sys.stdout, "sslticket")
    try:
        told, log = _Stream(sys.stdout, "standard output"), _Stream(sys.stderr)
        with redirect_stdout(cast(TextIO, told)), redirect_stderr(cast(TextIO, log)):
            yield
    finally:
        _encode(sys.stdout, before)
        for stream in (sys.stdout, sys.stderr):
            with suppress(ValueError):  # closed by whoever gave it
                drained(stream)


def drained(stream: TextIO) -> OSError | None:
    """Flush a stream; one that cannot be written leads nowhere from now on, and the error is returned.

    Otherwise Python would try again at its end, and tell of it.
    """
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
            stream.flush()
        return error
    return None


class _Stream:
    """A stream whose errors name it, or are forgiven; a reader who has had enough stays one."""

    def __init__(self, stream: TextIO, name: str = "") -> None:
        """Takes a stream, and the name by which its errors are raised; "" for none."""
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        """As the stream does, if it can."""
        with self._named():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As the stream does, if it can."""
        with self._named():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._name:
                raise Unwritten(error.errno, error.strerror, self._name) from error


def _open() -> None:
    """Streams that were closed, as by `>&-`, lead nowhere: else the next file that is opened would take their place."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115  # for as long as the process lives
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _encode(stream: TextIO, errors: str | None) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and errors is not None:
        reconfigure(errors=errors)


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """Bytes of a file's name that were no text go out as they came in; other letters as their numbers."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("sslticket", _shown)
