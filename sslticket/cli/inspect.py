"""A ticket, readably."""

from sslticket.sharing.facts import facts
from sslticket.ticket import Ticket


def describe(ticket: Ticket, place: str, size: int) -> str:
    """What the ticket is, where it comes from, and how dense each layer is.

    Args:
        ticket: read from there.
        place: as it was named.
        size: of its file, in bytes.

    Raises:
        BadInput: if no search wrote it, so that it does not tell.
    """
    told = {"ticket": f"{place}, {size:,} bytes, hash {ticket.hash}"} | facts(ticket)
    lines = [f"{name:<10}{value}" for name, value in told.items()]
    counts = ticket.mask.counts()
    width = max(map(len, counts))
    lines += ["", f"{'layer':<{width}}  {'kept':>12}  {'of':>12}  density"]
    for name, (alive, total) in counts.items():
        bar = "█" * round(20 * alive / total)
        lines.append(f"{name:<{width}}  {alive:>12,}  {total:>12,}  {alive / total:>8.3%}  {bar}".rstrip())
    return "\n".join(lines)
