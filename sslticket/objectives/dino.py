"""DINO: predict from any view a slow copy's outputs for the global views (Caron et al. 2021)."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.objectives.base import Network, Objective, check_above, check_at_least, check_within
from sslticket.objectives.distributed import all_gather
from sslticket.objectives.multiview import (
    LOCAL_CROP_RATIO,
    NUM_GLOBAL_CROPS,
    MomentumEncoder,
    Prototypes,
    cosine_momentum,
    multicrop_forward,
    num_local_crops,
    retrieval_metrics,
    strong_augmentation,
)
from sslticket.registry import OMIT_DEFAULT, stored_as

_LEAST_AREA = 0.05  # of an image, in a local crop


class _Head(nn.Module):
    """A projection and a last layer whose weight vectors have unit length, (B, features) -> (B, outputs).

    Not lightly's: its `weight_norm` cannot be copied, and torch warns of it.
    """

    def __init__(self, projection: nn.Module, bottleneck: int, outputs: int) -> None:
        super().__init__()
        self.projection = projection
        for layer in projection.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.directions = Prototypes(nn.Linear(bottleneck, outputs, bias=False).weight)

    def forward(self, features: Tensor) -> Tensor:
        """Cosines of the projections and each direction."""
        return F.linear(F.normalize(self.projection(features), dim=1), F.normalize(self.directions(), dim=1))


class _Heads(nn.Module):
    """The student's head, the teacher, and the centre of the teacher's outputs.

    Lightly's loss moves the centre whenever it is computed, also in metrics and for each micro-batch. Here
    `accumulate_outputs` only adds up outputs, and `update_centre` moves the centre once a step.
    """

    centre: Tensor  # (outputs,)
    seen: Tensor  # (outputs,) sum of the mean teacher outputs since the last step
    parts: Tensor  # () how many means that is

    def __init__(self, backbone: nn.Module, student: _Head) -> None:
        super().__init__()
        self.student, self.momentum = student, MomentumEncoder(backbone, student)
        outputs = len(student.directions.weight)
        self.register_buffer("centre", torch.zeros(outputs))
        self.register_buffer("seen", torch.zeros(outputs))
        self.register_buffer("parts", torch.zeros(()))

    def release(self) -> None:
        """Let the student's last layer move, and the teacher's with it."""
        self.student.directions.release()
        cast(_Head, self.momentum.projection).directions.release()

    @torch.no_grad()
    def teacher(self, views: tuple[Tensor, ...]) -> Tensor:
        """The teacher's outputs for V views, (V * B, outputs) float32."""
        teacher: Tensor = self.momentum.projection(multicrop_forward(self.momentum.backbone, views))
        return teacher.float()

    @torch.no_grad()
    def accumulate_outputs(self, teacher: Tensor) -> None:
        """Add the mean of the outputs of all processes."""
        self.seen += all_gather(teacher.mean(dim=0, keepdim=True)).mean(dim=0)
        self.parts += 1

    @torch.no_grad()
    def update_centre(self, momentum: float) -> None:
        """`centre = momentum * centre + (1 - momentum) * mean of the accumulated outputs`."""
        self.centre.lerp_(self.seen / self.parts.clamp(min=1), 1 - momentum)
        self.seen.zero_()
        self.parts.zero_()


