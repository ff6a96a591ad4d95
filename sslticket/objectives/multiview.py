"""What objectives that compare views share: the strong augmentation, multi-crop and the retrieval metric."""

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslticket.data.augment import Blur, Grayscale, Jitter, Solarize, Transform, View
from sslticket.errors import BadInput

_MIN_BLURRED_SIZE = (
    64  # pixels; smaller images are not blurred, as in the papers' CIFAR settings (Chen et al. 2020, B.9)
)


def strong_augmentation(
    standard: View,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
    jitter_chance: float = 0.8,
    grayscale: float = 0.2,
    blur: float = 0.0,
    solarize: float = 0.0,
    share: float = 1.0,
) -> View:
    """A random resized crop, mirrored where the dataset's images may be, then colours, blur and solarisation.

    Args:
        standard: the dataset's training view; its size and mirroring are kept.
        scale: smallest and largest fraction of the image's area.
        jitter: brightness, contrast, saturation and hue.
        jitter_chance: probability of the jitter.
        grayscale: probability of losing all colour.
        blur: probability of a Gaussian blur; images too small for one get none.
        solarize: probability of turning light shades into their negatives.
        share: the crop's side as a share of the standard view's, for small local crops.
    """
    brightness, contrast, saturation, hue = jitter
    size = max(1, round(standard.size * share))
    transforms: tuple[Transform, ...] = (
        Jitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, probability=jitter_chance),
        Grayscale(probability=grayscale),
    )
    if blur and size >= _MIN_BLURRED_SIZE:
        # Of 224 pixels, the published 23 are a tenth.
        transforms += (Blur(sigma=(0.1, 2.0), kernel=2 * (size // 20) + 1, probability=blur),)
    if solarize:
        transforms += (Solarize(probability=solarize),)
    return View(size=size, crop="resized", scale=scale, flip=standard.flip, transforms=transforms)


NUM_GLOBAL_CROPS = 2  # views of the full size; they come first
LOCAL_CROP_RATIO = 96 / 224  # of their side is a local crop's

# Pixels; from images smaller than that the common settings for CIFAR take no local crops (solo-learn; da Costa et al.
# 2022): of 32 pixels they would have 14.
_MIN_MULTICROP_SIZE = 64


def num_local_crops(standard: View, asked: int | None, published: int) -> int:
    """How many local crops to take: as many as asked for, else the published number, or 0 of small images.

    Raises:
        BadInput: if fewer than none are asked for.
    """
    if asked is None:
        return published if standard.size >= _MIN_MULTICROP_SIZE else 0
    if asked < 0:
        raise BadInput(f"{asked} local crops cannot be taken; give --local-crops 0 or more")
    return asked


def multicrop_forward(backbone: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Features of V views, (V * B, F), view after view; neighbours of one size share a forward and its batch norm."""
    sizes = groupby(views, key=lambda view: view.shape[-2:])
    return torch.cat([backbone(torch.cat(tuple(same))) for _, same in sizes])


def retrieval_metrics(one: Tensor, other: Tensor) -> dict[str, Tensor]:
    """How well the second views of a batch are found from the first, by cosine similarity.

    Args:
        one: (B, D) embeddings of the images' first views, B at least 2.
        other: (B, D) of their second views.

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
