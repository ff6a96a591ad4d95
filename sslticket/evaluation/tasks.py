"""What is evaluated: one task a ticket, control, protocol, head and seed, and what has to be known of each ticket."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from sslticket import hub, models
from sslticket.config.recipe import RecipeRecord
from sslticket.config.training import Span
from sslticket.data.datasets.catalogue import InputSpec, get_dataset
from sslticket.errors import BadInput
from sslticket.evaluation.controls import Control, control_parts, get_control
from sslticket.evaluation.protocols import Protocol, resolve_protocol
from sslticket.pruning.forward_graph import MaskCoverage
from sslticket.pruning.prunable import describe_layers
from sslticket.registry import load_recorded_parts
from sslticket.results.throughput import Workload, multiply_adds_of, training_multiply_adds
from sslticket.seeds import derive_seed
from sslticket.storage.files import read_json
from sslticket.ticket import INITIAL_TICKET, Ticket, run_folder_of
from sslticket.training.optim import layer_scales

_SOME_IMAGES = 50_000  # of a set of which nobody says how many: lengths in epochs keep their ratios


@dataclass(frozen=True, eq=False)
class TicketInfo:
    """What has to be known of a ticket file while its weights are not in memory: a dense ResNet-50's take 94 MB.

    Attributes:
        hash: Hash of the ticket.
        model: Name of its network.
        channels: Channels of the images that it was found on, so of its first layer.
        survivors: Weights that remain of those that the search might prune.
        prunable: Weights that the search might prune.
        layers: Layers in which these are.
        parameters: Number of all parameters and buffers of the network.
        rewind_samples: Source images that its search had seen at W_k; None where that is unknown.
        seed: Number of its search, see `search_number`.
        head: Shapes of its classification layer's tensors; empty where it has none.
        classes_hash: Hash of the names of the classes that its search saw, in order; None in older tickets.
        row_fields: What each of its rows says of it.
        header: What its file says beside its tensors, as far as it tells where the ticket is from.
        pattern: The N:M pattern that its mask keeps to, and its controls' with it; None for none.
    """

    hash: str
    model: str
    channels: int
    survivors: int
    prunable: int
    layers: tuple[str, ...]
    parameters: int
    rewind_samples: int | None
    seed: int
    head: Mapping[str, tuple[int, ...]]
    classes_hash: str | None
    row_fields: Mapping[str, Any]
    header: Mapping[str, Any] = field(default_factory=dict)
    pattern: str | None = None

    @classmethod
    def read(cls, path: Path, targets: Mapping[str, Protocol]) -> "TicketInfo":
        """Loads a ticket, and checks whether its network takes the images of all its protocols.

        Args:
            path: Path of the ticket's file.
            targets: The protocols, by their names.

        Raises:
            BadInput: If it is damaged, was found on images of another size and its network takes no other, is of a
                network that a protocol is not for, or has a mask that is not what acts in its network.
        """
        ticket = Ticket.load(path)
        model = RecipeRecord(ticket.recipe).model
        own, channels = _images_of_ticket(ticket)
        for protocol in targets.values():
            check_network(protocol, model, channels)
            for size in sorted({protocol.input_size, *(size for _, size in protocol.early_sizes)} - {own}):
                _check_input_size(ticket, path, protocol, size, channels, own)
            for _, size in protocol.early_sizes:
                _check_growing(model, protocol.name, channels, size, protocol.input_size)
        size = own or next((protocol.input_size for protocol in targets.values()), 0)
        coverage = _mask_coverage(model, channels, size)  # which says itself what is wrong with the network
        try:
            coverage.check(model, list(ticket.mask))
        except BadInput as error:
            raise BadInput(f"{path} is no sparse network: {error}") from error
        return cls(
            hash=ticket.hash,
            model=model,
            channels=channels,
            survivors=ticket.mask.survivors,
            prunable=ticket.mask.total,
            layers=tuple(sorted(ticket.mask)),
            parameters=sum(value.numel() for value in ticket.weights.values()),
            rewind_samples=ticket.provenance.get("rewind_samples"),
            seed=search_number(ticket.provenance),
            head={name: tuple(value.shape) for name, value in ticket.head.items()},
            classes_hash=ticket.provenance.get("classes_hash"),
            row_fields={"kind": "score", **ticket_row_fields(path, ticket), "channels": channels},
            header={"recipe": ticket.recipe, "provenance": ticket.provenance},
            pattern=None if ticket.pattern is None else str(ticket.pattern),
        )


def search_number(origin: Mapping[str, Any]) -> int:
    """The number by which a search is told from its replicates where something is drawn for each: its seed.

    Of imported tickets whose seed is unknown, it is made of what they came from. It is no seed of theirs.
    """
    if "seed" in origin:
        return int(origin["seed"])
    return derive_seed(0, "imported", str(origin.get("imported", {}).get("search", "")))


def _images_of_ticket(ticket: Ticket) -> tuple[int | None, int]:
    """Side in pixels and channels of the images that a ticket was found on; None for a side that is unknown."""
    recipe = RecipeRecord(ticket.recipe)
    if (inputs := InputSpec.from_recipe(ticket.recipe)) is not None:
        return inputs.image_size, inputs.channels
    if "imported" not in ticket.provenance:
        get_dataset(recipe.data.dataset)  # which says what is wrong with it
    return recipe.data.image_size, recipe.data.channels or 3


def _check_input_size(
    ticket: Ticket, path: Path, protocol: Protocol, size: int, channels: int, own: int | None
) -> None:
    model = RecipeRecord(ticket.recipe).model
    shapes = _parameter_shapes(model, channels, size)
    for name, value in ticket.weights.items():
        if shapes.get(name, value.shape) != value.shape:
            found = "images of unknown size" if own is None else f"images of {own} pixels"
            raise BadInput(
                f"{path} was found on {found}, and {protocol.name} shows {size}: {name} of {model} is "
                f"{tuple(value.shape)} there and {tuple(shapes[name])} here; give a protocol of {own or 'its'} pixels, "
                "or tickets of a network that pools globally"
            )


@cache
def check_network(protocol: Protocol, model: str, channels: int) -> None:
    """Checks that a network has what a protocol's training asks of it.

    Args:
        protocol: The protocol.
        model: Name of the network.
        channels: Channels of the images.

    Raises:
        BadInput: If the protocol is for other networks, leaves out blocks that the network does not have, or gives
            rates to layers that it does not know.
    """
    training = protocol.training_for(model)
    if training.layer_decay == 1 and not training.drop_path:
        return
    try:
        with torch.random.fork_rng(devices=[]):
            backbone = models.create_model(
                model, channels=channels, image_size=protocol.input_size, drop_path=training.drop_path
            )
        if training.layer_decay != 1:
            layer_scales(backbone, training.layer_decay)
    except BadInput as error:
        raise BadInput(f"protocol {protocol.name} is not for {model}: {error}") from error


@cache
def _check_growing(model: str, protocol: str, channels: int, size: int, later: int) -> None:
    """Checks that a network for the last size of the images takes an earlier one, whose tensors may be the same."""
    with torch.random.fork_rng(devices=[]):
        backbone = models.create_model(model, channels=channels, image_size=later)
    if not models.accepts_image_size(backbone, channels=channels, image_size=size):
        raise BadInput(
            f"{protocol} shows images of {size} and then of {later} pixels, and {model} works with one size; give a "
            "protocol of one size, or tickets of a network that pools globally"
        )


@cache
def _parameter_shapes(model: str, channels: int, size: int) -> dict[str, torch.Size]:
    with torch.random.fork_rng(devices=[]):
        backbone = models.create_model(model, channels=channels, image_size=size)
    return {name: value.shape for name, value in backbone.state_dict().items()}


@cache
def _mask_coverage(model: str, channels: int, size: int) -> MaskCoverage:
    if model in models.PAPER_MODELS:  # tests try those
        return MaskCoverage.complete()
    with torch.random.fork_rng(devices=[]):
        backbone = models.create_model(model, channels=channels, image_size=size)
    return MaskCoverage.measure(backbone, channels=channels, image_size=size)


def ticket_row_fields(path: Path, ticket: Ticket) -> dict[str, Any]:
    """What every row about a ticket says of it.

    Args:
        path: Path of its file, whose folder is its run's.
        ticket: The ticket that was read from there.
    """
    recipe, origin = RecipeRecord(ticket.recipe), ticket.provenance
    return {
        "run": run_folder_of(path).name,
        "recipe": recipe.family,
        "objective": origin["objective"],
        "model": recipe.model,
        "source": origin["dataset"],
        **({"source_hash": origin["source_hash"]} if origin.get("source_hash") else {}),
        "subset": recipe.data.subset,
        "subset_by": recipe.data.subset_by,
        "level": ticket.level,
        "density": ticket.mask.density,
        "within": describe_layers(ticket.recipe),
        **({} if ticket.pattern is None else {"pattern": str(ticket.pattern)}),
        "ticket_hash": ticket.hash,
        **({"search_seed": origin["seed"]} if "seed" in origin else {}),
        **({"init": recipe.init} if recipe.init else {}),
        **({"init_hash": origin["init_hash"]} if "init_hash" in origin else {}),
        "search": recipe.search_name,
        "settings": recipe.settings(),
        **{key: origin[key] for key in ("rewind_samples", "search_samples") if key in origin},
        **({"parts": origin["parts"]} if origin.get("parts") else {}),
    }


Head = Literal["own", "new"]
"""Whether the classification layer that belongs to the weights is trained on, or a new one is drawn."""


@dataclass(frozen=True)
class EvalTask:
    """One measurement: a ticket file, or a control of it, under a protocol with a seed.

    Attributes:
        path: Path of the ticket's file.
        control: Name of a control, or "ticket" for the ticket itself.
        protocol: How it is trained and measured.
        seed: Seed of the evaluation.
        head: Which classification layer is trained.
        curve: Training between two measurements of top-1 on the way, such as "5ep"; None for the end alone.
    """

    path: Path
    control: str
    protocol: Protocol
    seed: int
    head: Head = "new"
    curve: str | None = None

    @property
    def run(self) -> Path:
        """The folder of the ticket's run."""
        return run_folder_of(self.path)

    @property
    def name(self) -> str:
        """The name of its row's file, and of what else belongs to it."""
        return f"{self.path.stem}.{self.control}.{self.protocol.label}.{self.head_prefix}seed{self.seed}"

    @property
    def head_prefix(self) -> str:
        """What file names say of the head: nothing of a new one, as before heads were kept."""
        return "own-head." if self.head == "own" else ""

    @property
    def row_file(self) -> Path:
        """The file of its row."""
        return self.run / "rows" / f"{self.name}.jsonl"

    @property
    def diverged_file(self) -> Path:
        """The file of the row that says that the training diverged; it goes when one succeeds."""
        return self.row_file.with_suffix(".diverged.jsonl")

    def is_done(self, ticket_hash: str, protocol_hash: str) -> bool:
        """Whether the row is there, about this very ticket under these very settings, and this very control.

        A control's row must also say for which search it was drawn: those of older versions were shared by all
        replicates of a search, which makes any number of them one. A row without the curve that is asked for, or with
        another, is measured again: by the same training.
        """
        row = read_task_row(self.row_file)
        return (
            row is not None
            and row["ticket_hash"] == ticket_hash
            and row.get("protocol_hash", protocol_hash) == protocol_hash
            and row.get("start", "0") == self.protocol.start
            and (self.control == "ticket" or "replicate" in row)
            and control_parts(self.control).items() <= row.get("parts", {}).items()
            and self.curve in (None, row.get("curve_every"))
        )


