"""scikit-learn's digits as files, for tests of folders: real images that every machine has."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits


def write_digits(root: Path, *, train: int, val: int = 0, first: int = 0) -> Path:
    """Write `root`/train/<digit>/<number>.png, and val/ likewise; returns `root`.

    Args:
        root: made if it is not there.
        train: images of each digit.
        val: images of each digit, those after the training images; 0 makes no folder.
        first: how many of each digit are passed over; the names do not tell.
    """
    digits = load_digits()
    pixels = (digits.images * 255 / 16).astype("uint8")
    for label in range(10):
        own = pixels[digits.target == label][first:]
        for split, images in (("train", own[:train]), ("val", own[train : train + val])):
            for number, image in enumerate(images):
                path = root / split / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).convert("RGB").save(path)
    return root
