"""S4L: class labels of some images and a task without labels on all of them (Zhai et al. 2019)."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.data.manifest import HIDDEN_LABEL
from sslticket.errors import BadInput
from sslticket.objectives.base import Network, Objective, check_at_least
from sslticket.objectives.distributed import all_gather, all_gather_labels
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.rotnet import NUM_ROTATIONS, RotNet, four_rotations


@dataclass(frozen=True, kw_only=True)
class S4L(Objective):
    """The base of both forms: two streams in a batch, two linear heads on the features of one joined forward pass.

    The unlabelled stream is all images, those with labels included but theirs hidden. The loss is the labels' plus
    `weight` times the mean of the other task's two losses, one for each stream (released code, github.com/
    google-research/s4l), so the streams weigh the same whatever their sizes. Source: https://arxiv.org/abs/1905.03670.

    Attributes:
        share: Fraction of each batch that is taken from the labelled images; 256 of 512 published.
        weight: Weight of the task without labels, beside the class labels.
    """

    share: float = 0.5
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise BadInput(f"--share must be between 0 and 1, got {self.share:g}; give --share 0.5, the default")
        check_at_least(self, 0, "weight")

    @property
    def labelled_fraction(self) -> float:
        """See the base class."""
        return self.share

    @property
    @abstractmethod
    def _min_per_stream(self) -> int:
        """Number of images of each stream that a loss needs at least."""

    def check(self, batch_size: int, views: int) -> None:
        """Check that there are images of both streams in every micro-batch. See the base class."""
        super().check(batch_size, views)
        labelled = self.share * batch_size
        if round(min(labelled, batch_size - labelled), 6) < self._min_per_stream:
            raise BadInput(
                f"{self.name} must get at least {self._min_per_stream} labelled and {self._min_per_stream} unlabelled "
                f"images at a time, got {labelled:g} labelled of {batch_size}; give a --share nearer to 0.5, a larger "
                "--batch-size or --ghost-batch, or fewer processes"
            )

    def classifier(self, heads: nn.Module) -> nn.Module:
        """See the base class."""
        assert isinstance(heads, nn.ModuleDict), "heads() returned one"
        return heads["labels"]

    def _class_and_task_outputs(self, net: Network, images: Tensor, task: str) -> tuple[Tensor, Tensor]:
        """Class logits (N, classes) and the other head's output (N, ...) of one forward pass."""
        assert isinstance(net.heads, nn.ModuleDict), "heads() returned one"
        features = net.backbone(images)
        return net.heads["labels"](features), net.heads[task](features)


def _labelled_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """The mean cross-entropy over the images with a label; 0 where there is none.

    Args:
        logits: Logits of the classes, (N, classes).
        label: Labels, (N,) int64, -1 where hidden. Nothing is indexed by them, which would wait for the device.
    """
    total = F.cross_entropy(logits, label, ignore_index=HIDDEN_LABEL, reduction="sum")
    return total / (label != HIDDEN_LABEL).sum().clamp(min=1)


