"""The objective of iBOT: DINO, and for hidden patches what a slow copy makes of them; with KoLeo, that of DINOv2."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.augment import View
from sslticket.data.loader import Batch
from sslticket.errors import BadInput, unknown_name
from sslticket.objectives.base import Network, Objective, check_above, check_at_least, check_within
from sslticket.objectives.dino import DistillationHead, RunningCentre
from sslticket.objectives.distributed import all_gather
from sslticket.objectives.multiview import (
    LOCAL_CROP_RATIO,
    NUM_GLOBAL_CROPS,
    MomentumEncoder,
    cosine_momentum,
    multicrop_forward,
    num_local_crops,
    retrieval_metrics,
    strong_augmentation,
)
from sslticket.objectives.patch_tokens import (
    PatchNoise,
    PatchTokens,
    draw_mask_seed,
    hidden_for_eyes,
    hide_patches,
    take_tokens,
)

_MEASURED = 1.0
"""The progress whose masks images have when they are measured: a step of a training never has it."""
_LEAST_AREA = 0.05  # of an image, in a local crop


class _Heads(nn.Module):
    """The student's heads and the token of hidden patches, the teacher, and the centres of its outputs.

    Attributes:
        student: The head of whole images, and the head of patches where that is another one.
        mask_seed: Seed of the masks, () int64.
    """

    mask_seed: Tensor

    def __init__(self, backbone: nn.Module, student: nn.ModuleDict, outputs: int, width: int) -> None:
        super().__init__()
        self.student, self.momentum = student, MomentumEncoder(backbone, student)
        self.images_centre, self.patches_centre = RunningCentre(outputs), RunningCentre(outputs)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.register_buffer("mask_seed", draw_mask_seed())

    @property
    def teacher(self) -> nn.ModuleDict:
        """The teacher's heads."""
        return cast(nn.ModuleDict, self.momentum.projection)

    def release(self) -> None:
        """Let the student's last layers move, and the teacher's with them."""
        for head in (*self.student.values(), *self.teacher.values()):
            cast(DistillationHead, head).directions.release()


def _of_images(heads: nn.ModuleDict, features: Tensor) -> Tensor:
    outputs: Tensor = heads["images"](features)
    return outputs.float()


def _of_patches(heads: nn.ModuleDict, tokens: Tensor) -> Tensor:
    """Tokens (B, n, D) -> outputs (B * n, K), by the head of images where patches have none of their own."""
    head = heads["patches"] if "patches" in heads else heads["images"]
    outputs: Tensor = head(tokens.flatten(0, 1))
    return outputs.float()


