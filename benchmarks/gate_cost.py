"""What learning a mask adds to a training step."""

from collections.abc import Callable
from functools import partial

import torch
from compare import Line, compared, in_turn
from images import Images
from steps import SameBatch

from sslticket import SGD, ContinuousSparsification, StochasticSparsification, Supervised, TrainConfig
from sslticket.pruning import pruned_model
from sslticket.search.base import Search
from sslticket.search.imp import IMP
from sslticket.training.network import MaskedNetwork
from sslticket.training.optim import build_network_optimizer

_BATCH, _ROUNDS = 128, 9
_AT_MOST = 1.35
_TRAINING = TrainConfig(length="85ep", batch_size=_BATCH, optimizer=SGD(lr=0.1))


def lines(images: Images) -> list[Line]:
    """The 20-layer CIFAR ResNet: steps of Continuous and of Stochastic Sparsification against one of IMP."""
    searches = {"IMP": IMP(), "CS": ContinuousSparsification(), "ISS": StochasticSparsification()}
    turns = in_turn({name: partial(_step, search) for name, search in searches.items()}, _ROUNDS)
    return [
        compared(
            turns,
            f"training step of {name}, ResNet-20, batch {_BATCH}",
            "of IMP",
            ours=name,
            other="IMP",
            kind="of",
            target=_AT_MOST,
        )
        for name in ("CS", "ISS")
    ]


def _step(search: Search) -> Callable[[], object]:
    """One optimiser step on noise, as the loop takes it: how long it takes does not depend on what the images show."""
    learning = search.mask_learning(_TRAINING, _TRAINING.clock(50_000))
    net = MaskedNetwork.build(
        "resnet20", Supervised(), channels=3, image_size=32, classes=10, seed=0, mask_learning=learning
    )
    batch = SameBatch(_BATCH, 3, 32).batch
    steps, gates = build_network_optimizer(net.train(), _TRAINING.optimizer), pruned_model.learned_gates(net.backbone)

    def step() -> None:
        for number, one in enumerate(gates.values()):
            one.on_step(0.5, number)
        steps.zero_grad()
        torch.stack(list(net(batch, 0.5).values())).sum().backward()
        steps.step()

    return step
