"""The strong augmentation that objectives which compare views share, in each paper's numbers."""

from sslticket.data.effects import Blur, Effect, Grayscale, Jitter, Solarize
from sslticket.data.views import View

_BLURRED_FROM = 64  # pixels; smaller images are not blurred, as in the papers' CIFAR settings (Chen et al. 2020, B.9)


def distorted(
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
    effects: tuple[Effect, ...] = (
        Jitter(brightness=brightness, contrast=contrast, saturation=saturation, hue=hue, chance=jitter_chance),
        Grayscale(chance=grayscale),
    )
    if blur and size >= _BLURRED_FROM:
        # Of 224 pixels, the published 23 are a tenth.
        effects += (Blur(sigma=(0.1, 2.0), kernel=2 * (size // 20) + 1, chance=blur),)
    if solarize:
        effects += (Solarize(chance=solarize),)
    return View(size=size, crop="resized", scale=scale, flip=standard.flip, effects=effects)
