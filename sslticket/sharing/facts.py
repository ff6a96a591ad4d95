"""What a ticket is and where it comes from, in words."""

from sslticket.data.inputs import Inputs
from sslticket.errors import BadInput
from sslticket.masking.layers import described
from sslticket.ticket import Ticket


def facts(ticket: Ticket) -> dict[str, str]:
    """Names and values for a table.

    Raises:
        BadInput: if the ticket does not tell, since no search wrote it.
    """
    try:
        return _facts(ticket)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"the ticket with hash {ticket.hash} does not tell where it is from ({type(error).__name__}: {error}); "
            "give one that a search wrote"
        ) from error


def _facts(ticket: Ticket) -> dict[str, str]:
    recipe, came, mask = ticket.recipe, ticket.provenance, ticket.mask
    data, inputs = recipe["data"], Inputs.of(recipe)
    subset = "" if data["subset"] == 1 else f", {data['subset']:.3g} of the {data['subset_by']}"
    which = described(recipe)
    start = f"after {came['rewind_samples']:,} samples"
    if came.get("weights") == "trained":
        start = f"{start}, but the weights are those with which level {ticket.level - 1} ended"
    return {
        "model": recipe["model"] + (f", {inputs}" if inputs else ""),
        "objective": came["objective"],
        "data": f"{came['dataset']}{subset}: {came['images']:,} images, {came['classes']:,} classes, "
        f"hash {came['data_hash']}",
        "level": f"{ticket.level}, density {mask.density:.4%}: {mask.survivors:,} of {mask.total:,} prunable weights"
        + (f"; pruned {which}" if which else ""),
        "W_k": f"{start}; the search saw {came['search_samples']:,}",
        "seed": str(came["seed"]),
        "made by": f"{came['commit'] or 'no checkout'}; "
        + ", ".join(f"{library} {number}" for library, number in came["versions"].items()),
    }
