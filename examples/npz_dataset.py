"""A data set of one's own, in a form that the package has no reader for: four arrays in one NumPy file.

Run       python recipes/supervised_digits.py --dataset examples/npz_dataset.py:PARITY --data-root DIR
"""

from pathlib import Path

import numpy as np

from sslticket.data.augment import View
from sslticket.data.datasets.base import Dataset, ImageArrays, Layout, Split


class NpzLayout(Layout):
    """NAME.npz with train_images, (N, H, W, C) uint8, train_labels, (N,) int64, and the same for "eval"."""

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        """Return `folder` if the file is in it."""
        return folder if (folder / f"{dataset.name}.npz").is_file() else None

    def open(self, dataset: Dataset, split: Split, folder: Path) -> ImageArrays:
        """Read the images and labels of a split."""
        with np.load(folder / f"{dataset.name}.npz", allow_pickle=False) as arrays:
            return ImageArrays(arrays[f"{split}_images"], arrays[f"{split}_labels"], dataset.class_names)


PARITY = Dataset(
    name="parity",
    channels=1,
    mean=(0.3046,),
    std=(0.3755,),
    train_view=View(size=8),
    eval_view=View(size=8),
    kind="arrays",
    class_names=("even", "odd"),
    layout=NpzLayout(),
)
