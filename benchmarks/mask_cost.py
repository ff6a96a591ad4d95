"""What gates add to a training step."""

from collections.abc import Callable

import torch
from compare import Line, in_turn, middle, ratio, seconds
from images import Images

from sslticket import SGD, Supervised, models
from sslticket.data.loader import Batch
from sslticket.pruning import pruned_model
from sslticket.pruning.mask import Mask, num_kept
from sslticket.pruning.prunable import prunable_weights
from sslticket.training.network import MaskedNetwork
from sslticket.training.optim import build_optimizer

_DENSITY, _BATCH, _STEPS = 0.1, 128, 60
_AT_MOST = 1.05


def lines(images: Images) -> list[Line]:
    """The 20-layer CIFAR ResNet with its gates closed to 10%, against the same network and weights without gates."""
    gated = MaskedNetwork.build("resnet20", Supervised(), channels=3, image_size=32, classes=10, seed=0)
    weights = pruned_model.read_state(gated.backbone)
    ones = Mask.ones_like(weights, prunable_weights(gated.backbone))
    mask = Mask.top({name: weights[name].abs() for name in ones}, keep=num_kept(ones.total, _DENSITY), within=ones)
    pruned_model.set_mask(gated.backbone, mask)
    backbone = models.create_model("resnet20", image_size=32)
    plain = MaskedNetwork(backbone, Supervised().heads(backbone, 64, 10), Supervised())
    pruned_model.write_state(plain, pruned_model.read_state(gated))
    figures = in_turn({"ours": seconds(_step(gated)), "plain": seconds(_step(plain))}, _STEPS, warm=5)
    slower = ratio(figures, "ours", "plain")
    return [
        Line(
            f"training step, ResNet-20, CIFAR shapes, batch {_BATCH}, mask of {_DENSITY:.0%}",
            f"{1e3 * middle(figures, 'ours'):.1f} ms",
            f"{1e3 * middle(figures, 'plain'):.1f} ms without a mask",
            f"{slower - 1:+.1%}",
            f"<= {_AT_MOST - 1:+.0%}",
            slower <= _AT_MOST,
        )
    ]


def _step(net: MaskedNetwork) -> Callable[[], object]:
    """One optimiser step on noise: how long it takes does not depend on what the images show."""
    noise = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (_BATCH,), generator=noise)
    batch = Batch((torch.randn(_BATCH, 3, 32, 32, generator=noise),), labels, torch.arange(_BATCH))
    steps = build_optimizer(SGD(lr=0.1), net.train().parameters())

    def step() -> None:
        steps.zero_grad()
        torch.stack(list(net(batch, 0.0).values())).sum().backward()
        steps.step()

    return step
