"""What a row of results holds: one JSON object a line, written by searches, evaluations and analyses."""

from collections.abc import Callable, Collection
from itertools import pairwise
from textwrap import shorten
from typing import Any

_LARGEST_NUMBER = 1e39  # of any number, be it the loss of a training that has lost its way


def _nested_error(row: dict[str, Any], keys: Collection[str]) -> str | None:
    """What keeps the names and values, and the lists, of a row from being right; None for good ones.

    Args:
        row: of a known kind, in which each of `keys` has the right type.
        keys: that this kind of row has.
    """
    nested = _NESTED_CHECKS | _NESTED_CHECKS_OF_KIND.get(row["kind"], {})
    for key in [key for key in keys if key in row]:
        if key in nested:
            odd = [(name, value) for name, value in row[key].items() if not nested[key](name, value)]
            if odd:
                return f"has {_shortened(odd[0][1])} for {odd[0][0][:80]!r} in its {key}, which cannot be"
        if key in _LIST_CHECKS:
            odd = [value for value in row[key] if not _LIST_CHECKS[key](value)]
            if odd:
                return f"has {_shortened(odd[0])} among its {key}, which cannot be"
    if "bins" in row and len(row["bins"]) != len(row.get("counts", [])) + 1:
        return f"has {len(row['bins'])} edges of bins for {len(row.get('counts', []))} counts"
    if any(low >= high for low, high in pairwise(row.get("bins", []))):
        return "has bins that do not ascend"
    return None


def _shortened(value: Any) -> str:
    return shorten(repr(value), 80, placeholder="...")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST_NUMBER  # which NaN is not


def _is_count_of_total(value: Any) -> bool:
    """Whether it is [some, all of them]."""
    if not isinstance(value, list) or [type(count) for count in value] != [int, int]:
        return False
    some, everything = value
    return bool(0 <= some <= everything > 0 and everything <= _LARGEST_NUMBER)


def _is_overlap_count(value: Any) -> bool:
    """Whether it is [both, either, chance]; a layer that both masks emptied has [0, 0, 1]."""
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
        return False
    both, either, chance = value
    return bool(0 <= both <= either and 0 <= chance <= 1)


_NESTED_CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "versions": lambda _, value: isinstance(value, str),
    "settings": lambda _, value: isinstance(value, (str, bool)) or _is_number(value),
    "metrics": lambda _, value: _is_number(value),
    "probe": lambda step, value: (
        step.isascii() and step.isdigit() and len(step) < 16 and _is_number(value) and 0 <= value <= 1
    ),
    "layers": lambda _, value: _is_count_of_total(value),
    "dead": lambda _, value: _is_count_of_total(value),
}
_NESTED_CHECKS_OF_KIND: dict[str, dict[str, Callable[[str, Any], bool]]] = {
    "overlap": {"layers": lambda _, value: _is_overlap_count(value)}
}
_LIST_CHECKS: dict[str, Callable[[Any], bool]] = {
    "points": lambda point: (
        isinstance(point, list)
        and len(point) == 5
        and _is_number(point[0])
        and all(value is None or _is_number(value) for value in point[1:])
        and 0 <= point[0] <= 1
    ),
    "bins": _is_number,
    "counts": lambda count: type(count) is int and 0 <= count <= _LARGEST_NUMBER,
}


_STRING, _INTEGER, _NUMBER = str, int, (int, float)
_OPTIONAL_NUMBER = (int, float, type(None))

