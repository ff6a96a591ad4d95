"""What a row holds: one JSON object a line, written by searches, evaluations and analyses."""

from typing import Any

from sslticket.report import nested

_TEXT, _WHOLE, _NUMBER = str, int, (int, float)
_MAYBE = (int, float, type(None))

SHARED: dict[str, Any] = {
    "run": _TEXT,  # key of the run that found the ticket
    "recipe": _TEXT,  # hash of all its settings but the seed: replicates share it
    "objective": _TEXT,
    "model": _TEXT,
    "source": _TEXT,  # dataset the ticket was found on
    "subset": _NUMBER,  # fraction of it
    "subset_by": _TEXT,  # samples, random or classes
    "level": _WHOLE,  # 0 = dense
    "density": _NUMBER,  # fraction of the prunable weights that remain
    "within": _TEXT,  # which layers might be pruned, "up to conv3"; "" for all
    "ticket_hash": _TEXT,
    "search_seed": _WHOLE,
    "search": _TEXT,  # how it was searched: "IMP", "OneShot SNIP"
    "settings": dict,  # of the recipe, by the names of its flags
    "rewind_samples": _WHOLE,  # source images seen at W_k
    "command": _TEXT,
    "commit": _TEXT,
    "versions": dict,  # library -> version
    "source_hash": _TEXT,  # hash of the whole training set the ticket was found on, before any subset was drawn
    "effective_density": _NUMBER,  # fraction of the prunable weights that lie on a path from input to output
    "data_hash": _TEXT,  # hash of the images that were trained on
    "device": _TEXT,
    "precision": _TEXT,
    "numerics": _TEXT,  # "bf16 tf32 channels-last compiled": all that decides how it rounds
}
"""Keys of every row, and their types."""

TRAINED: dict[str, Any] = {
    "samples": _WHOLE,  # source images
    "seconds": _NUMBER,
    "steps": _WHOLE,
    "forward_images": _WHOLE,  # images that went forward through a backbone: four a source image for RotNet
    "backward_images": _WHOLE,  # those of them that gradients went back through
}
"""What a training took."""
TARGET: dict[str, Any] = {
    "protocol": _TEXT,
    "protocol_hash": _TEXT,  # of all settings of the protocol for this model
    "start": _TEXT,  # where its schedule starts: "0", or "k" to train T - k steps from W_k
    "head": _TEXT,  # "own" where the classification layer of W_k is part of the ticket, "new" where it is drawn anew
    "target": _TEXT,
    "seed": _WHOLE,
}
"""Under which protocol, on which dataset of it, with which seed."""
LOSS: dict[str, Any] = {"loss": _MAYBE}
"""Last of the training for a level, None where there was none; on the evaluation images for a score."""

SCORE: dict[str, Any] = {
    "control": _TEXT,
    "top1": _NUMBER,  # fraction
    "top5": _NUMBER,
    "channels": _WHOLE,  # of the images as the network saw them
    "eval_hash": _TEXT,  # hash of the evaluation images
    "replicate": _WHOLE,  # of a control: the search seed for which its weights and its mask were drawn
    "natural_density": _NUMBER,  # of "adjusted": fraction of the dense network's weights that training leaves
    "control_density": _NUMBER,  # of "adjusted": of its own mask, which is never denser than the natural one
}
"""Of a row that scores a ticket, or a control of it, under a protocol."""

LEVEL: dict[str, Any] = {
    "trained_level": _WHOLE,  # the ticket whose training found this one, which loss, metrics and probe are of
    "trained_density": _NUMBER,  # its density
    "search_forward_images": _WHOLE,  # forward images of the search up to the end of this level
    "metrics": dict,  # name -> number: does the search's own task get learnt?
    "probe": dict,  # step -> accuracy of the nearest-neighbour probe, a fraction; empty where none was asked for
    "saved_samples": _WHOLE,  # that the training did not see, since its mask had settled
    "search_samples": _WHOLE,  # samples seen by the search up to the end of this level
    "search_epochs": _NUMBER,  # the same in passes over the images
    "undecided": _WHOLE,  # weights that a learnt mask neither keeps nor removes for sure
    "layers": dict,  # layer -> [kept, total]
    "bad_images": _WHOLE,
    "bad_hash": _TEXT,  # over their names, where there are any
}
"""Of a row that tells of one trained level of a search."""