@dataclass(frozen=True, kw_only=True)
class DINO(Objective):
    """Cross-entropy of the student's outputs for each view with the teacher's for every other global view.

    The teacher's outputs are centred, so that none wins always, and sharpened, so that not all win. Unless noted
    otherwise, defaults are those of the authors' command for 100 epochs of ResNet-50 (README of their code); for their
    transformers the teacher's temperature rises from 0.04 to 0.07 over 30 of 300 epochs (section 3.2). Source:
    https://arxiv.org/abs/2104.14294.

    Attributes:
        hidden: Units of the head's two hidden layers.
        bottleneck: Outputs of the head before its last layer.
        outputs: Outputs of the last layer.
        head_norm: Whether there is batch norm in the head.
        student_temperature: Temperature of the softmax over the student's outputs.
        teacher_temperature: Temperature of the softmax over the teacher's outputs, in the end.
        teacher_start: The teacher's temperature at the start.
        teacher_rise: Fraction of the training over which it changes linearly from the one to the other.
        centring: Momentum of the centre: the fraction that stays at a step (section 3.1).
        momentum: Fraction of its weights that the teacher keeps at the first step; it rises to 1 (section 3.1).
        frozen_for: Fraction of the training in which the last layer keeps its initial weights; the first epoch of 100.
        local_crops: Small views of an image; by default 8, or 0 where the training images are smaller than 64 pixels.
        crop_boundary: Fraction of an image's area that global crops have at least and local ones at most; 0.4 for the
            authors' transformers (their code's default).
    """

    views_compared: ClassVar[int] = 2

    hidden: int = 2048
    bottleneck: int = 256
    outputs: int = 65536
    head_norm: bool = False
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_start: float = 0.04
    teacher_rise: float = 0.0
    centring: float = 0.9
    momentum: float = field(default=0.996, metadata=stored_as("ema"))
    frozen_for: float = 0.01
    local_crops: int | None = None
    crop_boundary: float = field(default=0.14, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden", "bottleneck")
        check_at_least(self, 2, "outputs")
        check_above(self, 0, "student_temperature", "teacher_temperature", "teacher_start")
        check_within(self, 0, 1, "teacher_rise", "centring", "momentum", "frozen_for")
        check_within(self, _LEAST_AREA, 1, "crop_boundary")

    def views(self, standard: View) -> tuple[View, ...]:
        """Two global views, the second sometimes solarised, and `local_crops` local ones."""
        count = num_local_crops(standard, self.local_crops, published=8)
        view = partial(strong_augmentation, standard, jitter=(0.4, 0.4, 0.2, 0.1))
        large, small = (self.crop_boundary, 1.0), (_LEAST_AREA, self.crop_boundary)
        one, other = view(scale=large, blur=1.0), view(scale=large, blur=0.1, solarize=0.2)
        return (one, other, *(view(scale=small, blur=0.5, size_ratio=LOCAL_CROP_RATIO),) * count)

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The student's head, (B, features) -> (B, outputs); the teacher; the centre of its outputs."""
        from lightly.models.modules.heads import ProjectionHead

        def layer(inputs: int) -> tuple[int, int, nn.Module | None, nn.Module, bool]:
            return inputs, self.hidden, nn.BatchNorm1d(self.hidden) if self.head_norm else None, nn.GELU(), True

        projection = ProjectionHead([layer(features), layer(self.hidden), (self.hidden, self.bottleneck, None, None)])
        return _Heads(backbone, _Head(projection, self.bottleneck, self.outputs))

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean over images and pairs of views; adds up the teacher's outputs for the centre."""
        heads = cast(_Heads, net.heads)
        if progress >= self.frozen_for:
            heads.release()
        teacher = heads.teacher(batch.views[:NUM_GLOBAL_CROPS])
        student = heads.student(multicrop_forward(net.backbone, batch.views))
        losses = self._cross_entropies(student, self._targets(heads, teacher, progress), len(batch.views))
        heads.accumulate_outputs(teacher)
        return {"distillation": losses.mean()}

    def after_step(self, net: Network, progress: float) -> None:
        """Move the teacher towards the student and the centre towards the teacher's outputs."""
        heads = cast(_Heads, net.heads)
        heads.momentum.update(net.backbone, heads.student, cosine_momentum(self.momentum, progress))
        heads.update_centre(self.centring)

    def collapsed_loss(self, batch_size: int) -> float:
        """The loss log(outputs): all outputs are equal, which is how a teacher that is not sharp ends (appendix D)."""
        return math.log(self.outputs)

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Retrieval of the student's bottlenecks, the loss and the entropy of the teacher's targets, each (B,).

        Of the two global views, at the teacher's last temperature.
        """
        heads, views = cast(_Heads, net.heads), batch.views[:NUM_GLOBAL_CROPS]
        features = multicrop_forward(net.backbone, views)
        targets = self._targets(heads, heads.teacher(views), progress=1.0)
        entropy = -torch.xlogy(targets, targets).sum(dim=1).view(NUM_GLOBAL_CROPS, -1).mean(dim=0)
        loss = self._cross_entropies(heads.student(features), targets, NUM_GLOBAL_CROPS)
        one, other = heads.student.projection(features).chunk(NUM_GLOBAL_CROPS)
        return retrieval_metrics(one, other) | {"loss": loss, "target entropy": entropy}

    def _targets(self, heads: _Heads, teacher: Tensor, progress: float) -> Tensor:
        """The teacher's outputs centred and sharpened, rows that sum to 1."""
        risen = min(1.0, progress / self.teacher_rise) if self.teacher_rise else 1.0
        temperature = self.teacher_start + risen * (self.teacher_temperature - self.teacher_start)
        return F.softmax((teacher - heads.centre) / temperature, dim=1)

    def _cross_entropies(self, student: Tensor, targets: Tensor, views: int) -> Tensor:
        """Each image's mean over the pairs of a global view's targets and another view's prediction, (B,)."""
        predictions = F.log_softmax(student.float() / self.student_temperature, dim=1).chunk(views)
        pairs = [
            -(target * prediction).sum(dim=1)
            for number, target in enumerate(targets.chunk(NUM_GLOBAL_CROPS))
            for other, prediction in enumerate(predictions)
            if other != number
        ]
        return torch.stack(pairs).mean(dim=0)
