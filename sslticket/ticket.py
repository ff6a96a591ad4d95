"""The ticket: a mask, the early weights W_k from which the sparse network trains, and where both came from.

docs/ticket-format.md describes the file byte by byte.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sslticket import hub
from sslticket.data.inputs import Inputs
from sslticket.errors import BadInput
from sslticket.files import written_whole
from sslticket.masking import gate
from sslticket.masking.mask import Mask, State, prunable
from sslticket.masking.packing import pack, unpack

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Ticket:
    """A sparse trainable network.

    Attributes:
        mask: which survive of the weights that the search might prune; all others are in `weights` as they are.
        weights: W_k, or trained ones where the search goes on from these: all backbone parameters and buffers; pruned
            entries are 0.
        level: how many times the search pruned; 0 is the dense network.
        recipe: the recipe that found it, as JSON values.
        provenance: data with the manifest's hash, seeds, samples seen at k, versions, commit, as JSON values.
    """

    mask: Mask
    weights: State
    level: int
    recipe: dict[str, Any]
    provenance: dict[str, Any]

    @classmethod
    def make(
        cls,
        mask: Mask,
        weights: Mapping[str, Tensor],
        *,
        level: int,
        recipe: dict[str, Any],
        provenance: dict[str, Any],
    ) -> "Ticket":
        """A ticket whose weights are W_k x mask."""
        masked = {
            name: value.where(mask[name], torch.zeros_like(value)) if name in mask else value.clone()
            for name, value in weights.items()
        }
        return cls(mask, masked, level, recipe, provenance)

    def apply(self, model: nn.Module) -> nn.Module:
        """Load W_k into somebody else's model and keep the pruned weights at 0 while it trains; returns the model.

        The model's own classification layer, which a ticket does not hold, stays as it is.

        Raises:
            BadInput: if the model lacks tensors of the ticket, has them in other shapes, or has further convolutions.
        """
        theirs = gate.stored(model)
        if missing := [name for name in self.weights if name not in theirs]:
            count = f"({len(missing)} tensors missing)"
            raise BadInput(f"this ticket is for another model: it has no {missing[0]} {count}{self._meant}")
        for name, value in self.weights.items():
            if theirs[name].shape != value.shape:
                raise BadInput(
                    f"this ticket is for another model: {name} is {tuple(value.shape)} in the ticket "
                    f"and {tuple(theirs[name].shape)} in the model{self._meant}"
                )
        if extra := [name for name in prunable(model) if name not in self.weights and theirs[name].dim() > 2]:
            raise BadInput(
                f"this ticket is for another model: it does not know the convolution {extra[0]}{self._meant}"
            )
        gate.attach(model, self.mask)
        gate.write(model, theirs | self.weights)
        # A ticket that was applied before may have pruned layers that are whole in this one.
        whole = [name for name in gate.gated(model) if name in self.weights and name not in self.mask]
        others = Mask.ones_like(self.weights, whole)
        gate.set_mask(model, Mask(self.mask.layers | others.layers))
        return model

    @property
    def _meant(self) -> str:
        """The model and the images that the ticket is for, as the end of a complaint."""
        if "model" not in self.recipe:
            return ""
        inputs = Inputs.of(self.recipe)
        return f"; it is for {self.recipe['model']}" + (f" and {inputs}" if inputs else "")

    @property
    def hash(self) -> str:
        """16 hex digits over everything the file holds."""
        header, tensors = self._packed()
        return _digest(header, tensors)

    def save(self, path: Path | str) -> None:
        """Write the ticket as one safetensors file, whole or not at all."""
        header, tensors = self._packed()
        header["hash"] = _digest(header, tensors)
        with written_whole(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={"sslticket": json.dumps(header)})

    def _packed(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors: dict[str, Tensor] = {}
        layers: dict[str, dict[str, Any]] = {}
        for name, value in self.weights.items():
            if name not in self.mask:
                tensors[f"whole/{name}"] = value.contiguous()
                continue
            alive = self.mask[name].flatten()
            coding, data = pack(alive.numpy())
            layers[name] = {"shape": list(value.shape), "kept": int(alive.sum()), "coding": coding}
            tensors[f"mask/{name}"] = torch.from_numpy(data)
            tensors[f"kept/{name}"] = value.flatten()[alive]
        header = {
            "format": FORMAT,
            "level": self.level,
            "density": self.mask.density,
            "recipe": self.recipe,
            "provenance": self.provenance,
            "layers": layers,
            "order": list(self.weights),
        }
        return header, tensors

    @classmethod
    def load(cls, path: Path | str) -> "Ticket":
        """Read and check a ticket: format, names, shapes, counts, dtypes and hash; pickle is never used.

        Args:
            path: a ticket file, a folder that `sslticket export` wrote, or either on the Hugging Face Hub,
                `hf://user/name[@revision][/path]`.

        Raises:
            BadInput: if the file is missing, cut short, changed, of a newer format, or no ticket.
        """
        header, tensors = _read(hub.file_of(path))
        if header.pop("hash", None) != _digest(header, tensors):
            raise BadInput(f"{path} is a damaged ticket: its content does not match its hash; copy it anew")
        try:
            return cls._unpacked(header, tensors)
        except (KeyError, TypeError, ValueError, AttributeError, MemoryError, OverflowError) as error:
            raise BadInput(f"{path} is a damaged ticket: {_short(error)}; find it again or copy it anew") from error

    @classmethod
    def _unpacked(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> "Ticket":
        weights: State = {}
        masks: dict[str, Tensor] = {}
        expected: set[str] = set()
        for name in header["order"]:
            if name not in header["layers"]:
                weights[name] = tensors[f"whole/{name}"]
                expected.add(f"whole/{name}")
                continue
            layer, data, values = header["layers"][name], tensors[f"mask/{name}"], tensors[f"kept/{name}"]
            expected |= {f"mask/{name}", f"kept/{name}"}
            shape = tuple(layer["shape"])
            if data.dtype != torch.uint8 or not values.dtype.is_floating_point:
                raise ValueError(f"{name} has a mask of {data.dtype} and weights of {values.dtype}")
            alive = torch.from_numpy(unpack(layer["coding"], data.numpy(), int(np.prod(shape, dtype=np.int64))))
            if not int(alive.sum()) == layer["kept"] == len(values):
                counts = f"{int(alive.sum())} in its mask, {layer['kept']} in the header, {len(values)} weights"
                raise ValueError(f"the survivors of {name} differ: {counts}")
            whole = torch.zeros(alive.numel(), dtype=values.dtype)
            whole[alive] = values
            weights[name], masks[name] = whole.view(shape), alive.view(shape)
        if odd := tensors.keys() ^ expected:
            raise ValueError(f"{min(odd)} is listed or stored, but not both")
        mask = Mask(masks)
        if header["density"] != mask.density:
            raise ValueError(f"a density of {header['density']} in the header and {mask.density} in the masks")
        return cls(mask, weights, int(header["level"]), dict(header["recipe"]), dict(header["provenance"]))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise BadInput(f"there is no ticket at {path}; give the path of a .safetensors file that a search wrote")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["sslticket"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
    except KeyError:
        raise BadInput(f"{path} is a safetensors file, but no ticket of sslticket") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise BadInput(f"{path} is no whole safetensors file ({_short(error)}); copy it anew") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else None
        raise BadInput(f"{path} has ticket format {found}, this version reads format {FORMAT}; update sslticket")
    return header, tensors


def _digest(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
