"""Which library's network a ticket fits, tried without memory for weights, and the Python lines that make it."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from sslticket.data.inputs import Inputs
from sslticket.errors import BadInput
from sslticket.escaping import python
from sslticket.models.backbone import KNOWN
from sslticket.ticket import Ticket

# What constructors raise over arguments that they do not take.
_REFUSALS = (ArithmeticError, AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Construction:
    """Python that makes the network.

    Attributes:
        imports: a line.
        call: an expression.
        whole: the network has a classification layer, which the ticket knows nothing of.
    """

    imports: str
    call: str
    whole: bool


def construction(ticket: Ticket) -> Construction:
    """How to make the network that the ticket applies to, by its original library where that one's fits."""
    name = ticket.recipe["model"]
    if name in KNOWN:
        return _torchvision(ticket) or _ours(ticket)
    import timm

    if timm.is_model(name):
        found = timm_arguments(ticket)
        told = "".join(f", {key}={value}" for key, value in (found or {}).items())
        call = f"timm.create_model({python(name)}, num_classes=0{told})"
        return _ours(ticket) if found is None else Construction("import timm", call, False)
    return _torchvision(ticket) or _ours(ticket)


def timm_arguments(ticket: Ticket) -> Mapping[str, int] | None:
    """What `timm.create_model` needs beside the name, for a network that the ticket fits; None where it has none."""
    import timm

    name, inputs = ticket.recipe["model"], Inputs.of(ticket.recipe)
    if not timm.is_model(name):
        return None
    channels = {} if inputs is None or inputs.channels == 3 else {"in_chans": inputs.channels}
    for size in ({}, {} if inputs is None else {"img_size": inputs.image_size}):
        arguments = channels | size
        if _fits(ticket, partial(timm.create_model, name, num_classes=0, **arguments)):
            return arguments
    return None


def _torchvision(ticket: Ticket) -> Construction | None:
    from torchvision import models

    name = ticket.recipe["model"]
    if name not in models.list_models(module=models) or not _fits(ticket, lambda: models.get_model(name, weights=None)):
        return None
    return Construction("from torchvision.models import get_model", f"get_model({python(name)})", True)


def _ours(ticket: Ticket) -> Construction:
    inputs = Inputs.of(ticket.recipe)
    told = f", channels={inputs.channels}, image_size={inputs.image_size}" if inputs else ""
    call = f"models.build({python(ticket.recipe['model'])}{told})"
    return Construction("from sslticket import models", call, False)


def _fits(ticket: Ticket, make: Callable[[], Any]) -> bool:
    try:
        # On no device: nothing is drawn or kept, and a network of any size takes milliseconds.
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = make()
        assert isinstance(net, nn.Module)
        ticket.apply(net)
    except (BadInput, *_REFUSALS):
        return False
    return True