STABILITY: dict[str, Any] = {
    "control": _TEXT,
    "replicate": _WHOLE,
    "order_distance": _NUMBER,  # L2, between two trainings of the subnetwork in different orders of the data
    "order_angle": _NUMBER,  # degrees
    "pruning_distance": _NUMBER,  # L2, between the subnetwork of the trained dense network and the trained subnetwork
    "pruning_angle": _NUMBER,
    "top1": _NUMBER,  # mean of the two trainings of the subnetwork
    "dense_top1": _NUMBER,
}
"""Of a row that tells how stable a ticket, or a control of it, is to pruning and to the order of the data."""

CONNECTIVITY: dict[str, Any] = {
    "control": _TEXT,
    "replicate": _WHOLE,
    "points": list,  # [alpha, error, loss, recalibrated error, recalibrated loss]; None where one is not finite
    "barrier": _MAYBE,  # of the error; None where no number can be given, as for all four
    "barrier_recalibrated": _MAYBE,
    "loss_barrier": _MAYBE,
    "loss_barrier_recalibrated": _MAYBE,
}
"""Of a row that tells how error and loss run on the line between two trainings of a ticket or of a control."""

MAGNITUDES: dict[str, Any] = {
    "natural_density": _NUMBER,  # fraction of the prunable weights above machine precision at the end of training
    "layers": dict,  # layer -> [above, total]
    "bins": list,  # edges of log10 |w|, ascending
    "counts": list,  # weights in each bin
    "zeros": _WHOLE,  # weights of exactly 0, in no bin
}
"""Of a row with the weights of a trained ticket by their magnitude."""

OVERLAP: dict[str, Any] = {
    "other_run": _TEXT,
    "other_objective": _TEXT,
    "other_level": _WHOLE,
    "other_density": _NUMBER,
    "other_hash": _TEXT,
    "other_seed": _WHOLE,
    "jaccard": _NUMBER,  # weights that both keep, of those that either keeps
    "chance": _NUMBER,  # expected of independent random masks with the same density of each layer
    "layers": dict,  # layer -> [both keep, either keeps, chance]
}
"""Of a row that compares the masks of two tickets."""

CHANNELS: dict[str, Any] = {
    "layers": dict,  # layer -> [kept, total]
    "dead": dict,  # layer -> [output channels that lost every weight, output channels]
}
"""Of a row that tells what is left of a ticket's layers."""

KINDS: dict[str, dict[str, Any]] = {
    "score": SHARED | LOSS | TRAINED | TARGET | SCORE,
    "level": SHARED | LOSS | TRAINED | LEVEL,
    "stability": SHARED | TRAINED | TARGET | STABILITY,
    "connectivity": SHARED | TRAINED | TARGET | CONNECTIVITY,
    "magnitudes": SHARED | TARGET | MAGNITUDES,
    "overlap": SHARED | OVERLAP,
    "channels": SHARED | CHANNELS,
}
"""The keys of each kind of row, and their types."""

OLD_HEAD = "new"
"""How rows that do not tell their `head` were made."""
OLD_STARTS = {kind: "0" if kind == "score" else "k" for kind, keys in KINDS.items() if "start" in keys}
"""How rows that do not tell their `start` were made."""

KEYS: dict[str, Any] = {key: kind for keys in KINDS.values() for key, kind in keys.items()}
"""Those of all kinds; a key has one type wherever it is."""
COLUMNS = ["kind", *KEYS]
OPTIONAL = (
    *("within", "search", "settings", "rewind_samples", "saved_samples", "search_epochs", "probe", "channels"),
    *("control_density", "undecided", "source_hash", "effective_density", "forward_images", "backward_images"),
    *("protocol_hash", "start", "head", "eval_hash", "replicate", "trained_level", "trained_density"),
    *("search_forward_images", "numerics", "bad_hash"),
)
"""Keys that rows written before they were thought of lack, or that only some controls have."""
LACKING = {"score": ("natural_density",)}
"""Keys that are optional in one kind of row only."""

