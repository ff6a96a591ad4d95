"""A recipe: everything that decides which tickets come out, as one tree of frozen dataclasses; no torch."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sslticket.data.views import View
from sslticket.errors import BadInput
from sslticket.fit import Fit
from sslticket.randomness import Seeds

if TYPE_CHECKING:  # both import torch; a recipe only carries them
    from sslticket.objectives.base import Objective
    from sslticket.search.base import Search

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images that tickets are found on.

    Attributes:
        dataset: a name from the catalogue, or "folder" for any folder of class folders.
        subset: fraction of the training set, in (0, 1]; nested and stratified.
        subset_by: keep this fraction of each class's images, or of the classes with all their images.
        subset_list: file with one image name a line, a published list, in place of a fraction.
        image_size: side in pixels of what the network sees; None for the dataset's own.
        augment: the training view; None for the dataset's own.
    """

    dataset: str
    subset: float = 1.0
    subset_by: Literal["samples", "classes"] = "samples"
    subset_list: Path | None = None
    image_size: int | None = None
    augment: View | None = None

    def __post_init__(self) -> None:
        if not 0 < self.subset <= 1:
            raise BadInput(f"a subset of {self.subset:g} is no fraction of the images; give --subset in (0, 1]")
        if self.subset_list is not None and self.subset != 1:
            raise BadInput("--subset and --subset-list both choose images; give one of them")

    def view(self, standard: View) -> View:
        """The training view, or another of the dataset's standard views, at this image size."""
        return (self.augment or standard).resized(self.image_size)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How tickets are found.

    Attributes:
        model: a name from the papers, timm or torchvision.
        data: the images.
        objective: what the network learns while tickets are searched.
        fit: how it is trained.
        search: how weights are pruned and rewound.
        seed: from which initialisation, order, augmentation and subset are drawn.
        precision: of the forward and backward pass; weights are float32 throughout.
    """

    model: str
    data: Data
    objective: "Objective"
    fit: Fit
    search: "Search"
    seed: int = 0
    precision: Precision = "fp32"

    @property
    def seeds(self) -> Seeds:
        """One seed for each thing that chance decides."""
        return Seeds.of(self.seed)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the objective and the search, with their class names, say which ones they are."""
        tree = _plain(self)
        assert isinstance(tree, dict)
        return tree

    @property
    def key(self) -> str:
        """Names the run folder: objective, model, dataset and a hash of every field."""
        return f"{self.objective.name}-{self.model}-{self.data.dataset}-{_digest(self.to_dict())}".replace("/", "_")


def family(recipe: Mapping[str, Any]) -> str:
    """8 hex digits that replicates share: of a recipe as `to_dict` gives it, all but the seed."""
    return _digest({name: value for name, value in recipe.items() if name != "seed"})


def _digest(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:8]


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"is": type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
