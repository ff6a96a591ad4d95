"""The watchdog: a thread that ends this process as soon as another process of the run has ended.

Every process holds a connection to process 0, over which each sends a heartbeat once a second. The system closes the
connection of a process that ends, however it ends, so the others know at once, without waiting for a collective
operation to time out; of a machine that is gone the system tells within half a minute. A process that ends on purpose
sends the reason before it does.
"""

import json
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from sslticket.errors import BadInput, one_line
from sslticket.processes import signals
from sslticket.storage.files import parse_json

_MAX_MESSAGE = 1 << 20  # bytes of a word
MESSAGE_TIMEOUT = 1.0  # seconds in which a word of another process arrives, if there is one


class Connection:
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
        connection.settimeout(MESSAGE_TIMEOUT)
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
            words = [dict(parse_json(line, f"a word of {self.host}", most=_MAX_MESSAGE)) for line in whole]
            if len(self._rest) > _MAX_MESSAGE:
                return None
        except (OSError, ValueError, TypeError):
            return None
        self.heard = time.monotonic()
        return words if came else None


RENDEZVOUS_TIMEOUT = (
    300.0  # seconds in which all have to come; a cluster's file system may take minutes over torch's libraries
)
_HEARTBEAT = 1.0  # seconds between two signs of life
_STALLED_AFTER = 5.0  # seconds between two of our own beats that tell that this process was held up itself
_SAME_FLAGS_FIX = "give the same flags to every process"
_RERUN_FIX = "run the same command again: what is finished stays, and it goes on from there"


