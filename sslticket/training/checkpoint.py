"""Exact checkpoints of a training, as safetensors; pickle is never used.

Order, augmentation and dropout are functions of the step, so weights, optimiser and step are all there is to keep.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from sslticket.errors import BadInput
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import StateDict
from sslticket.storage import tensorfile
from sslticket.training.loop import TrainingLoop
from sslticket.training.optim import init_momentum, match_memory_format

_FIX = "delete it and run the same command again"


def save_checkpoint(path: Path, loop: TrainingLoop, step: int, accelerator: Accelerator) -> None:
    """Writes network, optimiser and the number of steps taken; to be called in the first process only."""
    tensors, header = training_state(loop, accelerator)
    tensorfile.write_tensor_file(path, "snapshot", {"step": step} | header, tensors)


def training_state(loop: TrainingLoop, accelerator: Accelerator) -> tuple[StateDict, dict[str, Any]]:
    """Copies on the CPU of what a training holds: network, heads and learned masks included, optimiser and scaler.

    Returns:
        The tensors and a header: the scaler's state, and numbers of Python's in a user's optimiser, for no tensor
            keeps all their digits.
    """
    tensors, numbers = _network_tensors(loop.network), dict[str, float]()
    for number, values in loop.optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, int | float):
                numbers[f"{number}/{name}"] = value
            else:
                tensors[f"optimizer/{number}/{name}"] = value.detach().to("cpu", copy=True).contiguous()
    scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
    return tensors, {"scaler": scaler, **({"numbers": numbers} if numbers else {})}


def save_network(path: Path, network: nn.Module) -> None:
    """Writes a network alone, heads and learned masks included; to be called in the first process only."""
    tensorfile.write_tensor_file(path, "snapshot", {}, _network_tensors(network))


def load_network(path: Path) -> StateDict:
    """The weights and buffers of the whole network at the checkpoint, heads included, under plain names."""
    return _with_prefix(_read_checkpoint(path)[0], "net/")


def load_gate_scores(path: Path) -> StateDict:
    """The scores of the gates that learn masks at the checkpoint, under the names of `pruned_model.gate_scores`."""
    return _with_prefix(_read_checkpoint(path)[0], "scores/")


def restore_checkpoint(path: Path, loop: TrainingLoop, accelerator: Accelerator) -> int:
    """Brings network and optimiser to where a checkpoint was saved.

    Args:
        path: The checkpoint.
        loop: The training.
        accelerator: The accelerator of this process.

    Returns:
        The number of steps taken until then.

    Raises:
        BadInput: If it is the checkpoint of another network or optimiser, or damaged.
    """
    stored, header = _read_checkpoint(path)
    restore_training(path, stored, header, loop, accelerator)
    step: int = header["step"]
    return step


def restore_training(
    path: Path, stored: StateDict, header: Mapping[str, Any], loop: TrainingLoop, accelerator: Accelerator
) -> None:
    """Writes what `training_state` has read back.

    Args:
        path: The file that holds it, for errors.
        stored: The tensors; others among them are left alone.
        header: What is none.
        loop: The training.
        accelerator: The accelerator of this process.

    Raises:
        BadInput: If it is that of another network or optimiser.
    """
    pruned_model.write_state(loop.network, _with_prefix(stored, "net/"))
    pruned_model.write_gate_scores(loop.network, _with_prefix(stored, "scores/"))
    groups = loop.optimizer.state_dict()["param_groups"]
    known = {str(number): number for group in groups for number in group["params"]}
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**_with_prefix(stored, "optimizer/"), **header.get("numbers", {})}.items():
        number, _, entry = name.partition("/")
        if number not in known:
            raise BadInput(f"{path} is a snapshot of another optimiser; {_FIX}")
        state.setdefault(known[number], {})[entry] = value
    loop.optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in loop.optimizer.state.items():
        tensors = [value for value in values.values() if isinstance(value, Tensor)]
        if any(value.dim() and value.shape != parameter.shape for value in tensors):
            raise BadInput(f"{path} is a snapshot of another network's optimiser; {_FIX}")
    match_memory_format(loop.optimizer)
    if accelerator.scaler is not None:
        init_momentum(loop.optimizer)
        if header["scaler"] is not None:
            accelerator.scaler.load_state_dict(header["scaler"])


def _network_tensors(network: nn.Module) -> StateDict:
    tensors = {f"net/{name}": value for name, value in pruned_model.read_state(network).items()}
    for name, value in pruned_model.gate_scores(network).items():
        tensors[f"scores/{name}"] = value.detach().to("cpu", copy=True).contiguous()
    return tensors


def is_valid_numbers(value: object) -> bool:
    """Whether a header's numbers of an optimiser are some, by names."""
    return isinstance(value, dict) and all(isinstance(each, int | float) for each in value.values())


def _with_prefix(tensors: StateDict, prefix: str) -> StateDict:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read_checkpoint(path: Path) -> tuple[StateDict, dict[str, Any]]:
    header, state = tensorfile.read_tensor_file(path, "snapshot", what="snapshot", fix=_FIX)
    scaler = header.get("scaler")
    fits = header.keys() - {"hash", "numbers"} in ({"step", "scaler"}, set()) and (
        (scaler is None or isinstance(scaler, dict)) and is_valid_numbers(header.get("numbers", {}))
    )
    if not fits or not tensorfile.is_int_between(header.get("step", 0), 0, 1 << 60):
        raise BadInput(f"{path} is no whole snapshot (it does not say its step); {_FIX}")
    return state, header
