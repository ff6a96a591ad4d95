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
    "random": "mask permuted over all layers that the search pruned, weights drawn anew: the papers' random ticket",
    "local": "mask permuted within each layer, weights drawn anew",
    "preserved": "the ticket's mask, weights drawn anew",
    "adjusted": "mask drawn among the weights that do not go to zero by themselves, weights drawn anew",
}


def check(kind: str) -> None:
    """Whether there is a control of this name.

    Raises:
        BadInput: naming the nearest that there are.
    """
    if kind not in CONTROLS:
        raise unknown("control", kind, CONTROLS)


def control(
    ticket: Ticket, kind: str, *, initial: Mapping[str, Tensor], seed: int, natural: Mask | None = None
) -> Ticket:
    """The random ticket of a kind that mirrors a ticket (Morcos et al. 2019, section 3.1 and Figure A1).

    The adjusted one is of "Finding Winning Tickets with Limited (or No) Supervision", section 4.5: "when less than 15%
    of the weights remain", which is as many as its networks keep by themselves, the random baseline starts "by applying
    the mask given by sparse weights at convergence". Where the paper is silent, we decide: below the natural density,
    survivors are drawn at random among the natural ones, over all layers together. Above it, the mask is the natural
    one, so it keeps fewer weights than the ticket; its own density is in the row. The dense network that shows which
    weights are natural starts from weights of its own, for weights and mask of one training would be a ticket.

    Args:
        ticket: gives the number of weights that remain, and for `local` and `preserved` where.
        kind: one of CONTROLS.
        initial: a backbone drawn anew, W_0 of the control, batch norm included; not the ticket's weights.
        seed: from which the permutation is drawn.
        natural: for `adjusted`, the weights of the dense network that are not zero at convergence, of the ticket's
            layers. What the search might not prune, no control prunes.

    Raises:
        BadInput: for an unknown kind.
    """
    check(kind)
    if kind == "preserved":
        mask = ticket.mask
    elif kind == "local":
        mask = Mask({name: _permuted({name: layer}, seed, name)[name] for name, layer in ticket.mask.items()})
    elif kind == "adjusted":
        assert natural is not None, "the adjusted control needs the natural mask"
        mask = thinned(natural, ticket.mask.survivors, seed)
    else:
        mask = Mask(_permuted(dict(ticket.mask), seed, "all"))
    return Ticket.make(mask, initial, level=ticket.level, recipe=ticket.recipe, provenance=ticket.provenance)


def thinned(mask: Mask, keep: int, seed: int) -> Mask:
    """At most `keep` of the mask's survivors, drawn among all of its layers' together."""
    flat = np.concatenate([layer.numpy().ravel() for layer in mask.values()])
    alive = np.flatnonzero(flat)
    if keep >= len(alive):
        return mask
    chosen = generator(seed, "mask", "adjusted").choice(alive, keep, replace=False, shuffle=False)
    return Mask(_split(_marked(len(flat), chosen), mask))


def _permuted(layers: Mapping[str, Tensor], seed: int, stream: str) -> dict[str, Tensor]:
    """The same number of survivors at places drawn among all of these layers' weights."""
    total = sum(layer.numel() for layer in layers.values())
    survivors = sum(int(layer.sum()) for layer in layers.values())
    chosen = generator(seed, "mask", stream).choice(total, survivors, replace=False, shuffle=False)
    return _split(_marked(total, chosen), layers)


def _marked(total: int, chosen: np.ndarray) -> np.ndarray:
    flat = np.zeros(total, bool)
    flat[chosen] = True
    return flat


def _split(flat: np.ndarray, layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One line of marks, cut into the layers' shapes."""
    ends = np.cumsum([layer.numel() for layer in layers.values()])[:-1]
    return {
        name: torch.from_numpy(part.reshape(layer.shape))
        for (name, layer), part in zip(layers.items(), np.split(flat, ends), strict=True)
    }
