"""Masks over the prunable weights, the selection of survivors, the counts of each level, and a compact form."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslticket.errors import BadInput
from sslticket.pruning.pattern import Pattern

StateDict = dict[str, Tensor]
"""Parameters and buffers of a backbone by their plain names, without gates or heads."""


@dataclass(frozen=True, eq=False)
class Mask(Mapping[str, Tensor]):
    """A mask: names of prunable weights -> bool tensors of their shapes on the CPU; True survives.

    Attributes:
        layers: The tensors by name, in the network's order.
    """

    layers: dict[str, Tensor]

    @classmethod
    def ones_like(cls, state: Mapping[str, Tensor], names: list[str]) -> "Mask":
        """The mask of the dense network."""
        return cls({name: torch.ones_like(state[name], dtype=torch.bool, device="cpu") for name in names})

    @classmethod
    def top(
        cls,
        scores: Mapping[str, Tensor],
        *,
        keep: int,
        within: "Mask",
        at_least: int = 0,
        pattern: Pattern | None = None,
    ) -> "Mask":
        """Exactly the `keep` highest scores of all layers together, among the survivors of `within`.

        Ties go to the earlier weight: layers in the order of `within`, then the flattened index.

        Args:
            scores: Scores of every weight in the shapes of the weights, by name.
            keep: Number of weights that survive.
            within: The mask before.
            at_least: Number of each layer's highest scores that are kept in any case, or all where a layer has fewer;
                the rest are the highest of what is left.
            pattern: An N:M pattern. A mask as sparse as N:M, or sparser, is chosen among the N highest of each group. A
                denser one keeps these in any case, so that it can be pruned to N:M later.

        Raises:
            BadInput: If fewer than `keep` weights survive in `within`, `keep` is not positive or too few for
                `at_least`, or a score is NaN.
        """
        if pattern is not None:
            best = cls(pattern.best(scores, within))
            if (left := keep - best.survivors) > 0:
                others = cls({name: layer & ~best[name] for name, layer in within.items()})
                rest = cls.top(scores, keep=left, within=others)
                return cls({name: best[name] | rest[name] for name in within})
            within = best
        if at_least:
            return cls._top_of_each(scores, keep, within, at_least)
        # In numpy, whose passes over bytes and whose partition are several times faster than torch's on a CPU.
        values = {name: scores[name].detach().to("cpu").numpy() for name in within}
        alive = {name: layer.numpy() for name, layer in within.items()}
        ranked = [
            values[name].ravel() if alive[name].all() else values[name].ravel()[np.flatnonzero(alive[name])]
            for name in within
        ]
        threshold, ties = _selection_threshold(np.concatenate(ranked), keep)
        layers = {}
        for name in within:
            layer = (values[name] > threshold) & alive[name]
            if ties:
                equal = np.flatnonzero((values[name] == threshold) & alive[name])[:ties]
                layer.flat[equal] = True
                ties -= len(equal)
            layers[name] = torch.from_numpy(layer)
        return cls(layers)

    @classmethod
    def _top_of_each(cls, scores: Mapping[str, Tensor], keep: int, within: "Mask", at_least: int) -> "Mask":
        first: dict[str, Tensor] = {}
        for name, alive in within.items():
            own = min(at_least, _count_survivors(alive))
            first[name] = cls.top(scores, keep=own, within=cls({name: alive}))[name] if own else alive
        left = keep - cls(first).survivors
        if left < 0:
            raise BadInput(
                f"a level must keep at least {at_least:,} weights in each of {len(first)} layers, got {keep:,} in all; "
                "give fewer levels, a smaller rate, or a smaller minimum"
            )
        if left == 0:
            return cls(first)
        rest = cls.top(scores, keep=left, within=cls({name: within[name] & ~first[name] for name in within}))
        return cls({name: first[name] | rest[name] for name in within})

    def restrict(self, names: Iterable[str]) -> "Mask":
        """The mask of these layers alone.

        Raises:
            BadInput: If the mask lacks one of them.
        """
        names = list(names)
        if lacking := [name for name in names if name not in self]:
            raise BadInput(
                f"a mask must have a layer {lacking[0]}, got {len(self)} other layers: it is of another model or of an "
                "earlier version; delete its file and run the same command again"
            )
        return Mask({name: self[name] for name in names})

    def __getitem__(self, name: str) -> Tensor:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(layer.numel() for layer in self.values())

    @property
    def survivors(self) -> int:
        """Number of weights that remain."""
        return sum(_count_survivors(layer) for layer in self.values())

    @property
    def density(self) -> float:
        """Fraction of the prunable weights that remain."""
        return self.survivors / self.total

    def layer_counts(self) -> dict[str, tuple[int, int]]:
        """For each layer the number of weights that remain and of all there are."""
        return {name: (_count_survivors(layer), layer.numel()) for name, layer in self.items()}

    @property
    def empty_layers(self) -> list[str]:
        """Layers that keep no weight."""
        return [name for name, (left, _) in self.layer_counts().items() if not left]

    def equals(self, other: "Mask") -> bool:
        """Whether both keep the same weights of the same layers."""
        return list(self) == list(other) and all(torch.equal(self[name], other[name]) for name in self)

    def is_subset_of(self, other: "Mask") -> bool:
        """Whether every survivor of this mask survives in the other: masks of a search nest."""
        return list(self) == list(other) and not any(bool((self[name] & ~other[name]).any()) for name in self)


def num_kept(total: int, density: float) -> int:
    """Number of weights that remain of `total` at a density.

    It is computed from the total, not from the level before, so that roundings do not pile up over levels.
    """
    return round(total * density)


def _count_survivors(layer: Tensor) -> int:
    # A hundred times faster than the sum, which torch takes over 64-bit copies.
    return int(np.count_nonzero(layer.numpy()))


def _selection_threshold(values: np.ndarray, keep: int) -> tuple[np.floating, int]:
    """The lowest of the `keep` highest values, and how many of those equal it; reorders `values`.

    A partition, so linear in their number.
    """
    first = len(values) - keep
    if not 0 <= first < len(values):
        raise BadInput(f"a level must keep 1 to {len(values)} weights, got {keep}; give fewer levels or a smaller rate")
    values.partition(first)
    threshold, highest = values[first], values[first:]
    # The partition puts NaN last, above every number, so the highest values are enough to find one.
    if np.isnan(highest).any():
        raise BadInput("scores must be numbers to rank weights by, got NaN; check whether the training diverged")
    return threshold, int(np.count_nonzero(highest == threshold))


class LayerGroup(NamedTuple):
    """Layers with a pruning rate of their own.

    Attributes:
        kind: What the layers are: "", "convolution" or "linear".
        rate: Fraction of the remaining weights pruned at each level.
        mask: The mask of the layers.
    """

    kind: str
    rate: float
    mask: Mask


@dataclass(frozen=True, kw_only=True)
class SparsitySchedule:
    """Exact numbers of survivors for levels that each prune the same fraction.

    Attributes:
        rate: Fraction of the remaining weights pruned at each level.
        linear_rate: The same for linear layers, which are then ranked apart from convolutions; None for one rate.
        scope: Rank all weights of a rate together, or each layer's on their own.
        min_per_layer: Weights that stay in each layer, or all where it has fewer.
        pattern: An N:M pattern that masks as sparse as that, or sparser, keep to; see `Mask.top`.
    """

    rate: float
    linear_rate: float | None = None
    scope: Literal["global", "layer"] = "global"
    min_per_layer: int = 0
    pattern: Pattern | None = None

    def __post_init__(self) -> None:
        for flag, rate in (("--rate", self.rate), ("--linear-rate", self.linear_rate)):
            if rate is not None and not 0 < rate < 1:
                raise BadInput(f"{flag} must be in (0, 1), got {rate:g}; give a fraction such as {flag} 0.2")
        if self.min_per_layer < 0:
            raise BadInput(f"--min-per-layer must be at least 0, got {self.min_per_layer}; give 0 or more")

    def num_kept(self, dense: Mask, level: float) -> int:
        """Number of weights that the ticket of a level keeps, of those that may be pruned."""
        return sum(keep for _, keep in self._ranked_together(dense, level))

    def select(self, scores: Mapping[str, Tensor], level: float, within: Mask) -> Mask:
        """The mask of a level, or of a round between two levels: the highest scores among the survivors of a mask.

        Args:
            scores: The score of each weight, by the names and in the shapes of the mask.
            level: The level whose number of weights is kept; densities fall exponentially between levels.
            within: The mask that is pruned further.
        """
        at_least = 0 if self.scope == "layer" else self.min_per_layer
        selected: dict[str, Tensor] = {}
        for layers, keep in self._ranked_together(within, level):
            chosen = Mask.top(scores, keep=keep, within=layers, at_least=at_least, pattern=self.pattern)
            selected |= chosen.layers
        return Mask(selected).restrict(within)

    def survivors(self, dense: Mask, levels: int) -> tuple[int, ...]:
        """Number of weights that the ticket of each level keeps, the dense network's first.

        Raises:
            BadInput: If a level would leave no weight, or fewer than each layer has to keep; naming the last that can.
        """
        for group in self._groups(dense):
            counts = [num_kept(group.mask.total, (1 - group.rate) ** level) for level in range(levels + 1)]
            kind = f"{group.kind} weights".strip()
            if counts[-1] < 1:
                raise BadInput(
                    f"every level must keep a weight, and {levels} levels at rate {group.rate:g} leave none of "
                    f"{group.mask.total:,} {kind}; give {_last_level_fix(counts, 1)}"
                )
            needed = sum(min(self.min_per_layer, self._most_kept(layer)) for layer in group.mask.values())
            if self.scope == "global" and counts[-1] < needed:
                fits = counts[-1] // len(group.mask)
                less = f", or --min-per-layer {fits} or less" if fits else ""
                raise BadInput(
                    f"level {levels} keeps {counts[-1]:,} of {group.mask.total:,} {kind}, and --min-per-layer "
                    f"{self.min_per_layer} needs {needed:,} in {len(group.mask)} layers; give "
                    f"{_last_level_fix(counts, needed)}{less}"
                )
        return tuple(self.num_kept(dense, level) for level in range(levels + 1))

    def _groups(self, mask: Mask) -> list[LayerGroup]:
        if self.linear_rate is None:
            return [LayerGroup("", self.rate, mask)]
        linear = [name for name, layer in mask.items() if layer.dim() == 2]
        convolutions = [name for name in mask if name not in linear]
        if not (linear and convolutions):
            lacking = "convolution" if linear else "linear layer"
            raise BadInput(f"--linear-rate is for networks of both kinds, and no {lacking} may be pruned; leave it out")
        return [
            LayerGroup("convolution", self.rate, mask.restrict(convolutions)),
            LayerGroup("linear", self.linear_rate, mask.restrict(linear)),
        ]

    def _ranked_together(self, mask: Mask, level: float) -> Iterator[tuple[Mask, int]]:
        """Layers that are ranked together, and how many of their weights a level keeps, computed from their total."""
        for group in self._groups(mask):
            density = (1 - group.rate) ** level
            if self.scope == "global":
                yield group.mask, num_kept(group.mask.total, density)
                continue
            for name in group.mask:
                layer = group.mask.restrict([name])
                # A layer that is ranked alone is never emptied: no other could make up for it.
                least = max(1, self.min_per_layer)
                share = num_kept(layer.total, density)
                yield layer, max(share, min(least, self._most_kept(group.mask[name])))

    def _most_kept(self, layer: Tensor) -> int:
        """How many weights a layer can be made to keep."""
        return layer.numel() if self.pattern is None else self.pattern.most_kept(layer)


def _last_level_fix(counts: list[int], needed: int) -> str:
    """What to give for all levels to keep so many weights; each level keeps fewer than the one before."""
    last = sum(count >= needed for count in counts) - 1
    return f"--levels {last} or less" if last else "a smaller rate"


MaskCoding = Literal["bits", "gaps"]

_GAP_ESCAPE = 255  # a gap of 255 or more is written as 255s followed by the rest


def pack_mask(alive: np.ndarray) -> tuple[MaskCoding, np.ndarray]:
    """The shorter coding of a flat bool array: its name and (n,) uint8 bytes.

    Coding "bits" has eight weights a byte, the first weight in the highest bit. Coding "gaps" has for each survivor the
    number of pruned weights since the one before, a byte each, 255 meaning "255 and more follow".
    """
    bits = np.packbits(alive)
    if np.count_nonzero(alive) >= len(bits):  # each survivor has a byte of gaps at least
        return "bits", bits
    gaps = _encode_gaps(alive)
    return ("gaps", gaps) if len(gaps) < len(bits) else ("bits", bits)


def unpack_mask(coding: object, data: np.ndarray, size: int) -> np.ndarray:
    """The flat bool array of `size` weights that `pack_mask` coded; the caller makes sure that it fits into memory.

    Raises:
        ValueError: If the bytes do not describe an array of this size, or not in the shorter coding.
    """
    bits = -(-size // 8)
    if coding == "bits":
        if len(data) != bits or np.unpackbits(data[-1:])[(size - 1) % 8 + 1 :].any():
            raise ValueError(f"{len(data)} bytes of bits for {size} weights")
        alive = np.unpackbits(data, count=size).view(bool)
        if np.count_nonzero(alive) < bits and len(_encode_gaps(alive)) < bits:
            raise ValueError(f"bits for {size} weights, which gaps would hold in fewer bytes")
        return alive
    if coding != "gaps":
        raise ValueError(f"a coding named {str(coding)[:40]!r}")
    if len(data) >= bits:
        raise ValueError(f"{len(data)} bytes of gaps, where {bits} of bits would do")
    ends = np.flatnonzero(data != _GAP_ESCAPE)
    if len(data) and (not len(ends) or ends[-1] != len(data) - 1):
        raise ValueError("gaps that end in the middle of one")
    survivors = np.cumsum(data, dtype=np.int64)[ends] + np.arange(len(ends))
    if len(survivors) and survivors[-1] >= size:
        raise ValueError(f"a survivor at {survivors[-1]} of {size} weights")
    alive = np.zeros(size, bool)
    alive[survivors] = True
    return alive


def _encode_gaps(alive: np.ndarray) -> np.ndarray:
    gaps = np.diff(np.flatnonzero(alive), prepend=-1) - 1
    escapes, rest = np.divmod(gaps, _GAP_ESCAPE)
    coded = np.full(len(gaps) + int(escapes.sum()), _GAP_ESCAPE, np.uint8)
    coded[np.cumsum(escapes + 1) - 1] = rest
    return coded
