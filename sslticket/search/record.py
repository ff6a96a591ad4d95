"""The rows that a search writes: one for each level, and one on the magnitudes of the dense network's weights."""

from collections.abc import Mapping
from typing import Any

from sslticket.data.unreadable import unreadable_fields
from sslticket.provenance import collect_provenance
from sslticket.pruning.mask import StateDict
from sslticket.pruning.prunable import describe_layers, magnitude_statistics
from sslticket.search.plan import SearchPlan
from sslticket.ticket import Ticket


def level_row(
    plan: SearchPlan,
    ticket: Ticket,
    measured: Mapping[str, Any],
    *,
    effective: float,
    bad: Mapping[str, str],
    device: str,
    numerics: str,
) -> dict[str, Any]:
    """What finding a ticket cost and showed.

    Args:
        plan: of the search.
        ticket: of the level.
        measured: in the training that found it.
        effective: fraction of the prunable weights that lie on a path from the image to the features.
        bad: images that could not be read so far, by path, and why.
        device: what computed.
        numerics: and how.
    """
    forward = ticket.provenance.get("search_forward_images")
    return {
        **_ticket_columns(plan, ticket, "level"),
        **measured,
        "effective_density": effective,
        "search_samples": ticket.provenance["search_samples"],
        **({} if forward is None else {"search_forward_images": forward}),
        "search_epochs": ticket.provenance["search_samples"] / plan.clock.set_size,
        "layers": {name: list(count) for name, count in ticket.mask.layer_counts().items()},
        **unreadable_fields(bad),
        "device": device,
        "numerics": numerics,
    }


def magnitudes_row(
    plan: SearchPlan, ticket: Ticket, trained: StateDict, *, device: str, numerics: str
) -> dict[str, Any]:
    """How large the weights of the search's own dense network are at the end of its training, by its own objective.

    Args:
        plan: of the search.
        ticket: of level 0.
        trained: the backbone's weights at the end.
        device: what computed.
        numerics: and how.
    """
    target = {"protocol": "search", "start": "0", "target": plan.recipe.data.name, "seed": plan.recipe.seed}
    of = _ticket_columns(plan, ticket, "magnitudes")
    where = {"device": device, "numerics": numerics}
    return {**of, **target, **magnitude_statistics(trained, list(ticket.mask)), **where}


def _ticket_columns(plan: SearchPlan, ticket: Ticket, kind: str) -> dict[str, Any]:
    """What every row of a search says of the ticket that it is about."""
    recipe = plan.recipe
    return {
        "kind": kind,
        "run": plan.run_dir.path.name,
        "recipe": ticket.record.family,
        "objective": recipe.task,
        "model": recipe.model,
        "source": recipe.data.name,
        "subset": recipe.data.subset,
        "subset_by": recipe.data.subset_by,
        "level": ticket.level,
        "density": ticket.mask.density,
        "within": describe_layers(ticket.recipe),
        "ticket_hash": ticket.hash,
        "search_seed": recipe.seed,
        "search": ticket.record.search_name,
        "settings": ticket.record.settings(),
        "rewind_samples": ticket.provenance["rewind_samples"],
        **collect_provenance(),
        "source_hash": plan.images.source_hash,
        "data_hash": ticket.provenance["data_hash"],
        "precision": recipe.precision,
        **({"parts": plan.run_dir.parts} if plan.run_dir.parts else {}),
    }
