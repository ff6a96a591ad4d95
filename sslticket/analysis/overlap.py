"""What masks alone show: how much two tickets' masks have in common, and which output channels are dead.

Nothing is trained for these analyses.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from sslticket.analysis.base import TicketAnalysis
from sslticket.errors import BadInput
from sslticket.pruning.mask import Mask
from sslticket.results.rows import ChannelsRow, OverlapRow, compare_seeds
from sslticket.results.rows import Row as TypedRow
from sslticket.results.work_queue import Row, align_columns
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket, run_folder_of


@dataclass(frozen=True)
class DeadChannels(TicketAnalysis):
    """Density of each layer, and output channels that lost every weight.

    Output channels are the first dimension of a weight: filters of a convolution, units of a linear layer. What a dead
    one passes on is its bias or its batch norm's shift, the same for every image.
    """

    row_type: ClassVar[type[TypedRow]] = ChannelsRow

    def measure(self, ticket: Ticket) -> dict[str, Any]:
        """See the base class."""
        return {
            "layers": {name: list(counts) for name, counts in ticket.mask.layer_counts().items()},
            "dead": {name: list(counts) for name, counts in dead_channels(ticket.mask).items()},
        }

    def describe_row(self, row: Mapping[str, Any]) -> str:
        """See the base class."""
        count, total = (sum(counts) for counts in zip(*row["dead"].values(), strict=True))
        gone = [name for name, (lost, channels) in row["dead"].items() if lost == channels]
        cut = f"; no weight is left of {', '.join(gone)}" if gone else ""
        return f"density {row['density']:.3%}, {count:,} of {total:,} output channels are dead{cut}"


def dead_channels(mask: Mask) -> dict[str, tuple[int, int]]:
    """For each layer its output channels that lost every weight, and all there are."""
    return {name: (int((~layer.flatten(1).any(1)).sum()), len(layer)) for name, layer in mask.items()}


@dataclass(frozen=True)
class Overlap(TicketAnalysis):
    """How much the masks of tickets have in common, beside what chance gives.

    Compares the masks of tickets of one network: the Jaccard index of all weights and of each layer, and what random
    masks with the same density of each layer are expected to have. Pairs of dense networks are left out, and so are
    copies of a ticket.

    Attributes:
        pairs: Which tickets are compared: those of the same level, or all.
    """

    row_type: ClassVar[type[TypedRow]] = OverlapRow
    pairs: Literal["level", "all"] = "level"

    def measure(self, ticket: Ticket) -> dict[str, Any]:
        """A row is about a pair of tickets, see `rows`."""
        raise NotImplementedError

    def rows(self, paths: Sequence[Path]) -> Iterator[Row]:
        """A row for each pair of tickets, written beside the one of lower level before it is yielded.

        Two tickets are in memory at a time, and the bits of up to 32 masks.

        Args:
            paths: Paths of ticket files.

        Raises:
            BadInput: If a ticket is damaged, or no two can be compared.
        """
        fetch = lru_cache(maxsize=_CACHED_MASKS)(self._load)
        found = {}
        for path in paths:
            about, packed = fetch(path)
            network = tuple((name, layer.size) for name, layer in packed.items())
            found[about["ticket_hash"]] = _TicketMask(path, about, network)
        tickets = sorted(found.values(), key=lambda each: [each.about[key] for key in ("level", "run", "ticket_hash")])
        pairs = [pair for pair in combinations(tickets, 2) if self._compares(*pair)]
        if not pairs:
            same, fix = ("", "") if self.pairs == "all" else (" and level", ", or --pairs all")
            raise BadInput(
                f"of {len(tickets)} tickets no two are sparse and of one network{same}; "
                f"give the folders of several runs{fix}"
            )
        for one, other in pairs:
            overlap = mask_overlap(fetch(one.path)[1], fetch(other.path)[1])
            fields = {
                **one.about,
                **{f"other_{key}": other.about[key] for key in ("run", "objective", "level", "density")},
                "other_hash": other.about["ticket_hash"],
                **({"other_seed": other.about["search_seed"]} if "search_seed" in other.about else {}),
                "jaccard": overlap.jaccard,
                "chance": overlap.chance,
                "layers": {name: list(counts) for name, counts in overlap.layers.items()},
            }
            row = self._typed(fields)
            name = f"{one.path.stem}.overlap.{other.about['run']}.{other.path.stem}.jsonl"
            write_row(run_folder_of(one.path) / "rows" / name, row)
            yield row

    def _load(self, path: Path) -> "tuple[Row, dict[str, PackedLayer]]":
        ticket = Ticket.load(path).with_parts()
        return self.row_fields(path, ticket), pack_mask(ticket.mask)

    def _compares(self, one: "_TicketMask", other: "_TicketMask") -> bool:
        same_level = one.about["level"] == other.about["level"]
        sparse = min(one.about["density"], other.about["density"]) < 1
        return one.network == other.network and sparse and (same_level or self.pairs == "all")

    def summarize(self, rows: Sequence[Row]) -> str:
        """Mean Jaccard index and chance of rows that compare the same objectives at the same levels, as a table."""
        groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in rows:
            objectives = " ".join(sorted([row["objective"], row["other_objective"]]))
            searches = compare_seeds(row.get("search_seed"), row.get("other_seed"))
            searches = "one" if row["run"] == row["other_run"] else searches
            groups[objectives, searches, row["level"], row["other_level"]].append(row)
        lines = [["objectives", "searches", "levels", "Jaccard", "chance", "pairs"]]
        for (objectives, searches, level, other), own in sorted(groups.items()):
            levels = str(level) if level == other else f"{level} {other}"
            means = [f"{sum(row[key] for row in own) / len(own):.3f}" for key in ("jaccard", "chance")]
            lines.append([objectives, searches, levels, *means, str(len(own))])
        return align_columns(lines)


_CACHED_MASKS = 32
"""Masks in memory at a time: as bits, so many take what the float32 weights of one network take."""


class MaskOverlap(NamedTuple):
    """What two masks have in common.

    Attributes:
        jaccard: Weights that both keep, of those that either keeps.
        chance: The expected number that both keep over the expected number that either keeps, of independent random
            masks that keep as many weights of each layer.
        layers: For each layer the weights that both keep, those that either keeps, and its own chance. Of a layer
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
    """Compares two masks of the same layers.

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
    about: Row
    network: tuple[tuple[str, int], ...]  # names and sizes of its layers
