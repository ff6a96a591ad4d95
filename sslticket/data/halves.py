"""Two halves of a set, such as CIFAR-10a and CIFAR-10b (Morcos et al. 2019, section 4.2)."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from sslticket.data.manifest import Manifest
from sslticket.errors import BadInput
from sslticket.randomness import generator

SEED = 0
"""The halves are drawn once and for all: not by a recipe's seed, under which CIFAR-10a would be another set."""


def half(manifest: Manifest, which: Literal["a", "b"]) -> Manifest:
    """One half of each class's images; the other half has the rest, and "a" the odd one.

    Which images are taken depends on their names, not on the order of the rows. The half has the set's name with "a" or
    "b" after it.

    Raises:
        BadInput: if a class has a single image.
    """
    taken = []
    for name, rows in manifest.by_class():
        if len(rows) < 2:
            raise BadInput(
                f"class {name!r} of {manifest.dataset} has {len(rows)} image, and its halves need one each; "
                "leave --half out or add images"
            )
        mixed = rows[generator(SEED, "half", name).permutation(len(rows))]
        middle = -(-len(rows) // 2)
        taken.append(mixed[:middle] if which == "a" else mixed[middle:])
    return replace(manifest.at(np.sort(np.concatenate(taken))), dataset=f"{manifest.dataset}{which}")


def told(part: Manifest, which: Literal["a", "b"]) -> dict[str, Any]:
    """What a ticket says of the half it was found on."""
    return {"which": which, "seed": SEED, "images": len(part), "hash": part.hash}
