"""Controls: the networks that a ticket is compared with, a class each.

Each differs from the ticket in where its mask lies or in what its weights are (Morcos et al. 2019, section 3.1 and
Figure A1, https://arxiv.org/abs/1906.02773). Masks that are drawn for a ticket that keeps to an N:M pattern keep to it
too: weights are taken in a random order, each that its group has room for.

One of your own is a subclass of `Control` in a file, named as `--controls mine.py:Name`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from sslticket.errors import BadInput, one_line
from sslticket.evaluation import CONTROLS
from sslticket.pruning.mask import Mask
from sslticket.pruning.pattern import Pattern
from sslticket.pruning.prunable import MACHINE_PRECISION
from sslticket.registry import required_parts
from sslticket.results.rows import CONTROLS as CONTROLS_IN_REPORTS
from sslticket.results.rows import ControlInfo
from sslticket.seeds import seeded_generator
from sslticket.storage import tensorfile
from sslticket.ticket import INITIAL_TICKET, Ticket, run_folder_of

DENSE_FILE = "level-00.safetensors"
"""The dense network at W_k, beside the tickets of its search."""
_BUILT_IN = frozenset(CONTROLS_IN_REPORTS)
_NO_BASELINE = "there is no adjusted random baseline; leave --controls adjusted out"


class Control(ABC):
    """A network that is compared with a ticket; as dense as that, unless the class says otherwise.

    Attributes:
        name: Name in rows and in the names of their files.
        description: What the network is, for readers of a report.
        keeps_weights: Whether it has weights of the ticket's search, which `weights` gives, and a head that belongs to
            them. Else its weights are drawn anew, and so is its classification layer.
        shared: Whether it owes nothing to a ticket but its layers, its number of weights and the seed of its search, so
            that all searches of a seed share it; then `training_key` says so too.
        needs_natural_mask: Whether `mask` needs the weights that training does not take to zero by itself.
    """

    name: ClassVar[str]
    description: ClassVar[str] = ""
    keeps_weights: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    needs_natural_mask: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Tells reports of a control from outside the package."""
        super().__init_subclass__()
        if "name" in vars(cls) and cls.name not in _BUILT_IN:
            info = ControlInfo(cls.description, shared=cls.shared, keeps_weights=cls.keeps_weights)
            CONTROLS_IN_REPORTS[cls.name] = info

    @abstractmethod
    def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
        """The control's mask, over the layers of the ticket's: what the search might not prune, no control prunes.

        Args:
            ticket: The ticket that is mirrored.
            seed: Seed of the control's own random numbers, of the evaluation's and the search's seed.
            natural: Weights of the dense network that are not zero at convergence, in the ticket's layers; None unless
                `needs_natural_mask`.
        """

    def weights(self, path: Path) -> Ticket | None:
        """The dense network whose weights the control has; None where they are drawn anew.

        Args:
            path: Path of the ticket's file, in the folder of its run.

        Raises:
            BadInput: If the search has not kept it, or the ticket does not start from it.
        """
        return None

    def training_key(
        self, *, ticket_hash: str, search_seed: int, survivors: int, dense: bool, natural_survivors: int | None
    ) -> tuple[object, ...]:
        """What tells its training from others under the same protocol, seed, network and layers.

        Controls that agree in it are trained once.

        Args:
            ticket_hash: Hash of the ticket that the control stands beside.
            search_seed: Seed of the ticket's search.
            survivors: Weights that the ticket keeps.
            dense: Whether these are all.
            natural_survivors: Weights of the natural mask; None while it is not known.
        """
        return self.name, ticket_hash


class Random(Control):
    """The papers' random ticket: the mask permuted over all layers that the search pruned, and weights drawn anew.

    It owes nothing to a ticket but its layers, the number of its weights and the seed of its search: replicates have
    random tickets of their own, and searches of one seed share them.
    """

    name = "random"
    shared = True

    def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
        """See the base class."""
        return _permute_mask(ticket.mask, seed, "all", ticket.pattern)

    def training_key(self, *, search_seed: int, survivors: int, **_: Any) -> tuple[object, ...]:
        """See the base class."""
        return "random", search_seed, survivors


