"""What a ticket is and where it comes from, in words."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

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
        _check(ticket)
        return _facts(ticket)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"the ticket with hash {ticket.hash} does not tell where it is from ({type(error).__name__}: {error}); "
            "give one that a search wrote"
        ) from error


def _check(ticket: Ticket) -> None:
    """That what others write into files and pages is of the kinds that a search writes, whatever words it holds."""
    recipe, came, inputs = ticket.recipe, ticket.provenance, Inputs.of(ticket.recipe)
    words = [recipe["model"], recipe["data"]["dataset"], *(came[key] for key in ("objective", "dataset", "data_hash"))]
    counts = [came[key] for key in ("images", "classes", "rewind_samples", "search_samples")]
    counts += [inputs.channels, inputs.image_size] if inputs else []
    for kind, values in ((str, words), (int, counts)):
        for value in values:
            if type(value) is not kind:
                raise TypeError(f"{str(value)[:40]!r} is no {kind.__name__}")


def _facts(ticket: Ticket) -> dict[str, str]:
    recipe, came, mask = ticket.recipe, ticket.provenance, ticket.mask
    data, inputs = recipe["data"], Inputs.of(recipe)
    labels, which = _labels(data, came), described(recipe)
    start = f"after {came['rewind_samples']:,} samples"
    if came.get("weights") == "trained":
        start = f"{start}, but the weights are those with which level {ticket.level - 1} ended"
    return {
        "model": recipe["model"] + (f", {inputs}" if inputs else ""),
        "objective": came["objective"],
        "data": f"{came['dataset']}{_part(data)}: {came['images']:,} images, {came['classes']:,} classes, "
        f"hash {came['data_hash']}",
        **({"labels": labels} if labels else {}),
        "level": f"{ticket.level}, density {mask.density:.4%}: {mask.survivors:,} of {mask.total:,} prunable weights"
        + (f"; pruned {which}" if which else ""),
        "W_k": f"{start}; the search saw {came['search_samples']:,}",
        **({"head": _head(ticket)} if ticket.head else {}),
        "seed": str(came["seed"]),
        "made by": f"{came['commit'] or 'no checkout'}; "
        + ", ".join(f"{library} {number}" for library, number in came["versions"].items()),
    }


def _head(ticket: Ticket) -> str:
    classes = f"the classification layer of {len(ticket.head['weight']):,} classes at the same step"
    came = ticket.provenance
    masked = f", {came['head_kept']:,} of {came['head_total']:,} weights" if "head_kept" in came else ""
    return classes + masked


def _part(data: Mapping[str, Any]) -> str:
    """Which of the set's training images; tickets of earlier versions do not know of all these settings."""
    half = f", half {data['half']} of {data['dataset']}" if data.get("half") else ""
    if data.get("subset_list"):
        return f"{half}, the images in {PurePath(data['subset_list']).name}"
    if data.get("shots"):
        return f"{half}, {data['shots']} of each class"
    of = "images, drawn without their labels" if data["subset_by"] == "random" else data["subset_by"]
    return half + ("" if data["subset"] == 1 else f", {data['subset']:.3g} of the {of}")


def _labels(data: Mapping[str, Any], came: Mapping[str, Any]) -> str:
    """What was done to the labels; "" where they are all known and true."""
    said = []
    if data.get("labels_list"):
        said.append(f"known of the images in {PurePath(data['labels_list']).name}")
    elif data.get("labels", 1) != 1:
        said.append(f"known of {data['labels']:.3g} of each class's images")
    if data.get("shuffle_labels"):
        permuted = came["permutation"]["hash"]
        said.append(f"{data['shuffle_labels']:.3g} of them permuted at random, permutation's hash {permuted}")
    return "; ".join(said)
