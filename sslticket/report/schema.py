"""What a row holds: one JSON object a line, written by searches ("level") and evaluations ("score")."""

import math
from collections.abc import Callable
from typing import Any

_TEXT, _WHOLE, _NUMBER = str, int, (int, float)

SHARED: dict[str, Any] = {
    "run": _TEXT,  # key of the run that found the ticket
    "recipe": _TEXT,  # hash of all its settings but the seed: replicates share it
    "objective": _TEXT,
    "model": _TEXT,
    "source": _TEXT,  # dataset the ticket was found on
    "subset": _NUMBER,  # fraction of it
    "subset_by": _TEXT,  # samples or classes
    "level": _WHOLE,  # 0 = dense
    "density": _NUMBER,  # fraction of the prunable weights that remain
    "within": _TEXT,  # which layers might be pruned, "up to conv3"; "" for all
    "ticket_hash": _TEXT,
    "search_seed": _WHOLE,
    "loss": (*_NUMBER, type(None)),  # last of the training for a level, None where none was; test loss of a score
    "samples": _WHOLE,  # source images seen by this training
    "seconds": _NUMBER,
    "steps": _WHOLE,
    "command": _TEXT,
    "commit": _TEXT,
    "versions": dict,  # library -> version
    "data_hash": _TEXT,
    "device": _TEXT,
    "precision": _TEXT,
}
"""Keys of every row, and their types."""

SCORE: dict[str, Any] = {
    "control": _TEXT,
    "protocol": _TEXT,
    "target": _TEXT,  # dataset of the protocol
    "seed": _WHOLE,
    "top1": _NUMBER,  # fraction
    "top5": _NUMBER,
    "channels": _WHOLE,  # of the images as the network saw them
    "natural_density": _NUMBER,  # of "adjusted": fraction of the dense network's weights that training leaves
    "control_density": _NUMBER,  # of "adjusted": of its own mask, which is never denser than the natural one
}
"""Further keys of a row that scores a ticket, or a control of it, under a protocol."""

LEVEL: dict[str, Any] = {
    "metrics": dict,  # name -> number: does the search's own task get learnt?
    "probe": dict,  # step -> accuracy of the nearest-neighbour probe, a fraction; empty where none was asked for
    "saved_samples": _WHOLE,  # that the training did not see, since its mask had settled
    "search_samples": _WHOLE,  # samples seen by the search up to the end of this level
    "layers": dict,  # layer -> [kept, total]
    "bad_images": _WHOLE,
}
"""Further keys of a row that tells of one trained level of a search."""

KINDS = {"score": SHARED | SCORE, "level": SHARED | LEVEL}
COLUMNS = ["kind", *(SHARED | SCORE | LEVEL)]
OPTIONAL = ("within", "saved_samples", "probe", "channels", "natural_density", "control_density")
"""Keys that rows written before they were thought of lack, or that only some controls have."""

CONTROLS = ("ticket", "preserved", "local", "random", "adjusted")
"""The ticket itself; weights drawn anew in its mask; its mask permuted within each layer; over all layers; and a mask
drawn among the weights that do not go to zero by themselves."""

SHARED_CONTROLS = ("random", "adjusted")
"""Controls that owe nothing to the run whose densities they copy: all runs share them."""

WITH_LABELS = ("supervised", "s4l")
"""Objectives that need labels; tickets of all others are called label-agnostic."""


def wrong(row: Any) -> str | None:
    """What keeps `row`, decoded JSON, from being a row; None for a good one."""
    if not isinstance(row, dict) or row.get("kind") not in KINDS:
        return f"is no row of a known kind ({' or '.join(KINDS)})"
    wanted = KINDS[row["kind"]]
    if lacking := [key for key in wanted if key not in row and key not in OPTIONAL]:
        return f"lacks {', '.join(lacking)}"
    for key, kind in wanted.items():
        if key in row and not isinstance(row[key], kind):
            return f"has {key} {row[key]!r}, which is of the wrong type"
    for key in ("density", "subset", "top1", "top5", "natural_density", "control_density"):
        if not 0 <= row.get(key, 1) <= 1:
            return f"has {key} {row[key]!r}, which is no fraction from 0 to 1"
    if row["density"] == 0:
        return "has density 0; a ticket keeps at least one weight"
    if row.get("control", "ticket") not in CONTROLS:
        return f"has control {row['control']!r}, which is none of {', '.join(CONTROLS)}"
    for key, good in _NESTED.items():
        for name, value in row.get(key, {}).items():
            if not good(name, value):
                return f"has {value!r} for {name!r} in its {key}, which cannot be"
    return None


def _number(value: Any) -> bool:
    return isinstance(value, _NUMBER) and math.isfinite(value)


_NESTED: dict[str, Callable[[str, Any], bool]] = {
    "versions": lambda _, value: isinstance(value, str),
    "metrics": lambda _, value: _number(value),
    "probe": lambda step, value: step.isdigit() and _number(value) and 0 <= value <= 1,
    "layers": lambda _, value: (
        isinstance(value, list) and [type(count) for count in value] == [int, int] and 0 <= value[0] <= value[1] > 0
    ),
}
