"""Exact snapshots of a training, as safetensors; pickle is never used.

Order, augmentation and dropout are functions of the step, so weights, optimiser and step are all there is to keep.
"""

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sslticket.errors import BadInput
from sslticket.files import written_whole
from sslticket.masking import gate
from sslticket.masking.mask import State
from sslticket.training.loop import Loop


def save(path: Path, loop: Loop, step: int, accelerator: Accelerator) -> None:
    """Write net, optimiser and the number of steps taken; call it on the first process only."""
    tensors = {f"net/{name}": value for name, value in gate.read(loop.net).items()}
    for number, values in loop.optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimizer/{number}/{name}"] = torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()
    scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata={"snapshot": json.dumps({"step": step, "scaler": scaler})})


def save_net(path: Path, net: nn.Module) -> None:
    """Write the weights and buffers of a net alone, heads included; call it on the first process only."""
    tensors = {f"net/{name}": value for name, value in gate.read(net).items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata={"snapshot": json.dumps({})})


def load_net(path: Path) -> State:
    """The weights and buffers of the whole net at the snapshot, heads included, under clean names."""
    return {name.removeprefix("net/"): value for name, value in _read(path)[0].items() if name.startswith("net/")}


def restore(path: Path, loop: Loop, accelerator: Accelerator) -> int:
    """Bring net and optimiser to where the snapshot was taken; returns the number of steps taken until then."""
    tensors, header = _read(path)
    gate.write(
        loop.net, {name.removeprefix("net/"): value for name, value in tensors.items() if name.startswith("net/")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, number, entry = name.split("/")
            state.setdefault(int(number), {})[entry] = value
    groups = loop.optimizer.state_dict()["param_groups"]
    loop.optimizer.load_state_dict({"state": state, "param_groups": groups})
    if accelerator.scaler is not None and header["scaler"] is not None:
        accelerator.scaler.load_state_dict(header["scaler"])
    step: int = header["step"]
    return step


def _read(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["snapshot"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118  # not a mapping
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise BadInput(f"{path} is no whole snapshot; delete it and run the same command again") from error
