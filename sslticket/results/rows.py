"""Rows of results: one JSON object a line, written by searches, evaluations and analyses; a dataclass for each kind.

A key is declared once, as a field, with its type and what its values may be; writers construct these classes, and
whoever reads a file checks it by them. A class of one's own with a `kind` is known as soon as it is defined.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self

from sslticket.results.row_schema import (
    Amount,
    Angle,
    Count,
    Counts,
    Curve,
    Edges,
    Fraction,
    Key,
    LayerCounts,
    LayerOverlaps,
    Loss,
    Numbers,
    Points,
    Probe,
    Rate,
    Seed,
    Settings,
    Words,
    keys_of,
    type_names,
    value_error,
)

ROW_TYPES: "dict[str, type[Row]]" = {}
"""The class of each kind of row, in the order in which they were defined."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What every row says of the ticket that it is about, and of how the row was made.

    Fields with the default None are left out of a row that has none: older rows lack them.

    Attributes:
        run: Folder of the search that found the ticket.
        recipe: Hash of all settings of the search but its seed; replicates share it.
        objective: What the network learned while the ticket was searched; it ends in `-shuffled` where labels were.
        model: Backbone.
        source: Data set that the ticket was found on.
        subset: Fraction of it.
        subset_by: How the subset was drawn: "samples", "random" or "classes".
        level: Prunings before the ticket; 0 is dense.
        density: Fraction of the prunable weights that remain in the ticket.
        within: Layers that might be pruned, such as "up to conv3"; "" for all.
        pattern: The N:M pattern that the search was asked for and the mask keeps to, such as "2:4"; "none" of a control
            of one's own that does not.
        ticket_hash: Hash of the ticket's file.
        search_seed: Seed of the search; None of an imported ticket of which nobody knows it.
        init: Name of the weights that the search started from; None where its seed drew them.
        init_hash: Hash of the file that they came from.
        search: How tickets were searched: "IMP", or search and criterion, "OneShot SNIP".
        settings: Settings of the recipe by the names of their flags, without seed and model.
        rewind_samples: Source images that the network had seen when W_k was taken.
        command: Command line that made the row.
        commit: Commit of the code, with `+changes` where files differed.
        versions: Library to version.
        source_hash: Hash of the whole training set that the ticket was found on, before any subset was drawn.
        effective_density: Fraction of the prunable weights that lie on a path from input to output.
        data_hash: Hash of the images that were trained on.
        device: Where it ran.
        precision: "fp32", "bf16" or "fp16".
        numerics: All that decides how it rounds, such as "bf16 tf32 channels-last compiled".
        kernels: What trials chose beside it on a CPU, such as "channels-last; 12 of 16 layers sparse": the order of
            sums, which no comparison asks for.
        parts: Parts from outside the package that the row rests on, "FILE:NAME" to the hash of the file.
        extra: Keys of other kinds, which older versions wrote beside their own.
    """

    kind: ClassVar[str] = ""
    """What rows of this class have under `kind`; a class without one is for others to inherit from."""
    title: ClassVar[str] = ""
    """What rows of this kind are called in a report; the kind itself where it is empty."""

    run: str
    recipe: str
    objective: str
    model: str
    source: str
    subset: Fraction
    subset_by: str
    level: Count
    density: Fraction
    within: str | None = None
    pattern: str | None = None
    ticket_hash: str
    search_seed: Seed | None = None
    init: str | None = None
    init_hash: str | None = None
    search: str | None = None
    settings: Settings | None = None
    rewind_samples: Count | None = None
    command: str
    commit: str
    versions: Words
    source_hash: str | None = None
    effective_density: Fraction | None = None
    data_hash: str
    device: str
    precision: str
    numerics: str | None = None
    kernels: str | None = None
    parts: Words | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __init_subclass__(cls) -> None:
        """Make the kind known; keys of one name have one type in all kinds, since they are one column of a table."""
        super().__init_subclass__()
        if kind := cls.__dict__.get("kind"):
            known = ROW_TYPES.get(kind)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(f"`kind` must be of one class of rows, got {kind!r}, which {known.__qualname__} has")
            ROW_TYPES[kind] = cls

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """Read decoded JSON of this kind; keys that are missing in older rows are None.

        Raises:
            ValueError: If it is no such row; the message goes on after the name of the file and line.
        """
        if row.get("kind") != cls.kind:
            raise ValueError(f"is no row of kind {cls.kind!r}")
        if fault := row_error(row):
            raise ValueError(fault)
        own = keys_of(cls)
        extra = {key: value for key, value in row.items() if key not in own and key != "kind"}
        return cls(**{key: row[key] for key in own if key in row}, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values: all that is known."""
        own = {key: (getattr(self, key), rule.optional) for key, rule in keys_of(type(self)).items()}
        known = {key: value for key, (value, optional) in own.items() if not (optional and value is None)}
        return {"kind": self.kind, **known, **self.extra}


