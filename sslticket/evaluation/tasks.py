"""What is evaluated: ticket files, what has to be known of each, and one task a ticket, control, protocol, head and seed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from sslticket import hub, models
from sslticket.config.recipe import recipe_family, recipe_settings, search_label
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.errors import BadInput
from sslticket.evaluation.controls import REINITIALIZED
from sslticket.evaluation.protocols import Protocol, network_input_size, resolve_protocol
from sslticket.pruning.forward_graph import MaskCoverage
from sslticket.pruning.prunable import describe_layers
from sslticket.storage.files import read_json
from sslticket.ticket import Ticket, run_folder_of


@dataclass(frozen=True, eq=False)
class TicketInfo:
    """A ticket that is evaluated.

    Attributes:
        hash: the ticket's.
        model: its network.
        channels: of the images that it was found on, so of its first layer.
        survivors: weights that remain of those that the search might prune.
        prunable: weights that it might prune.
        layers: in which these are.
        parameters: all parameters and buffers of the network.
        rewind_samples: source images that its search had seen at W_k.
        seed: of its search.
        head: the shapes of its classification layer's tensors; empty where it has none.
        classes_hash: of the names of the classes that its search saw, in order; None in older tickets.
        row_fields: what each of its rows says of it.
    """

    hash: str
    model: str
    channels: int
    survivors: int
    prunable: int
    layers: tuple[str, ...]
    parameters: int
    rewind_samples: int
    seed: int
    head: Mapping[str, tuple[int, ...]]
    classes_hash: str | None
    row_fields: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path, targets: Mapping[str, Protocol]) -> "TicketInfo":
        """Load a ticket, and see whether its network takes the images of all its protocols.

        Raises:
            BadInput: if it is damaged, was found on images of another size and its network takes no other, is of a
                network that a protocol is not for, or has a mask that is not what acts in its network.
        """
        ticket = Ticket.load(path)
        data = ticket.recipe["data"]
        source = get_dataset(data["dataset"])
        own = data["image_size"] or _recipe_image_size(data["augment"]) or source.train_view.size
        channels = data.get("channels") or source.channels
        for protocol in targets.values():
            protocol.fit_for(ticket.recipe["model"])
            size = network_input_size(protocol)
            if size != own:
                _check_input_size(ticket, path, protocol.name, channels, sizes=(own, size))
        try:
            _active_weights(ticket.recipe["model"], channels, own).check(ticket.recipe["model"], list(ticket.mask))
        except BadInput as error:
            raise BadInput(f"{path} is no sparse network: {error}") from error
        return cls(
            hash=ticket.hash,
            model=ticket.recipe["model"],
            channels=channels,
            survivors=ticket.mask.survivors,
            prunable=ticket.mask.total,
            layers=tuple(sorted(ticket.mask)),
            parameters=sum(value.numel() for value in ticket.weights.values()),
            rewind_samples=ticket.provenance["rewind_samples"],
            seed=ticket.provenance["seed"],
            head={name: tuple(value.shape) for name, value in ticket.head.items()},
            classes_hash=ticket.provenance.get("classes_hash"),
            row_fields={"kind": "score", **ticket_row_fields(path, ticket), "channels": channels},
        )


def _recipe_image_size(augment: Any) -> int | None:
    """The size of a recipe's own training view."""
    first = augment[0] if isinstance(augment, list) else augment
    return None if first is None else int(first["size"])


def _check_input_size(ticket: Ticket, path: Path, protocol: str, channels: int, *, sizes: tuple[int, int]) -> None:
    model, (own, size) = ticket.recipe["model"], sizes
    shapes = _parameter_shapes(model, channels, size)
    for name, value in ticket.weights.items():
        if shapes.get(name, value.shape) != value.shape:
            raise BadInput(
                f"{path} was found on images of {own} pixels, and {protocol} shows {size}: {name} of {model} is "
                f"{tuple(value.shape)} there and {tuple(shapes[name])} here; give a protocol of {own} pixels, or "
                "tickets of a network that pools globally"
            )


@cache
def _parameter_shapes(model: str, channels: int, size: int) -> dict[str, torch.Size]:
    with torch.random.fork_rng(devices=[]):
        backbone = models.create_model(model, channels=channels, image_size=size)
    return {name: value.shape for name, value in backbone.state_dict().items()}


@cache
def _active_weights(model: str, channels: int, size: int) -> MaskCoverage:
    if model in models.PAPER_MODELS:  # tests try those
        return MaskCoverage.complete()
    with torch.random.fork_rng(devices=[]):
        backbone = models.create_model(model, channels=channels, image_size=size)
    return MaskCoverage.measure(backbone, channels=channels, image_size=size)


