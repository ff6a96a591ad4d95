"""Triplet losses over a batch: each embedding nearer to the others of its image than to those of other images."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_AT_ONCE = 2**27  # hinges that are in memory together: 512 MiB of float32


def all_triplets(embedded: Tensor, image: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hinges `max(0, margin + cos(a, n) - cos(a, p))` of every triplet, summed by anchor.

    The sum over all anchors, divided by the number of triplets, is what pytorch-metric-learning gives for
    `TripletMarginLoss(margin, distance=CosineSimilarity(), reducer=MeanReducer())`. It is computed here since that
    library lists every triplet by its three indices, found in a cube of N^3 bytes or, beyond 1,290 embeddings, in a
    loop over anchors that waits for the device at each. On one core, forward pass, two views: 1.5 s and 1.2 GB
    for 512 images, 6.4 s and 3.9 GB for 4,096; this function takes 0.04 s and 0.1 GB, and 3.5 s and 1.6 GB.

    Args:
        embedded: (N, D) float32 of any length; views of an image anywhere among them.
        image: (N,) int64, equal for embeddings of one image.
        margin: in cosine distance.

    Returns:
        The sum of an anchor's hinges, how many of them are above zero, and how many there are; each (N,) float32.
    """
    with torch.autocast(embedded.device.type, enabled=False):
        unit = F.normalize(embedded.float(), dim=1)
        similar = unit @ unit.T
        same = image[:, None] == image
        sums, active = (torch.zeros_like(unit[:, 0]) for _ in range(2))
        parts = _pairs(same)
        for anchors, positives in parts:
            whole = (similar, same, anchors, positives, margin)
            # Of several parts, only two numbers a pair are kept for the backward pass; the hinges are made again there.
            total, above = (
                _hinges(*whole)
                if len(parts) == 1
                else checkpoint(_hinges, *whole, use_reentrant=False, preserve_rng_state=False)
            )
            sums = sums.index_add(0, anchors, total)
            active = active.index_add(0, anchors, above)
        triplets = (same.sum(dim=1) - 1) * (~same).sum(dim=1)
    return sums, active, triplets.float()


def _pairs(same: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Anchors and their positives, (P,) each, in parts that fit into memory with all negatives."""
    anchors, positives = same.logical_xor(torch.eye(len(same), dtype=torch.bool, device=same.device)).nonzero().T
    part = max(1, _AT_ONCE // len(same))
    return list(zip(anchors.split(part), positives.split(part), strict=True))


def _hinges(similar: Tensor, same: Tensor, anchors: Tensor, positives: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """For each pair, (P,): the sum of its hinges with all negatives of the anchor, and the number above zero."""
    threshold = similar[anchors, positives] - margin
    hinges = F.relu(similar.index_select(0, anchors) - threshold[:, None])
    hinges = hinges.masked_fill(same.index_select(0, anchors), 0)
    return hinges.sum(dim=1), (hinges.detach() > 0).sum(dim=1).float()


def hardest_triplets(embedded: Tensor, image: Tensor) -> Tensor:
    """`log(1 + exp(d(a, p) - d(a, n)))` of each anchor's farthest positive and nearest negative (Hermans et al. 2017).

    d is the Euclidean distance, not squared, of embeddings of length 1, as in Zhai et al. 2019. To the bit, it is what
    pytorch-metric-learning gives for `TripletMarginLoss(margin=0, smooth_loss=True, distance=LpDistance())` of
    `BatchHardMiner`. It is computed here since that library lists all pairs, and drops anchors without a triplet, and
    so waits for the device five times, and measures the distances twice.

    Args:
        embedded: (N, D) of any length; views of an image anywhere among them.
        image: (N,) int64, equal for embeddings of one image, of which there are at least two.

    Returns:
        (N,) float32; 0 where all are of one image.
    """
    with torch.autocast(embedded.device.type, enabled=False):
        unit = F.normalize(embedded.float(), dim=1)
        # Moving all by one vector changes no distance, and those within a nearly collapsed embedding get exact: their
        # squares are differences of the embeddings' squared lengths.
        unit = unit - unit.detach().mean(dim=0)
        distance, same = torch.cdist(unit, unit), image[:, None] == image
        known = distance.detach()
        farthest = known.masked_fill(~same, -torch.inf).fill_diagonal_(-torch.inf).max(dim=1, keepdim=True).indices
        nearest = known.masked_fill(same, torch.inf).min(dim=1, keepdim=True).indices
        losses = F.softplus(distance.gather(1, farthest) - distance.gather(1, nearest)).squeeze(1)
        return losses.where(~same.all(dim=1), 0.0)
