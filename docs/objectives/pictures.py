"""Draws the pictures of these pages: what each objective's network sees of scikit-learn's two sample photographs.

Run       make pictures, or python docs/objectives/pictures.py [NAME ...]
Needs     nothing: the photographs and the digits come with scikit-learn.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

HERE = Path(__file__).parent
WIDTH = 640  # pixels: no wider than a page, and small enough for a repository

# Of two images, a tenth is none. This seed starts with one of each.
ALL_LABELS = ["--labels", "1", "--seed", "2"]
FLAGS: dict[str, list[str]] = {
    "supervised": [],
    "rotnet": [],
    "exemplar": [],
    "s4l": ALL_LABELS,
    "s4l_exemplar": ALL_LABELS,
    "simclr": [],
    "mocov2": [],
    "byol": [],
    "simsiam": [],
    "barlowtwins": [],
    "vicreg": [],
    "swav": [],
    "dino": [],
    "mae": [],
    "ibot": ["--local-crops", "2"],
}
RECIPE_OF = {"mae": "mae_vit_base", "ibot": "ibot_vit_small"}  # the others' end in _resnet50

# No recipe of a paper has this one.
S4L_EXEMPLAR = """
from dataclasses import replace
from sslticket import S4LExemplar, load_recipe
recipe = replace(load_recipe("s4l_resnet50"), objective=S4LExemplar())
"""


def photographs(root: Path) -> None:
    """The two as an image folder; losslessly, since what is seen should be the augmentation's."""
    found = load_sample_images()
    for name, pixels in zip(("temple", "flower"), found.images, strict=True):
        (root / "train" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(root / "train" / name / "photograph.png")


def show(name: str, recipe: Path | str, flags: list[str]) -> None:
    """One picture, by the command that anybody would give."""
    output = HERE / f"{name}.png"
    command = [sys.executable, "-m", "sslticket", "show", recipe, "-o", output, "--sheet-width", WIDTH, *flags]
    subprocess.run([str(word) for word in command], check=True)


def main(names: list[str]) -> None:
    """Draw the pictures of these names, or all."""
    if strange := [name for name in names if name not in {*FLAGS, "shuffled"}]:
        sys.exit(f"error: unknown picture {strange[0]!r}; known: {', '.join([*FLAGS, 'shuffled'])}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photographs(root)
        (root / "s4l_exemplar.py").write_text(S4L_EXEMPLAR)
        for name, flags in FLAGS.items():
            if not names or name in names:
                recipe = root / "s4l_exemplar.py" if name == "s4l_exemplar" else RECIPE_OF.get(name, f"{name}_resnet50")
                show(name, recipe, ["--images", "2", "--dataset", "folder", "--data-root", folder, *flags])
    if not names or "shuffled" in names:
        # Two classes are too few for shuffled labels.
        show("shuffled", "supervised_digits", ["--images", "4", "--shuffle-labels", "1", "--seed", "2"])


if __name__ == "__main__":
    main(sys.argv[1:])
