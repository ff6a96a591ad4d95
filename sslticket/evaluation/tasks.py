"""The matrix of measurements: which tickets, beside which controls, under which protocols, with which seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslticket import hub
from sslticket.errors import BadInput
from sslticket.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Task:
    """One measurement: a ticket file, or a control of it, under a protocol with a seed."""

    path: Path
    control: str  # "ticket" for the ticket itself
    protocol: Protocol
    seed: int

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return run_of(self.path)

    @property
    def name(self) -> str:
        """Of its row's file, and of what else belongs to it."""
        return f"{self.path.stem}.{self.control}.{self.protocol.label}.seed{self.seed}"

    @property
    def row(self) -> Path:
        """The file of its row."""
        return self.run / "rows" / f"{self.name}.jsonl"

    def is_done(self, ticket_hash: str) -> bool:
        """Whether the row is there and is about this very ticket, not about an earlier file of the same name."""
        row = row_of(self.row)
        return row is not None and row["ticket_hash"] == ticket_hash


def row_of(path: Path) -> dict[str, Any] | None:
    """The row in a file; None where there is no file.

    Raises:
        BadInput: if it is no row about a ticket.
    """
    if not path.exists():
        return None
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        row["ticket_hash"]
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path} is damaged; delete it and run the same command again") from None
    return row


def run_of(path: Path) -> Path:
    """The folder of a ticket file's run; a lone ticket's is the one that it lies in."""
    return path.parent.parent if path.parent.name == "tickets" else path.parent


@dataclass(frozen=True)
class Levels:
    """Which levels of a run are evaluated.

    Attributes:
        given: these; None for all.
        usual: those up to the sixth, and then every third (Morcos et al. 2019, Appendix A.1), of all.
    """

    given: tuple[int, ...] | None = None
    usual: bool = False

    def takes(self, level: int) -> bool:
        """Whether tickets of this level are evaluated."""
        if self.usual:
            return level <= 6 or level % 3 == 0
        return self.given is None or level in self.given


ALL = Levels()
USUAL = Levels(usual=True)


def left_out(places: Sequence[Path], levels: Levels) -> list[int]:
    """Levels of the runs below the folders given that are not evaluated, ascending."""
    found = {_level(path) for place in places for path in place.glob("**/tickets/*.safetensors")}
    return sorted(level for level in found if not levels.takes(level))


def tickets(places: Sequence[Path], levels: Levels = ALL) -> list[Path]:
    """Ticket files: those given, as files or exported folders, and those of the runs below the folders given.

    Raises:
        BadInput: for a place that does not exist or holds no ticket.
    """
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise BadInput(f"there is nothing at {place}; give ticket files or folders of runs")
        lone = place if place.is_file() else place / hub.TICKET
        here = [lone] if lone.is_file() else sorted(place.glob("**/tickets/*.safetensors"))
        if not here:
            raise BadInput(f"{place} holds no tickets; give a run's folder, such as runs/<key>, or a ticket file")
        found += [path for path in here if path == lone or levels.takes(_level(path))]
    if not found:
        raise BadInput(f"no ticket has one of the levels {' '.join(map(str, levels.given or ()))}; give other --levels")
    return list(dict.fromkeys(found))


def matrix(
    paths: Sequence[Path], controls: Sequence[str], protocols: Sequence[Protocol], seeds: Sequence[int] | None
) -> list[Task]:
    """Every measurement that was asked for; `seeds` None takes each protocol's own."""
    return [
        Task(path, kind, protocol, seed)
        for protocol in protocols
        for path in paths
        for kind in ("ticket", *controls)
        for seed in (protocol.seeds if seeds is None else seeds)
    ]


def _level(path: Path) -> int:
    digits = path.stem.removeprefix("level-")
    return int(digits) if digits.isdigit() else -1
