"""Checkpoints of other tools as they are found: weights by their names there, masks, and what a file tells of itself.

Forms that are known: `torch.nn.utils.prune` (`<weight>_orig` and `<weight>_mask`), apex's ASP
(`__<weight>_mma_mask`), a mask beside each weight
(`<weight>_mask`, or a layer's `mask`), open_lth's pruned networks (`mask_layer___weight`), RigL's checkpoints with the
masks of their pruner in a list (rigl-torch) or by names (rigl-reproducibility), masks alone, and plain states whose
zeros are the mask.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sslticket.errors import BadInput
from sslticket.storage.state_files import check_plain_tensor, file_digest, find_state, read_tensors

_TOLD = ("arch", "epoch", "step")
"""What a checkpoint may tell of itself that a ticket can record."""
_WRAPPERS = ("module", "_orig_mod", "model", "backbone", "encoder", "net", "network")
"""Modules that hold a whole network: DistributedDataParallel, torch.compile, and those of training scripts."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network as others saved it.

    Attributes:
        path: The file.
        form: How its mask is kept, in a word or two: "torch.nn.utils.prune", "RigL", "zeros", ...
        state: Weights and buffers by their names there, without those of wrappers and without masks; empty where there
            are masks alone.
        masks: Mask of each masked weight by its name; None where the zeros of the weights are the mask.
        told: What the file tells of itself, such as the epoch.
        digest: 16 hexadecimal digits over the file's bytes.
    """

    path: Path
    form: str
    state: dict[str, Tensor]
    masks: dict[str, Tensor] | None
    told: dict[str, Any] = field(default_factory=dict)
    digest: str = ""


_ASP_BUFFER = re.compile(r"__(\w+)_mma_(mask|pruned_p)")
"""The last part of the names of what apex's ASP keeps beside a weight."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; no code that it holds is run.

    Raises:
        BadInput: If there is no such file, it holds more than tensors and plain values, or no weights and no masks.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {path}; give a checkpoint, or a folder of open_lth's levels")
    raw = read_tensors(path)
    state = find_state(raw)
    if not state:
        raise BadInput(f"{path} holds no tensors by their names; give a state dict, or a checkpoint that holds one")
    for name, value in state.items():
        check_plain_tensor(name, value, path)
    prefix = _common_wrapper(state)
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    form, state, masks = _split_masks(state, path)
    if isinstance(raw, Mapping) and (found := _separate_masks(raw, state, path)) is not None:
        form, masks = "RigL", found
    told = {name: raw[name] for name in _TOLD if isinstance(raw, Mapping) and isinstance(raw.get(name), str | int)}
    for name, mask in (masks or {}).items():
        if state and (name not in state or state[name].shape != mask.shape):
            has = f"{tuple(state[name].shape)}" if name in state else "not there"
            raise BadInput(
                f"{path} has a mask of {tuple(mask.shape)} for {name}, which is {has}; give the checkpoint of one "
                "network"
            )
    return Checkpoint(path=path, form=form, state=state, masks=masks, told=told, digest=file_digest(path))


def _common_wrapper(names: Mapping[str, Any]) -> str:
    """What all names begin with that is a wrapper's; open_lth's masks of a pruned network stand beside its `model`."""
    prefix = ""
    inner = [name for name in names if not _is_open_lth_mask(name)]
    while (first := {name[len(prefix) :].partition(".")[0] for name in inner}) and len(first) == 1:
        (word,) = first
        if word not in _WRAPPERS or any(name[len(prefix) :] == word for name in inner):
            break
        prefix += f"{word}."
    return prefix


def _is_open_lth_mask(name: str) -> bool:
    return name.startswith("mask_") and "." not in name and "___" in name


def _split_masks(state: dict[str, Tensor], path: Path) -> tuple[str, dict[str, Tensor], dict[str, Tensor] | None]:
    """The form, the state without masks, and the masks by the names of their weights."""
    weights: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    form = "zeros"
    for name, value in state.items():
        layer, _, last = name.rpartition(".")
        if name.endswith("_orig") and f"{name.removesuffix('_orig')}_mask" in state:
            weights[name.removesuffix("_orig")] = value
            form = "torch.nn.utils.prune"
        elif found := _ASP_BUFFER.fullmatch(last):
            if found[2] == "mask":  # the other one has what was pruned, so that masks can be drawn anew
                masks[f"{layer}.{found[1]}" if layer else found[1]] = value
            form = "ASP"
        elif name.endswith("_mask"):
            masks[name.removesuffix("_mask")] = value
        elif last == "mask" and f"{layer}.weight" in state:
            masks[f"{layer}.weight"] = value
        elif _is_open_lth_mask(name):
            masks[name.removeprefix("mask_").replace("___", ".")] = value
            form = "open_lth"
        else:
            weights[name] = value
    if masks and form == "zeros":
        form = "weight_mask"
    if not masks and all(map(_is_binary, state.values())):
        weights, masks, form = {}, dict(state), "masks"
    return form, weights, {name: _as_mask(name, mask, path) for name, mask in masks.items()} or None


def _separate_masks(raw: Mapping[Any, Any], state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor] | None:
    """Masks that RigL's ports keep beside the network's state: in a list, or by the names of weights."""
    pruner = raw.get("pruner", raw.get("scheduler"))
    if isinstance(pruner, Mapping) and isinstance(pruner.get("backward_masks"), Sequence):
        return _listed_masks(pruner["backward_masks"], state, path)
    kept = raw.get("mask", raw.get("masks", raw.get("mask_dict")))
    kept = kept.get("masks", kept) if isinstance(kept, Mapping) else None
    if not isinstance(kept, Mapping):
        return None
    named = {str(name): value for name, value in kept.items() if isinstance(value, Tensor)}
    prefix = _common_wrapper(named)
    return {name.removeprefix(prefix): _as_mask(name, value, path) for name, value in named.items()} or None


def _listed_masks(masks: Sequence[Any], state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Masks in the order of the layers that have a weight, batch norm left out; None stands for a dense layer."""
    names = [
        name for name in state if name.endswith(".weight") and f"{name.removesuffix('weight')}running_mean" not in state
    ]
    shapes = [tuple(mask.shape) if isinstance(mask, Tensor) else mask and "no tensor" for mask in masks]
    if len(names) != len(shapes) or any(
        shape not in (None, tuple(state[name].shape)) for name, shape in zip(names, shapes, strict=True)
    ):
        raise BadInput(
            f"{path} lists {len(shapes)} masks whose shapes are not those of its {len(names)} weights in their order; "
            "give the checkpoint of one network"
        )
    return {name: _as_mask(name, mask, path) for name, mask in zip(names, masks, strict=True) if mask is not None}


def _is_binary(value: Tensor) -> bool:
    return value.dim() > 1 and bool(((value == 0) | (value == 1)).all())


def _as_mask(name: str, mask: Tensor, path: Path) -> Tensor:
    check_plain_tensor(name, mask, path)
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise BadInput(f"the mask of {name} in {path} has other values than 0 and 1; give one that keeps or prunes")
    return mask != 0
