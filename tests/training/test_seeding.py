"""Torch's generators are seeded and put back for the devices in use alone."""

import pytest
import torch

from sslticket.objectives.supervised import Supervised
from sslticket.training.loop import preserve_rng_state, seed_torch
from sslticket.training.network import MaskedNetwork

CPU = torch.device("cpu")


def test_draws_after_a_seed_are_those_of_torchs_own_seeding() -> None:
    seed_torch(2**62 + 5, CPU)
    drawn = torch.rand(3)
    torch.manual_seed(2**62 + 5)
    assert torch.equal(torch.rand(3), drawn)


def test_what_is_drawn_inside_leaves_no_trace_outside() -> None:
    seed_torch(0, CPU)
    expected = torch.rand(3)
    seed_torch(0, CPU)
    with preserve_rng_state(CPU):
        seed_torch(1, CPU)
        torch.rand(5)
    assert torch.equal(torch.rand(3), expected)


def test_drawing_a_net_wakes_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with several, torch would make each of them ready in every process, and warn of it."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: pytest.fail(f"GPU {device} was asked"))
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False, raising=False)
    before = torch.get_rng_state()
    MaskedNetwork.build("conv3", Supervised(), channels=1, image_size=8, classes=10, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
