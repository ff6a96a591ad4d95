"""Small vision transformers for the tests of MAE and iBOT, and batches for them."""

from collections.abc import Callable

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

from sslticket.data.loader import Batch
from sslticket.objectives.base import Objective
from sslticket.pruning import pruned_model
from sslticket.pruning.prunable import prunable_weights
from sslticket.training.network import MaskedNetwork

WIDTH = 24


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
