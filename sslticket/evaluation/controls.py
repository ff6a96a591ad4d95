"""Random tickets: what a ticket is compared with. Each draws its weights anew and differs in where the mask lies."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sslticket.errors import unknown
from sslticket.masking.mask import Mask
from sslticket.randomness import generator
from sslticket.ticket import Ticket

CONTROLS = {
    "random": "mask permuted over all prunable weights, weights drawn anew: the papers' random ticket",
    "local": "mask permuted within each layer, weights drawn anew",
    "preserved": "the ticket's mask, weights drawn anew",
}


def check(kind: str) -> None:
    """Whether there is a control of this name.

    Raises:
        BadInput: naming the nearest that there are.
    """
    if kind not in CONTROLS:
        raise unknown("control", kind, CONTROLS)


def control(ticket: Ticket, kind: str, *, initial: Mapping[str, Tensor], seed: int) -> Ticket:
    """The random ticket of a kind that mirrors a ticket (Morcos et al. 2019, section 3.1 and Figure A1).

    Args:
        ticket: gives the number of weights that remain, and for `local` and `preserved` where.
        kind: one of CONTROLS.
        initial: a backbone drawn anew, W_0 of the control, batch norm included; not the ticket's weights.
        seed: from which the permutation is drawn.

    Raises:
        BadInput: for an unknown kind.
    """
    check(kind)
    if kind == "preserved":
        mask = ticket.mask
    elif kind == "local":
        mask = Mask({name: _permuted({name: layer}, seed, name)[name] for name, layer in ticket.mask.items()})
    else:
        mask = Mask(_permuted(dict(ticket.mask), seed, "all"))
    return Ticket.make(mask, initial, level=ticket.level, recipe=ticket.recipe, provenance=ticket.provenance)


def _permuted(layers: Mapping[str, Tensor], seed: int, stream: str) -> dict[str, Tensor]:
    """The same number of survivors at places drawn among all of these layers' weights."""
    total = sum(layer.numel() for layer in layers.values())
    survivors = sum(int(layer.sum()) for layer in layers.values())
    flat = np.zeros(total, bool)
    flat[generator(seed, "mask", stream).choice(total, survivors, replace=False, shuffle=False)] = True
    ends = np.cumsum([layer.numel() for layer in layers.values()])[:-1]
    return {
        name: torch.from_numpy(part.reshape(layer.shape))
        for (name, layer), part in zip(layers.items(), np.split(flat, ends), strict=True)
    }
