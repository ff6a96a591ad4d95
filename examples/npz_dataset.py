"""A data set of one's own, in a form that the package has no reader for: four arrays in one NumPy file.

Run       python recipes/supervised_digits.py --dataset examples/npz_dataset.py:STRIPES --data-root DIR
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sslticket.data.augment import View
from sslticket.data.datasets.base import Dataset, ImageArrays, Layout, Split


@dataclass(frozen=True, kw_only=True)
class NpzLayout(Layout):
    """A NumPy file with train_images, (N, H, W, C) uint8, train_labels, (N,), and the same for "eval"."""

    file: str

    def find(self, dataset: Dataset, folder: Path) -> Path | None:
        return folder if (folder / self.file).is_file() else None

    def open(self, dataset: Dataset, split: Split, folder: Path) -> ImageArrays:
        with np.load(folder / self.file, allow_pickle=False) as arrays:
            return ImageArrays(arrays[f"{split}_images"], arrays[f"{split}_labels"], dataset.class_names)


STRIPES = Dataset(
    name="stripes",
    channels=1,
    mean=(0.5,),
    std=(0.5,),
    train_view=View(size=8),
    eval_view=View(size=8),
    kind="arrays",
    class_names=("across", "down"),
    layout=NpzLayout(file="stripes.npz"),
)
