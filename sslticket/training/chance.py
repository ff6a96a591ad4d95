"""Torch's own generators: what is drawn from them is a function of a seed, and a device has one of its own."""

from contextlib import AbstractContextManager

import torch


def reseed(seed: int, device: torch.device) -> None:
    """Seed the CPU's generator and the device's.

    Not `torch.manual_seed`: without a GPU it formats a stack trace for each kind of device, a third of a millisecond.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def undisturbed(device: torch.device) -> AbstractContextManager[None]:
    """Puts both generators back when the block ends.

    Torch's `fork_rng` without devices would wake every GPU of the machine in each of its processes, and warn of it.
    """
    return torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type)
