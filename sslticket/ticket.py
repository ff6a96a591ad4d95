"""The ticket: a mask, the early weights W_k from which the sparse network trains, and where both came from.

docs/ticket-format.md describes the file byte by byte.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sslticket import hub
from sslticket.config.recipe import RecipeRecord
from sslticket.data.datasets.catalogue import InputSpec
from sslticket.errors import BadInput, one_line
from sslticket.escaping import escape_terminal
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask, StateDict, pack_mask, unpack_mask
from sslticket.pruning.pattern import Pattern
from sslticket.pruning.prunable import prunable_weights
from sslticket.registry import load_recorded_parts, note_recorded_parts
from sslticket.storage import tensorfile
from sslticket.storage.files import atomic_write
from sslticket.storage.tensorfile import is_finite_tensor, is_int_between, is_tensor_name, is_tensor_shape

_HEADER_FIELDS: dict[str, type] = {
    "format": int,
    "level": int,
    "density": float,
    "recipe": dict,
    "provenance": dict,
    "layers": dict,
    "order": list,
    "hash": str,
}
_MAX_LEVEL = 100_000  # level
_FieldTypes = Mapping[str, tuple[type, ...]]
_RECIPE_FIELDS: _FieldTypes = {
    **dict.fromkeys(("model", "precision"), (str,)),
    **dict.fromkeys(("data", "fit", "search", "objective"), (dict,)),
    "seed": (int,),
}
_DATA_FIELDS: _FieldTypes = {"dataset": (str,), **dict.fromkeys(("image_size", "channels"), (int, type(None)))}
_PROVENANCE_FIELDS: _FieldTypes = {
    **dict.fromkeys(("dataset", "classes_hash", "source_hash", "data_hash", "objective"), (str,)),
    **dict.fromkeys(("weights", "numerics", "commit"), (str,)),
    **dict.fromkeys(("images", "classes", "seed", "rewind_samples", "search_samples"), (int,)),
    **dict.fromkeys(("search_forward_images", "undecided"), (int, type(None))),
    **dict.fromkeys(("half", "permutation", "versions", "parts", "imported"), (dict,)),
}
"""Fields that those who read a ticket rely on: they may be missing, and a truth value is no number."""


def header_fault(header: dict[str, Any]) -> str | None:
    """What keeps a header from being a ticket's; None for a good one."""
    wanted = {1: _HEADER_FIELDS, 2: _HEADER_FIELDS | {"head": list}, 3: _PACKED_FIELDS}[header["format"]]
    if differ := header.keys() ^ wanted.keys():
        return f"its header has {min(differ)[:80]!r} and should not, or lacks it"
    for name, kind in wanted.items():
        if type(header[name]) is not kind:
            return f"its header has {name} {str(header[name])[:80]!r}, which is of the wrong type"
    if not 0 <= header["level"] <= _MAX_LEVEL:
        return f"its level is {header['level']}"
    for tree, known in ((header["recipe"], _RECIPE_FIELDS), (header["recipe"].get("data", {}), _DATA_FIELDS)):
        if isinstance(tree, dict) and (odd := _wrong_field(tree, known)):
            return f"its recipe has {odd}"
    if odd := _wrong_field(header["provenance"], _PROVENANCE_FIELDS):
        return f"its provenance has {odd}"
    return None if header["format"] == 3 else _tensors_fault(header)


def _tensors_fault(header: dict[str, Any]) -> str | None:
    """What is wrong with the names of tensors in the header of format 1 or 2."""
    for listed in ("order", "head"):
        names = header.get(listed, [])
        if unnamed := [name for name in names if not is_tensor_name(name)]:
            return f"a tensor in its {listed} is named {str(unnamed[0])[:80]!r}"
        if len(set(names)) < len(names):
            return f"its {listed} names a tensor twice"
    layers = header["layers"]
    if not layers or not layers.keys() <= set(header["order"]) or header.get("head") == []:
        return "its header names no layers, other ones in its order, or an empty head"
    for name, layer in layers.items():
        if not isinstance(layer, dict) or layer.keys() != {"shape", "kept", "coding"}:
            return f"layer {name} is described by {str(layer)[:80]!r}"
    return None


def _wrong_field(tree: Mapping[str, Any], known: _FieldTypes) -> str | None:
    """The first field of a wrong type."""
    for name, value in tree.items():
        if name in known and type(value) not in known[name]:
            return f"{name} {str(value)[:80]!r}, which is of the wrong type"
    return None


