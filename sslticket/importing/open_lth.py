"""Runs of open_lth as they lie on disk: folders `replicate_R/level_L/main` with a mask, W_k, and level 0's settings."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sslticket.config.recipe import OPEN_LTH, UNKNOWN
from sslticket.data.datasets.catalogue import known_dataset
from sslticket.errors import BadInput
from sslticket.importing.checkpoints import Checkpoint, read_checkpoint
from sslticket.storage.state_files import file_digest

_MASK, _SETTINGS = "mask.pth", "hparams.log"
_MODELS: Mapping[str, str] = {
    r"cifar_resnet_20(_16)?": "resnet20",
    r"cifar_vgg_(11|13|16|19)": r"vgg\1",
    r"imagenet_resnet_(18|34|50|101|152)(_64)?": r"resnet\1",
    r"mnist_lenet_300_100": "lenet300",
}
"""Names of open_lth's networks, and of those here that have the same weights and compute the same."""
_LEVEL = re.compile(r"level_(\d+)")


@dataclass(frozen=True, order=True)
class Step:
    """A step of open_lth's clock.

    Attributes:
        epoch: Whole epochs.
        iteration: Steps after them.
    """

    epoch: int
    iteration: int

    def __str__(self) -> str:
        return f"{self.epoch}ep{self.iteration}it"

    @property
    def file(self) -> str:
        """The name of a network that is saved at this step."""
        return f"model_ep{self.epoch}_it{self.iteration}.pth"

    @classmethod
    def of_file(cls, path: Path) -> "Step | None":
        """The step of a saved network, from its name; None for another file."""
        found = re.fullmatch(r"model_ep(\d+)_it(\d+)\.pth", path.name)
        return None if found is None else cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level's folder.

    Attributes:
        number: Number of the level.
        weights: File of W_k.
        mask: File of the mask.
    """

    number: int
    weights: Path
    mask: Path

    @property
    def step(self) -> Step:
        """The step to which its weights are rewound."""
        step = Step.of_file(self.weights)
        assert step is not None
        return step

    @cached_property
    def digests(self) -> dict[str, str]:
        """16 hexadecimal digits over each of its files."""
        return {path.name: file_digest(path) for path in (self.weights, self.mask)}

    def read(self) -> Checkpoint:
        """W_k and the mask.

        Raises:
            BadInput: If a file cannot be read, or is not what its name says.
        """
        found, masks = read_checkpoint(self.weights), read_checkpoint(self.mask).masks
        if masks is None or not found.state:
            raise BadInput(f"{self.mask} is no mask of open_lth's; give the folder as open_lth left it")
        return Checkpoint(path=self.mask, form="open_lth", state=found.state, masks=masks)


@dataclass(frozen=True, kw_only=True)
class OpenLTHRun:
    """One replicate of a search, or a part of it.

    Attributes:
        levels: Its levels, ascending.
        settings: Hyperparameters by their names there; those of the training before the search begin with "pretrain_".
        replicate: Number of the replicate; None where the folders do not tell.
        initial: The dense network with W_0, where open_lth trained it to W_k before the search.
        identity: 16 hexadecimal digits by which this search is told from others: over the file of its W_k.
    """

    levels: tuple[Level, ...]
    settings: Mapping[str, str | int | float] = field(default_factory=dict)
    replicate: int | None = None
    initial: Level | None = None
    identity: str = ""

    @classmethod
    def find(cls, folder: Path, only: int | None = None) -> "OpenLTHRun":
        """The run in a folder: of a level, a replicate, or a search with one replicate.

        Args:
            folder: The folder.
            only: Number of the one level that is wanted; None for all.

        Raises:
            BadInput: If there is none, or there are several replicates.
        """
        replicates = sorted(folder.glob("replicate_*"))
        if len(replicates) > 1:
            raise BadInput(f"{folder} holds {len(replicates)} replicates; give one of them, such as {replicates[0]}")
        home = replicates[0] if replicates else folder
        found = {int(number[1]): path for path in home.glob("level_*") if (number := _LEVEL.fullmatch(path.name))}
        if not found:  # a level's own folder, or what lies in it
            above = (home.absolute(), home.absolute().parent)
            level = next((each for each in above if _LEVEL.fullmatch(each.name)), None)
            if level is None or not any((place / _MASK).is_file() for place in (home, home / "main")):
                raise BadInput(
                    f"{folder} is no folder of open_lth, it holds no level_N with {_MASK}; give one, or a checkpoint's "
                    "file"
                )
            found, home = {int(level.name.removeprefix("level_")): home}, level.parent
        chosen = {number: path for number, path in found.items() if only in (None, number)}
        if not chosen:
            raise BadInput(f"{folder} has no level {only}, its levels are {', '.join(map(str, sorted(found)))}")
        start = home / "level_0" / "main"
        rewound = min((step for path in start.glob("model_*.pth") if (step := Step.of_file(path))), default=None)
        levels = tuple(_find_level(number, chosen[number], rewound) for number in sorted(chosen))
        replicate = re.fullmatch(r"replicate_(\d+)", home.absolute().name)
        before, initial = home / "level_pretrain" / "main", None
        if (first := before / "model_ep0_it0.pth").is_file() and (start / _MASK).is_file() and only is None:
            initial = Level(number=0, weights=first, mask=start / _MASK)
        return cls(
            levels=levels,
            settings=_read_settings(start / _SETTINGS),
            replicate=int(replicate[1]) if replicate else None,
            initial=initial,
            identity=file_digest(levels[0].weights if rewound is None else start / rewound.file),
        )

    @property
    def model(self) -> str | None:
        """The network of ours that has the same weights and computes the same; None where there is none."""
        theirs = str(self.settings.get("model_name", ""))
        return next(
            (found.expand(ours) for known, ours in _MODELS.items() if (found := re.fullmatch(known, theirs))), None
        )

    def samples_at(self, step: Step) -> int | None:
        """Images that were seen at a step; None where the settings do not tell."""
        prefix = "pretrain_" if "pretrain_batch_size" in self.settings else ""
        batch, entry = (
            self.settings.get(f"{prefix}batch_size"),
            known_dataset(self.settings.get(f"{prefix}dataset_name")),
        )
        if not isinstance(batch, int):
            return 0 if step == Step(0, 0) else None
        if step.epoch == 0:
            return step.iteration * batch
        if entry is None or entry.image_counts is None or f"{prefix}subsample_fraction" in self.settings:
            return None
        return step.epoch * entry.image_counts[0] + step.iteration * batch

    @property
    def origin(self) -> dict[str, Any]:
        """Data set and objective, in a ticket's words; {} where the settings are not there."""
        if "dataset_name" not in self.settings:
            return {}
        learnt = self.settings.get("unsupervised_labels")
        shuffled = "-shuffled" if "random_labels_fraction" in self.settings else ""
        return {
            "dataset": str(self.settings["dataset_name"]),
            "objective": str(learnt) if learnt is not None else f"supervised{shuffled}",
        }

    @property
    def recipe(self) -> dict[str, Any]:
        """What a recipe can hold of the settings: each under its name there."""
        told = {name: value for name, value in self.settings.items() if name not in ("dataset_name", "model_name")}
        pruning = {name: told.pop(name) for name in list(told) if name.startswith("pruning_")}
        data: dict[str, Any] = {}
        if "subsample_fraction" in told:
            data["subset"] = float(told.pop("subsample_fraction"))
        if "random_labels_fraction" in told:
            data["shuffle_labels"] = float(told.pop("random_labels_fraction"))
        objective = {"is": "Supervised" if self.origin.get("objective", "").startswith("supervised") else UNKNOWN}
        return {
            "data": data,
            "objective": objective,
            "search": {"is": OPEN_LTH, **(pruning or {"found_in": self.identity})},
            "fit": {"is": OPEN_LTH, **told},
        }


