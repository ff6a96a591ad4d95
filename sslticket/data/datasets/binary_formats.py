"""MATLAB files of level 5 and Python pickles, read without trusting a byte of them.

"MAT-File Format", The MathWorks, chapter 1, describes the first. scipy's reader is written in C and crashes on forged
files; this one checks every length against what is left, and knows what image sets are published with: arrays of
numbers, text, cells and structures.

PEP 3154 and PEP 574 describe protocols 4 and 5 of the second, and `pickletools` every operation. Python's own reader
can be made to take any amount of memory, so the pickle machine runs here over the operations that such files have; all
of them make values out of bytes of the file, and none calls what the file names.
"""

import math
import pickletools
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sslticket.errors import BadInput, one_line

_HEADER_SIZE = 128
_COMPRESSED, _MATRIX = 15, 14
_STORED_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT_CODINGS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_NUMBER_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL_CLASS, _STRUCTURE_CLASS, _TEXT_CLASS = 1, 2, 4
_COMPLEX_FLAG = 0x800
_MAX_DEPTH = 8  # structures and cells within one another; what is published has two
_NAME_BYTES = 4096  # bytes that hold a variable's name
_CHUNK_SIZE = 1 << 16
# Photographs shrink to a half, drawings to a twentieth. Small files may hold what they like.
_MAX_RATIO, _SMALL_SIZE = 100, 1 << 26


def read_mat(content: bytes, names: Collection[str], path: Path) -> dict[str, Any]:
    """Read variables from the content of a MATLAB file of level 5.

    Args:
        content: Content of the file.
        names: Names of the variables that are wanted.
        path: Path of the file, for errors.

    Returns:
        By name, numbers as an array, text of one line as a string, cells as a list, and a structure as a list
            with one dictionary per element. Lists are in MATLAB's order: the first index runs fastest.

    Raises:
        BadInput: If the file is truncated, damaged, of another level, or one of the variables is of a kind that no
            image set needs.
    """
    try:
        big = {b"IM": False, b"MI": True}.get(content[126:128])
        if big is None or content[124:126] != (b"\1\0" if big else b"\0\1"):
            raise ValueError("it is no MATLAB file of level 5")
        return dict(_read_variables(_ByteReader(memoryview(content)[_HEADER_SIZE:], ">" if big else "<"), names))
    except (ValueError, zlib.error, OverflowError) as error:
        raise BadInput(f"{path} is truncated or damaged ({one_line(error)}); download it again") from error


class _Element(NamedTuple):
    kind: int
    data: "_ByteReader"


class _ByteReader:
    """What is left to read, and the order of bytes in it."""

    def __init__(self, left: memoryview, order: str) -> None:
        self.left, self.order = left, order

    def take(self, count: int) -> memoryview:
        if count > len(self.left):
            raise ValueError(f"{count:,} bytes are announced where {len(self.left):,} are left")
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
            return _Element(tag & 0xFFFF, _ByteReader(self.take(4)[:size], self.order))
        size = self.number()
        data = self.take(size)
        if tag != _COMPRESSED:
            self.take(min(-size % 8, len(self.left)))  # the last one may lack what fills it up
        return _Element(tag, _ByteReader(data, self.order))

    def numbers(self, kinds: Collection[int]) -> np.ndarray:
        """The next element, as the numbers that it must be."""
        kind, data = self.element()
        if kind not in kinds:
            raise ValueError(f"an element of the kind {kind} where {sorted(kinds)[0]} belongs")
        stored = np.dtype(self.order + _STORED_TYPES[kind])
        if len(data.left) % stored.itemsize:
            raise ValueError(f"{len(data.left):,} bytes of numbers of {stored.itemsize}")
        return np.frombuffer(data.left, stored)