COMMON_KEYS: dict[str, Any] = {
    "run": _STRING,  # key of the run that found the ticket
    "recipe": _STRING,  # hash of all its settings but the seed: replicates share it
    "objective": _STRING,
    "model": _STRING,
    "source": _STRING,  # dataset the ticket was found on
    "subset": _NUMBER,  # fraction of it
    "subset_by": _STRING,  # samples, random or classes
    "level": _INTEGER,  # 0 = dense
    "density": _NUMBER,  # fraction of the prunable weights that remain
    "within": _STRING,  # which layers might be pruned, "up to conv3"; "" for all
    "ticket_hash": _STRING,
    "search_seed": _INTEGER,
    "search": _STRING,  # how it was searched: "IMP", "OneShot SNIP"
    "settings": dict,  # of the recipe, by the names of its flags
    "rewind_samples": _INTEGER,  # source images seen at W_k
    "command": _STRING,
    "commit": _STRING,
    "versions": dict,  # library -> version
    "source_hash": _STRING,  # hash of the whole training set the ticket was found on, before any subset was drawn
    "effective_density": _NUMBER,  # fraction of the prunable weights that lie on a path from input to output
    "data_hash": _STRING,  # hash of the images that were trained on
    "device": _STRING,
    "precision": _STRING,
    "numerics": _STRING,  # "bf16 tf32 channels-last compiled": all that decides how it rounds
}
"""Keys of every row, and their types."""

TRAINING_KEYS: dict[str, Any] = {
    "samples": _INTEGER,  # source images
    "seconds": _NUMBER,
    "steps": _INTEGER,
    "forward_images": _INTEGER,  # images that went forward through a backbone: four a source image for RotNet
    "backward_images": _INTEGER,  # those of them that gradients went back through
}
"""What a training took."""
TARGET_KEYS: dict[str, Any] = {
    "protocol": _STRING,
    "protocol_hash": _STRING,  # of all settings of the protocol for this model
    "start": _STRING,  # where its schedule starts: "0", or "k" to train T - k steps from W_k
    "head": _STRING,  # "own" where the classification layer of W_k is part of the ticket, "new" where it is drawn anew
    "target": _STRING,
    "seed": _INTEGER,
}
"""Under which protocol, on which dataset of it, with which seed."""
LOSS_KEYS: dict[str, Any] = {"loss": _OPTIONAL_NUMBER}
"""Last of the training for a level, None where there was none; on the evaluation images for a score."""

SCORE_KEYS: dict[str, Any] = {
    "control": _STRING,
    "top1": _NUMBER,  # fraction
    "top5": _NUMBER,
    "channels": _INTEGER,  # of the images as the network saw them
    "eval_hash": _STRING,  # hash of the evaluation images
    "replicate": _INTEGER,  # of a control: the search seed for which its weights and its mask were drawn
    "natural_density": _NUMBER,  # of "adjusted": fraction of the dense network's weights that training leaves
    "control_density": _NUMBER,  # of "adjusted": of its own mask, which is never denser than the natural one
}
"""Of a row that scores a ticket, or a control of it, under a protocol."""

LEVEL_KEYS: dict[str, Any] = {
    "trained_level": _INTEGER,  # the ticket whose training found this one, which loss, metrics and probe are of
    "trained_density": _NUMBER,  # its density
    "search_forward_images": _INTEGER,  # forward images of the search up to the end of this level
    "metrics": dict,  # name -> number: does the search's own task get learnt?
    "probe": dict,  # step -> accuracy of the nearest-neighbour probe, a fraction; empty where none was asked for
    "saved_samples": _INTEGER,  # that the training did not see, since its mask had settled
    "search_samples": _INTEGER,  # samples seen by the search up to the end of this level
    "search_epochs": _NUMBER,  # the same in passes over the images
    "undecided": _INTEGER,  # weights that a learnt mask neither keeps nor removes for sure
    "layers": dict,  # layer -> [kept, total]
    "bad_images": _INTEGER,
    "bad_hash": _STRING,  # over their names, where there are any
}
"""Of a row that tells of one trained level of a search."""

STABILITY_KEYS: dict[str, Any] = {
    "control": _STRING,
    "replicate": _INTEGER,
    "order_distance": _NUMBER,  # L2, between two trainings of the subnetwork in different orders of the data
    "order_angle": _NUMBER,  # degrees
    "pruning_distance": _NUMBER,  # L2, between the subnetwork of the trained dense network and the trained subnetwork
    "pruning_angle": _NUMBER,
    "top1": _NUMBER,  # mean of the two trainings of the subnetwork
    "dense_top1": _NUMBER,
}
"""Of a row that tells how stable a ticket, or a control of it, is to pruning and to the order of the data."""

