"""Batch-norm statistics measured anew: those of an interpolated network are nobody's."""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch.nn.modules.batchnorm import _BatchNorm

from sslticket.data.loader import Batch
from sslticket.training.net import Net

IMAGES = 10_000
"""On how many training images statistics are measured, up to whole batches; once each where a set has fewer. Ours."""


def normalised(net: Net) -> list[_BatchNorm]:
    """The layers of the backbone that keep running statistics."""
    return [
        module for module in net.backbone.modules() if isinstance(module, _BatchNorm) and module.track_running_stats
    ]


@torch.no_grad()
def recalibrate(accelerator: Accelerator, net: Net, batches: Iterable[Batch], parts: int = 1) -> None:
    """Set all running statistics to their means over the batches, those of all processes together.

    Means and variances are a part's own, as in training; each counts as much as every other. Whatever else behaves
    otherwise in training, such as dropout, is as in evaluation.

    Args:
        accelerator: of the process.
        net: as `Workbench.arranged` leaves it.
        batches: this process's share of each.
        parts: in which a share goes through the network in training.
    """
    layers = normalised(net)
    momenta = [layer.momentum for layer in layers]
    net.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    every = (part for batch in batches for part in batch.chunks(parts))
    for number, part in enumerate(every, 1):
        for layer in layers:
            # The mean over all batches, as without a momentum; torch would then ask the device for the number.
            layer.momentum = 1 / number
        with accelerator.autocast():
            net.backbone(part.views[0])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        for statistic in (layer.running_mean, layer.running_var):
            assert isinstance(statistic, torch.Tensor), "normalised layers have both"
            statistic.copy_(accelerator.reduce(statistic, reduction="mean"))
    net.eval()