class Watchdog(threading.Thread):
    """Holds the lines, in a thread of its own: the main one may be inside an operation that waits for all.

    Attributes:
        patience: seconds without a sign of life after which a process is given up.
        met: is set when all have come.
        done: this process's command has nothing left to do.
    """

    def __init__(self, rank: int, world: int) -> None:
        """Process 0 opens a door, and every other comes to it.

        Raises:
            BadInput: if this process cannot reach process 0.
        """
        super().__init__(daemon=True, name="processes")
        self.patience, self.met, self.done = RENDEZVOUS_TIMEOUT, threading.Event(), False
        self._rank, self._world, self._host = rank, world, socket.gethostname()
        self._leader = os.environ["LOCAL_RANK"] == "0"  # tells its machine's log what happens
        self._leaving, self._began = False, time.monotonic()
        self._signal, self._terminated = 0, 0.0  # which has asked this process to end, and when
        self._selector, self._lines, self._seal = selectors.DefaultSelector(), dict[int, Connection](), ""
        self._here, self._reached = dict.fromkeys(range(world), 0), 0
        self._change = threading.Condition()
        self._hear_signals()
        self._store = _connect_store(rank)
        if self._rank == 0:
            self._open()
        else:
            self._come()

    def _hear_signals(self) -> None:
        """Signals end a process as they always do, but not before the reason for them could come over a line.

        The launcher sends SIGTERM to all as soon as one process has ended. Python's own handlers would wait for the
        operation that the main thread is in.
        """
        bell, wire = socket.socketpair()
        bell.setblocking(False)
        wire.setblocking(False)
        for each in filter(signals.has_default_handler, signals.STOP_SIGNALS):
            signal.signal(each, lambda number, frame: None)
        signal.set_wakeup_fd(wire.fileno(), warn_on_full_buffer=False)
        self._wire = wire
        self._selector.register(bell, selectors.EVENT_READ, lambda: self._rung(bell))

    def _rung(self, bell: socket.socket) -> None:
        rung = [number for number in bell.recv(4096) if number in signals.STOP_SIGNALS]
        if rung and not self._terminated:
            self._signal, self._terminated = rung[0], time.monotonic()

    def _open(self) -> None:
        try:
            door = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        except (OSError, ValueError):
            door = socket.create_server(("", 0), backlog=1024)
        self._seal = secrets.token_hex(8)
        self._store.set("door", json.dumps([door.getsockname()[1], self._seal, self._host]))
        self._selector.register(door, selectors.EVENT_READ, lambda: self._opened(door))

    def _opened(self, door: socket.socket) -> None:
        with suppress(OSError):
            self._hold(Connection(door.accept()[0]))

    def _come(self) -> None:
        address = os.environ["MASTER_ADDR"]
        try:
            port, seal, host = parse_json(self._store.get("door"), "the word of process 0")
            line = Connection(socket.create_connection((address, port), timeout=30.0), 0, host)
        except (OSError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"process {self._rank} does not reach process 0 at {address} ({one_line(error)}); let the machines "
                "reach each other, at any port"
            ) from error
        line.say(rank=self._rank, seal=seal, host=self._host)
        self._lines[0] = line
        self._hold(line)

    def _hold(self, line: Connection) -> None:
        self._selector.register(line.connection, selectors.EVENT_READ, lambda: self._listen(line))

    def run(self) -> None:
        """Listen until the process ends."""
        before = time.monotonic()
        while True:
            for key, _ in self._selector.select(_HEARTBEAT / 10 if self._terminated else _HEARTBEAT):
                act: Callable[[], None] = key.data
                act()
            now = time.monotonic()
            if self._terminated and now - self._terminated > MESSAGE_TIMEOUT:
                self._stop()
            if now - before < _HEARTBEAT:
                continue
            if now - before > _STALLED_AFTER:  # all may have spoken in the meantime
                for line in self._lines.values():
                    line.heard = now
            before = now
            self._beat(now)

    def _beat(self, now: float) -> None:
        for line in [line for line in self._lines.values() if not line.left]:
            line.say()
            if now - line.heard > self.patience:
                self._end(line.rank, line.host, f"has given no sign of life for {self.patience / 60:.3g} minutes")
        if self._rank == 0 and not self.met.is_set() and now - self._began > RENDEZVOUS_TIMEOUT:
            late = next(each for each in range(1, self._world) if each not in self._lines)
            self._end(late, "", f"has not come within {RENDEZVOUS_TIMEOUT / 60:.3g} minutes")

    def _listen(self, line: Connection) -> None:
        words = line.read()
        for word in words or ():
            if line.rank is None:
                if word.get("seal") != self._seal:  # none of us
                    words = None
                    break
                line.rank, line.host = int(word["rank"]), str(word["host"])
                self._lines[line.rank] = line
                if len(self._lines) == self._world - 1:
                    self._begin()
            elif "all" in word:
                self.met.set()
            elif "here" in word:
                self._arrive(line.rank, word["here"])
            elif "gone" in word:  # process 0 tells who ended, itself or another
                line.left = line.left or word["gone"] == line.rank
                if word["code"]:
                    known = {"code": word["code"], "told": word["told"], "fix": word["fix"]}
                    self._end(word["gone"], word["host"], word["why"], **known)
                elif not self.done:  # after --help or --dry-run, which not all were given
                    self._end(
                        word["gone"], word["host"], "has nothing to do, and others have", code=2, fix=_SAME_FLAGS_FIX
                    )
        if words is None:
            self._selector.unregister(line.connection)
            line.connection.close()
            if line.rank is not None and not line.left:
                self._end(line.rank, line.host, "has ended without a word, as one that is killed or out of memory does")

    def assemble(self) -> None:
        """Wait for all processes to call this as often as this one has; called by the main thread."""
        point = self._here[self._rank] + 1
        if self._rank:
            self._lines[0].say(here=point)
        self._arrive(self._rank, point)
        with self._change:
            self._change.wait_for(lambda: self._reached >= point)

    def _arrive(self, rank: int, point: int) -> None:
        """A process has come to a point; process 0 tells all when the last has, and the others believe it."""
        with self._change:
            self._here[rank] = point
            everyone = min(self._here.values()) if self._rank == 0 else self._here[0]
            if everyone > self._reached:
                self._reached = everyone
                self._change.notify_all()
                for line in self._lines.values() if self._rank == 0 else ():
                    line.say(here=everyone)

    def _begin(self) -> None:
        for line in self._lines.values():
            line.say(all=True)
        self.met.set()

    def _end(
        self, gone: int | None, host: str, why: str, *, code: int = 1, told: bool = False, fix: str = _RERUN_FIX
    ) -> None:
        """End this process, since another has ended.

        Args:
            gone: which one.
            host: its machine; "" where that is not known.
            why: in words; what it told itself, where it did.
            code: to end with.
            told: it has told it itself, on its own machine.
            fix: what to do.
        """
        if self._leaving:
            return
        if self._rank == 0:
            for line in self._lines.values():
                line.say(gone=gone, host=host, why=why, code=code, told=told, fix=fix)
        speaks = self._leader or (gone == 0 and self._rank == 1)
        if self._terminated and code == 128 + self._signal:  # a scheduler ends them all
            self._stop()
        where = f" on {host}" if host else ""
        if told and speaks and host != self._host:
            self._tell(f"error in process {gone}{where}: {why}")
        elif not told and speaks:
            self._tell(f"error: process {gone}{where} {why}; all others end with it; {fix}")
        self._exit(code)

    def _stop(self) -> None:
        """End this process, since a signal asks for it."""
        name, code = signal.Signals(self._signal).name, 128 + self._signal
        self._farewell(code, f"was ended by {name}", told=False)
        if self._leader:
            self._tell(signals.stop_message(self._signal))
        self._exit(code)

    def leave(self, code: int, told: str) -> None:
        """Say that this process ends; called by the main thread."""
        self._leaving = True
        self._farewell(code, told, told=True)

    def _farewell(self, code: int, why: str, *, told: bool) -> None:
        for line in list(self._lines.values()):
            line.say(gone=self._rank, host=self._host, why=why, code=code, told=told, fix=_RERUN_FIX)

    @staticmethod
    def _tell(text: str) -> None:
        # Below a bar that is being drawn. Not by way of sys.stderr, whose lock the main thread may hold.
        with suppress(OSError):  # a log on a full disk keeps no process from its end
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{text}\n".encode(errors="replace"))

    def _exit(self, code: int) -> None:
        if not self._leaving:
            os._exit(code)


def _connect_store(rank: int) -> Any:
    """What the launcher's address and port hold: torchrun keeps it, or process 0 does."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    try:
        store = TCPStore(
            address,
            int(port),
            is_master=rank == 0 and not kept,
            timeout=timedelta(seconds=RENDEZVOUS_TIMEOUT),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except (RuntimeError, ValueError) as error:
        raise BadInput(
            f"process {rank} cannot meet the others at {address}:{port} ({one_line(error)}); give MASTER_ADDR and "
            "MASTER_PORT of machine 0 and a port that is free there, or let a launcher do it"
        ) from error
    return PrefixStore(f"sslticket/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