@dataclass(frozen=True, kw_only=True)
class LossField:
    """The loss of a training.

    Attributes:
        loss: In nats: of a score on the evaluation images, of a level that of the last step; None where there was none.
    """

    loss: Loss


@dataclass(frozen=True, kw_only=True)
class CostFields:
    """What a training took, or all those that an analysis rests on.

    Attributes:
        samples: Source images seen.
        seconds: Time of training.
        steps: Optimiser steps.
        forward_images: Images that went forward through a backbone: four a source image for RotNet.
        backward_images: Those of them that gradients went back through.
    """

    samples: Count
    seconds: Amount
    steps: Count
    forward_images: Count | None = None
    backward_images: Count | None = None


@dataclass(frozen=True, kw_only=True)
class TargetFields:
    """Under which protocol, on which of its data sets, with which seed.

    Attributes:
        protocol: How it was trained and measured.
        protocol_hash: Hash of all settings of the protocol for this model.
        start: Where its schedule starts: "0", or "k" to train T - k steps from W_k.
        head: "own" where the classification layer of W_k is part of the ticket, "new" where it is drawn anew.
        target: Data set of the protocol.
        protocol_given: What `--protocol` takes for it, where that is not its name.
        seed: Seed of the head, the order, the augmentation and of controls.
    """

    default_start: ClassVar[str] = "k"
    """How rows that do not tell their `start` were made."""

    protocol: str
    protocol_hash: str | None = None
    start: str | None = None
    head: str | None = None
    target: str
    protocol_given: str | None = None
    seed: Seed


@dataclass(frozen=True, kw_only=True)
class ControlFields:
    """Whether a row is about a ticket or about a control of it.

    Attributes:
        control: "ticket", or the name of a control.
        replicate: Search seed for which a control's weights and mask were drawn.
    """

    control: str
    replicate: Seed | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreRow(ControlFields, TargetFields, CostFields, LossField, Row):
    """The score of a ticket, or of a control of it, under a protocol.

    Attributes:
        top1: Fraction of the evaluation images whose class is the best guess.
        top5: Fraction of those whose class is among the five best guesses.
        balanced_top1: Mean over the classes that have evaluation images of the fraction of each that is guessed right,
            where they have different numbers of them: of a long tail, `top1` is nearly that of its head.
        channels: Channels of the images as the network saw them.
        eval_hash: Hash of the evaluation images.
        natural_density: Of an "adjusted" control: fraction of the dense network's weights that training leaves.
        control_density: Of an "adjusted" control: density of its own mask, which is never denser than that.
        search_samples: Samples seen by the search up to the end of the ticket's level.
        bad_images: Images that could not be read.
        bad_hash: Hash of their names, where there are any.
        curve: Lists of samples, epochs and top-1 on the protocol's schedule, the last of them at its end.
        curve_every: Training between two of these measurements, such as "5ep".
        size_schedule: Sizes of the images in training where they change, such as "160 until 12ep, then 192".
    """

    kind: ClassVar[str] = "score"
    title: ClassVar[str] = "Scores"
    default_start: ClassVar[str] = "0"

    top1: Fraction
    top5: Fraction
    balanced_top1: Fraction | None = None
    channels: Count | None = None
    eval_hash: str | None = None
    natural_density: Fraction | None = None
    control_density: Fraction | None = None
    search_samples: Count | None = None
    bad_images: Count | None = None
    bad_hash: str | None = None
    curve: Curve | None = None
    curve_every: str | None = None
    size_schedule: str | None = None


