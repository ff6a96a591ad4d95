"""What the header of a ticket's file must hold; docs/ticket-format.md describes each field."""

from collections.abc import Mapping
from typing import Any

from sslticket.tensors import is_name

_FIELDS: dict[str, type] = {
    "format": int,
    "level": int,
    "density": float,
    "recipe": dict,
    "provenance": dict,
    "layers": dict,
    "order": list,
    "hash": str,
}
_HIGHEST = 100_000  # level
_Types = Mapping[str, tuple[type, ...]]
_RECIPE: _Types = {
    **dict.fromkeys(("model", "precision"), (str,)),
    **dict.fromkeys(("data", "fit", "search", "objective"), (dict,)),
    "seed": (int,),
}
_DATA: _Types = {"dataset": (str,), **dict.fromkeys(("image_size", "channels"), (int, type(None)))}
_PROVENANCE: _Types = {
    **dict.fromkeys(("dataset", "classes_hash", "source_hash", "data_hash", "objective"), (str,)),
    **dict.fromkeys(("weights", "numerics", "commit"), (str,)),
    **dict.fromkeys(("images", "classes", "seed", "rewind_samples", "search_samples"), (int,)),
    **dict.fromkeys(("search_forward_images", "undecided"), (int, type(None))),
    **dict.fromkeys(("half", "permutation", "versions"), (dict,)),
}
"""Fields that those who read a ticket rely on: they may be missing, and a truth value is no number."""


def wrong(header: dict[str, Any]) -> str | None:
    """What keeps a header from being a ticket's; None for a good one."""
    wanted = _FIELDS if header["format"] == 1 else _FIELDS | {"head": list}
    if differ := header.keys() ^ wanted.keys():
        return f"its header has {min(differ)[:80]!r} and should not, or lacks it"
    for name, kind in wanted.items():
        if type(header[name]) is not kind:
            return f"its header has {name} {str(header[name])[:80]!r}, which is of the wrong type"
    if not 0 <= header["level"] <= _HIGHEST:
        return f"its level is {header['level']}"
    for listed in ("order", "head"):
        names = header.get(listed, [])
        if unnamed := [name for name in names if not is_name(name)]:
            return f"a tensor in its {listed} is named {str(unnamed[0])[:80]!r}"
        if len(set(names)) < len(names):
            return f"its {listed} names a tensor twice"
    for tree, known in ((header["recipe"], _RECIPE), (header["recipe"].get("data", {}), _DATA)):
        if isinstance(tree, dict) and (odd := _odd(tree, known)):
            return f"its recipe has {odd}"
    if odd := _odd(header["provenance"], _PROVENANCE):
        return f"its provenance has {odd}"
    layers = header["layers"]
    if not layers or not layers.keys() <= set(header["order"]) or header.get("head") == []:
        return "its header names no layers, other ones in its order, or an empty head"
    for name, layer in layers.items():
        if not isinstance(layer, dict) or layer.keys() != {"shape", "kept", "coding"}:
            return f"layer {name} is described by {str(layer)[:80]!r}"
    return None


def _odd(tree: Mapping[str, Any], known: _Types) -> str | None:
    """The first field of a wrong type."""
    for name, value in tree.items():
        if name in known and type(value) not in known[name]:
            return f"{name} {str(value)[:80]!r}, which is of the wrong type"
    return None
