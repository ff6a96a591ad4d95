"""Images: which ones there are, where they lie, how they are augmented and how they reach the network.

A data set's images are a `manifest.Manifest`; `source.open_split` finds them and `source.make_loader` makes batches of
them. `datasets/` knows the data sets and the forms in which they are published.
"""

from typing import TYPE_CHECKING

from sslticket.registry import Registry

if TYPE_CHECKING:
    from sslticket.data.augment import Transform

_TRANSFORMS = ("Rotate", "Jitter", "HSVNoise", "Grayscale", "Blur", "Solarize")
TRANSFORMS: "Registry[type[Transform]]" = Registry(
    "transform",
    {name: f"sslticket.data.augment:{name}" for name in _TRANSFORMS},
    base="sslticket.data.augment:Transform",
)
"""The transforms of the package, and a user's own, by name."""