class _Reinitialized(Control):
    """A control in the ticket's layers: of a dense network it is the random ticket."""

    def training_key(self, *, dense: bool, **about: Any) -> tuple[object, ...]:
        """See the base class."""
        return Random().training_key(**about) if dense else super().training_key(dense=dense, **about)


class Local(_Reinitialized):
    """The mask permuted within each layer, and weights drawn anew."""

    name = "local"

    def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
        """See the base class."""
        layers = {name: Mask({name: layer}) for name, layer in ticket.mask.items()}
        return Mask({name: _permute_mask(one, seed, name, ticket.pattern)[name] for name, one in layers.items()})


class Preserved(_Reinitialized):
    """The ticket's mask, and weights drawn anew."""

    name = "preserved"

    def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
        """See the base class."""
        return ticket.mask


class Adjusted(Control):
    """The random ticket where networks are sparse by nature, and weights drawn anew.

    Finding Winning Tickets with Limited (or No) Supervision, section 4.5: "when less than 15% of the weights remain",
    which is as many as its networks keep by themselves, the random baseline starts "by applying the mask given by
    sparse weights at convergence". Where the paper is silent, we decide: below the natural density, survivors are drawn
    at random among the natural ones, over all layers together. Above it, the mask is the natural one, so it keeps fewer
    weights than the ticket; its own density is in the row. The dense network that shows which weights are natural
    starts from weights of its own, for weights and mask of one training would be a ticket.
    """

    name = "adjusted"
    shared = True
    needs_natural_mask = True

    def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
        """See the base class."""
        assert natural is not None, "the adjusted control needs the natural mask"
        return random_submask(natural, ticket.mask.survivors, seed, ticket.pattern)

    def training_key(
        self, *, search_seed: int, survivors: int, natural_survivors: int | None, **_: Any
    ) -> tuple[object, ...]:
        """See the base class."""
        kept = survivors if natural_survivors is None else min(survivors, natural_survivors)
        return "adjusted", search_seed, kept


class Reset(Control):
    """The ticket's mask, and weights W_0 of its own search: the winning ticket of Frankle & Carbin 2019.

    Beside a rewound ticket it shows what the first k steps are worth.
    """

    name = "reset"
    keeps_weights = True

    def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
        """See the base class."""
        return ticket.mask

    def weights(self, path: Path) -> Ticket:
        """See the base class."""
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


class Permuted(Control):
    """The mask permuted over all layers that the search pruned, and weights W_k of its own search.

    It shows what the mask is worth with the very weights that the ticket has.
    """

    name = "permuted"
    keeps_weights = True

    def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
        """See the base class."""
        return Random().mask(ticket, seed=seed, natural=natural)

    def weights(self, path: Path) -> Ticket:
        """See the base class."""
        return Ticket.load(find_dense_ticket(path))

    def training_key(self, *, ticket_hash: str, dense: bool, **_: Any) -> tuple[object, ...]:
        """See the base class."""
        return "ticket" if dense else self.name, ticket_hash


_by_name: dict[str, Control] = {}


def get_control(control: str | type[Control]) -> Control:
    """The control of a name, or of a class.

    Args:
        control: Name of a built-in control or of one that was loaded before, "FILE.py:NAME", "package.module:NAME" or
            that of an entry point; or a subclass of `Control`.

    Raises:
        BadInput: If there is none, naming the nearest ones; or if one from outside has the name of another.
    """
    if isinstance(control, str) and control in _by_name:
        return _by_name[control]
    kind: type[Control] = CONTROLS.get(control) if isinstance(control, str) else control
    if not (isinstance(kind, type) and issubclass(kind, Control)):
        raise BadInput(
            f'a control must be a name, "file.py:NAME" or a subclass of Control, got {kind!r}; give "random"'
        )
    known = CONTROLS.get(kind.name) if kind.name in CONTROLS.names() else type(_by_name.get(kind.name, kind()))
    # A file that has changed defines its class anew.
    if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__) or kind.name == "ticket":
        raise BadInput(f"a control must have a name of its own, got {kind.name!r}; give {kind.__name__} another `name`")
    _by_name[kind.name] = kind()
    return _by_name[kind.name]


