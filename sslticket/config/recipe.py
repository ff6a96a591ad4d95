"""A recipe: everything that decides which tickets come out, as one tree of frozen dataclasses; no torch.

`Recipe` is a recipe that can be run. `RecipeRecord` is what a run's folder, a ticket or a row recorded of one: it can
be read where classes of users are not at hand. In JSON, settings keep the names under which they were first written.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

from sslticket.config.training import TrainConfig
from sslticket.data.augment import Transform, View
from sslticket.data.datasets.base import check_part, display_name, path_safe
from sslticket.data.datasets.catalogue import known_dataset, load_dataset
from sslticket.errors import BadInput
from sslticket.models import MODELS, RANDOM_INIT, load_model
from sslticket.registry import (
    NO_FLAGS,
    OMIT_DEFAULT,
    required_parts,
    settings_from_json,
    settings_hash,
    settings_to_json,
    stored_as,
)
from sslticket.seeds import Seeds

Precision = Literal["fp32", "bf16", "fp16"]

UNKNOWN = "unknown"
"""What a word is in the recipe and the provenance of an imported ticket that nobody knows; numbers are missing."""
OPEN_LTH = "open_lth"
"""The class of searches and trainings of open_lth's, in whose own words their settings are."""


class ObjectiveSettings(Protocol):
    """What a recipe asks of an objective; see `sslticket.objectives.base.Objective` for all of it."""

    @property
    def name(self) -> str:
        """Short name in run folders and reports."""

    def views(self, standard: View) -> tuple[View, ...]:
        """What the network is shown of each image, made from the dataset's standard training view."""


class SearchSettings(Protocol):
    """What a recipe asks of a search; see `sslticket.search.base.Search` for all of it."""

    @property
    def prune_up_to(self) -> str | None:
        """The last layer that may be pruned."""

    @property
    def exclude(self) -> tuple[str, ...]:
        """Layers that stay dense."""


@dataclass(frozen=True, kw_only=True)
class ImageIdentity:
    """Which images a run is about, where the data set's name does not say it; found when they are opened.

    Attributes:
        folder: Name of the folder of one's own images; None for a set of the catalogue.
        images_hash: 16 hexadecimal digits by which other images are told apart, whatever the seed.
    """

    stored_name: ClassVar[str] = "Origin"

    folder: str | None = None
    images_hash: str


