"""A nearest-neighbour probe: what the frozen features know of the classes, without training anything on them."""

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from sslticket.data.loader import Loader
from sslticket.training.measure import share_buffers
from sslticket.training.net import Net

NEIGHBOURS, TEMPERATURE = 200, 0.1  # as in Wu et al. 2018 (instance discrimination), section 3.4, and most papers since


@torch.no_grad()
def nearest_neighbours(accelerator: Accelerator, net: Net, bank: Loader, queries: Loader, classes: int) -> float:
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
    share_buffers(net)
    known, labels = _joined(
        accelerator, [_features(accelerator, net, batch.views[0], batch.label) for batch in bank.once()]
    )
    right, count = torch.zeros(2, device=accelerator.device).unbind()
    for batch in queries.once():
        features, truth = _features(accelerator, net, batch.views[0], batch.label)
        votes = knn_predict(features, known.T, labels, classes, knn_k=min(NEIGHBOURS, len(known)), knn_t=TEMPERATURE)
        right += (votes[:, 0] == truth).sum()
        count += len(truth)
    total = accelerator.reduce(torch.stack([right, count]), reduction="sum")
    return float(total[0] / total[1])


def _features(accelerator: Accelerator, net: Net, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    with accelerator.autocast():
        features = net.backbone(images)
    return torch.nn.functional.normalize(features.float(), dim=1), label


def _joined(accelerator: Accelerator, parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Features (N, F) and labels (N,) of all processes, whose shares may differ in length."""
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    if accelerator.num_processes > 1:
        everyone = zip(*gather_object([(features.cpu(), labels.cpu())]), strict=True)
        features, labels = (torch.cat(column).to(accelerator.device) for column in everyone)
    return features, labels