def ticket_row_fields(path: Path, ticket: Ticket) -> dict[str, Any]:
    """What every row about a ticket says of it.

    Args:
        path: of its file, whose folder is its run's.
        ticket: read from there.
    """
    recipe, came = ticket.recipe, ticket.provenance
    return {
        "run": run_folder_of(path).name,
        "recipe": recipe_family(recipe),
        "objective": came["objective"],
        "model": recipe["model"],
        "source": came["dataset"],
        **({"source_hash": came["source_hash"]} if came.get("source_hash") else {}),
        "subset": recipe["data"]["subset"],
        "subset_by": recipe["data"]["subset_by"],
        "level": ticket.level,
        "density": ticket.mask.density,
        "within": describe_layers(recipe),
        "ticket_hash": ticket.hash,
        "search_seed": came["seed"],
        "search": search_label(recipe),
        "settings": recipe_settings(recipe),
        "rewind_samples": came["rewind_samples"],
        "search_samples": came["search_samples"],
    }


Head = Literal["own", "new"]


@dataclass(frozen=True)
class EvalTask:
    """One measurement: a ticket file, or a control of it, under a protocol with a seed.

    Attributes:
        path: of the ticket's file.
        control: "ticket" for the ticket itself.
        protocol: how it is trained and measured.
        seed: of the evaluation.
        head: whether the classification layer that belongs to the weights is trained on, or a new one is drawn.
    """

    path: Path
    control: str
    protocol: Protocol
    seed: int
    head: Head = "new"

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return run_folder_of(self.path)

    @property
    def name(self) -> str:
        """Of its row's file, and of what else belongs to it."""
        return f"{self.path.stem}.{self.control}.{self.protocol.label}.{self.head_prefix}seed{self.seed}"

    @property
    def head_prefix(self) -> str:
        """What file names say of the head: nothing of a new one, as before heads were kept."""
        return "own-head." if self.head == "own" else ""

    @property
    def row_file(self) -> Path:
        """The file of its row."""
        return self.run / "rows" / f"{self.name}.jsonl"

    def is_done(self, ticket_hash: str, protocol_hash: str) -> bool:
        """Whether the row is there, about this very ticket under these very settings.

        A control's row must also say for which search it was drawn: those of older versions were shared by all
        replicates of a search, which makes any number of them one.
        """
        row = read_task_row(self.row_file)
        return (
            row is not None
            and row["ticket_hash"] == ticket_hash
            and row.get("protocol_hash", protocol_hash) == protocol_hash
            and row.get("start", "0") == self.protocol.start
            and (self.control == "ticket" or "replicate" in row)
        )


def read_task_row(path: Path) -> dict[str, Any] | None:
    """The row in a file; None where there is no file.

    Raises:
        BadInput: if it is no row about a ticket.
    """
    if not path.exists():
        return None
    fix = "delete it and run the same command again"
    row = read_json(path, fix=fix)
    if not isinstance(row, dict) or not isinstance(row.get("ticket_hash"), str):
        raise BadInput(f"{path} is damaged (it tells of no ticket); {fix}")
    return row


@dataclass(frozen=True)
class Levels:
    """Which levels of a run are evaluated.

    Attributes:
        chosen: these; None for all.
        every_third: those up to the sixth, and then every third (Morcos et al. 2019, Appendix A.1), of all.
    """

    chosen: tuple[int, ...] | None = None
    every_third: bool = False

    def includes(self, level: int) -> bool:
        """Whether tickets of this level are evaluated."""
        if self.every_third:
            return level <= 6 or level % 3 == 0
        return self.chosen is None or level in self.chosen


ALL_LEVELS = Levels()
DEFAULT_LEVELS = Levels(every_third=True)


def levels_left_out(places: Sequence[Path], levels: Levels) -> list[int]:
    """Levels of the runs below the folders given that are not evaluated, ascending."""
    found = {_level_of_file(path) for place in places for path in place.glob("**/tickets/*.safetensors")}
    return sorted(level for level in found if not levels.includes(level))


def find_ticket_files(places: Sequence[Path], levels: Levels = ALL_LEVELS) -> list[Path]:
    """Ticket files: those given, as files or exported folders, and those of the runs below the folders given.

    Raises:
        BadInput: for a place that does not exist or holds no ticket.
    """
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise BadInput(f"there is nothing at {place}; give ticket files or folders of runs")
        lone = place if place.is_file() else place / hub.TICKET_FILE
        here = [lone] if lone.is_file() else sorted(place.glob("**/tickets/*.safetensors"))
        if not here:
            raise BadInput(f"{place} holds no tickets; give a run's folder, such as runs/<key>, or a ticket file")
        found += [path for path in here if path == lone or levels.includes(_level_of_file(path))]
    if not found:
        raise BadInput(
            f"no ticket has one of the levels {' '.join(map(str, levels.chosen or ()))}; give other --levels"
        )
    return list(dict.fromkeys(found))