def _read_variables(file: _ByteReader, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    budget = max(_SMALL_SIZE, _MAX_RATIO * len(file.left))
    while file.left:
        kind, data = file.element()
        if kind == _COMPRESSED:
            start = _ByteReader(memoryview(_inflate(data.left, _NAME_BYTES)), file.order)
            if start.number() != _MATRIX:
                continue
            size = start.number() + 8
            # Only the beginning is read where the variable is another.
            beginning = _ByteReader(start.left[: size - 8], file.order)
            if _ArrayHeader.read(beginning).name not in names:
                continue
            budget -= size
            if budget < 0:
                raise ValueError(f"{size:,} bytes in {len(data.left):,} compressed ones")
            inner = _ByteReader(memoryview(_inflate(data.left, size, whole=True)), file.order)
            kind, data = inner.element()
        if kind == _MATRIX:
            head = _ArrayHeader.read(data)
            if head.name in names:
                yield head.name, _read_value(head, data, 0)


def _inflate(data: memoryview, most: int, *, whole: bool = False) -> bytearray:
    """The first `most` bytes of compressed ones, or exactly so many where it must be the whole."""
    stream, found = zlib.decompressobj(), bytearray()
    for start in range(0, len(data), _CHUNK_SIZE):
        found += stream.decompress(data[start : start + _CHUNK_SIZE], most + 1 - len(found))
        if len(found) > most:
            if whole:
                raise ValueError(f"more than the {most:,} bytes that it announces")
            break
        if stream.eof:
            break
    if whole and (len(found) != most or not stream.eof):
        raise ValueError(f"{len(found):,} of {most:,} compressed bytes")
    del found[most:]
    return found


class _ArrayHeader(NamedTuple):
    """The header of an array: its class, its shape and its name."""

    array_class: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str

    @classmethod
    def read(cls, data: _ByteReader) -> "_ArrayHeader":
        flags = data.numbers({6})
        if len(flags) != 2:
            raise ValueError(f"{len(flags)} flags of an array")
        shape = tuple(data.numbers({5}).tolist())
        if not 2 <= len(shape) <= 8 or min(shape) < 0:
            raise ValueError(f"an array of the shape {list(shape[:8])}")
        kind, name = data.element()
        if kind not in (1, 2, 16):
            raise ValueError(f"a name of the kind {kind}")
        return cls(int(flags[0]) & 0xFF, bool(flags[0] & _COMPLEX_FLAG), shape, bytes(name.left).decode("latin1"))


def _read_value(head: _ArrayHeader, data: _ByteReader, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"more than {_MAX_DEPTH} cells or structures within one another")
    count = math.prod(head.shape)
    if head.array_class in _NUMBER_CLASSES and not head.is_complex:
        values = data.numbers(_STORED_TYPES.keys())
        if len(values) != count:
            raise ValueError(f"{len(values):,} numbers in an array of the shape {list(head.shape)}")
        return values.astype(_NUMBER_CLASSES[head.array_class], copy=False).reshape(head.shape, order="F")
    if head.array_class == _TEXT_CLASS:
        return _read_text(head, data)
    if head.array_class == _CELL_CLASS:
        _check_fits(count, data)
        return [_read_inner(data, depth) for _ in range(count)]
    if head.array_class == _STRUCTURE_CLASS:
        fields = _field_names(data)
        _check_fits(count * max(1, len(fields)), data)
        return [{field: _read_inner(data, depth) for field in fields} for _ in range(count)]
    raise ValueError(f"an array of the class {head.array_class}, which no image set needs")


def _check_fits(count: int, data: _ByteReader) -> None:
    """Every element has a tag, of eight bytes."""
    if 8 * count > len(data.left):
        raise ValueError(f"{count:,} elements in {len(data.left):,} bytes")


def _read_inner(data: _ByteReader, depth: int) -> Any:
    kind, inner = data.element()
    if kind != _MATRIX:
        raise ValueError(f"an element of the kind {kind} where an array belongs")
    # What is empty may be no more than its tag.
    return _read_value(_ArrayHeader.read(inner), inner, depth + 1) if inner.left else np.empty((0, 0))


def _read_text(head: _ArrayHeader, data: _ByteReader) -> str:
    kind, text = data.element()
    if kind not in _TEXT_CODINGS or math.prod(head.shape[:1] + head.shape[2:]) > 1:
        raise ValueError(f"text of the kind {kind} and the shape {list(head.shape)}")
    coding = _TEXT_CODINGS[kind]
    if coding == "utf-16":
        coding += "-le" if data.order == "<" else "-be"
    return bytes(text.left).decode(coding)


def _field_names(data: _ByteReader) -> list[str]:
    lengths, (kind, names) = data.numbers({5}), data.element()
    length = int(lengths[0]) if len(lengths) == 1 else 0
    if kind not in (1, 2) or length < 1 or len(names.left) % length:
        raise ValueError(f"names of fields of the kind {kind}, {length} bytes each")
    text = bytes(names.left)
    found = [text[at : at + length].split(b"\0")[0].decode("latin1") for at in range(0, len(text), length)]
    if len(set(found)) < len(found):
        raise ValueError("two fields of one name")
    return found


_DTYPE_CODE = re.compile("[<>=|]?[biuf][1248]")
_LARGEST_NUMBER = 1 << 64  # of whole numbers
_MARK = object()


def read_pickle(content: bytes, path: Path) -> dict[str, Any]:
    """Read a dictionary of numbers, strings, arrays of numbers, and lists of the first two from a pickle.

    Args:
        content: Content of the file.
        path: Path of the file, for errors.

    Raises:
        BadInput: If the file is damaged, or holds anything else.
    """
    try:
        found = _PickleMachine(content).run()
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not a dictionary")
        named = {key.decode() if isinstance(key, bytes) else str(key): value for key, value in found.items()}
        return {key: _plain_value(key, value) for key, value in named.items()}
    # pickletools looks for what is missing in vain, at the end of the file as in the stack.
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise BadInput(f"{path} is damaged or no CIFAR file ({one_line(error)}); download it again") from error


class _Global(NamedTuple):
    module: str
    name: str


class _PendingDtype:
    """The type of an array's numbers, whose byte order follows the rest."""

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            raise ValueError(f"numbers of the type {_short_repr(code)}")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        _, order, *others = state
        if order not in ("<", ">", "=", "|") or others[:3] != [None] * 3:
            raise ValueError("numbers of several parts")
        self.dtype = self.dtype if order == "|" else self.dtype.newbyteorder(order)


class _PendingArray:
    """An array that is begun empty and gets its content afterwards."""

    value: np.ndarray | None = None


class _PickleMachine:
    def __init__(self, content: bytes) -> None:
        self._operations = pickletools.genops(content)
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        # Of bytes that are made of others: once from text, once as an array's, and what is made again and again.
        self._left = 4 * len(content) + 4096

    def run(self) -> Any:
        argument: Any
        for operation, argument, _ in self._operations:
            name = operation.name
            if name == "STOP":
                return self._stack.pop()
            if name in _LITERALS:
                if isinstance(argument, int) and abs(argument) >= _LARGEST_NUMBER:
                    raise ValueError("a number of more than 64 bits")
                self._stack.append(argument)
            elif name == "MARK":
                self._stack.append(_MARK)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _MEMO_WRITES:
                self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
            elif name in _MEMO_READS:
                self._stack.append(self._memo[argument])
            elif name in ("LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
                values = self._several(int(name[-1])) if name[-1].isdigit() else self._marked()
                self._stack.append(values if name == "LIST" else tuple(values))
            elif name in ("APPEND", "APPENDS"):
                values = self._several(1) if name == "APPEND" else self._marked()
                if type(self._stack[-1]) is not list:
                    raise ValueError("values for a list that is none")
                self._stack[-1].extend(values)
            elif name in ("DICT", "SETITEM", "SETITEMS"):
                values = self._several(2) if name == "SETITEM" else self._marked()
                self._stack += [{}] if name == "DICT" else []
                self._set(values)
            elif name in ("GLOBAL", "STACK_GLOBAL"):
                self._global(*(argument.split(" ", 1) if name == "GLOBAL" else self._several(2)))
            elif name in ("REDUCE", "BUILD"):
                (self._reduce if name == "REDUCE" else self._build)()
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"the operation {name}, which no image file needs")
        raise ValueError("it does not come to its end")

    def _marked(self) -> list[Any]:
        """Take what is on the stack above the last mark."""
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                found = self._stack[at + 1 :]
                del self._stack[at:]
                return found
        raise ValueError("no mark where one belongs")

    def _several(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def _set(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not dict or len(values) % 2:
            raise ValueError("names and values for a dictionary that is none")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, bytes, int):
                raise ValueError(f"a key that is a {type(key).__name__}")
            self._stack[-1][key] = value

    def _global(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no word")
        # numpy 2 writes the first, numpy 1 the second.
        found = _Global(module.replace("numpy._core.", "numpy.core.", 1), name)
        if found not in _GLOBALS:
            raise ValueError(f"it asks for {_short_repr(f'{module}.{name}')}, which no image file needs")
        self._stack.append(found)

    def _reduce(self) -> None:
        name, arguments = self._several(2)
        if not isinstance(name, _Global) or not isinstance(arguments, tuple):
            raise ValueError("a call of what cannot be called")
        self._stack.append(getattr(self, _GLOBALS[name])(*arguments))

    def _build(self) -> None:
        state, begun = self._stack.pop(), self._stack[-1]
        if isinstance(begun, _PendingDtype):
            begun.build(state)
        elif isinstance(begun, _PendingArray):
            _, shape, kind, fortran, data = state
            begun.value = self._frombuffer(data, kind, shape, "F" if fortran else "C")
        else:
            raise ValueError(f"a state of a {type(begun).__name__}")

    def _not_called(self, *_: object) -> None:
        raise ValueError("a call of what is a type")

    def _begun(self, kind: object, shape: object, _: object) -> _PendingArray:
        # It is always begun empty: another shape could only ask for memory that the file does not fill.
        if kind != _Global("numpy", "ndarray") or shape != (0,):
            raise ValueError("an array is begun as one of another shape or kind")
        return _PendingArray()

    def _dtype(self, code: object, *_: object) -> _PendingDtype:
        return _PendingDtype(code.decode("latin1") if isinstance(code, bytes) else code)

    def _encoded(self, text: object, coding: object) -> bytes:
        # The only way in which protocols 0 to 2 can hold the bytes of Python 3.
        if not isinstance(text, str) or coding != "latin1":
            raise ValueError(f"bytes are written as {_short_repr(coding)}")
        self._left -= len(text)
        if self._left < 0:
            raise ValueError("the same bytes are made again and again")
        return text.encode("latin1")

    def _no_bytes(self) -> bytes:
        return b""

    def _scalar(self, kind: object, data: object) -> Any:
        return self._frombuffer(data, kind, (1,), "C")[0].item()

    def _frombuffer(self, data: object, kind: object, shape: object, order: object, *_: object) -> np.ndarray:
        # Python 2 knew no other bytes than its strings.
        content = self._encoded(data, "latin1") if isinstance(data, str) else data
        if (
            not isinstance(content, (bytes, bytearray))
            or not isinstance(kind, _PendingDtype)
            or not isinstance(shape, tuple)
        ):
            raise ValueError("an array of what is no array's")
        if not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 8:
            raise ValueError("an array of a shape that is none")
        if math.prod(shape) * kind.dtype.itemsize != len(content):
            raise ValueError(f"{len(content):,} bytes for an array of the shape {_short_repr(shape)}")
        return np.frombuffer(content, kind.dtype).reshape(shape, order="F" if order == "F" else "C")


_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_MEMO_WRITES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_MEMO_READS = {"GET", "BINGET", "LONG_BINGET"}
_GLOBALS = {
    ("numpy", "ndarray"): "_not_called",
    ("numpy", "dtype"): "_dtype",
    ("numpy.core.multiarray", "_reconstruct"): "_begun",
    ("numpy.core.multiarray", "scalar"): "_scalar",
    ("numpy.core.numeric", "_frombuffer"): "_frombuffer",
    ("_codecs", "encode"): "_encoded",
    ("__builtin__", "bytes"): "_no_bytes",  # of which protocols 0 to 2 write the empty ones as a call
}


def _short_repr(value: object) -> str:
    """What a value is, in few words: one that holds others might have no end."""
    return repr(value)[:60] if isinstance(value, (str, bytes, int)) else f"a {type(value).__name__}"


def _plain_value(key: str, value: Any) -> Any:
    if isinstance(value, _PendingArray):
        return value.value
    if isinstance(value, list):
        if odd := [each for each in value if type(each) not in (int, float, bool, str, bytes)]:
            raise ValueError(f"{_short_repr(key)} holds a {type(odd[0]).__name__} within a list")
        return value
    if type(value) in (int, float, bool, str, bytes, type(None), np.ndarray):
        return value
    raise ValueError(f"{_short_repr(key)} is a {type(value).__name__}")