def make_control(
    ticket: Ticket,
    control: Control,
    *,
    initial: Mapping[str, Tensor],
    seed: int,
    natural: Mask | None = None,
    head: Mapping[str, Tensor] | None = None,
) -> Ticket:
    """The control of a ticket.

    Args:
        ticket: The ticket that is mirrored.
        control: Control that is made.
        initial: The dense backbone that the mask is laid on, batch norm included: drawn anew and not the ticket's
            weights, or those that `Control.weights` gives.
        seed: Seed of the control's mask.
        natural: The natural mask in the ticket's layers, for controls that need it.
        head: The classification layer that goes with `initial`, where there is one.
    """
    mask = control.mask(ticket, seed=seed, natural=natural)
    recipe, provenance = ticket.recipe, ticket.provenance
    if head and "head_kept" in provenance:
        # Of a supermask's classification layer is left what its ticket keeps: only the backbone's mask is permuted.
        head = {name: value * (ticket.head[name] != 0) if name == "weight" else value for name, value in head.items()}
    return Ticket.from_dense_weights(mask, initial, level=ticket.level, recipe=recipe, provenance=provenance, head=head)


def control_parts(name: str) -> dict[str, str]:
    """The file of a control from outside the package and its hash, as rows have them."""
    return {} if name == "ticket" else required_parts(type(get_control(name)))


def find_dense_ticket(path: Path) -> Path:
    """The file of the dense network from whose W_k a ticket trains.

    Raises:
        BadInput: If it is not there, or has other early weights.
    """
    beside = path.with_name(DENSE_FILE)
    if not beside.is_file():
        raise BadInput(
            f"{path} needs the dense network of its search, {DENSE_FILE}, beside it; give a whole run's folder, or do "
            "without permuted controls, stability and random subnetworks"
        )
    ticket, dense = Ticket.load(path), Ticket.load(beside)
    for name, value in ticket.weights.items():
        early = dense.weights.get(name)
        if early is not None and early.shape == value.shape and name in ticket.mask:
            early = early * ticket.mask[name]
        if early is None or not torch.equal(early, value):
            raise BadInput(
                f"{path} does not start from the W_k of {beside}: {name} differs; stability, permuted controls and "
                "random subnetworks need tickets that are rewound to one W_k"
            )
    return beside


def random_submask(mask: Mask, keep: int, seed: int, pattern: Pattern | None = None) -> Mask:
    """At most `keep` of the mask's survivors, drawn among all of its layers' together, by a pattern's rule."""
    if pattern is not None:
        ranks = _random_ranks(mask, seed, "adjusted")
        mask = Mask(pattern.best(ranks, mask))
        return mask if keep >= mask.survivors else Mask.top(ranks, keep=keep, within=mask)
    flat = np.concatenate([layer.numpy().ravel() for layer in mask.values()])
    alive = np.flatnonzero(flat)
    if keep >= len(alive):
        return mask
    chosen = seeded_generator(seed, "mask", "adjusted").choice(alive, keep, replace=False, shuffle=False)
    return Mask(_mask_of_positions(chosen, mask))


def _permute_mask(layers: Mask, seed: int, stream: str, pattern: Pattern | None) -> Mask:
    """The same number of survivors at positions drawn among all of these layers' weights, within a pattern."""
    survivors = layers.survivors
    if pattern is not None:
        if not survivors:
            return layers
        everywhere = Mask.ones_like(layers, list(layers))
        return Mask.top(_random_ranks(layers, seed, stream), keep=survivors, within=everywhere, pattern=pattern)
    chosen = seeded_generator(seed, "mask", stream).choice(layers.total, survivors, replace=False, shuffle=False)
    return Mask(_mask_of_positions(chosen, layers))


def _random_ranks(layers: Mask, seed: int, stream: str) -> dict[str, Tensor]:
    """Each weight's place in a random order of all of them: the highest come first, while their groups have room."""
    order = seeded_generator(seed, "mask", stream).permutation(layers.total).astype(np.float64)
    ends = np.cumsum([layer.numel() for layer in layers.values()])
    return {
        name: torch.from_numpy(ranks.reshape(layer.shape))
        for (name, layer), ranks in zip(layers.items(), np.split(order, ends[:-1]), strict=True)
    }