def protocol_workload(task: EvalTask, info: TicketInfo, numerics: str, steps: int, measured: int) -> Workload:
    """The training of a ticket or a control under a protocol.

    Args:
        task: What is measured.
        info: The ticket.
        numerics: How it computes.
        steps: Optimiser steps.
        measured: Images that are measured at its end.
    """
    size, training = task.protocol.input_size, task.protocol.training_for(info.model)
    return Workload(
        model=info.model,
        protocol=task.protocol.name,
        image_size=size,
        numerics=numerics,
        steps=steps,
        samples=steps * training.batch_size,
        batch_size=training.batch_size,
        multiply_adds=protocol_multiply_adds(task.protocol, info.model, info.channels),
        measured=measured,
        measured_multiply_adds=multiply_adds_of(info.model, info.channels, size),
        length=str(Span.parse(training.length)),
    )


def protocol_multiply_adds(protocol: Protocol, model: str, channels: int) -> float:
    """Those of a source image's forward and backward pass under a protocol: the mean over all its images' sizes."""
    known = get_dataset(protocol.dataset).image_counts
    spans, begun, passes = protocol.size_spans(model, known[0] if known else _SOME_IMAGES), 0, []
    for end, size in spans:
        share = (end - begun) / spans[-1][0]
        passes.append((size, share, share))
        begun = end
    return training_multiply_adds(passes, model, channels)