CONNECTIVITY_KEYS: dict[str, Any] = {
    "control": _STRING,
    "replicate": _INTEGER,
    "points": list,  # [alpha, error, loss, recalibrated error, recalibrated loss]; None where one is not finite
    "barrier": _OPTIONAL_NUMBER,  # of the error; None where no number can be given, as for all four
    "barrier_recalibrated": _OPTIONAL_NUMBER,
    "loss_barrier": _OPTIONAL_NUMBER,
    "loss_barrier_recalibrated": _OPTIONAL_NUMBER,
}
"""Of a row that tells how error and loss run on the line between two trainings of a ticket or of a control."""

MAGNITUDE_KEYS: dict[str, Any] = {
    "natural_density": _NUMBER,  # fraction of the prunable weights above machine precision at the end of training
    "layers": dict,  # layer -> [above, total]
    "bins": list,  # edges of log10 |w|, ascending
    "counts": list,  # weights in each bin
    "zeros": _INTEGER,  # weights of exactly 0, in no bin
}
"""Of a row with the weights of a trained ticket by their magnitude."""

OVERLAP_KEYS: dict[str, Any] = {
    "other_run": _STRING,
    "other_objective": _STRING,
    "other_level": _INTEGER,
    "other_density": _NUMBER,
    "other_hash": _STRING,
    "other_seed": _INTEGER,
    "jaccard": _NUMBER,  # weights that both keep, of those that either keeps
    "chance": _NUMBER,  # expected of independent random masks with the same density of each layer
    "layers": dict,  # layer -> [both keep, either keeps, chance]
}
"""Of a row that compares the masks of two tickets."""

CHANNEL_KEYS: dict[str, Any] = {
    "layers": dict,  # layer -> [kept, total]
    "dead": dict,  # layer -> [output channels that lost every weight, output channels]
}
"""Of a row that tells what is left of a ticket's layers."""

ROW_KINDS: dict[str, dict[str, Any]] = {
    "score": COMMON_KEYS | LOSS_KEYS | TRAINING_KEYS | TARGET_KEYS | SCORE_KEYS,
    "level": COMMON_KEYS | LOSS_KEYS | TRAINING_KEYS | LEVEL_KEYS,
    "stability": COMMON_KEYS | TRAINING_KEYS | TARGET_KEYS | STABILITY_KEYS,
    "connectivity": COMMON_KEYS | TRAINING_KEYS | TARGET_KEYS | CONNECTIVITY_KEYS,
    "magnitudes": COMMON_KEYS | TARGET_KEYS | MAGNITUDE_KEYS,
    "overlap": COMMON_KEYS | OVERLAP_KEYS,
    "channels": COMMON_KEYS | CHANNEL_KEYS,
}
"""The keys of each kind of row, and their types."""

DEFAULT_HEAD = "new"
"""How rows that do not tell their `head` were made."""
DEFAULT_STARTS = {kind: "0" if kind == "score" else "k" for kind, keys in ROW_KINDS.items() if "start" in keys}
"""How rows that do not tell their `start` were made."""

ROW_KEYS: dict[str, Any] = {key: kind for keys in ROW_KINDS.values() for key, kind in keys.items()}
"""Those of all kinds; a key has one type wherever it is."""
ROW_COLUMNS = ["kind", *ROW_KEYS]
OPTIONAL_KEYS = (
    *("within", "search", "settings", "rewind_samples", "saved_samples", "search_epochs", "probe", "channels"),
    *("control_density", "undecided", "source_hash", "effective_density", "forward_images", "backward_images"),
    *("protocol_hash", "start", "head", "eval_hash", "replicate", "trained_level", "trained_density"),
    *("search_forward_images", "numerics", "bad_hash"),
)
"""Keys that rows written before they were thought of lack, or that only some controls have."""
OPTIONAL_KEYS_OF_KIND = {"score": ("natural_density",)}
"""Keys that are optional in one kind of row only."""

CONTROLS = ("ticket", "reset", "permuted", "preserved", "local", "random", "adjusted")
"""The ticket itself; W_0 in its mask; W_k in its mask permuted over all layers; weights drawn anew in its mask, in its
mask permuted within each layer, over all layers, and in a mask drawn among the weights that do not go to zero by
themselves."""