def _mask_of_positions(chosen: np.ndarray, layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks that keep the chosen positions, which count through all of these layers' weights one after another."""
    ends = np.cumsum([layer.numel() for layer in layers.values()])
    flat = np.zeros(ends[-1], bool)
    flat[chosen] = True
    return {
        name: torch.from_numpy(marks.reshape(layer.shape))
        for (name, layer), marks in zip(layers.items(), np.split(flat, ends[:-1]), strict=True)
    }


@dataclass(frozen=True, eq=False)
class NaturalMask:
    """Natural zeros: the weights that training takes to zero by itself, before anything is pruned.

    Attributes:
        mask: Weights of a dense network above machine precision at convergence survive.
        provenance: JSON values that say where the mask comes from: model, protocol, seed, data_hash, how it computed,
            and the dense network's scores.
    """

    mask: Mask
    provenance: dict[str, Any]

    @classmethod
    def from_weights(cls, trained: Mapping[str, Tensor], names: list[str], provenance: dict[str, Any]) -> "NaturalMask":
        """The natural mask of the weights at convergence.

        Args:
            trained: Parameters and buffers of the backbone at the end of the training.
            names: Names of the prunable weights: last layer and batch norm are not counted (Finding Winning Tickets
                with Limited (or No) Supervision, Appendix D).
            provenance: JSON values that say where the weights come from.

        Raises:
            BadInput: If none is above machine precision.
        """
        mask = Mask({name: trained[name].abs() > MACHINE_PRECISION for name in names})
        if not mask.survivors:
            model, protocol = provenance["model"], provenance["protocol"]
            raise BadInput(f"every weight of {model} has gone to zero under {protocol}; {_NO_BASELINE}")
        return cls(mask, provenance)

    def save(self, path: Path) -> None:
        """Writes the mask, a bit a weight, whole or not at all."""
        bits = {name: torch.from_numpy(np.packbits(layer.numpy())) for name, layer in self.mask.items()}
        shapes = {name: list(layer.shape) for name, layer in self.mask.items()}
        header = {"shapes": shapes, "told": self.provenance, "density": self.mask.density}
        tensorfile.write_tensor_file(path, "natural", header, bits)

    @classmethod
    def load(cls, path: Path) -> "NaturalMask":
        """Reads what `save` wrote.

        Raises:
            BadInput: If the file is damaged.
        """
        fix = "delete it and run the same command again"
        header, bits = tensorfile.read_tensor_file(path, "natural", what="file of natural zeros", fix=fix)
        try:
            shapes, provenance, density = header["shapes"], dict(header["told"]), header["density"]
            if not shapes or shapes.keys() != bits.keys():
                raise ValueError("its layers are not those of its header")
            mask = Mask({name: _unpack_layer(bits[name].numpy(), shape) for name, shape in shapes.items()})
            if mask.density != density:
                raise ValueError("its density is not that of its header")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(f"{path} is damaged ({one_line(error)}); {fix}") from None
        return cls(mask, provenance)

    def for_ticket(self, ticket: Ticket, *, data_hash: str, path: Path) -> Mask:
        """The natural mask of the layers that a ticket's search might prune.

        Args:
            ticket: The ticket.
            data_hash: Hash of the images that the ticket is trained on, of which the mask must be.
            path: File that the mask was read from, for errors.

        Raises:
            BadInput: If the mask is of other images, or all weights of these layers have gone to zero.
        """
        if self.provenance["data_hash"] != data_hash:
            raise BadInput(f"{path} is of other images; delete it and run the same command again")
        mask = self.mask.restrict(ticket.mask)
        if not mask.survivors:
            raise BadInput(f"every weight that the search might prune has gone to zero in {path}; {_NO_BASELINE}")
        return mask


def _unpack_layer(bits: np.ndarray, shape: object) -> Tensor:
    if bits.dtype != np.uint8 or bits.ndim != 1 or not tensorfile.is_tensor_shape(shape, 8 * len(bits)):
        raise ValueError(f"{len(bits):,} bytes of bits for the shape {str(shape)[:80]}")
    sides = cast(list[int], shape)
    return torch.from_numpy(np.unpackbits(bits, count=math.prod(sides)).view(bool).reshape(sides))