def read_task_row(path: Path) -> dict[str, Any] | None:
    """The row in a file; None where there is no file.

    Raises:
        BadInput: If it is no row about a ticket.
    """
    if not path.exists():
        return None
    fix = "delete it and run the same command again"
    row = read_json(path, fix=fix)
    if not isinstance(row, dict) or not isinstance(row.get("ticket_hash"), str):
        raise BadInput(f"{path} is damaged (it is about no ticket); {fix}")
    return row


@dataclass(frozen=True)
class Levels:
    """Which levels of a run are evaluated.

    Attributes:
        chosen: The levels; None for all.
        every_third: Of all levels those up to the sixth, and then every third (Morcos et al. 2019, Appendix A.1).
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


def levels_left_out(locations: Sequence[Path], levels: Levels) -> list[int]:
    """Levels of the runs below the folders given that are not evaluated, ascending."""
    found = {_level_of_file(path) for location in locations for path in location.glob("**/tickets/*.safetensors")}
    return sorted(level for level in found if not levels.includes(level))


def find_ticket_files(locations: Sequence[Path], levels: Levels = ALL_LEVELS) -> list[Path]:
    """Ticket files: those given, as files or exported folders, and those of the runs below the folders given.

    Args:
        locations: Files and folders.
        levels: Levels that are taken of folders; a file that is given is always taken.

    Raises:
        BadInput: For a location that does not exist or holds no ticket.
    """
    found: list[Path] = []
    for location in locations:
        if not location.exists():
            raise BadInput(f"there is nothing at {location}; give ticket files or folders of runs")
        lone = location if location.is_file() else location / hub.TICKET_FILE
        if location.is_file():
            _check_is_ticket(location)
        here = [lone] if lone.is_file() else sorted(location.glob("**/tickets/*.safetensors"))
        if not here:
            raise BadInput(f"{location} holds no tickets; give a run's folder, such as runs/<key>, or a ticket file")
        found += [path for path in here if path == lone or levels.includes(_level_of_file(path))]
    if not found:
        chosen = " ".join(map(str, levels.chosen or ()))
        raise BadInput(f"no ticket has one of the levels {chosen}; give other --levels")
    return list(dict.fromkeys(found))


def _check_is_ticket(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise BadInput(f"{path} is no ticket; give .safetensors files, or folders of runs such as {path.parent}")
    if path.name == INITIAL_TICKET:  # as a ticket of level 0 it would be one with those of W_k
        raise BadInput(
            f"{path} is W_0 and none of the tickets, which are rewound to W_k; give --controls reset, which is each "
            "ticket's mask with these weights"
        )


def make_tasks(
    paths: Sequence[Path],
    controls: Sequence[str | type[Control]],
    protocols: Sequence[Protocol | str],
    seeds: Sequence[int] | None,
    heads: Sequence[Head] | None = None,
    part: str | None = None,
    *,
    both_heads: bool = True,
    own_weights: bool = False,
    curve: str | None = None,
) -> list[EvalTask]:
    """Every measurement that was asked for.

    Args:
        paths: Paths of ticket files.
        controls: Controls beside each ticket, as `get_control` takes them.
        protocols: Protocols, or their names; "own" is each ticket's own.
        seeds: Seeds of the evaluation; None takes each protocol's own.
        heads: Heads with which tickets are trained. None takes a ticket's own where it was found on the protocol's
            task, and else a new one; controls whose weights are drawn anew have a new one always.
        part: What the images of protocols that are given by name are, if they are not the whole official set.
        both_heads: Whether, where `heads` is None and only some tickets have a head of their own, these are taken with
            a new one too, so that like can be compared with like.
        own_weights: Whether all controls have the ticket's weights, and so its head.
        curve: Training between two measurements of top-1 on the way, such as "5ep"; None for the end alone.

    Raises:
        BadInput: If a ticket is damaged, or is to have a head of its own and has none for this task; if a curve's
            interval is no length of training.
    """
    headers = {path: _read_checked_header(path) for path in paths}
    return tasks_of_headers(
        headers, controls, protocols, seeds, heads, part, both_heads=both_heads, own_weights=own_weights, curve=curve
    )


def tasks_of_headers(
    headers: Mapping[Path, Mapping[str, Any]],
    controls: Sequence[str | type[Control]],
    protocols: Sequence[Protocol | str],
    seeds: Sequence[int] | None,
    heads: Sequence[Head] | None = None,
    part: str | None = None,
    *,
    both_heads: bool = True,
    own_weights: bool = False,
    curve: str | None = None,
) -> list[EvalTask]:
    """Every measurement that was asked for of tickets that are there, or that a plan knows of; see `make_tasks`.

    Args:
        headers: What the tickets' files say, or will say, by their paths.
        controls: See `make_tasks`.
        protocols: See `make_tasks`.
        seeds: See `make_tasks`.
        heads: See `make_tasks`.
        part: See `make_tasks`.
        both_heads: See `make_tasks`.
        own_weights: See `make_tasks`.
        curve: See `make_tasks`.

    Raises:
        BadInput: If a ticket is to have a head of its own and has none for this task.
    """
    paths, curve = list(headers), None if curve is None else _curve_interval(curve)
    kinds = {control.name: control for control in map(get_control, controls)}
    drawn = {name for name, control in kinds.items() if not (own_weights or control.keeps_weights)}
    found: list[EvalTask] = []
    for protocol in protocols:
        # A plan's tickets of one search have one header, which need not be read for each.
        by_header: dict[int, tuple[Protocol, bool]] = {}
        for header in headers.values():
            if id(header) not in by_header:
                target = protocol
                if isinstance(target, str):
                    target = _protocol_of_task(target, header["recipe"], part)
                by_header[id(header)] = target, found_on_same_task(header, target)
        targets = {path: by_header[id(headers[path])][0] for path in paths}
        own = {path for path in paths if by_header[id(headers[path])][1]}
        lacking = [path for path in paths if not headers[path].get("head")]
        if heads is not None and "own" in heads and lacking:
            raise BadInput(
                f"{lacking[0]} holds no classification layer; give --head new, or leave --head out to train each "
                "ticket with its own where it has one"
            )
        default: dict[Path, Sequence[Head]] = {path: ("own",) if path in own else ("new",) for path in paths}
        if both_heads and len(own) < len(paths):
            default |= dict.fromkeys(own, ("own", "new"))
        found += [
            EvalTask(path, kind, targets[path], seed, head, curve)
            for path in paths
            for kind in ("ticket", *kinds)
            for head in (("new",) if kind in drawn else heads or default[path])
            for seed in (targets[path].seeds if seeds is None else seeds)
        ]
    # Two names may be of one protocol, as cifar10 and cifar10@0 are.
    return list(dict.fromkeys(found))


def _curve_interval(text: str) -> str:
    span = Span.parse(text, "--curve")
    if not span.amount > 0:
        raise BadInput(f"--curve must be a length of training above 0, got {text}; give for instance --curve 5ep")
    return str(span)


def found_on_same_task(header: Mapping[str, Any], protocol: Protocol) -> bool:
    """Whether a ticket was found on the task that a protocol trains: the same classes of the same images' kind.

    Then its classification layer is a part of it ("Stabilizing the Lottery Ticket Hypothesis" keeps the last layer in
    W_k); for transfers a new one is drawn ("One ticket to win them all", section 3.2).

    Args:
        header: Header of the ticket.
        protocol: Protocol under which it is trained.
    """
    data = RecipeRecord(header["recipe"]).data
    # A list may have chosen classes, as a fraction of the classes does.
    classes = get_dataset(protocol.dataset).classes if protocol.part is None else None
    return (
        bool(header.get("head"))
        and "imported" not in header["provenance"]  # the order of whose classes nobody knows
        and (data.dataset, data.part, data.half) == (protocol.dataset, protocol.part, protocol.half)
        and not data.shuffle_labels
        and not (data.subset_by == "classes" and data.subset < 1)
        and classes in (None, header["provenance"].get("classes", classes))
    )


def _protocol_of_task(name: str, recipe: Mapping[str, Any], part: str | None) -> Protocol:
    """The protocol of this name for a ticket, on a part of its images; "own" is on the recipe's where none is given."""
    found = resolve_protocol(name, recipe)
    return found if part is None else replace(found, part=part)


def _read_checked_header(path: Path) -> Mapping[str, Any]:
    """The header of a ticket, if it has what an evaluation has to know.

    Raises:
        BadInput: If the ticket is damaged, or no search wrote it.
    """
    header = Ticket.read_header(path)
    recipe, origin = header.get("recipe"), header.get("provenance")
    known = isinstance(recipe, dict) and isinstance(recipe.get("data"), dict) and "dataset" in recipe["data"]
    imported = isinstance(origin, dict) and "imported" in origin
    needed = {"objective"} if imported else {"seed", "rewind_samples", "objective"}
    if not (known and isinstance(origin, dict) and needed <= origin.keys()):
        raise BadInput(
            f"{path} does not tell where it is from, so it cannot be scored; give one that a search wrote, or that "
            "`sslticket import` made"
        )
    load_recorded_parts(origin.get("parts", {}), strict=False)
    return header


def _level_of_file(path: Path) -> int:
    digits = path.stem.removeprefix("level-")
    return int(digits) if digits.isdigit() else -1
