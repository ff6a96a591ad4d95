"""A mask in few bytes: per layer as bits, or as gaps between survivors, whichever is smaller."""

from typing import Literal

import numpy as np

Coding = Literal["bits", "gaps"]

_ESCAPE = 255  # a gap of 255 or more is written as 255s followed by the rest


def pack(alive: np.ndarray) -> tuple[Coding, np.ndarray]:
    """The shorter coding of a flat bool array: its name and (n,) uint8 bytes.

    bits: eight weights a byte, first weight in the highest bit. gaps: for each survivor the number of pruned weights
    since the one before, a byte each, 255 meaning "255 and more follow".
    """
    bits, gaps = np.packbits(alive), _gaps(alive)
    return ("gaps", gaps) if len(gaps) < len(bits) else ("bits", bits)


def unpack(coding: object, data: np.ndarray, size: int) -> np.ndarray:
    """The flat bool array of `size` weights that `pack` coded; `size` is one that there is memory for.

    Raises:
        ValueError: if the bytes do not describe an array of this size, or not in the shorter coding.
    """
    bits = -(-size // 8)
    if coding == "bits":
        if len(data) != bits or np.unpackbits(data[-1:])[(size - 1) % 8 + 1 :].any():
            raise ValueError(f"{len(data)} bytes of bits for {size} weights")
        alive = np.unpackbits(data, count=size).view(bool)
        if np.count_nonzero(alive) < bits and len(_gaps(alive)) < bits:
            raise ValueError(f"bits for {size} weights, of which gaps would tell in fewer")
        return alive
    if coding != "gaps":
        raise ValueError(f"a coding named {str(coding)[:40]!r}")
    if len(data) >= bits:
        raise ValueError(f"{len(data)} bytes of gaps, where {bits} of bits would do")
    ends = np.flatnonzero(data != _ESCAPE)
    if len(data) and (not len(ends) or ends[-1] != len(data) - 1):
        raise ValueError("gaps that end in the middle of one")
    survivors = np.cumsum(data, dtype=np.int64)[ends] + np.arange(len(ends))
    if len(survivors) and survivors[-1] >= size:
        raise ValueError(f"a survivor at {survivors[-1]} of {size} weights")
    alive = np.zeros(size, bool)
    alive[survivors] = True
    return alive


def _gaps(alive: np.ndarray) -> np.ndarray:
    gaps = np.diff(np.flatnonzero(alive), prepend=-1) - 1
    escapes, rest = np.divmod(gaps, _ESCAPE)
    coded = np.full(len(gaps) + int(escapes.sum()), _ESCAPE, np.uint8)
    coded[np.cumsum(escapes + 1) - 1] = rest
    return coded