FORMATS = (1, 2, 3)
"""Versions of the file that can be read. Format 2 has the classification layer of W_k beside the backbone, which format
1 has not. Format 3 is either of them, packed into zlib streams; it has the same hash and is written where it is
shorter."""

_PACKED_FIELDS: dict[str, type] = {
    "format": int,
    "level": int,
    "density": float,
    "recipe": dict,
    "provenance": dict,
    "ticket_hash": str,
}
"""What the header of format 3 has; the rest is in a stream. Its hash has another name than that of formats 1 and 2:
versions that read these alone would else call the file damaged before they see its format."""

INITIAL_TICKET = "initial.safetensors"
"""The file in a run's folder that holds W_0 as a dense ticket, from which the control `reset` is made."""


_MAX_WEIGHTS, _WEIGHTS_PER_BYTE = 1 << 26, 256
"""What masks may cover: 2^26 weights, and 256 more for each byte of the file, as many as a byte of gaps can tell of.
A layer that lost every weight needs no byte at all, so that a small file could otherwise ask for any memory."""


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """A sparse trainable network.

    Attributes:
        mask: Which of the weights that the search might prune survive; all others are in `weights` as they are.
        weights: W_k, or trained ones where the search goes on from these: all backbone parameters and buffers; pruned
            entries are 0.
        level: How many times the search pruned; 0 is the dense network.
        recipe: The recipe that found it, as JSON values; see `record`.
        provenance: Data with the manifest's hash, seeds, samples seen at k, versions, commit, as JSON values.
        head: The classification layer that goes with the weights, as the objective trained it: `weight` (classes,
            features) and `bias` (classes,). Empty where the objective tells no classes, and in tickets of format 1.
            "Stabilizing the Lottery Ticket Hypothesis" counts it as a part of W_k.
        path: The file that it was read from, beside which its rows lie; None for one that was made here or is on the
            Hub.
    """

    mask: Mask
    weights: StateDict
    level: int
    recipe: dict[str, Any]
    provenance: dict[str, Any]
    head: StateDict = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def from_dense_weights(
        cls,
        mask: Mask,
        weights: Mapping[str, Tensor],
        *,
        level: int,
        recipe: dict[str, Any],
        provenance: dict[str, Any],
        head: Mapping[str, Tensor] | None = None,
    ) -> "Ticket":
        """A ticket whose weights are W_k x mask."""
        masked = {
            name: value.where(mask[name], torch.zeros_like(value)) if name in mask else value.clone()
            for name, value in weights.items()
        }
        return cls(mask, masked, level, recipe, provenance, {name: each.clone() for name, each in (head or {}).items()})

    def with_parts(self) -> "Ticket":
        """The same ticket, once the files of users that it records are loaded, as far as this user has run them."""
        load_recorded_parts(self.provenance.get("parts", {}), strict=False)
        return self

    @cached_property
    def record(self) -> RecipeRecord:
        """The recipe that found it, to be read whether or not its classes are here."""
        return RecipeRecord(self.recipe)

    @property
    def density(self) -> float:
        """The fraction that remains of the weights that the search might prune; rows and reports have the same."""
        return self.mask.density

    @property
    def survivors(self) -> int:
        """How many of these weights remain."""
        return self.mask.survivors

    @cached_property
    def pattern(self) -> Pattern | None:
        """The N:M pattern that the search was asked for and the mask keeps to; None for none, or a denser mask."""
        asked = self.record.pattern
        pattern = None if asked is None else Pattern.parse(asked)
        return pattern if pattern is not None and pattern.holds(self.mask) else None

    def __repr__(self) -> str:
        """One line: how dense it is, and where it is from as far as it tells."""
        model, data, task = self.recipe.get("model"), *map(self.provenance.get, ("dataset", "objective"))
        parts = {"": model, "on ": data, "by ": task}
        named = " ".join(f"{word}{value}" for word, value in parts.items() if value is not None)
        left = f"level {self.level}, density {self.density:.4%}: {self.survivors:,} of {self.mask.total:,} weights"
        return escape_terminal(f"<Ticket {named + ', ' if named else ''}{left}>")

    def apply(self, model: nn.Module, head: nn.Module | None = None) -> nn.Module:
        """Load W_k into somebody else's model and keep the pruned weights at 0 while it trains; returns the model.

        The model's `state_dict` and `load_state_dict` keep the plain network's names, so it is saved, copied and loaded
        as before; `remove` ends it.

        Args:
            model: The network; its own classification layer stays as it is.
            head: The classification layer that gets the ticket's own, such as `model.fc`; None to leave it.

        Raises:
            BadInput: If the model lacks tensors of the ticket, has them in other shapes, or has further convolutions;
                or if a head is given that the ticket has none for. Nothing has been loaded then.
        """
        if head is not None:
            self._check_head(head)
        theirs = pruned_model.stored_state(model)
        if missing := [name for name in self.weights if name not in theirs]:
            count = f"({len(missing)} tensors missing)"
            raise BadInput(f"this ticket is for another model: it has no {missing[0]} {count}{self._intended_use}")
        for name, value in self.weights.items():
            if theirs[name].shape != value.shape:
                raise BadInput(
                    f"this ticket is for another model: {name} is {tuple(value.shape)} in the ticket "
                    f"and {tuple(theirs[name].shape)} in the model{self._intended_use}"
                )
        if extra := [name for name in prunable_weights(model) if name not in self.weights and theirs[name].dim() > 2]:
            raise BadInput(
                f"this ticket is for another model: it does not know the convolution {extra[0]}{self._intended_use}"
            )
        pruned_model.attach_gates(model, self.mask)
        pruned_model.write_state(model, theirs | self.weights)
        # A ticket that was applied before may have pruned layers that are whole in this one.
        whole = [name for name in pruned_model.gated_weights(model) if name in self.weights and name not in self.mask]
        others = Mask.ones_like(self.weights, whole)
        pruned_model.set_mask(model, Mask(self.mask.layers | others.layers))
        if head is not None:
            pruned_model.write_state(head, self.head)
            if "head_kept" in self.provenance:  # a supermask's: drawn weights are never 0, so what is 0 is pruned
                masked = Mask({name: self.head[name] != 0 for name in prunable_weights(head)})
                pruned_model.attach_gates(head, masked)
                pruned_model.set_mask(head, masked)
                pruned_model.use_plain_names(head)
        pruned_model.use_plain_names(model)
        return model

    @staticmethod
    def remove(model: nn.Module) -> nn.Module:
        """Make a model that a ticket was applied to a plain network again, to deploy or export; returns the model.

        Layers have their own classes and plain weights, exactly 0 where these are pruned. Nothing keeps these at 0 from
        then on. A copy of the model, made before, stays as it was.

        Raises:
            BadInput: If a layer has parametrizations beside the ticket's mask.
        """
        return pruned_model.remove_gates(model)

    def _check_head(self, head: nn.Module) -> None:
        if not self.head:
            raise BadInput("this ticket holds no classification layer; leave head out and draw a new one")
        theirs, ours = (
            {name: tuple(value.shape) for name, value in of.items()}
            for of in (pruned_model.stored_state(head), self.head)
        )
        if theirs != ours:
            raise BadInput(
                f"this ticket's classification layer has {ours} and the model's has {theirs}; leave head out, or give "
                "a layer of the same classes and features"
            )

    @property
    def _intended_use(self) -> str:
        """The model and the images that the ticket is for, as the end of a complaint."""
        if "model" not in self.recipe:
            return ""
        inputs = InputSpec.from_recipe(self.recipe)
        return f"; it is for {self.recipe['model']}" + (f" and {inputs}" if inputs else "")

    @cached_property
    def hash(self) -> str:
        """16 hex digits over everything the file holds."""
        return tensorfile.tensors_hash(*self._header_and_tensors)

    def save(self, path: Path | str) -> None:
        """Write the ticket as one safetensors file, whole or not at all, in the shorter of its two forms."""
        header, tensors = self._header_and_tensors
        forms = {"packed": _packed(header, tensors, self.hash), "plain": (header | {"hash": self.hash}, tensors)}
        written = {name: (streams, {"sslticket": json.dumps(told)}) for name, (told, streams) in forms.items()}
        sizes = {name: tensorfile.file_size(*form) for name, form in written.items()}
        # A packed file may be too short for what it holds: `load` takes such a one for a bomb.
        packable = tensorfile.may_unpack(forms["packed"][1], tensors) and self.mask.total <= _most_weights(
            sizes["packed"]
        )
        streams, about = written["packed" if packable and sizes["packed"] <= sizes["plain"] else "plain"]
        with atomic_write(Path(path)) as temporary:
            save_file(streams, temporary, metadata=about)

    @cached_property
    def _header_and_tensors(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and tensors of the file: packing ResNet-50 takes up to half a second, so it is done once."""
        tensors: dict[str, Tensor] = {}
        layers: dict[str, dict[str, Any]] = {}
        for name, value in self.weights.items():
            if name not in self.mask:
                tensors[f"whole/{name}"] = value.contiguous()
                continue
            alive = self.mask[name].flatten().numpy()
            survivors = np.flatnonzero(alive)
            coding, data = pack_mask(alive)
            layers[name] = {"shape": list(value.shape), "kept": len(survivors), "coding": coding}
            tensors[f"mask/{name}"] = torch.from_numpy(data)
            tensors[f"kept/{name}"] = value.flatten()[torch.from_numpy(survivors)]
        tensors |= {f"head/{name}": value.contiguous() for name, value in self.head.items()}
        header: dict[str, Any] = {
            "format": 2 if self.head else 1,
            "level": self.level,
            "density": self.mask.density,
            "recipe": self.recipe,
            "provenance": self.provenance,
            "layers": layers,
            "order": list(self.weights),
        }
        return header | ({"head": list(self.head)} if self.head else {}), tensors

    @classmethod
    def load(cls, path: Path | str) -> "Ticket":
        """Read and check a ticket: format, names, shapes, counts, dtypes and hash; pickle is never used.

        Args:
            path: A ticket file, a folder that `sslticket export` wrote, or either on the Hugging Face Hub,
                `hf://user/name[@revision][/path]`.

        Raises:
            BadInput: If the file is missing, cut short, changed, of a newer format, or no ticket.
        """
        file = hub.resolve_ticket_file(path)
        header, tensors = _read_ticket_file(file)
        try:
            ticket = cls._from_file(header, tensors, most=_most_weights(file.stat().st_size))
        except (KeyError, ValueError) as error:
            raise _damaged_ticket(path, one_line(error)) from None
        vars(ticket)["hash"] = header["hash"]  # it need not be packed again to be named
        vars(ticket)["path"] = None if hub.is_hub_name(path) else file
        note_recorded_parts(ticket.provenance.get("parts", {}))
        return ticket

    @classmethod
    def _from_file(cls, header: dict[str, Any], tensors: dict[str, Tensor], most: int) -> "Ticket":
        """The ticket of a file, whose tensors are as large as they can be; `most` weights can be in its masks."""
        layers, order, names = header["layers"], header["order"], header.get("head", [])
        expected = {f"head/{name}" for name in names}
        for name in order:
            expected |= {f"mask/{name}", f"kept/{name}"} if name in layers else {f"whole/{name}"}
        if odd := tensors.keys() ^ expected:
            raise ValueError(f"{min(odd)} is listed or stored, but not both")
        for name, layer in layers.items():
            if not is_tensor_shape(layer["shape"], most):
                raise ValueError(
                    f"{name} has the shape {str(layer['shape'])[:80]}, of which such a file has no weights"
                )
            most -= math.prod(layer["shape"])
        for name, value in tensors.items():
            if not is_finite_tensor(value):
                raise ValueError(f"{name} holds a weight that is not finite")
        weights: StateDict = {}
        masks: dict[str, Tensor] = {}
        for name in order:
            if name in layers:
                weights[name], masks[name] = _unpack_layer(name, layers[name], tensors)
            else:
                weights[name] = tensors[f"whole/{name}"]
        mask = Mask(masks)
        if header["density"] != mask.density:
            raise ValueError(f"a density of {header['density']} in the header and {mask.density} in the masks")
        head = {name: tensors[f"head/{name}"] for name in names}
        return cls(mask, weights, header["level"], header["recipe"], header["provenance"], head)

    @classmethod
    def read_header(cls, path: Path | str) -> Mapping[str, Any]:
        """What a ticket tells of itself, without its tensors and unchecked: level, density, recipe, provenance, head.

        Raises:
            BadInput: If the file is missing, cut short, of a newer format, or no ticket.
        """
        return _read_ticket_file(hub.resolve_ticket_file(path), whole=False)[0]


def run_folder_of(path: Path) -> Path:
    """The folder of a ticket file's run; a lone ticket's is the one that it lies in."""
    return path.parent.parent if path.parent.name == "tickets" else path.parent


def _read_ticket_file(path: Path, *, whole: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a ticket file; the header's fields are all there and of their types."""
    if not path.exists():
        raise BadInput(f"there is no ticket at {path}; give the path of a .safetensors file that a search wrote")
    header, tensors = tensorfile.read_tensor_file(
        path, "sslticket", what="ticket of sslticket", fix="copy it anew", whole=whole
    )
    if type(header.get("format")) is not int or header["format"] not in FORMATS:
        known = ", ".join(map(str, FORMATS[:-1]))
        found = repr(header.get("format"))[:40]
        raise BadInput(
            f"{path} has ticket format {found}, this version reads formats {known} and {FORMATS[-1]}; update sslticket"
        )
    if fault := header_fault(header):
        raise _damaged_ticket(path, fault)
    if header["format"] != 3:
        return header, tensors
    try:
        if not whole:
            return header | _checked_told(tensorfile.read_told(path)) | {"hash": header["ticket_hash"]}, {}
        header, tensors = _unpacked(header, tensors)
    except (ValueError, MemoryError) as error:
        raise _damaged_ticket(path, one_line(error)) from None
    if fault := header_fault(header):
        raise _damaged_ticket(path, fault)
    return header, tensors


_IN_TABLE = ("layers", "order", "head")
"""What format 3 has in a stream of the header of format 1 or 2: half of a ticket of few weights."""


def _most_weights(size: int) -> int:
    """Weights that the masks of a file of so many bytes may cover."""
    return _MAX_WEIGHTS + _WEIGHTS_PER_BYTE * size


def _packed(
    header: dict[str, Any], tensors: dict[str, Tensor], digest: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and streams of format 3 of a ticket in format 1 or 2."""
    told = {name: value for name, value in header.items() if name not in _IN_TABLE}
    streams = tensorfile.pack_tensors({name: header[name] for name in _IN_TABLE if name in header}, tensors)
    return told | {"format": 3, "ticket_hash": digest}, streams


def _unpacked(header: dict[str, Any], streams: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors in format 1 or 2 of a ticket in format 3.

    Raises:
        ValueError: If the streams are damaged, or what they hold does not match the hash.
    """
    told, tensors = tensorfile.unpack_tensors(streams)
    _checked_told(told)
    own = {name: value for name, value in header.items() if name != "ticket_hash"}
    own |= {"format": 2 if "head" in told else 1} | told
    if tensorfile.tensors_hash(own, tensors) != header["ticket_hash"]:
        raise ValueError("its content does not match its hash")
    return own | {"hash": header["ticket_hash"]}, tensors


def _checked_told(told: dict[str, Any]) -> dict[str, Any]:
    if odd := told.keys() - set(_IN_TABLE):
        raise ValueError(f"its table has {min(odd)[:80]!r} and should not")
    return told


def _unpack_layer(name: str, layer: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A layer's weights and its mask, in a shape that has been looked at."""
    data, values, shape = tensors[f"mask/{name}"], tensors[f"kept/{name}"], layer["shape"]
    if data.dtype != torch.uint8 or not values.dtype.is_floating_point or data.dim() != 1 or values.dim() != 1:
        raise ValueError(f"{name} has a mask of {data.dtype} and weights of {values.dtype}, or not in a row")
    alive = torch.from_numpy(unpack_mask(layer["coding"], data.numpy(), math.prod(shape)))
    kept = int(np.count_nonzero(alive.numpy()))
    if not is_int_between(layer["kept"], kept, kept) or len(values) != kept:
        counts = f"{kept} in its mask, {str(layer['kept'])[:40]} in the header, {len(values)} weights"
        raise ValueError(f"the survivors of {name} differ: {counts}")
    return (values if kept == len(alive) else _spread(values, alive)).view(shape), alive.view(shape)


def _spread(values: Tensor, alive: Tensor) -> Tensor:
    """Values at the places that are alive, and 0 elsewhere."""
    spread = torch.zeros(len(alive), dtype=values.dtype)
    # By place and in numpy, which is five to ten times as fast as torch's choice by truth values; bit for bit, because
    # numpy has no bfloat16.
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.itemsize]
    spread.view(bits).numpy()[np.flatnonzero(alive.numpy())] = values.view(bits).numpy()
    return spread


def _damaged_ticket(path: Path | str, why: str) -> BadInput:
    return BadInput(f"{path} is a damaged ticket: {why}; find it again or copy it anew")
