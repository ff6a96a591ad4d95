"""A ticket as a state dict with its mask applied, for plain PyTorch and for torch.nn.utils.prune."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from sslticket.errors import BadInput
from sslticket.files import parse_json, written_whole
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
        temporary.write_bytes(content(state, path.suffix, about))


def content(state: Mapping[str, Tensor], ending: str, about: Mapping[str, str]) -> bytes:
    """What `write` writes under a name with this ending; the same whenever it is made."""
    if ending == ".safetensors":
        tensors = {name: value.contiguous() for name, value in state.items()}
        return _ordered(save(tensors, metadata={"format": "pt", **about}))
    whole = io.BytesIO()
    torch.save(dict(state), whole)
    return whole.getvalue()


def _ordered(written: bytes) -> bytes:
    """A safetensors file with its metadata in the order of their names: the library's is another each time."""
    begin, end = 8, 8 + int.from_bytes(written[:8], "little")
    header = parse_json(written[begin:end], "what was just made", most=end)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(end - begin)
    return written[:begin] + text + written[end:]