@dataclass(frozen=True, kw_only=True)
class TicketRow(CostFields, LossField, Row):
    """What finding the ticket of a level cost and showed.

    Attributes:
        trained_level: Level of the ticket whose training found this one, which loss, metrics and probe are of.
        trained_density: Density of the network in that training.
        search_forward_images: `forward_images` of the search up to the end of this level.
        metrics: Measures of the search's own task.
        probe: Step to the accuracy of the nearest-neighbour probe; empty where none was asked for.
        saved_samples: Samples that the training did not see, since its mask had settled.
        search_samples: Samples seen by the search up to the end of this level.
        search_epochs: The same in passes over the images.
        undecided: Weights that a learned mask neither keeps nor removes for sure.
        layers: Layer to [kept, total].
        bad_images: Images that could not be read up to this ticket.
        bad_hash: Hash of their names, where there are any.
    """

    kind: ClassVar[str] = "level"
    title: ClassVar[str] = "Levels of the search"

    trained_level: Count | None = None
    trained_density: Fraction | None = None
    search_forward_images: Count | None = None
    metrics: Numbers
    probe: Probe | None = None
    saved_samples: Count | None = None
    search_samples: Count
    search_epochs: Amount | None = None
    undecided: Count | None = None
    layers: LayerCounts
    bad_images: Count
    bad_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class StabilityRow(ControlFields, TargetFields, CostFields, Row):
    """How stable a ticket, or a control of it, is to pruning and to the order of the data.

    Attributes:
        order_distance: L2 distance between two trainings of the subnetwork in different orders of the data.
        order_angle: The angle between them, in degrees.
        pruning_distance: L2 distance between the subnetwork of the trained dense network and the trained subnetwork.
        pruning_angle: The angle between them, in degrees.
        top1: Mean of the two trainings of the subnetwork.
        dense_top1: Top-1 of the dense network's training.
        channels: Channels of the images as the network saw them.
        search_samples: Samples seen by the search up to the end of the ticket's level.
    """

    kind: ClassVar[str] = "stability"
    title: ClassVar[str] = "Stability"

    order_distance: Amount
    order_angle: Angle
    pruning_distance: Amount
    pruning_angle: Angle
    top1: Fraction
    dense_top1: Fraction
    channels: Count | None = None
    search_samples: Count | None = None


@dataclass(frozen=True, kw_only=True)
class ConnectivityRow(ControlFields, TargetFields, CostFields, Row):
    """How error and loss run on the line between two trainings of a ticket, or of a control of it.

    Attributes:
        points: Lists of alpha, error, loss, recalibrated error and recalibrated loss; None where one is not finite.
        barrier: Highest error on the line less the mean of its ends; None where no number can be given.
        barrier_recalibrated: The same with batch norm's statistics taken anew at each point.
        loss_barrier: The same of the loss, in nats.
        loss_barrier_recalibrated: The same of the loss, with batch norm's statistics taken anew.
        channels: Channels of the images as the network saw them.
        search_samples: Samples seen by the search up to the end of the ticket's level.
    """

    kind: ClassVar[str] = "connectivity"
    title: ClassVar[str] = "Linear mode connectivity"

    points: Points
    barrier: Loss
    barrier_recalibrated: Loss
    loss_barrier: Loss
    loss_barrier_recalibrated: Loss
    channels: Count | None = None
    search_samples: Count | None = None


