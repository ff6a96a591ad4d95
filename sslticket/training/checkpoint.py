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
from sslticket.training.optim import lay_out, start


def save(path: Path, loop: Loop, step: int, accelerator: Accelerator) -> None:
    """Write net, optimiser and the number of steps taken; call it on the first process only."""
    tensors = _tensors(loop.net)
    for number, values in loop.optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimizer/{number}/{name}"] = torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()
    scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata={"snapshot": json.dumps({"step": step, "scaler": scaler})})


def save_net(path: Path, net: nn.Module) -> None:
    """Write a net alone, heads and learnt masks included; call it on the first process only."""
    with written_whole(path) as temporary:
        save_file(_tensors(net), temporary, metadata={"snapshot": json.dumps({})})


def load_net(path: Path) -> State:
    """The weights and buffers of the whole net at the snapshot, heads included, under clean names."""
    return _part(_read(path)[0], "net/")


def load_scores(path: Path) -> State:
    """What gates had learnt of their masks at the snapshot, as `gate.scores` names it; nothing of other gates."""
    return _part(_read(path)[0], "scores/")


def restore(path: Path, loop: Loop, accelerator: Accelerator) -> int:
    """Bring net and optimiser to where the snapshot was taken; returns the number of steps taken until then."""
    tensors, header = _read(path)
    gate.write(loop.net, _part(tensors, "net/"))
    gate.write_scores(loop.net, _part(tensors, "scores/"))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, number, entry = name.split("/")
            state.setdefault(int(number), {})[entry] = value
    groups = loop.optimizer.state_dict()["param_groups"]
    loop.optimizer.load_state_dict({"state": state, "param_groups": groups})
    lay_out(loop.optimizer)
    if accelerator.scaler is not None:
        start(loop.optimizer)
        if header["scaler"] is not None:
            accelerator.scaler.load_state_dict(header["scaler"])
    step: int = header["step"]
    return step


def _tensors(net: nn.Module) -> State:
    scores = {f"scores/{name}": value.detach().to("cpu", copy=True) for name, value in gate.scores(net).items()}
    return {f"net/{name}": value for name, value in gate.read(net).items()} | {
        name: value.contiguous() for name, value in scores.items()
    }


def _part(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["snapshot"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118  # not a mapping
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise BadInput(f"{path} is no whole snapshot; delete it and run the same command again") from error
