"""What is left of a ticket's layers: weights, and output channels that lost every weight."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslticket.analysis.masks import said
from sslticket.files import write_row
from sslticket.masking.mask import Mask
from sslticket.ticket import Ticket, run_of


def dead(mask: Mask) -> dict[str, tuple[int, int]]:
    """For each layer its output channels that lost every weight, and all there are.

    Output channels are the first dimension of a weight: filters of a convolution, units of a linear layer. What a dead
    one passes on is its bias or its batch norm's shift, the same for every image.
    """
    return {name: (int((~layer.flatten(1).any(1)).sum()), len(layer)) for name, layer in mask.items()}


def line(row: Mapping[str, Any]) -> str:
    """What a row shows, in a few words."""
    count, total = (sum(counts) for counts in zip(*row["dead"].values(), strict=True))
    gone = [name for name, (lost, whole) in row["dead"].items() if lost == whole]
    cut = f"; no weight is left of {', '.join(gone)}" if gone else ""
    return f"density {row['density']:.3%}, {count:,} of {total:,} output channels are dead{cut}"


def channels(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """A row for each ticket, written beside it before it is yielded; one ticket is in memory at a time.

    Args:
        paths: of ticket files.

    Raises:
        BadInput: if a ticket is damaged.
    """
    for path in paths:
        ticket = Ticket.load(path)
        row = {
            "kind": "channels",
            **said(path, ticket),
            "layers": {name: list(counts) for name, counts in ticket.mask.counts().items()},
            "dead": {name: list(counts) for name, counts in dead(ticket.mask).items()},
        }
        write_row(run_of(path) / "rows" / f"{path.stem}.channels.jsonl", row)
        yield row