@dataclass(frozen=True, kw_only=True)
class MagnitudesRow(TargetFields, Row):
    """The weights of a trained ticket by their magnitude.

    Attributes:
        natural_density: Fraction of the prunable weights above machine precision at the end of training.
        layers: Layer to [above, total].
        bins: Edges of log10 |w|, ascending.
        counts: Weights in each bin.
        zeros: Weights of exactly 0, which are in no bin.
        control: "ticket", but of a search's own training.
        top1: Top-1 of the network that was measured.
        samples: Source images seen, but of a search's own training.
        seconds: Time of training, but of a search's own training.
        steps: Optimiser steps, but of a search's own training.
        forward_images: Images that went forward through a backbone.
        backward_images: Those of them that gradients went back through.
        channels: Channels of the images as the network saw them.
        search_samples: Samples seen by the search up to the end of the ticket's level.
    """

    kind: ClassVar[str] = "magnitudes"
    title: ClassVar[str] = "Magnitudes"

    natural_density: Fraction
    layers: LayerCounts
    bins: Edges
    counts: Counts
    zeros: Count
    control: str | None = None
    top1: Fraction | None = None
    samples: Count | None = None
    seconds: Amount | None = None
    steps: Count | None = None
    forward_images: Count | None = None
    backward_images: Count | None = None
    channels: Count | None = None
    search_samples: Count | None = None


@dataclass(frozen=True, kw_only=True)
class OverlapRow(Row):
    """How much the masks of two tickets have in common.

    Attributes:
        other_run: Folder of the search that found the other ticket.
        other_objective: Objective of the other ticket.
        other_level: Level of the other ticket.
        other_density: Density of the other ticket.
        other_hash: Hash of the other ticket's file.
        other_seed: Seed of the other search; None where nobody knows it.
        jaccard: Weights that both keep, of those that either keeps.
        chance: The same expected of independent random masks with the same density of each layer.
        layers: Layer to [both keep, either keeps, chance].
        search_samples: Samples seen by the search up to the end of the ticket's level.
    """

    kind: ClassVar[str] = "overlap"
    title: ClassVar[str] = "Overlap of masks"

    other_run: str
    other_objective: str
    other_level: Count
    other_density: Fraction
    other_hash: str
    other_seed: Seed | None = None
    jaccard: Fraction
    chance: Fraction
    layers: LayerOverlaps
    search_samples: Count | None = None


@dataclass(frozen=True, kw_only=True)
class ChannelsRow(Row):
    """What is left of a ticket's layers.

    Attributes:
        layers: Layer to [kept, total] weights.
        dead: Layer to [output channels that lost every weight, output channels].
        search_samples: Samples seen by the search up to the end of the ticket's level.
    """

    kind: ClassVar[str] = "channels"
    title: ClassVar[str] = "Layers and channels"

    layers: LayerCounts
    dead: LayerCounts
    search_samples: Count | None = None


@dataclass(frozen=True, kw_only=True)
class DivergedRow(Row):
    """A training that diverged, and so has no result: no report averages it, and each counts it.

    The row is about the ticket that was trained. It goes when the training succeeds.

    Attributes:
        reason: What was seen, in one line.
        at_step: Optimiser steps up to and with that of the loss which is no number.
        of_steps: Optimiser steps of the whole training.
        learning_rate: Learning rate of that step.
        control: "ticket", or the name of a control; of a search none.
        protocol: How it was trained; of a search none.
        protocol_hash: Hash of all settings of the protocol for this model.
        start: Where its schedule starts.
        head: "own" or "new", see `TargetFields`.
        target: Data set of the protocol.
        seed: Seed of the evaluation.
        replicate: Search seed for which a control's weights and mask were drawn.
        channels: Channels of the images as the network saw them.
        search_samples: Samples seen by the search up to the end of the ticket's level.
    """

    kind: ClassVar[str] = "diverged"
    title: ClassVar[str] = "Trainings that diverged"

    reason: str
    at_step: Count
    of_steps: Count
    learning_rate: Rate
    control: str | None = None
    protocol: str | None = None
    protocol_hash: str | None = None
    start: str | None = None
    head: str | None = None
    target: str | None = None
    seed: Seed | None = None
    replicate: Seed | None = None
    channels: Count | None = None
    search_samples: Count | None = None


def all_keys() -> Mapping[str, Key]:
    """The keys of all kinds: a key has one type wherever it is, since it is one column of a table.

    Raises:
        ValueError: If a class of one's own gives a key another type.
    """
    return _merge_keys(tuple(ROW_TYPES.items()))