CONTROLS = ("ticket", "reset", "permuted", "preserved", "local", "random", "adjusted")
"""The ticket itself; W_0 in its mask; W_k in its mask permuted over all layers; weights drawn anew in its mask, in its
mask permuted within each layer, over all layers, and in a mask drawn among the weights that do not go to zero by
themselves."""

CONTROL_WORDS = {
    "reset": "W_0, the initialisation, in the ticket's mask",
    "permuted": "W_k in the ticket's mask permuted over all layers",
    "preserved": "weights drawn anew in the ticket's mask",
    "local": "weights drawn anew in the ticket's mask permuted within each layer",
    "random": "weights drawn anew in a mask permuted over all layers; one for all searches of a seed",
    "adjusted": "weights drawn anew in a mask among those that do not go to zero by themselves; one for all searches "
    "of a seed",
}
"""What a score's controls are, for a person."""

OWNED_CONTROLS = ("reset", "permuted")
"""Controls of scores that keep a search's own weights; of all others they are drawn."""

SHARED_CONTROLS = ("random", "adjusted")
"""Controls that owe nothing to the run whose densities they copy: all runs share them."""

WITH_LABELS = ("supervised", "s4l")
"""Objectives that need labels; tickets of all others are called label-agnostic."""

_FRACTIONS = (
    *("density", "subset", "top1", "top5", "dense_top1", "natural_density", "control_density"),
    *("other_density", "jaccard", "chance", "effective_density", "trained_density"),
)


_SEEDS = ("seed", "search_seed", "other_seed", "replicate")
_ANGLES = ("order_angle", "pruning_angle")
_LOSSES = ("loss", "barrier", "barrier_recalibrated", "loss_barrier", "loss_barrier_recalibrated")
_BOUNDS = (
    dict.fromkeys(_FRACTIONS, (0.0, 1.0)) | dict.fromkeys(_ANGLES, (0.0, 180.0)) | dict.fromkeys(_LOSSES, (-1e39, 1e39))
)
_OTHERS = (0.0, float(2**53))  # counts, seconds and lengths
_SEED = 2**63  # which the columns of a table hold no more


def wrong(row: Any) -> str | None:
    """What keeps `row`, decoded JSON, from being a row; None for a good one."""
    kind = row.get("kind") if isinstance(row, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        return f"is no row of a known kind ({', '.join(KINDS)})"
    wanted = KINDS[kind]
    optional = (*OPTIONAL, *LACKING.get(kind, ()))
    if lacking := [key for key in wanted if key not in row and key not in optional]:
        return f"lacks {', '.join(lacking)}"
    if odd := [key for key in row if key not in KEYS and key != "kind"]:
        return f"has {odd[0][:80]!r}, which only a newer version can have written (update sslticket)"
    # Those of other kinds too, which older versions wrote: all are columns of one table.
    for key in (key for key in KEYS if key in row):
        types = KEYS[key]
        # Not isinstance: JSON's true is no number.
        if type(row[key]) not in (types if isinstance(types, tuple) else (types,)):
            return f"has {key} {_shown(row[key])}, which is of the wrong type"
        if fault := _beyond(key, row[key]):
            return f"has {key} {_shown(row[key])}, which {fault}"
    if row["density"] == 0:
        return "has density 0; a ticket keeps at least one weight"
    if row.get("control", "ticket") not in CONTROLS:
        return f"has control {_shown(row['control'])}, which is none of {', '.join(CONTROLS)}"
    return nested.wrong(row, KEYS)


def _beyond(key: str, value: Any) -> str | None:
    """Why a value cannot be that of a key, of whose type it is."""
    if not isinstance(value, (int, float)):
        return None
    if key in _SEEDS:
        return None if -_SEED <= value < _SEED else "has more than 64 bits"
    least, most = _BOUNDS.get(key, _OTHERS)
    if least <= value <= most:
        return None
    return "is no fraction from 0 to 1" if (least, most) == (0, 1) else f"is not from {least:g} to {most:g}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
