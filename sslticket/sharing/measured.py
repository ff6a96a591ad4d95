"""What the rows beside a ticket say of it and of its search: curves, tables, scores and the command."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sslticket.escaping import markdown
from sslticket.recipe import family
from sslticket.report import figures, table, text
from sslticket.report.content import Content
from sslticket.ticket import Ticket, run_of


class Score(NamedTuple):
    """Mean top-1, a fraction, of `n` trainings from this very ticket under a protocol."""

    protocol: str
    target: str
    top1: float
    n: int


@dataclass(frozen=True)
class Measured:
    """What is known; all of it empty where nothing was measured.

    Attributes:
        curve: accuracy against density of the ticket's whole search, a PNG.
        tables: the same in numbers, a caption and a Markdown table each.
        scores: of this ticket.
        command: that found it.
    """

    curve: bytes = b""
    tables: tuple[tuple[str, str], ...] = ()
    scores: tuple[Score, ...] = ()
    command: str = ""

    @classmethod
    def of(cls, ticket: Ticket, file: Path) -> "Measured":
        """Read the rows of the run that a ticket's file lies in, or those beside a lone file.

        Raises:
            BadInput: if a row is damaged.
        """
        run = run_of(file)
        if not any((run / "rows").glob("[!.]*.jsonl")):
            return cls()
        frame = table.rows([run / "rows"])
        # Other files may have had this name, and beside a lone file there may be rows of others.
        frame = frame[frame["recipe"] == family(ticket.recipe)]
        frame = frame[(frame["level"] != ticket.level) | (frame["ticket_hash"] == ticket.hash)]
        own = frame[frame["ticket_hash"] == ticket.hash]
        commands = own[own["kind"] == "level"]["command"]
        command = "" if commands.empty else str(commands.iloc[0])
        if not (frame["kind"] == "score").any():
            return cls(command=command)
        content = Content(frame)
        charts = figures.charts([panel.accuracy() for panel in content.panels], content.looks)
        return cls(
            figures.content(charts, "png"),
            tuple((text.caption(panel.summary), _markdown(text.grid(panel.summary))) for panel in content.panels),
            tuple(_scores(content.named[content.named["ticket_hash"] == ticket.hash])),
            command,
        )


def _scores(rows: pd.DataFrame) -> Iterator[Score]:
    own = rows[(rows["kind"] == "score") & (rows["control"] == "ticket")]
    # Other starts, heads and numerics are other measurements, which their names tell apart.
    for (*names, apart, series, tickets), same in own.groupby(["protocol", "target", "apart", "series", "tickets"]):
        protocol, target = map(str, names)
        told = ", ".join(filter(None, [str(apart), str(series).removeprefix(str(tickets)).lstrip(", ")]))
        yield Score(protocol + text.beside(told), target, float(same["top1"].mean()), len(same))


def _markdown(cells: pd.DataFrame) -> str:
    head = ["weights left", *map(str, cells.columns)]
    body = [[f"{text.percent(density)}%", *line] for density, line in zip(cells.index, cells.to_numpy(), strict=True)]
    lines = [[markdown(cell) for cell in line] for line in (head, *body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], ["---:"] * len(head), *lines[1:]))