def _find_level(number: int, folder: Path, rewound: Step | None) -> Level:
    """The files of a level: the mask, and the network at the step to which it was rewound, the first that is there."""
    place = folder / "main" if (folder / "main").is_dir() else folder
    saved = sorted((step, path) for path in place.glob("model_*.pth") if (step := Step.of_file(path)) is not None)
    if not (place / _MASK).is_file():
        raise BadInput(f"{place} holds no {_MASK}; give the folder as open_lth left it, or --level with another one")
    if rewound is not None and saved and saved[0][0] != rewound:
        saved = []  # it has only trained networks
    if saved:
        return Level(number=number, weights=saved[0][1], mask=place / _MASK)
    raise BadInput(f"{place} holds no network at its first step; give the folder as open_lth left it")


def _read_settings(path: Path) -> dict[str, str | int | float]:
    """The hyperparameters in a file of open_lth's, by their names; {} where there is none.

    It has a section for each kind. Those of a training before the search have the same titles where a program set them
    up; then, of images, it is the second, and of trainings the first: sections are in the order of fields' names.
    """
    if not path.is_file():
        return {}
    sections: list[tuple[str, dict[str, str | int | float]]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if (setting := re.fullmatch(r"\s+\* (\w+) => (.*)", line)) and sections:
            sections[-1][1][setting[1]] = _value(setting[2])
        else:
            sections.append((line.strip(), {}))
    titles = [title for title, _ in sections]
    found: dict[str, str | int | float] = {}
    for place, (title, settings) in enumerate(sections):
        twice = titles.count(title) > 1
        first = titles.index(title) == place
        before = title.startswith("Pretraining") or (twice and first == title.startswith("Training"))
        found |= {f"{'pretrain_' if before else ''}{name}": value for name, value in settings.items()}
    return found


def _value(text: str) -> str | int | float:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
