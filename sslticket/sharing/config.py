"""config.json of an exported ticket: what people, programs and timm read; the ticket itself decides."""

from typing import Any

from sslticket.data.inputs import Inputs
from sslticket.sharing.networks import timm_arguments
from sslticket.ticket import Ticket


def config(ticket: Ticket) -> dict[str, Any]:
    """Model, images, density, recipe and provenance; with timm's keys where timm has the network."""
    inputs = Inputs.of(ticket.recipe)
    about: dict[str, Any] = {
        "library_name": "sslticket",
        "model": ticket.recipe["model"],
        "channels": inputs.channels if inputs else None,
        "image_size": inputs.image_size if inputs else None,
        "level": ticket.level,
        "density": ticket.mask.density,
        "survivors": ticket.mask.survivors,
        "prunable": ticket.mask.total,
        "ticket_hash": ticket.hash,
    }
    return about | _timm(ticket, inputs) | {"recipe": ticket.recipe, "provenance": ticket.provenance}


def _timm(ticket: Ticket, inputs: Inputs | None) -> dict[str, Any]:
    """The keys by which `timm.create_model("local-dir:...")` and `"hf-hub:..."` make a network; else nothing."""
    arguments = timm_arguments(ticket)
    if arguments is None:
        return {}
    images: dict[str, Any] = {}
    if inputs:
        size = [inputs.channels, inputs.image_size, inputs.image_size]
        images = {"input_size": size} | ({"mean": inputs.mean, "std": inputs.std} if inputs.mean else {})
    return {
        "architecture": ticket.recipe["model"],
        "num_classes": 0,
        "model_args": dict(arguments),
        "pretrained_cfg": {"num_classes": 0, **images},
    }
