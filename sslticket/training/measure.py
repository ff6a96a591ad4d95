"""A net's metrics over a whole set."""

import math

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from sslticket.data.loader import Loader
from sslticket.training.net import Net


def share_buffers(net: Net) -> None:
    """Running statistics differ between processes; all take the first one's, which tickets are made of."""
    for buffer in net.buffers():
        buffer.copy_(broadcast(buffer))


@torch.no_grad()
def measure(accelerator: Accelerator, net: Net, loader: Loader) -> dict[str, float]:
    """Mean of each of the objective's metrics over every image of the loader's set, all processes together.

    A mean that is not finite, as a loss of a net that overflows, is left out: JSON has no word for it.
    """
    net.eval()
    share_buffers(net)
    sums: dict[str, torch.Tensor] = {}
    count = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    for batch in loader.once():
        with accelerator.autocast():
            values = net.objective.metrics(net, batch)
        for name, value in values.items():
            sums[name] = sums.get(name, torch.zeros_like(count)) + value.double().sum()
        count += len(batch.row)
    names = sorted(sums)
    totals = accelerator.reduce(torch.stack([count, *(sums[name] for name in names)]), reduction="sum").tolist()
    means = {name: total / totals[0] for name, total in zip(names, totals[1:], strict=True)}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}
