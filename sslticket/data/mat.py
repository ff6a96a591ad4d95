"""Variables in MATLAB's files of level 5, read without trusting a byte of them.

"MAT-File Format", The MathWorks, chapter 1, describes the format. scipy's reader is written in C and dies of forged
files; this one checks every length against what is left, and knows what image sets are published with: arrays of
numbers, text, cells and structures.
"""

import math
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sslticket.errors import BadInput, one_line

_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_NUMBERS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELLS, _STRUCTURE, _TEXT = 1, 2, 4
_COMPLEX = 0x800
_DEEPEST = 8  # structures and cells within one another; what is published has two
_NAMED = 4096  # bytes in which a variable's name has been told
_PIECE = 1 << 16
# Photographs shrink to a half, drawings to a twentieth. Small files may hold what they like.
_MOST_TIMES, _FEW = 100, 1 << 26


def read(content: bytes, names: Collection[str], place: Path) -> dict[str, Any]:
    """The variables of these names that a file holds.

    Args:
        content: of the file.
        names: others are not looked at.
        place: of the file, for errors.

    Returns:
        By name, numbers as an array; text of one line; cells as a list; a structure as a list of one dictionary an
        element. Lists are in MATLAB's order: the first index runs fastest.

    Raises:
        BadInput: if the file is truncated, damaged, of another level, or one of the variables is of a kind that no
            image set needs.
    """
    try:
        big = {b"IM": False, b"MI": True}.get(content[126:128])
        if big is None or content[124:126] != (b"\1\0" if big else b"\0\1"):
            raise ValueError("it is no MATLAB file of level 5")
        return dict(_variables(_Bytes(memoryview(content)[_HEADER:], ">" if big else "<"), names))
    except (ValueError, zlib.error, OverflowError) as error:
        raise BadInput(f"{place} is truncated or damaged ({one_line(error)}); download it again") from error


class _Element(NamedTuple):
    kind: int
    data: "_Bytes"


class _Bytes:
    """What is left to read, and the order of bytes in it."""

    def __init__(self, left: memoryview, order: str) -> None:
        self.left, self.order = left, order

    def take(self, count: int) -> memoryview:
        if count > len(self.left):
            raise ValueError(f"{count:,} bytes are told where {len(self.left):,} are left")
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def number(self) -> int:
        return int.from_bytes(self.take(4), "little" if self.order == "<" else "big")

    def element(self) -> _Element:
        """The next element; what fits in four bytes is beside its tag."""
        tag = self.number()
        if size := tag >> 16:
            if size > 4:
                raise ValueError(f"an element of the kind {tag}")
            return _Element(tag & 0xFFFF, _Bytes(self.take(4)[:size], self.order))
        size = self.number()
        data = self.take(size)
        if tag != _COMPRESSED:
            self.take(min(-size % 8, len(self.left)))  # the last one may lack what fills it up
        return _Element(tag, _Bytes(data, self.order))

    def numbers(self, kinds: Collection[int]) -> np.ndarray:
        """The next element, as the numbers that it must be."""
        kind, data = self.element()
        if kind not in kinds:
            raise ValueError(f"an element of the kind {kind} where {sorted(kinds)[0]} belongs")
        return data.array(kind)

    def array(self, kind: int) -> np.ndarray:
        stored = np.dtype(self.order + _STORED[kind])
        if len(self.left) % stored.itemsize:
            raise ValueError(f"{len(self.left):,} bytes of numbers of {stored.itemsize}")
        return np.frombuffer(self.left, stored)


