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
        rank: Number of the process; None until it has sent it.
        host: Machine of the process.
        last_heard: When something last came over the connection, by the monotonic clock.
        has_left: Whether it has ended with its work done.
    """

    def __init__(self, connection: socket.socket, rank: int | None = None, host: str = "") -> None:
        self.socket, self.rank, self.host, self.has_left = connection, rank, host, False
        self.last_heard, self._buffer, self._send_lock = time.monotonic(), b"", threading.Lock()
        connection.settimeout(MESSAGE_TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A machine that is gone closes nothing: the system asks for it, and waits for its answers half a minute.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in {"KEEPIDLE": 10, "KEEPINTVL": 5, "KEEPCNT": 4, "USER_TIMEOUT": 30_000}.items():
            if option := getattr(socket, f"TCP_{name}", None):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)

    def send(self, **words: Any) -> None:
        """Send these words; without any it is a sign of life."""
        with suppress(OSError), self._send_lock:  # who is gone shows when nothing can be read any more
            self.socket.sendall(json.dumps(words).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """What has come; None where the other end is gone, or is none of us."""
        try:
            came = self.socket.recv(65536)
            *whole, self._buffer = (self._buffer + came).split(b"\n")
            words = [dict(parse_json(line, f"a word of {self.host}", most=_MAX_MESSAGE)) for line in whole]
            if len(self._buffer) > _MAX_MESSAGE:
                return None
        except (OSError, ValueError, TypeError):
            return None
        self.last_heard = time.monotonic()
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
        patience: Seconds without a sign of life after which a process is given up.
        all_connected: Event that is set when all processes have connected.
        is_done: Whether this process's command has nothing left to do.
    """

    def __init__(self, rank: int, world: int) -> None:
        """Process 0 opens a door, and every other comes to it.

        Raises:
            BadInput: If this process cannot reach process 0.
        """
        super().__init__(daemon=True, name="processes")
        self.patience, self.all_connected, self.is_done = RENDEZVOUS_TIMEOUT, threading.Event(), False
        self._rank, self._world, self._host = rank, world, socket.gethostname()
        self._is_machine_leader = os.environ["LOCAL_RANK"] == "0"  # tells its machine's log what happens
        self._leaving, self._started_at = False, time.monotonic()
        self._received_signal, self._signalled_at = 0, 0.0  # which has asked this process to end, and when
        self._selector, self._peers, self._token = selectors.DefaultSelector(), dict[int, Connection](), ""
        self._arrivals, self._released = dict.fromkeys(range(world), 0), 0
        self._arrival_condition = threading.Condition()
        self._install_signal_handlers()
        self._store = _connect_store(rank)
        if self._rank == 0:
            self._open_server()
        else:
            self._connect_to_leader()

    def _install_signal_handlers(self) -> None:
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
        self._wakeup_socket = wire
        self._selector.register(bell, selectors.EVENT_READ, lambda: self._on_signal(bell))

    def _on_signal(self, bell: socket.socket) -> None:
        heard = [number for number in bell.recv(4096) if number in signals.STOP_SIGNALS]
        rung = [number for number in heard if not signals.put_off_signal(number)]
        if rung and not self._signalled_at:
            self._received_signal, self._signalled_at = rung[0], time.monotonic()

    def _open_server(self) -> None:
        try:
            door = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        except (OSError, ValueError):
            door = socket.create_server(("", 0), backlog=1024)
        self._token = secrets.token_hex(8)
        self._store.set("door", json.dumps([door.getsockname()[1], self._token, self._host]))
        self._selector.register(door, selectors.EVENT_READ, lambda: self._accept_peer(door))

    def _accept_peer(self, door: socket.socket) -> None:
        with suppress(OSError):
            self._register_peer(Connection(door.accept()[0]))

    def _connect_to_leader(self) -> None:
        address = os.environ["MASTER_ADDR"]
        try:
            port, seal, host = parse_json(self._store.get("door"), "the word of process 0")
            line = Connection(socket.create_connection((address, port), timeout=30.0), 0, host)
        except (OSError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"process {self._rank} does not reach process 0 at {address} ({one_line(error)}); let the machines "
                "reach each other, at any port"
            ) from error
        line.send(rank=self._rank, seal=seal, host=self._host)
        self._peers[0] = line
        self._register_peer(line)

    def _register_peer(self, line: Connection) -> None:
        self._selector.register(line.socket, selectors.EVENT_READ, lambda: self._receive_messages(line))

    def run(self) -> None:
        """Listen until the process ends."""
        before = time.monotonic()
        while True:
            for key, _ in self._selector.select(_HEARTBEAT / 10 if self._signalled_at else _HEARTBEAT):
                act: Callable[[], None] = key.data
                act()
            now = time.monotonic()
            if self._signalled_at and now - self._signalled_at > MESSAGE_TIMEOUT:
                self._end_by_signal()
            if now - before < _HEARTBEAT:
                continue
            if now - before > _STALLED_AFTER:  # all may have spoken in the meantime
                for line in self._peers.values():
                    line.last_heard = now
            before = now
            self._send_heartbeats(now)

    def _send_heartbeats(self, now: float) -> None:
        for line in [line for line in self._peers.values() if not line.has_left]:
            line.send()
            if now - line.last_heard > self.patience:
                self._end_with_peer(
                    line.rank, line.host, f"has given no sign of life for {self.patience / 60:.3g} minutes"
                )
        if self._rank == 0 and not self.all_connected.is_set() and now - self._started_at > RENDEZVOUS_TIMEOUT:
            late = next(each for each in range(1, self._world) if each not in self._peers)
            self._end_with_peer(late, "", f"has not come within {RENDEZVOUS_TIMEOUT / 60:.3g} minutes")

    def _receive_messages(self, line: Connection) -> None:
        words = line.receive()
        for word in words or ():
            if line.rank is None:
                if word.get("seal") != self._token:  # none of us
                    words = None
                    break
                line.rank, line.host = int(word["rank"]), str(word["host"])
                self._peers[line.rank] = line
                if len(self._peers) == self._world - 1:
                    self._announce_all_connected()
            elif "all" in word:
                self.all_connected.set()
            elif "here" in word:
                self._record_arrival(line.rank, word["here"])
            elif "gone" in word:  # process 0 tells who ended, itself or another
                line.has_left = line.has_left or word["gone"] == line.rank
                if word["code"]:
                    known = {"code": word["code"], "printed": word["printed"], "fix": word["fix"]}
                    self._end_with_peer(word["gone"], word["host"], word["why"], **known)
                elif not self.is_done:  # after --help or --dry-run, which not all were given
                    self._end_with_peer(
                        word["gone"], word["host"], "has nothing to do, and others have", code=2, fix=_SAME_FLAGS_FIX
                    )
        if words is None:
            self._selector.unregister(line.socket)
            line.socket.close()
            if line.rank is not None and not line.has_left:
                self._end_with_peer(
                    line.rank, line.host, "has ended without a word, as one that is killed or out of memory does"
                )

    def barrier(self) -> None:
        """Wait for all processes to call this as often as this one has; called by the main thread."""
        point = self._arrivals[self._rank] + 1
        if self._rank:
            self._peers[0].send(here=point)
        self._record_arrival(self._rank, point)
        with self._arrival_condition:
            self._arrival_condition.wait_for(lambda: self._released >= point)

    def _record_arrival(self, rank: int, point: int) -> None:
        """A process has come to a point; process 0 tells all when the last has, and the others believe it."""
        with self._arrival_condition:
            self._arrivals[rank] = point
            everyone = min(self._arrivals.values()) if self._rank == 0 else self._arrivals[0]
            if everyone > self._released:
                self._released = everyone
                self._arrival_condition.notify_all()
                for line in self._peers.values() if self._rank == 0 else ():
                    line.send(here=everyone)

    def _announce_all_connected(self) -> None:
        for line in self._peers.values():
            line.send(all=True)
        self.all_connected.set()

    def _end_with_peer(
        self, gone: int | None, host: str, why: str, *, code: int = 1, printed: bool = False, fix: str = _RERUN_FIX
    ) -> None:
        """End this process, since another has ended.

        Args:
            gone: Number of the process that has ended.
            host: Its machine; "" where that is not known.
            why: Why it has ended, in words of its own where it had any.
            code: Exit code to end with.
            printed: Whether it has printed why itself, on its own machine.
            fix: What to do.
        """
        if self._leaving:
            return
        if self._rank == 0:
            for line in self._peers.values():
                line.send(gone=gone, host=host, why=why, code=code, printed=printed, fix=fix)
        speaks = self._is_machine_leader or (gone == 0 and self._rank == 1)
        if self._signalled_at and code == signals.exit_code(self._received_signal):  # a scheduler ends them all
            self._end_by_signal()
        where, agreed = f" on {host}" if host else "", signals.received_signal()
        if printed and speaks and host != self._host:
            stopped = agreed is not None and code == signals.exit_code(agreed)
            known = signals.stop_message(agreed) if stopped and agreed else f"error in process {gone}{where}: {why}"
            self._print_message(known)
        elif not printed and speaks:
            self._print_message(f"error: process {gone}{where} {why}; all others end with it; {fix}")
        self._exit_process(code)

    def _end_by_signal(self) -> None:
        """End this process, since a signal asks for it."""
        name, code = signal.Signals(self._received_signal).name, signals.exit_code(self._received_signal)
        self._broadcast_exit(code, f"was ended by {name}", printed=False)
        if self._is_machine_leader:
            self._print_message(signals.stop_message(self._received_signal))
        self._exit_process(code)

    def announce_exit(self, code: int, message: str) -> None:
        """Say that this process ends; called by the main thread."""
        self._leaving = True
        self._broadcast_exit(code, message, printed=True)

    def _broadcast_exit(self, code: int, why: str, *, printed: bool) -> None:
        for line in list(self._peers.values()):
            line.send(gone=self._rank, host=self._host, why=why, code=code, printed=printed, fix=_RERUN_FIX)

    @staticmethod
    def _print_message(text: str) -> None:
        # Below a bar that is being drawn. Not by way of sys.stderr, whose lock the main thread may hold.
        with suppress(OSError):  # a log on a full disk keeps no process from its end
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{text}\n".encode(errors="replace"))

    def _exit_process(self, code: int) -> None:
        if not self._leaving:
            os._exit(code)


def _connect_store(rank: int) -> Any:
    """What the launcher's address and port hold: torchrun keeps it, or process 0 does."""
    from torch.distributed import PrefixStore, TCPStore

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