class _Passes(NamedTuple):
    """What student and teacher make of the global views, view after view.

    Attributes:
        features: The student's features, with hidden patches, (2B, F).
        student_patches: The student's outputs for the hidden patches, (2B * n, K).
        teacher_images: The teacher's outputs for the whole views, (2B, K).
        teacher_patches: The teacher's outputs for the hidden patches, (2B * n, K).
        weight: 1 for a hidden patch, 0 where a view has fewer than n, (2B, n).
    """

    features: Tensor
    student_patches: Tensor
    teacher_images: Tensor
    teacher_patches: Tensor
    weight: Tensor

    def of_patches(self, values: Tensor) -> Tensor:
        """The mean of values (2B * n,) over the hidden patches of a view, (2B,), 0 where none is hidden."""
        return (values.view_as(self.weight) * self.weight).sum(dim=1) / self.weight.sum(dim=1).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class IBOT(Objective):
    """DINO's loss, and the same cross-entropy for each hidden patch with what the teacher makes of the patch it sees.

    In some global views a part of the patches is replaced by a learnt token before the student sees them. Defaults are
    those of the authors' command for 800 epochs of ViT-S/16 (README of github.com/bytedance/ibot). Two things differ:
    of an image's two global views as many have hidden patches as the probability says, where theirs are drawn one by
    one, so that the loss of a collapse is known; and the centre of the patches is the mean over the hidden ones, as in
    DINOv2. The last layer's weight vectors keep their unit length. Source: https://arxiv.org/abs/2111.07832.

    Attributes:
        hidden: Units of the head's two hidden layers.
        bottleneck: Outputs of the head before its last layer.
        outputs: Outputs of the last layer.
        separate_heads: Whether patches have a head of their own.
        student_temperature: Temperature of the softmax over the student's outputs.
        teacher_temperature: Temperature of the softmax over the teacher's outputs, in the end.
        teacher_start: The teacher's temperature at the start.
        teacher_rise: Fraction of the training over which it changes linearly from the one to the other.
        centring: Momentum of the centres: the fraction that stays at a step.
        momentum: Fraction of its weights that the teacher keeps at the first step; it rises to 1.
        frozen_for: Fraction of the training in which the last layer keeps its initial weights; the first epoch.
        local_crops: Small views of an image, or 0 where the training images are smaller than 64 pixels by default.
        crop_boundary: Fraction of an image's area that global crops have at least and local ones at most.
        mask_probability: Fraction of the global views that have hidden patches.
        least_masked: Smallest fraction of such a view's patches that are hidden.
        most_masked: Largest fraction of such a view's patches that are hidden.
        mask_shape: Whether they lie together in rectangles, "block", or anywhere, "random".
        patch_weight: Weight of the patches' loss, beside that of images.
    """

    views_compared: ClassVar[int] = 2

    hidden: int = 2048
    bottleneck: int = 256
    outputs: int = 8192
    separate_heads: bool = False
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    teacher_start: float = 0.04
    teacher_rise: float = 0.0375
    centring: float = 0.9
    momentum: float = 0.996
    frozen_for: float = 0.00125
    local_crops: int | None = None
    crop_boundary: float = 0.25
    mask_probability: float = 0.5
    least_masked: float = 0.1
    most_masked: float = 0.5
    mask_shape: Literal["block", "random"] = "block"
    patch_weight: float = 1.0

    _published_local_crops: ClassVar[int] = 10

    def __post_init__(self) -> None:
        check_at_least(self, 1, "hidden", "bottleneck")
        check_at_least(self, 2, "outputs")
        check_at_least(self, 0, "patch_weight")
        check_above(self, 0, "student_temperature", "teacher_temperature", "teacher_start")
        check_within(self, 0, 1, "teacher_rise", "centring", "momentum", "frozen_for", "mask_probability")
        check_within(self, _LEAST_AREA, 1, "crop_boundary")
        check_within(self, 0, 1, "least_masked")
        check_within(self, 0, 1, "most_masked")
        if self.least_masked > self.most_masked:
            raise BadInput(
                f"--least-masked must be at most --most-masked, got {self.least_masked:g} and {self.most_masked:g}; "
                "give both, such as 0.1 and 0.5"
            )
        if self.mask_shape not in get_args(Literal["block", "random"]):
            raise unknown_name("shape of masks", self.mask_shape, ("block", "random"))

    def views(self, standard: View) -> tuple[View, ...]:
        """Two global views, the second sometimes solarised, and `local_crops` local ones."""
        count = num_local_crops(standard, self.local_crops, published=self._published_local_crops)
        view = partial(strong_augmentation, standard, jitter=(0.4, 0.4, 0.2, 0.1))
        large, small = (self.crop_boundary, 1.0), (_LEAST_AREA, self.crop_boundary)
        one, other = view(scale=large, blur=1.0), view(scale=large, blur=0.1, solarize=0.2)
        return (one, other, *(view(scale=small, blur=0.5, size_ratio=LOCAL_CROP_RATIO),) * count)

    def check_backbone(self, backbone: nn.Module, views: Sequence[View]) -> None:
        """See the base class."""
        # Local crops are seen whole, so that they may end within a patch, where the network takes them so.
        PatchTokens.of(backbone, self.name).check_sizes(self.name, views[:NUM_GLOBAL_CROPS])

    def heads(self, backbone: nn.Module, features: int, classes: int) -> nn.Module:
        """The student's heads, (B, features) -> (B, outputs); the teacher; the centres of its outputs."""
        build = partial(
            DistillationHead.build, hidden=self.hidden, bottleneck=self.bottleneck, outputs=self.outputs, norm=False
        )
        tokens = PatchTokens.of(backbone, self.name)
        student = nn.ModuleDict({"images": build(features)})
        if self.separate_heads:
            student["patches"] = build(tokens.width)
        return _Heads(backbone, student, self.outputs, tokens.width)

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The mean over images and pairs of views, and over patches; adds up the teacher's outputs for the centres."""
        return self._terms(net, batch, progress)[0]

    def after_step(self, net: Network, progress: float) -> None:
        """Move the teacher towards the student and the centres towards the teacher's outputs."""
        heads = cast(_Heads, net.heads)
        heads.momentum.update(net.backbone, heads.student, cosine_momentum(self.momentum, progress))
        heads.images_centre.update_centre(self.centring)
        heads.patches_centre.update_centre(self.centring)

    def collapsed_loss(self, batch_size: int) -> float | None:
        """The loss where all outputs are equal; None where the number of views with hidden patches is not certain."""
        masked = self.mask_probability * NUM_GLOBAL_CROPS
        return math.log(self.outputs) * (1 + self.patch_weight * self.mask_probability) if masked % 1 == 0 else None

    def metrics(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Of the two global views, with masks that are always the same, at the teacher's last temperature; each (B,).

        Returns:
            The retrieval of the student's bottlenecks; `loss`; `target entropy`, that of the teacher's targets for
                images; and `patch agreement`: of the hidden patches, the fraction where the largest of the student's
                outputs is the teacher's, 0 for a view without any.
        """
        heads = cast(_Heads, net.heads)
        passes = self._passes(net, batch._replace(views=batch.views[:NUM_GLOBAL_CROPS]), _MEASURED)
        targets = self._targets(passes.teacher_images, heads.images_centre, 1.0)
        patches = self._targets(passes.teacher_patches, heads.patches_centre, 1.0)
        images = self._image_losses(_of_images(heads.student, passes.features), targets, NUM_GLOBAL_CROPS)
        agreed = (passes.student_patches.argmax(dim=1) == patches.argmax(dim=1)).float()
        one, other = cast(DistillationHead, heads.student["images"]).projection(passes.features).chunk(NUM_GLOBAL_CROPS)
        return retrieval_metrics(one, other) | {
            "loss": images + self.patch_weight * _by_image(self._patch_losses(passes, patches)),
            "target entropy": _by_image(-torch.xlogy(targets, targets).sum(dim=1)),
            "patch agreement": _by_image(passes.of_patches(agreed)),
        }

    def preview_with(self, build: Callable[[], Network], batch: Batch) -> dict[str, Tensor]:
        """The views, the global ones as the student sees them at the first step."""
        net = build()
        tokens, shown = PatchTokens.of(net.backbone, self.name), self.preview(batch)
        hidden = self._masks(cast(_Heads, net.heads), batch, tokens, 0.0).chunk(NUM_GLOBAL_CROPS)
        for name, each in zip(list(shown), hidden, strict=False):
            shown[name] = hidden_for_eyes(shown[name], each, tokens.patch_size)
        return shown

    def _terms(self, net: Network, batch: Batch, progress: float) -> tuple[dict[str, Tensor], _Passes]:
        """The terms of the loss, and what they were made of."""
        heads = cast(_Heads, net.heads)
        if progress >= self.frozen_for:
            heads.release()
        passes, small = self._passes(net, batch, progress), batch.views[NUM_GLOBAL_CROPS:]
        features = torch.cat([passes.features, multicrop_forward(net.backbone, small)]) if small else passes.features
        targets = self._targets(passes.teacher_images, heads.images_centre, progress)
        images = self._image_losses(_of_images(heads.student, features), targets, len(batch.views))
        patches = self._patch_losses(passes, self._targets(passes.teacher_patches, heads.patches_centre, progress))
        heads.images_centre.accumulate_outputs(passes.teacher_images)
        heads.patches_centre.accumulate_weighted(passes.teacher_patches, passes.weight.flatten())
        return {"images": images.mean(), "patches": self.patch_weight * patches.mean()}, passes

    def _passes(self, net: Network, batch: Batch, progress: float) -> _Passes:
        heads, images = cast(_Heads, net.heads), torch.cat(batch.views[:NUM_GLOBAL_CROPS])
        tokens = PatchTokens.of(net.backbone, self.name)
        hidden = self._masks(heads, batch, tokens, progress)
        # As many of each view as can be hidden, so that no size depends on values, for which a device would wait.
        rows = hidden.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : self._most(hidden.shape[1])]
        features, seen = tokens.encode(images, hidden=hidden, token=heads.mask_token)
        with torch.no_grad():
            known, whole = PatchTokens.of(heads.momentum.backbone, self.name).encode(images)
            teacher_images = _of_images(heads.teacher, known)
            teacher_patches = _of_patches(heads.teacher, take_tokens(whole, rows + tokens.prefix))
        return _Passes(
            features=features,
            student_patches=_of_patches(heads.student, take_tokens(seen, rows + tokens.prefix)),
            teacher_images=teacher_images,
            teacher_patches=teacher_patches,
            weight=hidden.gather(1, rows).float(),
        )

    def _most(self, patches: int) -> int:
        """The most patches of a view that are hidden."""
        return max(1, int(self.most_masked * patches))

    def _masks(self, heads: _Heads, batch: Batch, tokens: PatchTokens, progress: float) -> Tensor:
        """Which patches of the global views are hidden, view after view, (2B, N) bool."""
        views, patches = NUM_GLOBAL_CROPS, tokens.num_patches(batch.views[0])
        of_images = PatchNoise(heads.mask_seed, ~batch.indices, progress)
        number = (views * self.mask_probability + of_images.uniform(1)).floor()
        masked = of_images.draw(views).argsort(dim=1).argsort(dim=1) < number
        numbers = torch.cat([views * batch.indices + view for view in range(views)])
        noise = PatchNoise(heads.mask_seed, numbers, progress)
        fraction = self.least_masked + noise.uniform(1)[:, 0] * (self.most_masked - self.least_masked)
        count = (fraction * patches).long().clamp(1, self._most(patches)) * masked.T.flatten()
        grid = batch.views[0].shape[-1] // tokens.patch_size
        return hide_patches(noise, count, grid, self.mask_shape)

    def _targets(self, teacher: Tensor, centre: RunningCentre, progress: float) -> Tensor:
        """The teacher's outputs centred and sharpened, rows that sum to 1."""
        risen = min(1.0, progress / self.teacher_rise) if self.teacher_rise else 1.0
        temperature = self.teacher_start + risen * (self.teacher_temperature - self.teacher_start)
        return F.softmax((teacher - centre.centre) / temperature, dim=1)

    def _image_losses(self, student: Tensor, targets: Tensor, views: int) -> Tensor:
        """Each image's mean over the pairs of a global view's targets and another view's prediction, (B,)."""
        predictions = F.log_softmax(student / self.student_temperature, dim=1).chunk(views)
        pairs = [
            -(target * prediction).sum(dim=1)
            for number, target in enumerate(targets.chunk(NUM_GLOBAL_CROPS))
            for other, prediction in enumerate(predictions)
            if other != number
        ]
        return torch.stack(pairs).mean(dim=0)

    def _patch_losses(self, passes: _Passes, targets: Tensor) -> Tensor:
        """Each global view's mean over its hidden patches, (2B,)."""
        predictions = F.log_softmax(passes.student_patches / self.student_temperature, dim=1)
        return passes.of_patches(-(targets * predictions).sum(dim=1))


def _by_image(of_views: Tensor) -> Tensor:
    """The mean over an image's global views, (2B,) -> (B,)."""
    return of_views.view(NUM_GLOBAL_CROPS, -1).mean(dim=0)


@dataclass(frozen=True, kw_only=True)
class DINOv2(IBOT):
    """The loss of iBOT, with KoLeo, which keeps the features of all images of a batch apart.

    Defaults are those of the authors' ViT-L/16 on ImageNet-1k (dinov2/configs/ssl_default_config.yaml, which
    train/vitl16_short.yaml takes, github.com/facebookresearch/dinov2), whose targets are centred; Sinkhorn-Knopp, which
    their larger networks take in place of the centre, is not here. Source: https://arxiv.org/abs/2304.07193.

    Attributes:
        hidden: Units of the head's two hidden layers.
        bottleneck: Outputs of the head before its last layer.
        outputs: Outputs of the last layer.
        separate_heads: Whether patches have a head of their own.
        student_temperature: Temperature of the softmax over the student's outputs.
        teacher_temperature: Temperature of the softmax over the teacher's outputs, in the end.
        teacher_start: The teacher's temperature at the start.
        teacher_rise: Fraction of the training over which it changes linearly from the one to the other.
        centring: Momentum of the centres: the fraction that stays at a step.
        momentum: Fraction of its weights that the teacher keeps at the first step; it rises to 1.
        frozen_for: Fraction of the training in which the last layer keeps its initial weights; the first epoch.
        local_crops: Small views of an image, or 0 where the training images are smaller than 64 pixels by default.
        crop_boundary: Fraction of an image's area that global crops have at least and local ones at most.
        mask_probability: Fraction of the global views that have hidden patches.
        least_masked: Smallest fraction of such a view's patches that are hidden.
        most_masked: Largest fraction of such a view's patches that are hidden.
        mask_shape: Whether they lie together in rectangles, "block", or anywhere, "random".
        patch_weight: Weight of the patches' loss, beside that of images.
        koleo: Weight of KoLeo, for each of the two global views.
    """

    needs_whole_batch: ClassVar[bool] = True
    min_images: ClassVar[int] = 2

    outputs: int = 65536
    teacher_rise: float = 0.3
    momentum: float = 0.992
    frozen_for: float = 0.01
    crop_boundary: float = 0.32
    koleo: float = 0.1

    _published_local_crops: ClassVar[int] = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "koleo")

    def loss(self, net: Network, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The terms of iBOT, and `koleo`: minus the mean logarithm of the distance to the nearest other image."""
        from lightly.loss import KoLeoLoss

        terms, passes = self._terms(net, batch, progress)
        apart = KoLeoLoss()
        with torch.autocast(passes.features.device.type, enabled=False):
            views = passes.features.float().chunk(NUM_GLOBAL_CROPS)
            koleo = torch.stack([apart(all_gather(view)) for view in views]).sum()
        return terms | {"koleo": self.koleo * koleo}

    def collapsed_loss(self, batch_size: int) -> float | None:
        """None with KoLeo, whose term keeps growing as features come together."""
        return None if self.koleo else super().collapsed_loss(batch_size)
