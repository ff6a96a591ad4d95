"""Random transforms: what many samples make of one real image, ours and torchvision's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from sslticket.data.augment import Blur, Grayscale, Jitter, Rotate, Solarize, Transform, View
from sslticket.data.augment_ops import apply_transforms
from sslticket.data.source import open_split

pytestmark = pytest.mark.data


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
        ),
        (Jitter(brightness=0.4), v2.ColorJitter(brightness=0.4)),
        (Jitter(contrast=0.4), v2.ColorJitter(contrast=0.4)),
        (Jitter(saturation=0.4), v2.ColorJitter(saturation=0.4)),
        (Jitter(hue=0.1), v2.ColorJitter(hue=0.1)),
        (Grayscale(probability=0.2), v2.RandomGrayscale(0.2)),
        (Blur(sigma=(0.1, 2.0), kernel=7, probability=0.5), v2.RandomApply([v2.GaussianBlur(7, (0.1, 2.0))], 0.5)),
        (Solarize(threshold=127.5, probability=0.3), v2.RandomSolarize(0.5, 0.3)),
        (Rotate(degrees=20), v2.RandomRotation(20, InterpolationMode.BILINEAR, fill=None)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Transform) else "",
)
def test_transforms_are_distributed_as_torchvisions(few_cifar: Path, ours: Transform, theirs: v2.Transform) -> None:
    pixels = open_split("cifar10", "train", few_cifar).images
    assert pixels is not None
    images = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float()
    count, colourful = 1000, images[images.std(1).mean((1, 2)).argmax()].contiguous()
    view = View(size=32, transforms=(ours,))
    found = apply_transforms(colourful.repeat(count, 1, 1, 1), view, view.sample(count, 3))
    torch.manual_seed(0)
    expected = torch.stack([theirs(colourful / 255) * 255 for _ in range(count)])

    def measures(pixels: Tensor) -> np.ndarray:
        """Each channel's mean and spread, how colourful and how sharp, how dark the corner; (count, 9)."""
        sharp, corner = pixels.diff(dim=3).abs().mean((1, 2, 3)), pixels[:, :, :4, :4].mean((1, 2, 3))
        singles = torch.stack((pixels.std(1).mean((1, 2)), sharp, corner), dim=1)
        # Rounded, as torchvision's images of 0 to 1 are not unchanged to the last bit even where nothing was done.
        return torch.cat((pixels.mean((2, 3)), pixels.std((2, 3)), singles), dim=1).numpy().round(2)

    for one, other in zip(measures(found).T, measures(expected).T, strict=True):
        grid = np.sort(np.concatenate([one, other]))
        steps = (np.searchsorted(np.sort(values), grid, side="right") / count for values in (one, other))
        # Two samples of 1000 differ by less in their distributions, 999 times in 1000 (Kolmogorov-Smirnov).
        assert abs(np.subtract(*steps)).max() < 0.088
