"""Images: where they are, which are taken, and how they are augmented and loaded."""

from sslticket.registry import Registry

TRANSFORMS = Registry[type](
    "transform",
    {
        name: f"sslticket.data.augment:{name}"
        for name in ("Blur", "Grayscale", "HSVNoise", "Jitter", "Rotate", "Solarize")
    },
    base="sslticket.data.augment:Transform",
)
"""The transforms that views may name."""
