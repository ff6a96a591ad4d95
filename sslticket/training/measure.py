"""A net's metrics over a whole set."""

import math

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, reduce

from sslticket.data.loader import Loader
from sslticket.objectives.gathering import several
from sslticket.training.net import Net


@torch.no_grad()
def share_buffers(net: Net) -> None:
    """Running statistics become their means over the processes, other buffers the first process's.

    To be called wherever a net's state is looked at or kept: in training each process moves its own, towards the
    statistics of its own images. They are exponential means, and so the mean of theirs is that of all images.
    """
    if not several():
        return
    named = dict(net.named_buffers())
    own = [value for name, value in named.items() if name.rpartition(".")[2] in ("running_mean", "running_var")]
    if own:
        joined = reduce(torch.cat([value.flatten().double() for value in own]), reduction="mean")
        for value, mean in zip(own, joined.split([value.numel() for value in own]), strict=True):
            value.copy_(mean.view_as(value))
    taken = {id(value) for value in own}
    for value in named.values():
        if id(value) not in taken:
            value.copy_(broadcast(value))


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
