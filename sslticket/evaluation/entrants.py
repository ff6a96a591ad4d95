"""What has to be known of a ticket file while its weights are not in memory: a dense ResNet-50's take 94 MB."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sslticket import models
from sslticket.data.catalogue import dataset
from sslticket.errors import BadInput
from sslticket.evaluation.pace import image_size
from sslticket.evaluation.protocols import Protocol
from sslticket.masking.acting import Acting
from sslticket.masking.layers import described
from sslticket.recipe import family, search_name, settings
from sslticket.ticket import Ticket, run_of


@dataclass(frozen=True, eq=False)
class Entrant:
    """A ticket that is evaluated.

    Attributes:
        hash: the ticket's.
        model: its network.
        channels: of the images that it was found on, so of its first layer.
        kept: weights that remain of those that the search might prune.
        total: weights that it might prune.
        layers: in which these are.
        size: all parameters and buffers of the network.
        rewound: source images that its search had seen at W_k.
        seed: of its search.
        head: the shapes of its classification layer's tensors; empty where it has none.
        classes_hash: of the names of the classes that its search saw, in order; None in older tickets.
        about: what each of its rows says of it.
    """

    hash: str
    model: str
    channels: int
    kept: int
    total: int
    layers: tuple[str, ...]
    size: int
    rewound: int
    seed: int
    head: Mapping[str, tuple[int, ...]]
    classes_hash: str | None
    about: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path, targets: Mapping[str, Protocol]) -> "Entrant":
        """Load a ticket, and see whether its network takes the images of all its protocols.

        Raises:
            BadInput: if it is damaged, was found on images of another size and its network takes no other, is of a
                network that a protocol is not for, or has a mask that is not what acts in its network.
        """
        ticket = Ticket.load(path)
        data = ticket.recipe["data"]
        source = dataset(data["dataset"])
        own = data["image_size"] or _seen(data["augment"]) or source.train.size
        channels = data.get("channels") or source.channels
        for protocol in targets.values():
            protocol.fit_for(ticket.recipe["model"])
            size = image_size(protocol)
            if size != own:
                _check(ticket, path, protocol.name, channels, sizes=(own, size))
        try:
            _acting(ticket.recipe["model"], channels, own).check(ticket.recipe["model"], list(ticket.mask))
        except BadInput as error:
            raise BadInput(f"{path} is no sparse network: {error}") from error
        return cls(
            hash=ticket.hash,
            model=ticket.recipe["model"],
            channels=channels,
            kept=ticket.mask.survivors,
            total=ticket.mask.total,
            layers=tuple(sorted(ticket.mask)),
            size=sum(value.numel() for value in ticket.weights.values()),
            rewound=ticket.provenance["rewind_samples"],
            seed=ticket.provenance["seed"],
            head={name: tuple(value.shape) for name, value in ticket.head.items()},
            classes_hash=ticket.provenance.get("classes_hash"),
            about={"kind": "score", **about(path, ticket), "channels": channels},
        )


def _seen(augment: Any) -> int | None:
    """The size of a recipe's own training view."""
    first = augment[0] if isinstance(augment, list) else augment
    return None if first is None else int(first["size"])


def _check(ticket: Ticket, path: Path, protocol: str, channels: int, *, sizes: tuple[int, int]) -> None:
    model, (own, size) = ticket.recipe["model"], sizes
    shapes = _shapes(model, channels, size)
    for name, value in ticket.weights.items():
        if shapes.get(name, value.shape) != value.shape:
            raise BadInput(
                f"{path} was found on images of {own} pixels, and {protocol} shows {size}: {name} of {model} is "
                f"{tuple(value.shape)} there and {tuple(shapes[name])} here; give a protocol of {own} pixels, or "
                "tickets of a network that pools globally"
            )


@cache
def _shapes(model: str, channels: int, size: int) -> dict[str, torch.Size]:
    with torch.random.fork_rng(devices=[]):
        backbone = models.build(model, channels=channels, image_size=size)
    return {name: value.shape for name, value in backbone.state_dict().items()}


@cache
def _acting(model: str, channels: int, size: int) -> Acting:
    if model in models.KNOWN:  # tests try those
        return Acting.whole()
    with torch.random.fork_rng(devices=[]):
        backbone = models.build(model, channels=channels, image_size=size)
    return Acting.of(backbone, channels=channels, image_size=size)


def about(path: Path, ticket: Ticket) -> dict[str, Any]:
    """What every row about a ticket says of it.

    Args:
        path: of its file, whose folder is its run's.
        ticket: read from there.
    """
    recipe, came = ticket.recipe, ticket.provenance
    return {
        "run": run_of(path).name,
        "recipe": family(recipe),
        "objective": came["objective"],
        "model": recipe["model"],
        "source": came["dataset"],
        **({"source_hash": came["source_hash"]} if came.get("source_hash") else {}),
        "subset": recipe["data"]["subset"],
        "subset_by": recipe["data"]["subset_by"],
        "level": ticket.level,
        "density": ticket.mask.density,
        "within": described(recipe),
        "ticket_hash": ticket.hash,
        "search_seed": came["seed"],
        "search": search_name(recipe),
        "settings": settings(recipe),
        "rewind_samples": came["rewind_samples"],
        "search_samples": came["search_samples"],
    }
