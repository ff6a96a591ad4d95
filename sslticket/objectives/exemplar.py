"""Exemplar: views of one image lie nearer to each other than to views of other images (Dosovitskiy et al. 2016)."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sslticket.data.augment import HSVNoise, Rotate, Transform, View
from sslticket.data.loader import Batch
from sslticket.errors import unknown_name
from sslticket.objectives.base import Network, Objective, check_at_least, check_within
from sslticket.objectives.distributed import all_gather, all_gather_labels

_MAX_HINGES_IN_MEMORY = 2**27
"""Hinges that are in memory together: 512 MiB of float32."""


def batch_all_triplets(embedded: Tensor, image: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hinges `max(0, margin + cos(a, n) - cos(a, p))` of every triplet, summed by anchor.

    The sum over all anchors, divided by the number of triplets, is what pytorch-metric-learning gives for
    `TripletMarginLoss(margin, distance=CosineSimilarity(), reducer=MeanReducer())`. It is computed here since that
    library lists every triplet by its three indices, found in a cube of N^3 bytes or, beyond 1,290 embeddings, in a
    loop over anchors that waits for the device at each. On one core, forward pass, two views: 1.5 s and 1.2 GB
    for 512 images, 6.4 s and 3.9 GB for 4,096; this function takes 0.04 s and 0.1 GB, and 3.5 s and 1.6 GB.

    Args:
        embedded: Embeddings of any length, (N, D) float32, views of an image anywhere among them.
        image: The image of each embedding, (N,) int64.
        margin: Margin in cosine distance.

    Returns:
        The sum of an anchor's hinges, the number of them above zero, and the number of all; each (N,) float32.
    """
    with torch.autocast(embedded.device.type, enabled=False):
        unit = F.normalize(embedded.float(), dim=1)
        similar = unit @ unit.T
        same = image[:, None] == image
        sums, active = (torch.zeros_like(unit[:, 0]) for _ in range(2))
        chunks = _anchor_positive_pairs(same)
        for anchors, positives in chunks:
            whole = (similar, same, anchors, positives, margin)
            # Of several chunks, only two numbers a pair are kept for the backward pass, which computes hinges again.
            total, above = (
                _hinges(*whole)
                if len(chunks) == 1
                else checkpoint(_hinges, *whole, use_reentrant=False, preserve_rng_state=False)
            )
            sums = sums.index_add(0, anchors, total)
            active = active.index_add(0, anchors, above)
        triplets = (same.sum(dim=1) - 1) * (~same).sum(dim=1)
    return sums, active, triplets.float()


