"""Standard output and error as a command needs them: there, in whatever encoding, and no reason to fail."""

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any, TextIO, cast


@contextmanager
def ready() -> Iterator[None]:
    """Open the streams that are closed, and take every text and, for the log, every disk.

    A letter that the terminal's encoding lacks is written as its number. What is told on standard error while a command
    works is lost where it cannot be written, as on a full disk; the work goes on.
    """
    _open()
    before = getattr(sys.stdout, "errors", None)
    _encode(sys.stdout, "sslticket")
    try:
        with redirect_stderr(cast(TextIO, _Log(sys.stderr))):
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


class _Log:
    """A stream that forgives a disk that is full or a terminal that is gone; not a reader who has had enough."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As the stream does, if it can."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError:
            return len(text)

    def flush(self) -> None:
        """As the stream does, if it can."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


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