def _variables(file: _Bytes, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    budget = max(_FEW, _MOST_TIMES * len(file.left))
    while file.left:
        kind, data = file.element()
        if kind == _COMPRESSED:
            start = _Bytes(memoryview(_inflated(data.left, _NAMED)), file.order)
            if start.number() != _MATRIX:
                continue
            size = start.number() + 8
            # No more than the beginning is looked at where the variable is another.
            beginning = _Bytes(start.left[: size - 8], file.order)
            if _Head.of(beginning).name not in names:
                continue
            budget -= size
            if budget < 0:
                raise ValueError(f"{size:,} bytes in {len(data.left):,} compressed ones")
            inner = _Bytes(memoryview(_inflated(data.left, size, whole=True)), file.order)
            kind, data = inner.element()
        if kind == _MATRIX:
            head = _Head.of(data)
            if head.name in names:
                yield head.name, _value(head, data, 0)


def _inflated(data: memoryview, most: int, *, whole: bool = False) -> bytearray:
    """The first `most` bytes of compressed ones, or exactly so many where it must be the whole."""
    stream, found = zlib.decompressobj(), bytearray()
    for start in range(0, len(data), _PIECE):
        found += stream.decompress(data[start : start + _PIECE], most + 1 - len(found))
        if len(found) > most:
            if whole:
                raise ValueError(f"more than the {most:,} bytes that it tells")
            break
        if stream.eof:
            break
    if whole and (len(found) != most or not stream.eof):
        raise ValueError(f"{len(found):,} of {most:,} compressed bytes")
    del found[most:]
    return found


class _Head(NamedTuple):
    """What an array tells before its content: its class, its shape and its name."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str

    @classmethod
    def of(cls, data: _Bytes) -> "_Head":
        flags = data.numbers({6})
        if len(flags) != 2:
            raise ValueError(f"{len(flags)} flags of an array")
        shape = tuple(data.numbers({5}).tolist())
        if not 2 <= len(shape) <= 8 or min(shape) < 0:
            raise ValueError(f"an array of the shape {list(shape[:8])}")
        kind, name = data.element()
        if kind not in (1, 2, 16):
            raise ValueError(f"a name of the kind {kind}")
        return cls(int(flags[0]) & 0xFF, bool(flags[0] & _COMPLEX), shape, bytes(name.left).decode("latin1"))


def _value(head: _Head, data: _Bytes, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"more than {_DEEPEST} cells or structures within one another")
    count = math.prod(head.shape)
    if head.kind in _NUMBERS and not head.is_complex:
        values = data.numbers(_STORED.keys())
        if len(values) != count:
            raise ValueError(f"{len(values):,} numbers in an array of the shape {list(head.shape)}")
        return values.astype(_NUMBERS[head.kind], copy=False).reshape(head.shape, order="F")
    if head.kind == _TEXT:
        return _text(head, data)
    if head.kind == _CELLS:
        _fits(count, data)
        return [_inner(data, depth) for _ in range(count)]
    if head.kind == _STRUCTURE:
        fields = _fields(data)
        _fits(count * max(1, len(fields)), data)
        return [{field: _inner(data, depth) for field in fields} for _ in range(count)]
    raise ValueError(f"an array of the class {head.kind}, which no image set needs")


def _fits(count: int, data: _Bytes) -> None:
    """Every element has a tag, of eight bytes."""
    if 8 * count > len(data.left):
        raise ValueError(f"{count:,} elements in {len(data.left):,} bytes")


def _inner(data: _Bytes, depth: int) -> Any:
    kind, inner = data.element()
    if kind != _MATRIX:
        raise ValueError(f"an element of the kind {kind} where an array belongs")
    # What is empty may be no more than its tag.
    return _value(_Head.of(inner), inner, depth + 1) if inner.left else np.empty((0, 0))


def _text(head: _Head, data: _Bytes) -> str:
    kind, text = data.element()
    if kind not in _TEXTS or math.prod(head.shape[:1] + head.shape[2:]) > 1:
        raise ValueError(f"text of the kind {kind} and the shape {list(head.shape)}")
    coding = _TEXTS[kind]
    if coding == "utf-16":
        coding += "-le" if data.order == "<" else "-be"
    return bytes(text.left).decode(coding)


def _fields(data: _Bytes) -> list[str]:
    lengths, (kind, names) = data.numbers({5}), data.element()
    length = int(lengths[0]) if len(lengths) == 1 else 0
    if kind not in (1, 2) or length < 1 or len(names.left) % length:
        raise ValueError(f"names of fields of the kind {kind}, {length} bytes each")
    text = bytes(names.left)
    found = [text[at : at + length].split(b"\0")[0].decode("latin1") for at in range(0, len(text), length)]
    if len(set(found)) < len(found):
        raise ValueError("two fields of one name")
    return found
