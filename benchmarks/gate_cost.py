"""What learning a mask adds to a training step."""

from collections.abc import Callable

import torch
from compare import Line, in_turn, middle, ratio, seconds
from images import Images

from sslticket import SGD, ContinuousSparsification, StochasticSparsification, Supervised, TrainConfig
from sslticket.data.loader import Batch
from sslticket.pruning import pruned_model
from sslticket.search.base import Search
from sslticket.search.imp import IMP
from sslticket.training.network import MaskedNetwork
from sslticket.training.optim import build_network_optimizer

_BATCH, _ROUNDS = 128, 60
_AT_MOST = 1.35
_FIT = TrainConfig(length="85ep", batch_size=_BATCH, optimizer=SGD(lr=0.1))


def lines(images: Images) -> list[Line]:
    """The 20-layer CIFAR ResNet: steps of Continuous and of Stochastic Sparsification against one of IMP."""
    searches = {"IMP": IMP(), "CS": ContinuousSparsification(), "ISS": StochasticSparsification()}
    figures = in_turn({name: seconds(_step(search)) for name, search in searches.items()}, _ROUNDS, warm=5)
    found = []
    for name in ("CS", "ISS"):
        slower = ratio(figures, name, "IMP")
        found.append(
            Line(
                f"training step of {name}, ResNet-20, CIFAR shapes, batch {_BATCH}",
                f"{1e3 * middle(figures, name):.1f} ms",
                f"{1e3 * middle(figures, 'IMP'):.1f} ms of IMP",
                f"{slower:.3f}",
                f"<= {_AT_MOST}",
                slower <= _AT_MOST,
            )
        )
    return found


def _step(search: Search) -> Callable[[], object]:
    """One optimiser step on noise, as the loop takes it: how long it takes does not depend on what the images show."""
    learning = search.mask_learning(_FIT, _FIT.clock(50_000))
    net = MaskedNetwork.build(
        "resnet20", Supervised(), channels=3, image_size=32, classes=10, seed=0, mask_learning=learning
    )
    noise = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (_BATCH,), generator=noise)
    batch = Batch((torch.randn(_BATCH, 3, 32, 32, generator=noise),), labels, torch.arange(_BATCH))
    steps, gates = build_network_optimizer(net.train(), _FIT.optimizer), pruned_model.learned_gates(net.backbone)

    def step() -> None:
        for number, one in enumerate(gates.values()):
            one.on_step(0.5, number)
        steps.zero_grad()
        torch.stack(list(net(batch, 0.5).values())).sum().backward()
        steps.step()

    return step
