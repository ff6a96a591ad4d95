"""A recipe: everything that decides which tickets come out, as one tree of frozen dataclasses; no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sslticket import registry
from sslticket.config.training import TrainConfig
from sslticket.data.augment import View
from sslticket.data.datasets.base import check_part, display_name, path_safe
from sslticket.data.datasets.catalogue import load_dataset
from sslticket.errors import BadInput
from sslticket.seeds import Seeds

if TYPE_CHECKING:  # both import torch; a recipe only carries them
    from sslticket.objectives.base import Objective
    from sslticket.search.base import Search

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class ImageIdentity:
    """Which images a run is about, where the data set's name does not say it; found when they are opened.

    Attributes:
        folder: name of the folder of one's own images; None for a set of the catalogue.
        images_hash: 16 hexadecimal digits by which other images are told apart, whatever the seed.
    """

    stored_name: ClassVar[str] = "Origin"

    folder: str | None = None
    images_hash: str


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images that tickets are found on.

    Attributes:
        dataset: a name from the catalogue, or "folder" for any folder of class folders.
        part: what the images are if they are not the whole official set, in a few words such as "flowers102".
        half: "a" or "b", one of two fixed halves of each class's training images; None for all of them.
        subset: fraction of the training set, or of its half, in (0, 1]; nested and stratified.
        shots: images of each class, in place of a fraction; classes that have fewer keep them all.
        subset_by: keep this fraction of each class's images, of all images drawn without a look at their labels, or of
            the classes with all their images.
        subset_list: file with one image name a line, a published list, or one class a line, in place of a fraction.
        labels: fraction of each class's images whose labels are known, in (0, 1]; the images that this subset has, by
            samples.
        labels_list: file with the names of the labelled images, in place of a fraction.
        shuffle_labels: fraction of the images whose labels are permuted among themselves, in [0, 1].
        image_size: side in pixels of what the network sees; None for the dataset's own.
        channels: 3 to show grey images as colour ones, 1 for the reverse; None for the dataset's own.
        augment: the training view, or a view for each copy of an image; None for the objective's and dataset's own.
        identity: which images these are, where the settings above do not tell; filled in when they are opened.
    """

    dataset: str
    part: str | None = field(default=None, metadata=registry.OMIT_DEFAULT)
    half: Literal["a", "b"] | None = None
    subset: float = 1.0
    shots: int | None = field(default=None, metadata=registry.OMIT_DEFAULT)
    subset_by: Literal["samples", "random", "classes"] = "samples"
    subset_list: Path | None = None
    labels: float = 1.0
    labels_list: Path | None = None
    shuffle_labels: float = 0.0
    image_size: int | None = None
    channels: int | None = None
    augment: View | tuple[View, ...] | None = None
    identity: ImageIdentity | None = field(default=None, metadata=registry.OMIT_DEFAULT | registry.stored_as("origin"))

    def __post_init__(self) -> None:
        if ":" in self.dataset and not self.dataset.startswith("folder:"):
            object.__setattr__(self, "dataset", load_dataset(self.dataset).name)
        check_part(self.dataset, self.part)
        if not 0 < self.subset <= 1:
            raise BadInput(f"a subset of {self.subset:g} is no fraction of the images; give --subset in (0, 1]")
        if self.subset_list is not None and self.subset != 1:
            raise BadInput(
                "--subset and --subset-list both choose images; give one of them, or --subset 1 with the list"
            )
        if self.shots is not None:
            if self.shots < 1:
                raise BadInput(f"--shots must be at least 1 image of each class, got {self.shots}; give --shots 10")
            if self.subset != 1 or self.subset_list is not None or self.subset_by != "samples":
                raise BadInput(
                    "--shots takes so many images of each class, in place of --subset, --subset-by and --subset-list; "
                    "give one of them, or --subset 1 with --shots"
                )
        if self.channels not in (None, 1, 3):
            raise BadInput(f"no images of {self.channels} channels can be made; give --channels 1 or 3")
        if not 0 < self.labels <= 1:
            raise BadInput(f"labels of {self.labels:g} of the images cannot be; give --labels in (0, 1]")
        if self.labels_list is not None and self.labels != 1:
            raise BadInput(
                "--labels and --labels-list both choose labelled images; give one of them, or --labels 1 with the list"
            )
        if not 0 <= self.shuffle_labels <= 1:
            raise BadInput(f"{self.shuffle_labels:g} is no share of the images; give --shuffle-labels in [0, 1]")

    @property
    def name(self) -> str:
        """Of the images: "cifar10", its half "cifar10a", a part "imagenet[flowers102]".

        Of one's own images, once they are open, the folder's name and digits of their hash: "flowers[1a2b3c4d]".
        """
        own = self.identity and self.identity.folder
        which = self.identity.images_hash[:8] if self.identity and own else self.part
        return display_name(f"{own or self.dataset}{self.half or ''}", which)

    @property
    def path_name(self) -> str:
        """The same for the names of folders, which have a hash anyway: "imagenet-flowers102", "flowers"."""
        own = self.identity and self.identity.folder
        return path_safe(display_name(f"{own or self.dataset}{self.half or ''}", self.part))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How tickets are found.

    Attributes:
        model: a name from the papers, timm or torchvision.
        data: the images.
        objective: what the network learns while tickets are searched.
        training: how it is trained.
        search: how weights are pruned and rewound.
        seed: from which initialisation, order, augmentation and subset are drawn.
        precision: of the forward and backward pass; weights are float32 throughout. None for the device's own: bf16
            on CUDA, fp32 elsewhere and with --exact; the key tells which.
    """

    model: str
    data: Data
    objective: "Objective"
    training: TrainConfig = field(metadata=registry.stored_as("fit"))
    search: "Search"
    seed: int = 0
    precision: Precision | None = None

    def views(self, standard: View) -> tuple[View, ...]:
        """What the network is shown of each image in training, from the dataset's standard training view."""
        size, given = self.data.image_size, self.data.augment
        if given is None:
            return self.objective.views(standard.at_size(size))
        views = (given,) if isinstance(given, View) else given
        # Smaller views, as local crops, keep their proportion to the first.
        return tuple(
            view.at_size(None if size is None else max(1, round(size * view.size / views[0].size))) for view in views
        )

    @property
    def seeds(self) -> Seeds:
        """One seed for each thing that chance decides."""
        return Seeds.from_seed(self.seed)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the objective and the search, with their class names, say which ones they are."""
        tree: dict[str, Any] = registry.settings_to_json(self)
        return tree

    @property
    def task(self) -> str:
        """What is learnt, in a word for folders, rows and reports."""
        return f"{self.objective.name}{'-shuffled' if self.data.shuffle_labels else ''}"

    @property
    def key(self) -> str:
        """Names the run folder: objective, model, dataset and a hash of every field."""
        return f"{self.task}-{self.model}-{self.data.path_name}-{registry.settings_hash(self.to_dict())}".replace(
            "/", "_"
        )


def recipe_family(recipe: Mapping[str, Any]) -> str:
    """8 hex digits that replicates share: of a recipe as `to_dict` gives it, all but the seed."""
    return registry.settings_hash({name: value for name, value in recipe.items() if name != "seed"})


def search_label(recipe: Mapping[str, Any]) -> str:
    """How tickets are searched, in a word or two: of a recipe as `to_dict` gives it, "IMP" or "OneShot SNIP"."""
    search = recipe["search"]
    criterion = (search.get("criterion") or {}).get("is", "")
    # The M of IMP is the magnitude.
    return f"{search['is']} {criterion}".strip() if (search["is"], criterion) != ("IMP", "Magnitude") else "IMP"


def recipe_settings(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What may tell a recipe from others of its model, by the names of the flags; those of the search come first.

    Args:
        recipe: as `to_dict` gives it. Its seed and its model, which rows have as keys of their own, are left out.
    """
    first = {name: recipe[name] for name in ("search", "objective", "fit", "data")}
    told = dict(flatten_settings(first | dict(recipe)))
    return {name: value for name, value in told.items() if name not in ("seed", "model")}


def flatten_settings(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a recipe, or of a part of it, by the names that their flags have; those that are None are left out.

    Args:
        tree: as `to_dict` gives it.
    """
    for name, value in tree.items():
        if isinstance(value, dict):
            if value["is"].lower() != name:  # "fit: Fit" says nothing, "objective: RotNet" does
                yield name, value["is"]
            yield from flatten_settings({key: inner for key, inner in value.items() if key != "is"})
        elif value is not None and name != "is":
            yield name, " ".join(map(str, value)) if isinstance(value, list) else value
