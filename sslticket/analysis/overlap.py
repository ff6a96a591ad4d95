"""What masks alone show: how much two tickets' masks have in common, and which output channels are dead.

Nothing is trained for these analyses.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sslticket import provenance
from sslticket.errors import BadInput
from sslticket.evaluation.tasks import ticket_row_fields
from sslticket.evaluation.worker import align_columns
from sslticket.pruning.mask import Mask
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket, run_folder_of


def mask_row_fields(path: Path, ticket: Ticket) -> dict[str, Any]:
    """All but what is measured; nothing is trained for it, so images and numerics are those of the search.

    Args:
        path: of the ticket's file.
        ticket: read from there.
    """
    precision = ticket.recipe["precision"]
    how = {"device": "cpu", "precision": precision, "numerics": ticket.provenance.get("numerics", precision)}
    return (
        ticket_row_fields(path, ticket)
        | {"data_hash": ticket.provenance["data_hash"], **how}
        | provenance.collect_provenance()
    )


def dead_channels(mask: Mask) -> dict[str, tuple[int, int]]:
    """For each layer its output channels that lost every weight, and all there are.

    Output channels are the first dimension of a weight: filters of a convolution, units of a linear layer. What a dead
    one passes on is its bias or its batch norm's shift, the same for every image.
    """
    return {name: (int((~layer.flatten(1).any(1)).sum()), len(layer)) for name, layer in mask.items()}


def describe_channels(row: Mapping[str, Any]) -> str:
    """What a row shows, in a few words."""
    count, total = (sum(counts) for counts in zip(*row["dead"].values(), strict=True))
    gone = [name for name, (lost, whole) in row["dead"].items() if lost == whole]
    cut = f"; no weight is left of {', '.join(gone)}" if gone else ""
    return f"density {row['density']:.3%}, {count:,} of {total:,} output channels are dead{cut}"


def measure_channels(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """A row for each ticket, written beside it before it is yielded; one ticket is in memory at a time.

    Args:
        paths: of ticket files.

    Raises:
        BadInput: if a ticket is damaged.
    """
    for path in paths:
        ticket = Ticket.load(path)
        row = {
            "kind": "channels",
            **mask_row_fields(path, ticket),
            "layers": {name: list(counts) for name, counts in ticket.mask.layer_counts().items()},
            "dead": {name: list(counts) for name, counts in dead_channels(ticket.mask).items()},
        }
        write_row(run_folder_of(path) / "rows" / f"{path.stem}.channels.jsonl", row)
        yield row


_CACHED_MASKS = 32
"""Masks in memory at a time: as bits, so many take what the float32 weights of one network take."""


class MaskOverlap(NamedTuple):
    """What two masks have in common.

    Attributes:
        jaccard: weights that both keep, of those that either keeps.
        chance: the expected number that both keep over the expected number that either keeps, of independent random
            masks that keep as many weights of each layer.
        layers: for each layer the weights that both keep, those that either keeps, and its own chance. Of a layer
            that both emptied this is (0, 0, 1.0): empty masks are equal.
    """

    jaccard: float
    chance: float
    layers: dict[str, tuple[int, int, float]]


class PackedLayer(NamedTuple):
    """One layer of a mask, eight weights a byte."""

    packed: np.ndarray
    kept: int
    size: int


def pack_mask(mask: Mask) -> dict[str, PackedLayer]:
    """A mask in an eighth of its bytes."""
    kept = mask.layer_counts()
    return {name: PackedLayer(np.packbits(layer.numpy()), *kept[name]) for name, layer in mask.items()}


def mask_overlap(one: Mapping[str, PackedLayer], other: Mapping[str, PackedLayer]) -> MaskOverlap:
    """Compare two masks of the same layers.

    A random mask keeps a of a layer's n weights. Two such masks, with a and b, both keep a * b / n on average, and
    either keeps a + b - a * b / n.
    """
    layers = {}
    sums = np.zeros(4)
    for name, layer in one.items():
        a, b, size = layer.kept, other[name].kept, layer.size
        both = int(np.bitwise_count(layer.packed & other[name].packed).sum(dtype=np.int64))
        counts = (both, a + b - both, a * b / size, a + b - a * b / size)
        layers[name] = (counts[0], counts[1], counts[2] / counts[3] if counts[3] else 1.0)
        sums += counts
    return MaskOverlap(float(sums[0] / sums[1]), float(sums[2] / sums[3]), layers)


class _TicketMask(NamedTuple):
    """What is known of a ticket while its mask is not in memory."""

    path: Path
    about: dict[str, Any]
    network: tuple[tuple[str, int], ...]  # names and sizes of its layers


def measure_overlap(paths: Sequence[Path], *, across_levels: bool = False) -> Iterator[dict[str, Any]]:
    """A row for each pair of tickets of one network, written beside the one of lower level before it is yielded.

    Two tickets are in memory at a time, and the bits of up to 32 masks. Pairs of dense networks are left out, and so
    are copies of a ticket.

    Args:
        paths: of ticket files.
        across_levels: also compare tickets of different levels.

    Raises:
        BadInput: if a ticket is damaged, or no two can be compared.
    """
    fetch = lru_cache(maxsize=_CACHED_MASKS)(_load_packed_mask)
    found = {entry.about["ticket_hash"]: entry for entry in (_make_entry(path, *fetch(path)) for path in paths)}
    entries = sorted(found.values(), key=lambda each: [each.about[key] for key in ("level", "run", "ticket_hash")])
    pairs = [pair for pair in combinations(entries, 2) if _are_comparable(*pair, across_levels=across_levels)]
    if not pairs:
        alike, fix = ("", "") if across_levels else (" and level", ", or --pairs all")
        raise BadInput(
            f"of {len(entries)} tickets no two are sparse and of one network{alike}; "
            f"give the folders of several runs{fix}"
        )
    for one, other in pairs:
        row = _overlap_row(one, other, mask_overlap(fetch(one.path)[1], fetch(other.path)[1]))
        name = f"{one.path.stem}.overlap.{other.about['run']}.{other.path.stem}.jsonl"
        write_row(run_folder_of(one.path) / "rows" / name, row)
        yield row


def _load_packed_mask(path: Path) -> tuple[dict[str, Any], dict[str, PackedLayer]]:
    ticket = Ticket.load(path)
    return mask_row_fields(path, ticket), pack_mask(ticket.mask)


def _make_entry(path: Path, about: dict[str, Any], packed: Mapping[str, PackedLayer]) -> _TicketMask:
    return _TicketMask(path, about, tuple((name, layer.size) for name, layer in packed.items()))


def _are_comparable(one: _TicketMask, other: _TicketMask, *, across_levels: bool) -> bool:
    same_level = one.about["level"] == other.about["level"]
    sparse = min(one.about["density"], other.about["density"]) < 1
    return one.network == other.network and sparse and (same_level or across_levels)


def _overlap_row(one: _TicketMask, other: _TicketMask, found: MaskOverlap) -> dict[str, Any]:
    keys = {key: key for key in ("run", "objective", "level", "density")} | {
        "hash": "ticket_hash",
        "seed": "search_seed",
    }
    return {
        "kind": "overlap",
        **one.about,
        **{f"other_{short}": other.about[key] for short, key in keys.items()},
        "jaccard": found.jaccard,
        "chance": found.chance,
        "layers": {name: list(counts) for name, counts in found.layers.items()},
    }


def summarize_overlap(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean Jaccard index and chance of rows that compare the same objectives at the same levels, as a table."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        objectives = " ".join(sorted([row["objective"], row["other_objective"]]))
        groups[objectives, _search_relation(row), row["level"], row["other_level"]].append(row)
    lines = [["objectives", "searches", "levels", "Jaccard", "chance", "pairs"]]
    for (objectives, kinship, level, other), own in sorted(groups.items()):
        levels = str(level) if level == other else f"{level} {other}"
        means = [f"{sum(row[key] for row in own) / len(own):.3f}" for key in ("jaccard", "chance")]
        lines.append([objectives, kinship, levels, *means, str(len(own))])
    return align_columns(lines)


def _search_relation(row: Mapping[str, Any]) -> str:
    if row["run"] == row["other_run"]:
        return "one"
    return "same seed" if row["search_seed"] == row["other_seed"] else "other seeds"