def make_tasks(
    paths: Sequence[Path],
    controls: Sequence[str],
    protocols: Sequence[Protocol | str],
    seeds: Sequence[int] | None,
    heads: Sequence[Head] | None = None,
    part: str | None = None,
    *,
    beside: bool = True,
    anew: Collection[str] = REINITIALIZED,
) -> list[EvalTask]:
    """Every measurement that was asked for.

    Args:
        paths: of ticket files.
        controls: beside each ticket.
        protocols: themselves, or by name; "own" is each ticket's own.
        seeds: of the evaluation; None takes each protocol's own.
        heads: with which tickets are trained. None takes a ticket's own where it was found on the protocol's task, and
            else a new one; controls whose weights are drawn anew have a new one always.
        part: what the images of protocols that are given by name are, if they are not the whole official set.
        beside: where `heads` is None and only some tickets have a head of their own, take these with a new one too, so
            that like can be compared with like.
        anew: the controls that have none of the ticket's weights, and so no head of its own.

    Raises:
        BadInput: if a ticket is damaged, or is to have a head of its own and has none for this task.
    """
    headers = {path: _read_checked_header(path) for path in paths}
    found: list[EvalTask] = []
    for which in protocols:
        targets = {
            path: _protocol_of_task(which, headers[path]["recipe"], part) if isinstance(which, str) else which
            for path in paths
        }
        own = {path for path in paths if found_on_same_task(headers[path], targets[path])}
        lacking = [path for path in paths if not headers[path].get("head")]
        if heads is not None and "own" in heads and lacking:
            raise BadInput(
                f"{lacking[0]} holds no classification layer; give --head new, or leave --head out to train each "
                "ticket with its own where it has one"
            )
        mixed = beside and len(own) < len(paths)
        found += [
            EvalTask(path, kind, targets[path], seed, head)
            for path in paths
            for kind in ("ticket", *controls)
            for head in (("new",) if kind in anew else _heads_of_task(path in own, mixed, heads))
            for seed in (targets[path].seeds if seeds is None else seeds)
        ]
    # Two names may be of one protocol, as cifar10 and cifar10@0 are.
    return list(dict.fromkeys(found))


def found_on_same_task(header: Mapping[str, Any], protocol: Protocol) -> bool:
    """Whether a ticket was found on the task that a protocol trains: the same classes of the same images' kind.

    Then its classification layer is a part of it ("Stabilizing the Lottery Ticket Hypothesis" keeps the last layer in
    W_k); for transfers a new one is drawn ("One ticket to win them all", section 3.2).

    Args:
        header: of the ticket.
        protocol: under which it is trained.
    """
    data = header["recipe"].get("data", {})
    # A list may have chosen classes, as a share of the classes does.
    classes = get_dataset(protocol.dataset).classes if protocol.part is None else None
    return (
        bool(header.get("head"))
        and (data["dataset"], data.get("part"), data.get("half")) == (protocol.dataset, protocol.part, protocol.half)
        and not data.get("shuffle_labels")
        and not (data.get("subset_by") == "classes" and data["subset"] < 1)
        and classes in (None, header["provenance"].get("classes", classes))
    )


def _protocol_of_task(name: str, recipe: Mapping[str, Any], part: str | None) -> Protocol:
    """The protocol of this name for a ticket, on a part of its images; "own" is on the recipe's where none is given."""
    found = resolve_protocol(name, recipe)
    return found if part is None else replace(found, part=part)


def _read_checked_header(path: Path) -> Mapping[str, Any]:
    """What a ticket tells of itself, if it tells what an evaluation has to know.

    Raises:
        BadInput: if it is damaged, or no search wrote it.
    """
    header = Ticket.read_header(path)
    recipe, came = header.get("recipe"), header.get("provenance")
    told = isinstance(recipe, dict) and isinstance(recipe.get("data"), dict) and "dataset" in recipe["data"]
    if not (told and isinstance(came, dict) and {"seed", "rewind_samples", "objective"} <= came.keys()):
        raise BadInput(f"{path} does not tell where it is from, so it cannot be scored; give one that a search wrote")
    return header


def _heads_of_task(own: bool, mixed: bool, given: Sequence[Head] | None) -> Sequence[Head]:
    if given is not None:
        return given
    if not own:
        return ("new",)
    return ("own", "new") if mixed else ("own",)


def _level_of_file(path: Path) -> int:
    digits = path.stem.removeprefix("level-")
    return int(digits) if digits.isdigit() else -1
