"""What a network is measured by: its objective's metrics over a whole set, and a nearest-neighbour probe of its features."""

import math

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object, reduce
from torch import Tensor

from sslticket.data.loader import Loader
from sslticket.objectives.distributed import is_distributed
from sslticket.training.network import MaskedNetwork


@torch.no_grad()
def sync_buffers(net: MaskedNetwork) -> None:
    """Running statistics become their means over the processes, other buffers the first process's.

    To be called wherever a net's state is looked at or kept: in training each process moves its own, towards the
    statistics of its own images. They are exponential means, and so the mean of theirs is that of all images.
    """
    if not is_distributed():
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
def measure_metrics(accelerator: Accelerator, net: MaskedNetwork, loader: Loader) -> dict[str, float]:
    """Mean of each of the objective's metrics over every image of the loader's set, all processes together.

    A mean that is not finite, as a loss of a net that overflows, is left out: JSON has no word for it.
    """
    net.eval()
    sync_buffers(net)
    sums: dict[str, torch.Tensor] = {}
    count = torch.zeros((), dtype=torch.float64, device=accelerator.device)
    for batch in loader.once():
        with accelerator.autocast():
            values = net.objective.metrics(net, batch)
        for name, value in values.items():
            sums[name] = sums.get(name, torch.zeros_like(count)) + value.double().sum()
        count += len(batch.indices)
    names = sorted(sums)
    totals = accelerator.reduce(torch.stack([count, *(sums[name] for name in names)]), reduction="sum").tolist()
    means = {name: total / totals[0] for name, total in zip(names, totals[1:], strict=True)}
    return {name: mean for name, mean in means.items() if math.isfinite(mean)}


NUM_NEIGHBOURS, KNN_TEMPERATURE = (
    200,
    0.1,
)  # as in Wu et al. 2018 (instance discrimination), section 3.4, and most papers since


@torch.no_grad()
def knn_accuracy(accelerator: Accelerator, net: MaskedNetwork, bank: Loader, queries: Loader, classes: int) -> float:
    """Share of the query images whose class the weighted vote of their nearest bank images names; lightly's vote.

    Args:
        accelerator: of the process.
        net: its backbone's features are compared, normalised to length 1; left in evaluation mode.
        bank: images with true labels.
        queries: images to name.
        classes: how many there are.
    """
    # Imported here: lightly takes seconds, and only a run with a probe needs it.
    from lightly.utils.benchmarking.knn import knn_predict

    net.eval()
    sync_buffers(net)
    known, labels = _gather_features(
        accelerator, [_normalized_features(accelerator, net, batch.views[0], batch.labels) for batch in bank.once()]
    )
    right, count = torch.zeros(2, device=accelerator.device).unbind()
    for batch in queries.once():
        features, truth = _normalized_features(accelerator, net, batch.views[0], batch.labels)
        votes = knn_predict(
            features, known.T, labels, classes, knn_k=min(NUM_NEIGHBOURS, len(known)), knn_t=KNN_TEMPERATURE
        )
        right += (votes[:, 0] == truth).sum()
        count += len(truth)
    total = accelerator.reduce(torch.stack([right, count]), reduction="sum")
    return float(total[0] / total[1])


def _normalized_features(
    accelerator: Accelerator, net: MaskedNetwork, images: Tensor, label: Tensor
) -> tuple[Tensor, Tensor]:
    with accelerator.autocast():
        features = net.backbone(images)
    return torch.nn.functional.normalize(features.float(), dim=1), label


def _gather_features(accelerator: Accelerator, parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Features (N, F) and labels (N,) of all processes, whose shares may differ in length."""
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    if accelerator.num_processes > 1:
        everyone = zip(*gather_object([(features.cpu(), labels.cpu())]), strict=True)
        features, labels = (torch.cat(column).to(accelerator.device) for column in everyone)
    return features, labels
