"""A ticket, readably."""

from torch import Tensor

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
    whole = {name: len(value.flatten()) for name, value in ticket.weights.items() if _is_layer(name, value)}
    layers = [name for name in ticket.weights if name in counts or name in whole]
    width = max(map(len, layers))
    lines += ["", f"{'layer':<{width}}  {'kept':>12}  {'of':>12}  density"]
    for name in layers:
        if name not in counts:
            lines.append(f"{name:<{width}}  {whole[name]:>12,}  {whole[name]:>12,}  not pruned")
            continue
        alive, total = counts[name]
        bar = "█" * round(20 * alive / total)
        lines.append(f"{name:<{width}}  {alive:>12,}  {total:>12,}  {alive / total:>8.3%}  {bar}".rstrip())
    return "\n".join(lines)


def _is_layer(name: str, value: Tensor) -> bool:
    """Whether a tensor is the weight of a layer that some search may prune; vectors are biases and batch norm's."""
    return name.endswith(".weight") and value.dim() > 1
