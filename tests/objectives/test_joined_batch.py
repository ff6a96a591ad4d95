"""Two processes against one, for the objectives that gather from images or hide patches of them."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from sslticket.objectives.barlowtwins import BarlowTwins
from sslticket.objectives.base import Objective
from sslticket.objectives.vicreg import VICReg
from sslticket.training.network import MaskedNetwork
from tests.gloo import run_in_processes
from tests.objectives import patch_networks
from tests.objectives.multicrop import BOTH, build, sgd, train
from tests.objectives.patch_networks import SMALL_IBOT, SMALL_MAE, SMALL_V2

PATCHES: list[Objective] = [SMALL_MAE, SMALL_IBOT, SMALL_V2]
GATHERING = [*BOTH, BarlowTwins(hidden=12, dim=6, redundancy=0.1), VICReg(hidden=12, dim=6)]


def without_batch_norm(objective: Objective) -> MaskedNetwork:
    """Batch statistics are one process's own."""
    net = build(objective)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return net


def start(objective: Objective) -> MaskedNetwork:
    return patch_networks.build(objective) if objective in PATCHES else without_batch_norm(objective)


def four_steps(net: MaskedNetwork, rows: slice = slice(None), wrapped: nn.Module | None = None) -> list[Tensor]:
    if net.objective in PATCHES:
        return patch_networks.train(net, 4, rows, wrapped)
    return train(net, 0, 4, sgd(net, 1e-3), rows, wrapped)


def process(rank: int, folder: str) -> None:
    for objective in [*GATHERING, *PATCHES]:
        net = start(objective)
        wrapped = nn.parallel.DistributedDataParallel(net)
        losses = four_steps(net, slice(4 * rank, 4 * rank + 4), wrapped)
        torch.save((losses, net.state_dict()), f"{folder}/{objective.name}-{rank}")


def test_two_processes_learn_what_one_learns_from_the_joined_batch(tmp_path: Path) -> None:
    """In the first three of four steps the last layers are frozen, which distributed training must survive."""
    run_in_processes(process, tmp_path)
    for objective in [*GATHERING, *PATCHES]:
        net = start(objective)
        drawn = copy.deepcopy(net.state_dict())
        losses = four_steps(net)
        (mine, state), (theirs, other) = (torch.load(tmp_path / f"{objective.name}-{rank}") for rank in range(2))
        for one, two, alone in zip(mine, theirs, losses, strict=True):
            torch.testing.assert_close((one + two) / 2, alone, rtol=1e-4, atol=1e-6)
        for key, value in net.state_dict().items():
            torch.testing.assert_close(state[key], value, rtol=1e-4, atol=1e-5)
            assert torch.equal(state[key], other[key]), key
        trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
        assert not any(torch.equal(net.state_dict()[name], drawn[name]) for name in trained), objective.name