CONTROL_DESCRIPTIONS = {
    "reset": "W_0, the initialisation, in the ticket's mask",
    "permuted": "W_k in the ticket's mask permuted over all layers",
    "preserved": "weights drawn anew in the ticket's mask",
    "local": "weights drawn anew in the ticket's mask permuted within each layer",
    "random": "weights drawn anew in a mask permuted over all layers; one for all searches of a seed",
    "adjusted": "weights drawn anew in a mask among those that do not go to zero by themselves; one for all searches "
    "of a seed",
}
"""What a score's controls are, for a person."""

OWN_WEIGHT_CONTROLS = ("reset", "permuted")
"""Controls of scores that keep a search's own weights; of all others they are drawn."""

SHARED_CONTROLS = ("random", "adjusted")
"""Controls that owe nothing to the run whose densities they copy: all runs share them."""

SUPERVISED_OBJECTIVES = ("supervised", "s4l")
"""Objectives that need labels; tickets of all others are called label-agnostic."""

_FRACTION_KEYS = (
    *("density", "subset", "top1", "top5", "dense_top1", "natural_density", "control_density"),
    *("other_density", "jaccard", "chance", "effective_density", "trained_density"),
)


_SEED_KEYS = ("seed", "search_seed", "other_seed", "replicate")
_ANGLE_KEYS = ("order_angle", "pruning_angle")
_LOSS_VALUE_KEYS = ("loss", "barrier", "barrier_recalibrated", "loss_barrier", "loss_barrier_recalibrated")
_BOUNDS = (
    dict.fromkeys(_FRACTION_KEYS, (0.0, 1.0))
    | dict.fromkeys(_ANGLE_KEYS, (0.0, 180.0))
    | dict.fromkeys(_LOSS_VALUE_KEYS, (-1e39, 1e39))
)
_DEFAULT_BOUNDS = (0.0, float(2**53))  # counts, seconds and lengths
_SEED_LIMIT = 2**63  # which the columns of a table hold no more


def row_error(row: Any) -> str | None:
    """What keeps `row`, decoded JSON, from being a row; None for a good one."""
    kind = row.get("kind") if isinstance(row, dict) else None
    if not isinstance(kind, str) or kind not in ROW_KINDS:
        return f"is no row of a known kind ({', '.join(ROW_KINDS)})"
    wanted = ROW_KINDS[kind]
    optional = (*OPTIONAL_KEYS, *OPTIONAL_KEYS_OF_KIND.get(kind, ()))
    if lacking := [key for key in wanted if key not in row and key not in optional]:
        return f"lacks {', '.join(lacking)}"
    if odd := [key for key in row if key not in ROW_KEYS and key != "kind"]:
        return f"has {odd[0][:80]!r}, which only a newer version can have written (update sslticket)"
    # Those of other kinds too, which older versions wrote: all are columns of one table.
    for key in (key for key in ROW_KEYS if key in row):
        types = ROW_KEYS[key]
        # Not isinstance: JSON's true is no number.
        if type(row[key]) not in (types if isinstance(types, tuple) else (types,)):
            return f"has {key} {_short_repr(row[key])}, which is of the wrong type"
        if fault := _range_error(key, row[key]):
            return f"has {key} {_short_repr(row[key])}, which {fault}"
    if row["density"] == 0:
        return "has density 0; a ticket keeps at least one weight"
    if row.get("control", "ticket") not in CONTROLS:
        return f"has control {_short_repr(row['control'])}, which is none of {', '.join(CONTROLS)}"
    return _nested_error(row, ROW_KEYS)


def _range_error(key: str, value: Any) -> str | None:
    """Why a value cannot be that of a key, of whose type it is."""
    if not isinstance(value, (int, float)):
        return None
    if key in _SEED_KEYS:
        return None if -_SEED_LIMIT <= value < _SEED_LIMIT else "has more than 64 bits"
    least, most = _BOUNDS.get(key, _DEFAULT_BOUNDS)
    if least <= value <= most:
        return None
    return "is no fraction from 0 to 1" if (least, most) == (0, 1) else f"is not from {least:g} to {most:g}"


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
