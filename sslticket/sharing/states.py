"""A ticket as a state dict with its mask applied, for plain PyTorch and for torch.nn.utils.prune."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sslticket.errors import BadInput
from sslticket.files import written_whole
from sslticket.masking.mask import State
from sslticket.ticket import Ticket

LAYOUTS = ("plain", "prune")
ENDINGS = (".safetensors", ".pt", ".pth")


def plain(ticket: Ticket) -> State:
    """W_k x mask under the backbone's own names; a classification layer is none of them."""
    return dict(ticket.weights)


def prune(ticket: Ticket) -> State:
    """The state of a backbone whose prunable weights, those of the mask, went through `torch.nn.utils.prune`.

    Each of them is two tensors: `<name>_orig`, W_k x mask, and `<name>_mask`, 1 for a survivor, in the weight's dtype
    (as `prune.custom_from_mask` keeps it). What W_k was where it is pruned, a ticket does not know.
    """
    state: State = {}
    for name, value in ticket.weights.items():
        if name in ticket.mask:
            state |= {f"{name}_orig": value, f"{name}_mask": ticket.mask[name].to(value.dtype)}
        else:
            state[name] = value
    return state


def of(ticket: Ticket, layout: str) -> State:
    """The state dict in one of LAYOUTS.

    Raises:
        BadInput: for another layout.
    """
    if layout not in LAYOUTS:
        raise BadInput(f"unknown format {layout!r} of a state dict; give --format {' or '.join(LAYOUTS)}")
    return plain(ticket) if layout == "plain" else prune(ticket)


def write(state: Mapping[str, Tensor], path: Path, about: Mapping[str, str]) -> None:
    """Write tensors whole: as safetensors, or by `torch.save` under any other name, readable with `weights_only`.

    Args:
        state: the tensors.
        path: of the file.
        about: further metadata of a safetensors file.
    """
    with written_whole(path) as temporary:
        if path.suffix == ".safetensors":
            tensors = {name: value.contiguous() for name, value in state.items()}
            save_file(tensors, temporary, metadata={"format": "pt", **about})
        else:
            torch.save(dict(state), temporary)
