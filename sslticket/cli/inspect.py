"""A ticket, readably."""

from pathlib import Path

from sslticket.ticket import Ticket


def describe(ticket: Ticket, path: Path) -> str:
    """What the ticket is, where it comes from, and how dense each layer is."""
    recipe, came = ticket.recipe, ticket.provenance
    data = recipe["data"]
    subset = "" if data["subset"] == 1 else f", {data['subset']:.3g} of the {data['subset_by']}"
    facts = {
        "ticket": f"{path}, {path.stat().st_size:,} bytes, hash {ticket.hash}",
        "model": recipe["model"],
        "objective": came["objective"],
        "data": f"{came['dataset']}{subset}: {came['images']:,} images, {came['classes']:,} classes, "
        f"hash {came['data_hash']}",
        "level": f"{ticket.level}, density {ticket.mask.density:.4%}: {ticket.mask.survivors:,} of "
        f"{ticket.mask.total:,} prunable weights",
        "W_k": f"after {came['rewind_samples']:,} samples; the search saw {came['search_samples']:,}",
        "seed": came["seed"],
        "made by": f"{came['commit'] or 'no checkout'}; "
        + ", ".join(f"{library} {number}" for library, number in came["versions"].items()),
    }
    lines = [f"{name:<10}{value}" for name, value in facts.items()]
    counts = ticket.mask.counts()
    width = max(map(len, counts))
    lines += ["", f"{'layer':<{width}}  {'kept':>12}  {'of':>12}  density"]
    for name, (alive, total) in counts.items():
        bar = "█" * round(20 * alive / total)
        lines.append(f"{name:<{width}}  {alive:>12,}  {total:>12,}  {alive / total:>8.3%}  {bar}".rstrip())
    return "\n".join(lines)