@cache
def _merge_keys(row_types: tuple[Any, ...]) -> dict[str, Key]:
    found: dict[str, Key] = {}
    for kind, row_type in row_types:
        for name, key in keys_of(row_type).items():
            known = found.setdefault(name, key)
            if set(known.types) != set(key.types):
                raise ValueError(
                    f"{name!r} of rows of kind {kind!r} must be {type_names(known.types)} as in other kinds, got "
                    f"{type_names(key.types)}; give the key another name"
                )
    return found


def row_columns() -> list[str]:
    """The columns of a table of rows of all kinds."""
    return ["kind", *all_keys()]


def row_error(row: Any) -> str | None:
    """What keeps `row`, decoded JSON, from being a row; None for a good one."""
    kind = row.get("kind") if isinstance(row, dict) else None
    if not isinstance(kind, str) or kind not in ROW_TYPES:
        return f"is no row of a known kind ({', '.join(ROW_TYPES)})"
    own, known = keys_of(ROW_TYPES[kind]), all_keys()
    if lacking := [name for name, key in own.items() if name not in row and not key.optional]:
        return f"lacks {', '.join(lacking)}"
    if odd := [name for name in row if name not in known and name != "kind"]:
        return f"has {odd[0][:80]!r}, which only a newer version can have written (update sslticket)"
    for name, value in row.items():
        # Those of other kinds too, which older versions wrote: all are columns of one table.
        key = own.get(name) or known.get(name)
        if key is None or (type(value) in key.types and not key.checks):  # of ten thousand rows nearly all
            continue
        if fault := value_error(name, key, value):
            return fault
    if row["density"] == 0:
        return "has density 0, which must be above 0: a ticket keeps at least one weight"
    if row.get("control") == "":
        return "has control '', which must be a name"
    if "bins" in row and len(row["bins"]) != len(row.get("counts", [])) + 1:
        return f"has {len(row['bins'])} edges of bins for {len(row.get('counts', []))} counts, which must be one less"
    if any(low >= high for low, high in pairwise(row.get("bins", []))):
        return "has bins that do not ascend"
    return None


DEFAULT_HEAD = "new"
"""How rows that do not tell their `head` were made."""


class ControlInfo(NamedTuple):
    """What a report has to know of a control.

    Attributes:
        description: What the network is, for a person.
        shared: Whether it owes nothing to the run whose densities it copies, so that all runs share it.
        keeps_weights: Whether it keeps a search's own weights, W_0 or W_k; those of others are drawn anew.
    """

    description: str = ""
    shared: bool = False
    keeps_weights: bool = False


CONTROLS: dict[str, ControlInfo] = {
    "ticket": ControlInfo("", keeps_weights=True),
    "reset": ControlInfo("W_0, the initialisation, in the ticket's mask", keeps_weights=True),
    "permuted": ControlInfo("W_k in the ticket's mask permuted over all layers", keeps_weights=True),
    "preserved": ControlInfo("weights drawn anew in the ticket's mask"),
    "local": ControlInfo("weights drawn anew in the ticket's mask permuted within each layer"),
    "random": ControlInfo(
        "weights drawn anew in a mask permuted over all layers; one for all searches of a seed", shared=True
    ),
    "adjusted": ControlInfo(
        "weights drawn anew in a mask among those that do not go to zero by themselves; one for all searches of a seed",
        shared=True,
    ),
}
"""The ticket itself and its controls, in the order in which a report draws them; a class of one's own adds itself."""


def compare_seeds(one: Any, other: Any) -> str:
    """How the seeds of two searches are related, in words; either may be missing, as None or as pandas has it."""
    if not all(isinstance(seed, (int, float)) and seed == seed for seed in (one, other)):  # NaN equals nothing
        return "unknown seeds"
    return "same seed" if one == other else "other seeds"


def shared_controls() -> list[str]:
    """The controls that all runs share."""
    return [name for name, control in CONTROLS.items() if control.shared]


SUPERVISED_OBJECTIVES = ("supervised", "s4l")
"""Objectives that need labels; tickets of all others are called label-agnostic."""