def _anchor_positive_pairs(same: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Anchors and their positives, (P,) each, in chunks that fit into memory with all negatives."""
    anchors, positives = same.logical_xor(torch.eye(len(same), dtype=torch.bool, device=same.device)).nonzero().T
    size = max(1, _MAX_HINGES_IN_MEMORY // len(same))
    return list(zip(anchors.split(size), positives.split(size), strict=True))


def _hinges(similar: Tensor, same: Tensor, anchors: Tensor, positives: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """For each pair, (P,): the sum of its hinges with all negatives of the anchor, and the number above zero."""
    threshold = similar[anchors, positives] - margin
    hinges = F.relu(similar.index_select(0, anchors) - threshold[:, None])
    hinges = hinges.masked_fill(same.index_select(0, anchors), 0)
    return hinges.sum(dim=1), (hinges.detach() > 0).sum(dim=1).float()


def batch_hard_triplets(embedded: Tensor, image: Tensor) -> Tensor:
    """`log(1 + exp(d(a, p) - d(a, n)))` of each anchor's farthest positive and nearest negative ("batch hard").

    The distance d is Euclidean, not squared, of embeddings of length 1, as in Zhai et al. 2019; batch hard is from
    Hermans et al. 2017, https://arxiv.org/abs/1703.07737. To the bit, it is what pytorch-metric-learning gives for
    `TripletMarginLoss(margin=0, smooth_loss=True, distance=LpDistance())` of `BatchHardMiner`. It is computed here
    since that library lists all pairs, and drops anchors without a triplet, and so waits for the device five times, and
    measures the distances twice.

    Args:
        embedded: Embeddings of any length, (N, D), views of an image anywhere among them.
        image: The image of each embedding, (N,) int64; each image has at least two.

    Returns:
        The losses of the anchors, (N,) float32; 0 where all are of one image.
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


TRIPLET_MARGIN = 0.5
"""Margin in cosine distance (Doersch & Zisserman 2017, section 3, https://arxiv.org/abs/1708.07860)."""
Mining = Literal["all", "hard"]


@dataclass(frozen=True, kw_only=True)
class Exemplar(Objective):
    """A triplet margin loss over all triplets in a batch, as Doersch & Zisserman 2017 replaced the original's classes.

    An anchor and a positive are two views of one image, a negative is a view of any other image in the batch, those of
    other processes included; images with the same index in the set are one image. Views are the dataset's standard
    view (crop of random place and size, mirrored) plus a rotation, then colours, in the ranges of Dosovitskiy et al.
    2016, section 3. Their scale (0.7 to 1.4) and translation (0.2) are the standard crop's here: our source paper puts
    colour augmentation and small rotations "on top of" it (appendix A). The colours come after the rotation, so a shift
    of the value also falls on the corners that a rotation leaves black. Source: https://arxiv.org/abs/1406.6909.

    Attributes:
        copies: Number of views of each image.
        dim: Length of the embedding.
        mining: Whether the loss is of "all" triplets with a margin of 0.5 in cosine distance, or of the "hard" ones, an
            anchor's hardest with a soft margin in Euclidean distance, as in S4L.
        degrees: Largest rotation to either side.
    """

    views_compared: ClassVar[int] = 2
    min_images: ClassVar[int] = 2
    needs_whole_batch: ClassVar[bool] = True
    knows_copies: ClassVar[bool] = True

    copies: int = 2
    dim: int = 1000
    mining: Mining = "all"
    degrees: float = 20.0

    def __post_init__(self) -> None:
        check_at_least(self, 2, "copies")
        check_at_least(self, 1, "dim")
        if self.mining not in get_args(Mining):
            raise unknown_name("mining", self.mining, get_args(Mining))
        check_within(self, 0, 180, "degrees")

    def views(self, standard: View) -> tuple[View, ...]:
        """`copies` views of the same kind, each with random numbers of its own."""
        turning: tuple[Transform, ...] = (Rotate(degrees=self.degrees),) if self.degrees else ()
        return (replace(standard, transforms=(*standard.transforms, *turning, HSVNoise())),) * self.copies

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """One linear layer, (V * B, features) -> (V * B, dim); the data's classes do not matter."""
        return nn.Linear(features, self.dim)

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean over the triplets in the batches of all processes joined; one forward pass for all views."""
        embedded = net.heads(net.backbone(torch.cat(batch.views)))
        image = batch.indices.repeat(len(batch.views))
        return {"triplets": self.triplet_loss(all_gather(embedded), all_gather_labels(image))}

    def triplet_loss(self, embedded: Tensor, image: Tensor) -> Tensor:
        """The mean loss of all triplets, or of the mined ones; 0 where there is none.

        Args:
            embedded: Embeddings, (N, dim), views of an image anywhere among them.
            image: The image of each embedding, (N,) int64.

        Returns:
            A scalar.
        """
        if not len(image):
            return embedded.sum()  # 0, and a gradient of 0
        if self.mining == "hard":
            return batch_hard_triplets(embedded, image).sum() / len(image)
        sums, _, triplets = batch_all_triplets(embedded, image, TRIPLET_MARGIN)
        return sums.sum() / triplets.sum().clamp(min=1)

    def collapsed_loss(self, batch_size: int) -> float | None:
        """The margin, or log(2) for a soft margin."""
        return math.log(2) if self.mining == "hard" else TRIPLET_MARGIN

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """How far views of one image are from those of others, within the batch; each (B,), and 0 for a single image.

        Returns:
            `retrieval top1`: 1 where the nearest to the image's first view, by cosine, is another view of it;
                `active triplets`: the fraction of triplets whose negative is not farther by the margin (by 0 with hard
                mining) than the positive; `positive distance` and `negative distance`: mean cosine distances, from 0 to
                2; `loss`. All but the first are means over the image's views as anchors.
        """
        embedded = net.heads(net.backbone(torch.cat(batch.views))).float()
        image, count = batch.indices.repeat(len(batch.views)), len(batch.indices)
        sums, active, triplets = batch_all_triplets(embedded, image, 0.0 if self.mining == "hard" else TRIPLET_MARGIN)
        possible = triplets.clamp(min=1)
        losses = batch_hard_triplets(embedded, image) if self.mining == "hard" else sums / possible
        distance, same = _cosine_distances(embedded), image[:, None] == image
        # The distance to oneself is 0.
        positive = (distance * same).sum(dim=1) / (same.sum(dim=1) - 1)
        negative = (distance * ~same).sum(dim=1) / (~same).sum(dim=1).clamp(min=1)
        nearest = distance.fill_diagonal_(torch.inf).argmin(dim=1, keepdim=True)
        found = same.gather(1, nearest).squeeze(1) & (triplets > 0)
        by_anchor = {
            "active triplets": active / possible,
            "positive distance": positive,
            "negative distance": negative,
            "loss": losses,
        }
        means = {name: values.view(-1, count).mean(dim=0) for name, values in by_anchor.items()}
        return {"retrieval top1": found[:count].float()} | means


def _cosine_distances(embedded: Tensor) -> Tensor:
    """Cosine distances, (N, D) -> (N, N)."""
    with torch.autocast(embedded.device.type, enabled=False):
        unit = F.normalize(embedded, dim=1)
        return (1 - unit @ unit.T).fill_diagonal_(0)
