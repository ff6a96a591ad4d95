"""MoCo v2: the other view of the same image against a queue of earlier images (Chen et al. 2020, He et al. 2020)."""

import math
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.errors import BadInput
from sslticket.objectives.base import Network, Objective, check_above, check_at_least, check_within
from sslticket.objectives.distributed import all_gather, is_distributed
from sslticket.objectives.multiview import MomentumEncoder, retrieval_metrics, strong_augmentation
from sslticket.registry import stored_as


class _Heads(nn.Module):
    """The projection, the encoder of the keys, and the queue of the last keys.

    Our own queue: lightly's memory bank is in no checkpoint (its buffers are not persistent), and where it wraps around
    it drops the rest of a batch.

    Attributes:
        queue: Keys of unit length, (K, dim) float32; random at first.
        oldest: Row of the queue that is replaced next, () int64.
        ghost_batches: Number of ghost batches, of all processes, in a batch; None where it was not set, and each
            process has its own.
    """

    queue: Tensor
    oldest: Tensor
    ghost_batches: int | None = None

    def __init__(self, backbone: nn.Module, projection: nn.Module, queue: int, dim: int) -> None:
        super().__init__()
        self.projection = projection
        self.momentum = MomentumEncoder(backbone, projection)
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def shuffle(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, H, W) in the order for the key encoder, and the order by which their keys are put back.

        The first process makes the order, by torch's generator.
        """
        apart = is_distributed() if self.ghost_batches is None else self.ghost_batches > 1
        if not (apart and self.training):
            return images, None
        from lightly.models.utils import batch_shuffle

        return cast(tuple[Tensor, Tensor], batch_shuffle(images.contiguous(), distributed=is_distributed()))

    @torch.no_grad()
    def encode_keys(self, images: Tensor, order: Tensor | None) -> Tensor:
        """The results of `shuffle` -> unit keys (B, dim), float32, in the batch's order."""
        keys = F.normalize(self.momentum(images).float(), dim=1)
        if order is None:
            return keys
        from lightly.models.utils import batch_unshuffle

        return cast(Tensor, batch_unshuffle(keys, order, distributed=is_distributed()))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys by these, (N, dim)."""
        size = len(self.queue)
        keys = keys[-size:]
        # A tensor all along: the number itself would have to come from the device, which then waits.
        rows = (self.oldest + torch.arange(len(keys), device=keys.device)) % size
        self.queue[rows] = keys
        self.oldest.copy_((self.oldest + len(keys)) % size)


@dataclass(frozen=True, kw_only=True)
class MoCoV2(Objective):
    """Cross-entropy of a query's own key among the keys in the queue (He et al. 2020, equation 1).

    The key encoder follows the trained one slowly. Its images are shuffled over the ghost batches, of all processes, so
    that batch norm does not give a query's key away (section 3.3), and the keys of the whole batch enter the queue at
    once: both need the batch whole. Where batch norm sees all of it, nothing is given away or shuffled. A queue longer
    than the training set holds an image's own earlier keys as negatives, of which a note tells. Sources: MoCo
    https://arxiv.org/abs/1911.05722, MoCo v2 https://arxiv.org/abs/2003.04297.

    Attributes:
        temperature: Temperature of the softmax over similarities (MoCo v2, section 3).
        dim: Outputs of the projection, whose hidden layer is as wide as the features (MoCo v2, section 3).
        queue: Number of keys in the queue (MoCo, section 4.1).
        momentum: Fraction of its weights that the key encoder keeps at each step (MoCo, section 3.2).
    """

    views_compared: ClassVar[int] = 2
    needs_whole_batch: ClassVar[bool] = True

    temperature: float = 0.2
    dim: int = 128
    queue: int = 65536
    momentum: float = field(default=0.999, metadata=stored_as("ema"))

    def __post_init__(self) -> None:
        check_above(self, 0, "temperature")
        check_at_least(self, 1, "dim", "queue")
        check_within(self, 0, 1, "momentum")

    def views(self, standard: View) -> tuple[View, ...]:
        """Query and key with the same augmentation (MoCo v2, section 3; its published code for the numbers)."""
        view = strong_augmentation(standard, scale=(0.2, 1.0), blur=0.5)
        return view, view

    def check(self, batch_size: int, views: int) -> None:
        """Check that a batch fits into the queue. See the base class."""
        super().check(batch_size, views)
        if batch_size > self.queue:
            raise BadInput(
                f"--queue must be at least the batch of {batch_size} images, got {self.queue}; give --queue "
                f"{batch_size}, or a smaller --batch-size"
            )

    def describe_copies(self, batch_size: int, images: int) -> str:
        """Tell of copies in a batch or in the queue. See the base class."""
        if (told := super().describe_copies(batch_size, images)) or self.queue <= images:
            return told
        return (
            f"a queue of {self.queue} keys holds copies of the {images} images, which {self.name} takes for other "
            f"images; give --queue {images} or less"
        )

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The projection, two linear layers (B, features) -> (B, dim), with key encoder and queue."""
        from lightly.models.modules.heads import MoCoProjectionHead

        return _Heads(backbone, MoCoProjectionHead(features, features, self.dim), self.queue, self.dim)

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean cross-entropy; afterwards the batch's keys are in the queue."""
        heads = cast(_Heads, net.heads)
        # First, so that the order uses the first random number of a step, whatever dropout uses.
        images, order = heads.shuffle(batch.views[1])
        queries = self._queries(net, batch.views[0])
        keys = heads.encode_keys(images, order)
        # The backward pass needs the queue as it was here.
        loss = self._contrastive_losses(queries, keys, heads.queue.clone()).mean()
        with torch.no_grad():
            heads.enqueue(all_gather(keys))
        return {"contrast": loss}

    def after_step(self, net: Network, progress: float) -> None:
        """Move the key encoder towards the trained network."""
        heads = cast(_Heads, net.heads)
        heads.momentum.update(net.backbone, heads.projection, self.momentum)

    def collapsed_loss(self, batch_size: int) -> float:
        """The loss log(K + 1): every key in the queue is as near as the right one, once such keys fill it."""
        return math.log(self.queue + 1)

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """The retrieval metrics of keys by queries and the loss against the queue, each (B,)."""
        heads = cast(_Heads, net.heads)
        queries, keys = self._queries(net, batch.views[0]), heads.encode_keys(batch.views[1], None)
        return retrieval_metrics(queries, keys) | {"loss": self._contrastive_losses(queries, keys, heads.queue)}

    @staticmethod
    def _queries(net: Network, images: Tensor) -> Tensor:
        """Unit queries (B, dim), float32."""
        return F.normalize(cast(_Heads, net.heads).projection(net.backbone(images)).float(), dim=1)

    def _contrastive_losses(self, queries: Tensor, keys: Tensor, queue: Tensor) -> Tensor:
        """Cross-entropy of each query's own key, (B,)."""
        # Similarities over a small temperature are too coarse in 16 bits.
        with torch.autocast(queries.device.type, enabled=False):
            own = (queries * keys).sum(dim=1, keepdim=True)
            logits = torch.cat([own, queries @ queue.T], dim=1) / self.temperature
            first = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
            return F.cross_entropy(logits, first, reduction="none")