@dataclass(frozen=True, kw_only=True)
class Data:
    """The images that tickets are found on.

    Attributes:
        dataset: Name from the catalogue, or "folder:NAME" for any folder of class folders.
        part: What the images are if they are not the whole official set, in a few words such as "flowers102".
        half: "a" or "b", one of two fixed halves of each class's training images; None for all of them.
        subset: Fraction of the training set, or of its half, in (0, 1]; nested and stratified.
        shots: Images of each class, in place of a fraction; classes that have fewer keep them all.
        subset_by: Keep this fraction of each class's images (samples), of all images whatever their labels (random), or
            of the classes with all their images (classes).
        subset_list: File with one image name a line, a published list, or one class a line, in place of a fraction.
        labels: Fraction of each class's images whose labels are known, in (0, 1]; the images that this subset has, by
            samples.
        labels_list: File with the names of the labelled images, in place of a fraction.
        label_shots: Images of each class whose labels are known, in place of a fraction; those that so many shots are.
        shuffle_labels: Fraction of the images whose labels are permuted among themselves, in [0, 1].
        image_size: Side in pixels of what the network sees; None for the dataset's own.
        channels: 3 to show gray images as colour ones, 1 for the reverse; None for the dataset's own.
        augment: Training view, or a view for each copy of an image; None for the objective's and dataset's own.
        transforms: Transforms after those of every training view, such as Solarize or mine.py:Posterize.
        identity: Which images these are, where the settings above do not tell; filled in when they are opened.
    """

    dataset: str
    part: str | None = field(default=None, metadata=OMIT_DEFAULT)
    half: Literal["a", "b"] | None = None
    subset: float = 1.0
    shots: int | None = field(default=None, metadata=OMIT_DEFAULT)
    subset_by: Literal["samples", "random", "classes"] = "samples"
    subset_list: Path | None = None
    labels: float = 1.0
    labels_list: Path | None = None
    label_shots: int | None = field(default=None, metadata=OMIT_DEFAULT)
    shuffle_labels: float = 0.0
    image_size: int | None = None
    channels: int | None = None
    augment: View | tuple[View, ...] | None = field(default=None, metadata=NO_FLAGS)
    transforms: tuple[Transform, ...] = field(default=(), metadata=OMIT_DEFAULT | {"part": "transform"})
    identity: ImageIdentity | None = field(default=None, metadata=OMIT_DEFAULT | stored_as("origin") | NO_FLAGS)

    def __post_init__(self) -> None:
        self._load_own_dataset()
        check_part(self.dataset, self.part)
        if not 0 < self.subset <= 1:
            raise BadInput(
                f"--subset must be in (0, 1], got {self.subset:g}; give a fraction of the images such as 0.1"
            )
        if self.subset_list is not None and self.subset != 1:
            raise BadInput(
                f"--subset must be 1 with --subset-list, got {self.subset:g}; both choose images, so give one of them"
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
            raise BadInput(f"--channels must be 1 or 3, got {self.channels}")
        if not 0 < self.labels <= 1:
            raise BadInput(
                f"--labels must be in (0, 1], got {self.labels:g}; give a fraction of the images such as 0.1"
            )
        if self.labels_list is not None and self.labels != 1:
            raise BadInput(
                f"--labels must be 1 with --labels-list, got {self.labels:g}; both choose labelled images, so give one "
                "of them"
            )
        if self.label_shots is not None:
            if self.label_shots < 1:
                raise BadInput(
                    f"--label-shots must be at least 1 image of each class, got {self.label_shots}; give "
                    "--label-shots 10"
                )
            if self.labels != 1 or self.labels_list is not None:
                raise BadInput(
                    "--label-shots takes so many labelled images of each class, in place of --labels and "
                    "--labels-list; give one of them, or --labels 1 with --label-shots"
                )
        if not 0 <= self.shuffle_labels <= 1:
            raise BadInput(
                f"--shuffle-labels must be in [0, 1], got {self.shuffle_labels:g}; give a fraction such as 1"
            )

    def _load_own_dataset(self) -> None:
        """Takes the place of "file.py:Name" by the name of the data set that is defined there."""
        if ":" in self.dataset and not self.dataset.startswith("folder:"):
            object.__setattr__(self, "dataset", load_dataset(self.dataset).name)

    @property
    def name(self) -> str:
        """Name of the images: "cifar10", its half "cifar10a", a part "imagenet[flowers102]".

        For one's own images, once they are open, it is the folder's name and digits of their hash: "flowers[1a2b3c4d]".
        """
        own = self.identity and self.identity.folder
        which = self.identity.images_hash[:8] if self.identity and own else self.part
        return display_name(f"{own or self.dataset}{self.half or ''}", which)

    @property
    def path_name(self) -> str:
        """The same for the names of folders, which have a hash anyway: "imagenet-flowers102", "flowers"."""
        own = self.identity and self.identity.folder
        name = path_safe(display_name(f"{own or self.dataset}{self.half or ''}", self.part))
        return name if not own or path_safe(own) else f"folder{self.half or ''}"  # one that is all in other letters


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How tickets are found.

    Attributes:
        model: Name of a network from the papers, timm or torchvision, or "file.py:Name" for your own.
        data: The images.
        objective: What the network learns while tickets are searched.
        training: How the network is trained.
        search: How weights are pruned and rewound.
        init: Weights that the search starts from: "random", drawn by the seed; "pretrained", the library's default; a
            timm tag, a torchvision weight, "hf-hub:user/name", or a file, which the key knows by its content.
        seed: Seed of initialisation, order, augmentation and subset.
        precision: Precision of the forward and backward pass; weights are float32 throughout. None for the device's
            own: bf16 on CUDA, fp32 elsewhere and with --exact; the key tells which.
    """

    model: str
    data: Data
    objective: ObjectiveSettings
    training: TrainConfig = field(metadata=stored_as("fit"))
    search: SearchSettings
    init: str = field(default=RANDOM_INIT, metadata=OMIT_DEFAULT)
    seed: int = 0
    precision: Precision | None = None

    def __post_init__(self) -> None:
        for name, kind in {"model": str, "data": Data, "training": TrainConfig}.items():
            if not isinstance(getattr(self, name), kind):
                raise BadInput(f"Recipe({name}=...) must be a {kind.__name__}, got {getattr(self, name)!r}")
        for name, method in {"objective": "views", "search": "exclude"}.items():
            if not hasattr(getattr(self, name), method):
                example = "RotNet()" if name == "objective" else "IMP(levels=3, rate=0.5)"
                raise BadInput(f"Recipe({name}=...) must be one such as {example}, got {getattr(self, name)!r}")
        if not isinstance(self.init, str) or not self.init.strip():
            raise BadInput(
                f"--init must name weights, got {self.init!r}; give random, or pretrained for a timm network"
            )
        object.__setattr__(self, "model", load_model(self.model))

    @classmethod
    def from_dict(cls, tree: object, parts: Mapping[str, Any] | None = None) -> "Recipe":
        """The recipe that JSON values of `to_dict` describe; those of earlier versions may lack later fields.

        Args:
            tree: The values, as a run's recipe.json and a ticket have them under "recipe".
            parts: Users' own classes by their names, see `sslticket.registry.load_recorded_parts`.

        Raises:
            BadInput: If a class is not here, naming the flag to give its file with; if a field is unknown or a value
                cannot be.
        """
        named = {**tree, "is": tree.get("is", "Recipe")} if isinstance(tree, Mapping) else tree
        if isinstance(named, Mapping):
            _check_told(named)
        if isinstance(named, Mapping) and ":" in str(named.get("model")):
            raise BadInput(
                f"the model of a recorded recipe must have a plain name, got {named['model']!r}; no file is run "
                "because a recipe names it"
            )
        return settings_from_json(named, {"Recipe": cls}, "recipe", parts)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the objective and the search, with their class names, say which ones they are."""
        tree: dict[str, Any] = settings_to_json(self)
        return tree

    def views(self, standard: View) -> tuple[View, ...]:
        """What the network is shown of each image in training, from the dataset's standard training view."""
        size, given = self.data.image_size, self.data.augment
        if given is None:
            views = self.objective.views(standard.at_size(size))
        else:
            chosen = (given,) if isinstance(given, View) else given
            # Smaller views, as local crops, keep their proportion to the first.
            sides = [None if size is None else max(1, round(size * view.size / chosen[0].size)) for view in chosen]
            views = tuple(view.at_size(side) for view, side in zip(chosen, sides, strict=True))
        return tuple(replace(view, transforms=(*view.transforms, *self.data.transforms)) for view in views)

    def hold_lengths(self, set_size: int | None) -> "Recipe":
        """The recipe with lengths in epochs, the rewind point's too, written out by the rule `training.hold`.

        Args:
            set_size: Samples of an epoch of all images, as `training.held_batch` counts them; None where there is
                nothing to hold: no subset is taken, and steps are not those of another batch.
        """
        training, search = self.training, self.search
        if set_size is None:
            return replace(self, training=replace(training, hold="epochs", hold_batch=None))
        lengths = {name: getattr(search, name, None) for name in ("rewind", "update_interval", "update_until")}
        held = {name: training.hold_span(each, set_size) for name, each in lengths.items() if isinstance(each, str)}
        search = replace(cast(Any, search), **held) if held else search
        return replace(self, training=training.hold_lengths(set_size), search=search)

    @property
    def seeds(self) -> Seeds:
        """One seed for each thing that chance decides."""
        return Seeds.from_seed(self.seed)

    @property
    def task(self) -> str:
        """What is learnt, in a word for folders, rows and reports."""
        return f"{self.objective.name}{'-shuffled' if self.data.shuffle_labels else ''}"

    @property
    def key(self) -> str:
        """Name of the run folder: objective, model, dataset and a hash of every field."""
        return f"{self.task}-{self.model}-{self.data.path_name}-{settings_hash(self.to_dict())}".replace("/", "_")

    @property
    def record(self) -> "RecipeRecord":
        """What is recorded of the recipe."""
        return RecipeRecord(self.to_dict())

    @property
    def family(self) -> str:
        """8 hexadecimal digits that replicates share: of all settings but the seed."""
        return self.record.family

    def parts(self) -> dict[str, str]:
        """Parts of users that the recipe needs, see `sslticket.registry.required_parts`; {} where all is built in."""
        own_dataset = known_dataset(self.data.dataset)
        return required_parts(self, MODELS.own_part(self.model), own_dataset)

    def describe(self) -> dict[str, Any]:
        """The settings by the names of their fields today, without those that are None, for a person."""
        return flatten_settings(settings_to_json(self, stored=False))


def _accept_old_field_name() -> None:
    """Let `Recipe(fit=...)`, as recipes of earlier versions have it, be `Recipe(training=...)`."""
    initialise = Recipe.__init__

    def __init__(self: Recipe, *, fit: TrainConfig | None = None, **settings: Any) -> None:  # noqa: N807
        initialise(self, **(settings if fit is None else settings | {"training": fit}))

    Recipe.__init__ = __init__  # type: ignore[method-assign]


_accept_old_field_name()


@dataclass(frozen=True, kw_only=True)
class _RecordedData(Data):
    """Data that a file describes: no file of users is run because it is named there."""

    stored_name: ClassVar[str] = "Data"

    def _load_own_dataset(self) -> None: ...


@dataclass(frozen=True)
class RecipeRecord:
    """What a run's folder, a ticket or a row recorded of a recipe: readable where classes of users are not at hand.

    Attributes:
        tree: The recipe as JSON values, as `Recipe.to_dict` gives them, or gave them in an earlier version.
    """

    tree: Mapping[str, Any]

    def to_recipe(self, parts: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe that can be run again; see `Recipe.from_dict`."""
        return Recipe.from_dict(self.tree, parts)

    @property
    def model(self) -> str:
        """Name of the network."""
        model = self._required("model")
        if not isinstance(model, str):
            raise _damaged("model")
        return model

    @property
    def seed(self) -> int:
        """Seed of the search."""
        return int(self._required("seed"))

    @property
    def init(self) -> str | None:
        """Name of the weights that the search started from; None where its seed drew them."""
        name = self.tree.get("init", RANDOM_INIT)
        return None if name == RANDOM_INIT else str(name)

    @property
    def precision(self) -> str | None:
        """Precision of the forward and backward pass; None where the recipe leaves it to the device."""
        return self.tree.get("precision")

    @cached_property
    def data(self) -> Data:
        """The images; without views whose transforms are not at hand, see `view_size` for these."""
        tree = self._required("data")
        if not isinstance(tree, Mapping):
            raise _damaged("data")
        try:
            return settings_from_json({**tree, "is": "Data"}, {"Data": _RecordedData}, "data")
        except BadInput:
            known = {**tree, "is": "Data", "augment": None, "transforms": []}
            return settings_from_json(known, {"Data": _RecordedData}, "data")

    @property
    def view_size(self) -> int | None:
        """Side in pixels of the first view that the recipe gives; None where it leaves views to the data set."""
        tree = self._required("data")
        augment = tree.get("augment") if isinstance(tree, Mapping) else None
        first = augment[0] if isinstance(augment, list) and augment else augment
        if first is not None and not (isinstance(first, Mapping) and isinstance(first.get("size"), int)):
            raise _damaged("data")
        return None if first is None else int(first["size"])

    @cached_property
    def training(self) -> TrainConfig:
        """How the network was trained.

        Raises:
            BadInput: If the optimiser is of a class that is not here, or the ticket is one of others, whose training
                has no form here.
        """
        _check_told(self.tree)
        return TrainConfig.from_dict(self._required("fit"))

    @property
    def objective(self) -> str:
        """Name of the objective's class."""
        return self._class_of("objective")

    @property
    def label_smoothing(self) -> float:
        """Share of each target that the objective spreads over all classes; 0 for those that have no such setting."""
        tree = self.tree.get("objective")
        return float(tree.get("label_smoothing", 0.0)) if isinstance(tree, Mapping) else 0.0

    @property
    def search(self) -> str:
        """Name of the search's class."""
        return self._class_of("search")

    @property
    def search_settings(self) -> Mapping[str, Any]:
        """The hyper-parameters of the search by the names of its fields."""
        tree = self.tree.get("search")
        return tree if isinstance(tree, Mapping) else {}

    @property
    def pattern(self) -> str | None:
        """The N:M pattern that the search was asked for, such as "2:4"; None for none."""
        pattern = self.search_settings.get("pattern")
        return pattern if isinstance(pattern, str) else None

    @property
    def family(self) -> str:
        """8 hexadecimal digits that replicates share: of all settings but the seed."""
        return settings_hash({name: value for name, value in self.tree.items() if name != "seed"})

    @property
    def search_name(self) -> str:
        """How tickets are searched, in a word or two: "IMP" or "OneShot SNIP"; the M of IMP is the magnitude."""
        criterion = (self.search_settings.get("criterion") or {}).get("is", "")
        return "IMP" if (self.search, criterion) == ("IMP", "Magnitude") else f"{self.search} {criterion}".strip()

    def settings(self) -> dict[str, Any]:
        """What may tell a recipe from others of its model, in rows; settings of the search come first.

        The seed and the model, which rows have as keys of their own, are left out.
        """
        first = {name: self._required(name) for name in ("search", "objective", "fit", "data")}
        named = flatten_settings(first | dict(self.tree))
        return {name: value for name, value in named.items() if name not in ("seed", "model")}

    def _class_of(self, name: str) -> str:
        tree = self._required(name)
        if not isinstance(tree, Mapping) or not isinstance(tree.get("is"), str):
            raise _damaged(name)
        return str(tree["is"])

    def _required(self, name: str) -> Any:
        if name not in self.tree:
            raise _damaged(name)
        return self.tree[name]


def _check_told(tree: Mapping[str, Any]) -> None:
    """Check that a recipe is of a search of ours: that of an imported ticket has no training that could be run."""
    fit = tree.get("fit")
    if isinstance(fit, Mapping) and fit.get("is") in (UNKNOWN, OPEN_LTH):
        raise BadInput("its ticket was imported, and how its network was trained is not told in words of this program")


def _damaged(name: str) -> BadInput:
    return BadInput(f"a recipe must have a field {name!r}; this one is damaged or of a version that is unknown here")


def flatten_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe, or of a part of it, by their own names; those that are None are left out.

    A name that several parts have is written with the part's, as "objective.levels".

    Args:
        tree: The recipe as `Recipe.to_dict` gives it.
    """
    found = list(_fields_of(tree, ""))
    counts = Counter(dotted.rpartition(".")[2] for dotted, _ in found)
    return {
        dotted if counts[name := dotted.rpartition(".")[2]] > 1 else name: value
        for dotted, value in found
        if value is not None
    }


_TELLING_NOTHING = (("training", "Fit"), ("identity", "Origin"))


def _fields_of(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            # "fit: Fit" says nothing, "objective: RotNet" does.
            if value["is"].lower() != name and (name, value["is"]) not in _TELLING_NOTHING:
                yield f"{above}{name}", value["is"]
            yield from _fields_of({key: inner for key, inner in value.items() if key != "is"}, f"{name}.")
        elif name != "is":
            yield f"{above}{name}", " ".join(map(str, value)) if isinstance(value, list) else value
