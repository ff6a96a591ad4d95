"""Parts of objectives that compare views: augmentation, multi-crop, retrieval, momentum encoder and prototypes."""

import copy
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.augment import Blur, Grayscale, Jitter, Solarize, Transform, View
from sslticket.errors import BadInput
from sslticket.pruning.pruned_model import MaskedCopy

_MIN_BLURRED_SIZE = 64
"""Pixels a side; smaller images are not blurred, as in the papers' CIFAR settings (Chen et al. 2020, appendix B.9)."""


def strong_augmentation(
    standard: View,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
    jitter_probability: float = 0.8,
    grayscale: float = 0.2,
    blur: float = 0.0,
    solarize: float = 0.0,
    size_ratio: float = 1.0,
) -> View:
    """A random resized crop, mirrored where the dataset's images may be, then colours, blur and solarisation.

    Args:
        standard: The dataset's training view; its size and mirroring are kept.
        scale: Smallest and largest fraction of the image's area.
        jitter: Largest changes of brightness, contrast, saturation and hue.
        jitter_probability: Probability of the jitter.
        grayscale: Probability of losing all colour.
        blur: Probability of a Gaussian blur; images too small for one get none.
        solarize: Probability of turning light shades into their negatives.
        size_ratio: The crop's side as a fraction of the standard view's, for small local crops.
    """
    brightness, contrast, saturation, hue = jitter
    size = max(1, round(standard.size * size_ratio))
    transforms: tuple[Transform, ...] = (
        Jitter(
            brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, probability=jitter_probability
        ),
        Grayscale(probability=grayscale),
    )
    if blur and size >= _MIN_BLURRED_SIZE:
        # Of 224 pixels, the published 23 are a tenth.
        transforms += (Blur(sigma=(0.1, 2.0), kernel=2 * (size // 20) + 1, probability=blur),)
    if solarize:
        transforms += (Solarize(probability=solarize),)
    return View(size=size, crop="resized", scale=scale, flip=standard.flip, transforms=transforms)


NUM_GLOBAL_CROPS = 2
"""Views of the full size, which come first: multi-crop has two of them and several small local ones (Caron et al. 2020,
SwAV, section 3.2, https://arxiv.org/abs/2006.09882)."""
LOCAL_CROP_RATIO = 96 / 224
"""Side of a local crop as a fraction of a global one's."""

_MIN_MULTICROP_SIZE = 64
"""Pixels a side; the common settings for CIFAR take no local crops of smaller images (solo-learn; da Costa et al. 2022,
https://arxiv.org/abs/2108.01775): of 32 pixels they would have 14."""


def num_local_crops(standard: View, given: int | None, published: int) -> int:
    """Number of local crops of an image: as many as given, else the published number, or 0 for small images.

    Raises:
        BadInput: If the number is below 0.
    """
    if given is None:
        return published if standard.size >= _MIN_MULTICROP_SIZE else 0
    if given < 0:
        raise BadInput(f"--local-crops must be at least 0, got {given}; leave it out for the published number")
    return given


def multicrop_forward(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Features of V views, (V * B, F), view after view; neighbours of one size share a forward and its batch norm."""
    sizes = groupby(views, key=lambda view: view.shape[-2:])
    return torch.cat([backbone(torch.cat(tuple(same))) for _, same in sizes])


def retrieval_metrics(one: Tensor, other: Tensor) -> dict[str, Tensor]:
    """How well the second views of a batch are found from the first, by cosine similarity.

    Args:
        one: Embeddings of the images' first views, (B, D), B at least 2.
        other: Embeddings of their second views, (B, D).

    Returns:
        `retrieval top1`: 1 where the nearest of the B second views is of the same image (chance 1 / B);
            `positive similarity` to it; and `negative similarity`, the mean to the others. Each (B,).
    """
    # In full precision under mixed precision too: rounding would decide which of two near neighbours is nearer.
    with torch.autocast(one.device.type, enabled=False):
        similar = F.normalize(one.float(), dim=1) @ F.normalize(other.float(), dim=1).T
    same = similar.diagonal()
    found = similar.argmax(dim=1) == torch.arange(len(one), device=one.device)
    others = (similar.sum(dim=1) - same) / max(1, len(one) - 1)
    return {"retrieval top1": found.float(), "positive similarity": same, "negative similarity": others}


class MomentumEncoder(MaskedCopy):
    """An exponential moving average of a backbone and its projection: the target or key encoder of several objectives.

    Its weights get no gradient, and no block of it is left out. The backbone's gates are copied with it, and masks set
    on the backbone are set on the copy too, so a ticket's target network is as sparse as the ticket (He et al. 2020,
    MoCo, section 3.2, https://arxiv.org/abs/1911.05722).
    """

    def __init__(self, backbone: nn.Module, projection: nn.Module) -> None:
        super().__init__(copy.deepcopy(backbone))
        self.projection = copy.deepcopy(projection)
        for module in self.backbone.modules():
            if hasattr(module, "drop_prob"):  # timm's, without importing it: targets come from all blocks
                cast(Any, module).drop_prob = 0.0
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> projections (B, D), without gradients."""
        projection: Tensor = self.projection(self.backbone(images))
        return projection

    @torch.no_grad()
    def update(self, backbone: nn.Module, projection: nn.Module, momentum: float) -> None:
        """Every weight becomes `momentum * own + (1 - momentum) * theirs`; its batch statistics stay its own."""
        own = (*self.backbone.parameters(), *self.projection.parameters())
        theirs = (*backbone.parameters(), *projection.parameters())
        torch._foreach_lerp_(own, theirs, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """A momentum that rises from `start` to 1 along half a cosine over the training (Grill et al. 2020, BYOL)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


class Prototypes(nn.Module):
    """K vectors, (K, D), that are frozen at their initial values until `release`, whatever the optimiser does.

    The papers drop the gradient of a frozen layer between the backward pass and the optimiser's step. Distributed
    training and fused optimisers want a gradient of every parameter at every step. So the vectors are a constant plus a
    trained weight, which is 0 and gets a gradient of 0 until the release: then neither weight decay nor momentum moves
    it. The release moves the constant into the weight.

    Args:
        initial: The vectors at first, (K, D).
    """

    free: Tensor  # () 0 or 1, the factor of the gradient

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros_like(initial))
        # No buffer, which distributed training would send around at every step.
        self.held = nn.Parameter(initial.detach().clone(), requires_grad=False)
        self.register_buffer("free", torch.zeros(()))

    def forward(self) -> Tensor:
        """The vectors, (K, D)."""
        return self.held + self.free * self.weight

    @torch.no_grad()
    def release(self) -> None:
        """Let the vectors move from now on. A second call does nothing, without waiting for the device."""
        self.weight.add_(self.held)
        self.held.zero_()
        self.free.fill_(1)
