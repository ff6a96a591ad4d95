"""Small vision transformers for the tests of MAE and iBOT, and batches for them."""

from collections.abc import Callable

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

from sslticket.config.training import SGD
from sslticket.data.loader import Batch
from sslticket.objectives.base import Objective
from sslticket.objectives.ibot import IBOT, DINOv2
from sslticket.objectives.mae import MAE
from sslticket.pruning import pruned_model
from sslticket.pruning.prunable import prunable_weights
from sslticket.training.network import MaskedNetwork
from sslticket.training.optim import build_optimizer

WIDTH = 24
SIZES = (8, 8, 4)  # of two global views and a local one
SMALL_MAE = MAE(decoder_width=16, decoder_depth=1, decoder_heads=2)
SMALL_IBOT = IBOT(
    hidden=12, bottleneck=6, outputs=9, momentum=0.5, teacher_rise=0.2, frozen_for=0.3, centring=0.8, patch_weight=2.0
)
SMALL_V2 = DINOv2(hidden=12, bottleneck=6, outputs=9, momentum=0.9, frozen_for=0.3, separate_heads=True)


def tiny(channels: int, image_size: int) -> nn.Module:
    """Timm's, with patches of two pixels; takes images of other sizes too."""
    return VisionTransformer(
        img_size=image_size,
        patch_size=2,
        in_chans=channels,
        embed_dim=WIDTH,
        depth=2,
        num_heads=2,
        num_classes=0,
        dynamic_img_size=True,
    )


def torchvision_tiny(channels: int, image_size: int) -> nn.Module:
    """Torchvision's, of three channels."""
    assert channels == 3
    net = TorchvisionTransformer(
        image_size=image_size, patch_size=2, num_layers=2, num_heads=2, hidden_dim=WIDTH, mlp_dim=48
    )
    net.heads = nn.Identity()  # type: ignore[assignment]
    return net


def build(
    objective: Objective, model: Callable[[int, int], nn.Module] = tiny, *, seed: int = 0, channels: int = 3
) -> MaskedNetwork:
    """A network for images of 8 pixels, 16 patches, with open masks."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        backbone = model(channels, 8)
        pruned_model.attach_masks(backbone, prunable_weights(backbone))
        return MaskedNetwork(backbone, objective.heads(backbone, WIDTH, 10), objective)


def batch(count: int, step: int = 0, sizes: tuple[int, ...] = (8,)) -> Batch:
    generator = torch.Generator().manual_seed(step)
    views = tuple(torch.randn(count, 3, size, size, generator=generator) for size in sizes)
    return Batch(views, torch.full((count,), -1), torch.arange(count) + 100 * step)


def rows_of(whole: Batch, rows: slice) -> Batch:
    return Batch(tuple(view[rows] for view in whole.views), whole.labels[rows], whole.indices[rows])


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(SGD(lr=0.05, momentum=0.9, weight_decay=0.1), net.parameters())


def train(net: MaskedNetwork, steps: int, rows: slice = slice(None), wrapped: nn.Module | None = None) -> list[Tensor]:
    """The first steps of a training of 10 on these rows of batches of 8; their losses."""
    optimiser, losses = sgd(net), []
    for step in range(steps):
        part = rows_of(batch(8, step, SIZES), rows)
        optimiser.zero_grad()
        loss = torch.stack(list((wrapped or net)(part, step / 10).values())).sum()
        loss.backward()
        optimiser.step()
        net.objective.after_step(net, step / 10)
        losses.append(loss.detach())
    return losses
