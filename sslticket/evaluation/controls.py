"""Controls: the networks that a ticket is compared with.

Each control differs from the ticket in where its mask lies or in what its weights are. The natural mask, of the weights that training does not take to zero by itself, belongs to the adjusted control.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from sslticket.errors import BadInput, one_line, unknown_name
from sslticket.pruning.mask import Mask
from sslticket.pruning.prunable import MACHINE_PRECISION
from sslticket.seeds import seeded_generator
from sslticket.storage import tensorfile
from sslticket.ticket import INITIAL_TICKET, Ticket, run_folder_of


@dataclass(frozen=True, eq=False)
class NaturalMask:
    """What is left of a dense network that was trained to convergence.

    Attributes:
        mask: weights above machine precision survive.
        provenance: where it comes from, as JSON values: model, protocol, seed, data_hash, how it computed, and the dense
            network's scores.
    """

    mask: Mask
    provenance: dict[str, Any]

    @classmethod
    def from_weights(cls, trained: Mapping[str, Tensor], names: list[str], told: dict[str, Any]) -> "NaturalMask":
        """From the weights at convergence.

        Args:
            trained: the backbone's parameters and buffers at the end of the training.
            names: of the prunable weights: last layer and batch norm are not counted (the paper's Appendix D).
            told: where they come from.

        Raises:
            BadInput: if none is above machine precision.
        """
        mask = Mask({name: trained[name].abs() > MACHINE_PRECISION for name in names})
        if not mask.survivors:
            raise BadInput(
                f"every weight of {told['model']} has gone to zero under {told['protocol']}; there is no adjusted "
                "random baseline; leave --controls adjusted out"
            )
        return cls(mask, told)

    def save(self, path: Path) -> None:
        """Write the mask, a bit a weight, whole or not at all."""
        bits = {name: torch.from_numpy(np.packbits(layer.numpy())) for name, layer in self.mask.items()}
        shapes = {name: list(layer.shape) for name, layer in self.mask.items()}
        header = {"shapes": shapes, "told": self.provenance, "density": self.mask.density}
        tensorfile.write_tensor_file(path, "natural", header, bits)

    @classmethod
    def load(cls, path: Path) -> "NaturalMask":
        """Read what `save` wrote.

        Raises:
            BadInput: if the file is damaged.
        """
        fix = "delete it and run the same command again"
        header, bits = tensorfile.read_tensor_file(path, "natural", what="file of natural zeros", fix=fix)
        try:
            shapes, told, density = header["shapes"], dict(header["told"]), header["density"]
            if not shapes or shapes.keys() != bits.keys():
                raise ValueError("its layers are not the ones that it tells")
            mask = Mask(
                {name: torch.from_numpy(_unpack_layer(bits[name].numpy(), shape)) for name, shape in shapes.items()}
            )
            if mask.density != density:
                raise ValueError("its density is not the one it tells")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{path} is damaged ({one_line(error)}); {fix}") from None
        return cls(mask, told)


def _unpack_layer(bits: np.ndarray, shape: object) -> np.ndarray:
    if bits.dtype != np.uint8 or bits.ndim != 1 or not tensorfile.is_tensor_shape(shape, 8 * len(bits)):
        raise ValueError(f"{len(bits):,} bytes of bits for the shape {str(shape)[:80]}")
    sides = cast(list[int], shape)
    return np.unpackbits(bits, count=math.prod(sides)).view(bool).reshape(sides)


CONTROLS = {
    "random": "mask permuted over all layers that the search pruned, weights drawn anew: the papers' random ticket",
    "local": "mask permuted within each layer, weights drawn anew",
    "preserved": "the ticket's mask, weights drawn anew",
    "adjusted": "mask drawn among the weights that do not go to zero by themselves, weights drawn anew",
    "reset": "the ticket's mask, weights W_0 of its own search",
    "permuted": "mask permuted over all layers that the search pruned, weights W_k of its own search",
}
REINITIALIZED = ("random", "local", "preserved", "adjusted")
"""Controls that have neither the ticket's weights nor its classification layer."""

DENSE_FILE = "level-00.safetensors"
"""The dense network at W_k, beside the tickets of its search."""


def check_control(kind: str) -> None:
    """Whether there is a control of this name.

    Raises:
        BadInput: naming the nearest that there are.
    """
    if kind not in CONTROLS:
        raise unknown_name("control", kind, CONTROLS)


def load_control_weights(path: Path, kind: str) -> Ticket | None:
    """The dense network whose weights a control of a ticket has: W_0 or W_k of its search; None where drawn anew.

    Args:
        path: of the ticket's file, in the folder of its run.
        kind: one of CONTROLS.

    Raises:
        BadInput: if the search has not kept it, or the ticket does not start from it.
    """
    if kind == "permuted":
        return Ticket.load(find_dense_ticket(path))
    if kind != "reset":
        return None
    initial, ticket = run_folder_of(path) / INITIAL_TICKET, Ticket.load(path)
    if ticket.provenance.get("rewind_samples") == 0 and ticket.provenance.get("weights", "early") == "early":
        return Ticket.load(find_dense_ticket(path))  # its W_k is W_0
    if not initial.is_file():
        raise BadInput(
            f"the control reset of {path} needs W_0, and there is no {initial}, which older searches did not keep; "
            "give a whole run's folder, search anew, or leave reset out"
        )
    found = Ticket.load(initial)
    weights, rewound = found.provenance.get("weights"), found.provenance.get("rewind_samples")
    if (weights, rewound, found.recipe) != ("initial", 0, ticket.recipe):
        raise BadInput(
            f"{initial} does not hold W_0 of the search of {path}; give the run's folder as the search left it, or "
            "leave reset out"
        )
    return found


def find_dense_ticket(path: Path) -> Path:
    """The file of the dense network from whose W_k a ticket trains.

    Raises:
        BadInput: if it is not there, or has other early weights.
    """
    beside = path.with_name(DENSE_FILE)
    if not beside.is_file():
        raise BadInput(
            f"{path} needs the dense network of its search, {DENSE_FILE}, beside it; give a whole run's folder, or do "
            "without permuted controls, stability and random subnetworks"
        )
    if odd := _first_difference(Ticket.load(path), Ticket.load(beside)):
        raise BadInput(
            f"{path} does not start from the W_k of {beside}: {odd} differs; stability, permuted controls and "
            "random subnetworks need tickets that are rewound to one W_k"
        )
    return beside


def _first_difference(ticket: Ticket, dense: Ticket) -> str | None:
    """The first tensor in which a ticket is not the dense network with its mask."""
    for name, value in ticket.weights.items():
        early = dense.weights.get(name)
        if early is not None and early.shape == value.shape and name in ticket.mask:
            early = early * ticket.mask[name]
        if early is None or not torch.equal(early, value):
            return name
    return None


def make_control(
    ticket: Ticket,
    kind: str,
    *,
    initial: Mapping[str, Tensor],
    seed: int,
    natural: Mask | None = None,
    head: Mapping[str, Tensor] | None = None,
) -> Ticket:
    """The control of a kind that mirrors a ticket (Morcos et al. 2019, section 3.1 and Figure A1).

    `reset` is the winning ticket of Frankle & Carbin 2019, which goes back to W_0; beside a rewound one it shows what
    the first k steps are worth. `permuted` shows what the mask's place is worth with the very weights that the ticket
    has.

    The adjusted one is of "Finding Winning Tickets with Limited (or No) Supervision", section 4.5: "when less than 15%
    of the weights remain", which is as many as its networks keep by themselves, the random baseline starts "by applying
    the mask given by sparse weights at convergence". Where the paper is silent, we decide: below the natural density,
    survivors are drawn at random among the natural ones, over all layers together. Above it, the mask is the natural
    one, so it keeps fewer weights than the ticket; its own density is in the row. The dense network that shows which
    weights are natural starts from weights of its own, for weights and mask of one training would be a ticket.

    Args:
        ticket: gives the number of weights that remain, and for `local` and `preserved` where.
        kind: one of CONTROLS.
        initial: the dense backbone that the mask is laid on, batch norm included: drawn anew, and not the ticket's
            weights; for `reset` W_0 and for `permuted` W_k of the ticket's search.
        seed: from which the permutation is drawn.
        natural: for `adjusted`, the weights of the dense network that are not zero at convergence, of the ticket's
            layers. What the search might not prune, no control prunes.
        head: the classification layer that goes with `initial`, where there is one.

    Raises:
        BadInput: for an unknown kind.
    """
    check_control(kind)
    if kind in ("preserved", "reset"):
        mask = ticket.mask
    elif kind == "local":
        mask = Mask({name: _permute_mask({name: layer}, seed, name)[name] for name, layer in ticket.mask.items()})
    elif kind == "adjusted":
        assert natural is not None, "the adjusted control needs the natural mask"
        mask = random_submask(natural, ticket.mask.survivors, seed)
    else:
        mask = Mask(_permute_mask(dict(ticket.mask), seed, "all"))
    recipe, provenance = ticket.recipe, ticket.provenance
    if head and "head_kept" in provenance:
        # Of a supermask's classification layer is left what its ticket keeps: only the backbone's mask is permuted.
        head = {name: value * (ticket.head[name] != 0) if name == "weight" else value for name, value in head.items()}
    return Ticket.from_dense_weights(mask, initial, level=ticket.level, recipe=recipe, provenance=provenance, head=head)


def random_submask(mask: Mask, keep: int, seed: int) -> Mask:
    """At most `keep` of the mask's survivors, drawn among all of its layers' together."""
    flat = np.concatenate([layer.numpy().ravel() for layer in mask.values()])
    alive = np.flatnonzero(flat)
    if keep >= len(alive):
        return mask
    chosen = seeded_generator(seed, "mask", "adjusted").choice(alive, keep, replace=False, shuffle=False)
    return Mask(_split_by_layer(_flat_mask(len(flat), chosen), mask))


def _permute_mask(layers: Mapping[str, Tensor], seed: int, stream: str) -> dict[str, Tensor]:
    """The same number of survivors at places drawn among all of these layers' weights."""
    total = sum(layer.numel() for layer in layers.values())
    survivors = sum(int(layer.sum()) for layer in layers.values())
    chosen = seeded_generator(seed, "mask", stream).choice(total, survivors, replace=False, shuffle=False)
    return _split_by_layer(_flat_mask(total, chosen), layers)


def _flat_mask(total: int, chosen: np.ndarray) -> np.ndarray:
    flat = np.zeros(total, bool)
    flat[chosen] = True
    return flat


def _split_by_layer(flat: np.ndarray, layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One line of marks, cut into the layers' shapes."""
    ends = np.cumsum([layer.numel() for layer in layers.values()])[:-1]
    return {
        name: torch.from_numpy(part.reshape(layer.shape))
        for (name, layer), part in zip(layers.items(), np.split(flat, ends), strict=True)
    }
