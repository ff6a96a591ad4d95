"""What rows say that tell of a ticket's mask alone."""

from pathlib import Path
from typing import Any

from sslticket import origin
from sslticket.evaluation.entrants import about
from sslticket.ticket import Ticket


def said(path: Path, ticket: Ticket) -> dict[str, Any]:
    """All but what is measured; nothing is trained for it, so images and numerics are those of the search.

    Args:
        path: of the ticket's file.
        ticket: read from there.
    """
    precision = ticket.recipe["precision"]
    how = {"device": "cpu", "precision": precision, "numerics": ticket.provenance.get("numerics", precision)}
    return about(path, ticket) | {"data_hash": ticket.provenance["data_hash"], **how} | origin.stamp()
