"""What becomes of a manifest's labels: some hidden, two streams made of them, some shuffled."""

from dataclasses import replace

import numpy as np
import pandas as pd

from sslticket.data.manifest import Manifest
from sslticket.randomness import generator

HIDDEN = -1


def only(manifest: Manifest, rows: np.ndarray) -> Manifest:
    """The same images with only these rows' labels known."""
    labels = np.full(len(manifest), HIDDEN, np.int64)
    labels[rows] = manifest.labels[rows]
    return replace(manifest, frame=manifest.frame.assign(label=labels))


def two_streams(manifest: Manifest, rows: np.ndarray) -> Manifest:
    """These rows with their labels, then all rows with hidden labels: S4L's two streams (Zhai et al. 2019)."""
    frame = manifest.frame
    both = pd.concat([frame.iloc[rows], frame.assign(label=HIDDEN)], ignore_index=True)
    return replace(manifest, frame=both)


def shuffled(manifest: Manifest, fraction: float, *, seed: int) -> Manifest:
    """The same images, a share of them with their labels permuted among themselves; each class keeps its count.

    Args:
        manifest: the images.
        fraction: how many of them, rounded to the nearest number, in [0, 1].
        seed: of the `labels` stream.
    """
    numbers = generator(seed, "shuffle")
    chosen = numbers.permutation(len(manifest))[: round(fraction * len(manifest))]
    labels = manifest.labels.copy()
    labels[chosen] = labels[numbers.permutation(chosen)]
    return replace(manifest, frame=manifest.frame.assign(label=labels))