def _top1_and_top5(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the label has the highest, or one of the five highest, of the logits (B, classes); each (B,) float."""
    hit = logits.topk(min(5, logits.shape[1]), dim=1).indices == label[:, None]
    return hit[:, 0].float(), hit.any(dim=1).float()


@dataclass(frozen=True, kw_only=True)
class S4LRotation(S4L):
    """Class labels and RotNet: both on all four turns of an image, the labels as far as they are known (section 3).

    Attributes:
        share: Fraction of each batch that is taken from the labelled images; 256 of 512 published.
        weight: Weight of the rotation loss, beside the class labels.
    """

    cuda_graph_safe: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """See the base class."""
        return "s4l-rotation"

    @property
    def _min_per_stream(self) -> int:
        return 1

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """Two linear layers: `labels`, (4B, classes), and `rotation`, (4B, 4)."""
        return nn.ModuleDict({"labels": nn.Linear(features, classes), "rotation": nn.Linear(features, NUM_ROTATIONS)})

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`labels`, over the turns of labelled images, and `rotation`, weighted: the mean of both streams' means."""
        turned, turn = four_rotations(batch.views[0])
        labels, rotation = self._class_and_task_outputs(net, turned, "rotation")
        label = batch.labels.repeat(NUM_ROTATIONS)
        streams = [
            _labelled_cross_entropy(rotation, turn.where(of, HIDDEN_LABEL))
            for of in (label != HIDDEN_LABEL, label == HIDDEN_LABEL)
        ]
        return {"labels": _labelled_cross_entropy(labels, label), "rotation": self.weight * torch.stack(streams).mean()}

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """On plain images with their true labels; each (B,).

        Returns:
            `top1` and `top5` of the upright image; both `of four turns`, by the mean of their logits; `rotation
                accuracy`; and `loss`, that of a labelled image in training.
        """
        turned, turn = four_rotations(batch.views[0])
        labels, rotation = (logits.float() for logits in self._class_and_task_outputs(net, turned, "rotation"))
        by_turn = labels.view(NUM_ROTATIONS, len(batch.indices), -1)
        top1, top5 = _top1_and_top5(by_turn[0], batch.labels)
        mean1, mean5 = _top1_and_top5(by_turn.mean(dim=0), batch.labels)
        known = F.cross_entropy(labels, batch.labels.repeat(NUM_ROTATIONS), reduction="none")
        turns = F.cross_entropy(rotation, turn, reduction="none")
        right = (rotation.argmax(dim=1) == turn).float()
        return {
            "top1": top1,
            "top5": top5,
            "top1 of four turns": mean1,
            "top5 of four turns": mean5,
            "rotation accuracy": right.view(NUM_ROTATIONS, -1).mean(dim=0),
            "loss": (known + self.weight * turns).view(NUM_ROTATIONS, -1).mean(dim=0),
        }

    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The four turns."""
        return RotNet().preview(batch)


@dataclass(frozen=True, kw_only=True)
class S4LExemplar(S4L):
    """Class labels and Exemplar: both on all views of an image, the labels as far as they are known (section 3).

    Published: 8 views with colour noise and without rotations, hardest triplets with a soft margin. Each stream has
    triplets of its own, as in the released code: an image may be in both, and would else be its own negative. Metrics
    need the plain view, since top-1 is of plain images, so `views_compared` is 1, and only `check` asks for two views.

    Attributes:
        share: Fraction of each batch that is taken from the labelled images; 256 of 512 published.
        weight: Weight of the triplet loss, beside the class labels.
        exemplar: Settings of the views, the embedding and the triplets.
    """

    needs_whole_batch: ClassVar[bool] = True
    knows_copies: ClassVar[bool] = True

    exemplar: Exemplar = field(default=Exemplar(copies=8, mining="hard", degrees=0.0))

    @property
    def name(self) -> str:
        """See the base class."""
        return "s4l-exemplar"

    @property
    def _min_per_stream(self) -> int:
        return 2

    def views(self, standard: View) -> tuple[View, ...]:
        """The views of `exemplar`."""
        return self.exemplar.views(standard)

    def check(self, batch_size: int, views: int) -> None:
        """Check that there are two views of an image, and two images of each stream. See the base class."""
        self.exemplar.check(batch_size, views)
        super().check(batch_size, views)

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """Two linear layers: `labels`, (V * B, classes), and `exemplar`, (V * B, dim)."""
        embedding = self.exemplar.heads(backbone, features, classes)
        return nn.ModuleDict({"labels": nn.Linear(features, classes), "exemplar": embedding})

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """`labels`, over the views of labelled images, and `triplets`, weighted: the mean of both streams' losses."""
        copies = len(batch.views)
        labels, embedded = self._class_and_task_outputs(net, torch.cat(batch.views), "exemplar")
        label = batch.labels.repeat(copies)
        everything, image = all_gather(embedded), all_gather_labels(batch.indices.repeat(copies))
        hidden = all_gather_labels(label) == HIDDEN_LABEL
        # The labelled first, each stream in its order. Their number is the one value that is read from the device.
        order, count = hidden.sort(stable=True).indices, int((~hidden).sum())
        streams = [
            self.exemplar.triplet_loss(everything.index_select(0, of), image.index_select(0, of))
            for of in (order[:count], order[count:])
        ]
        return {"labels": _labelled_cross_entropy(labels, label), "triplets": self.weight * torch.stack(streams).mean()}

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """`top1`, `top5` and `loss`, of the labels alone, on plain images with their true labels; each (B,)."""
        labels, _ = (output.float() for output in self._class_and_task_outputs(net, batch.views[0], "exemplar"))
        top1, top5 = _top1_and_top5(labels, batch.labels)
        return {"top1": top1, "top5": top5, "loss": F.cross_entropy(labels, batch.labels, reduction="none")}
