"""A connection between two processes: what one says, and that the other is gone."""

import json
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from sslticket.files import parse_json

_LONGEST = 1 << 20  # bytes of a word
WORD = 1.0  # seconds in which a word of another process arrives, if there is one


class Line:
    """A connection to another process.

    Attributes:
        rank: of the process; None until it has said.
        host: its machine.
        heard: when something came over the line, by the monotonic clock.
        left: it has ended with its work done.
    """

    def __init__(self, connection: socket.socket, rank: int | None = None, host: str = "") -> None:
        self.connection, self.rank, self.host, self.left = connection, rank, host, False
        self.heard, self._rest, self._one = time.monotonic(), b"", threading.Lock()
        connection.settimeout(WORD)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A machine that is gone closes nothing: the system asks for it, and waits for its answers half a minute.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in {"KEEPIDLE": 10, "KEEPINTVL": 5, "KEEPCNT": 4, "USER_TIMEOUT": 30_000}.items():
            if option := getattr(socket, f"TCP_{name}", None):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)

    def say(self, **words: Any) -> None:
        """Send these words; without any it is a sign of life."""
        with suppress(OSError), self._one:  # who is gone is told by what cannot be read any more
            self.connection.sendall(json.dumps(words).encode() + b"\n")

    def read(self) -> list[dict[str, Any]] | None:
        """What has come; None where the other end is gone, or is none of us."""
        try:
            came = self.connection.recv(65536)
            *whole, self._rest = (self._rest + came).split(b"\n")
            words = [dict(parse_json(line, f"a word of {self.host}", most=_LONGEST)) for line in whole]
            if len(self._rest) > _LONGEST:
                return None
        except (OSError, ValueError, TypeError):
            return None
        self.heard = time.monotonic()
        return words if came else None
