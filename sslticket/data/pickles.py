"""Python's pickles of arrays and plain values, read without Python's reader, which may be made to take any memory.

The pickle machine runs here over the operations that such files have; all of them make values out of bytes of the file,
none calls what the file names. PEP 3154 and PEP 574 describe protocols 4 and 5, `pickletools` every operation.
"""

import math
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sslticket.errors import BadInput, one_line

_KIND = re.compile("[<>=|]?[biuf][1248]")
_LONGEST = 1 << 64  # of whole numbers
_MARK = object()


def read(content: bytes, place: Path) -> dict[str, Any]:
    """The dictionary that a file holds: its values are numbers, words, arrays of numbers, or lists of the first two.

    Args:
        content: of the file.
        place: of the file, for errors.

    Raises:
        BadInput: if the file is damaged, or holds anything else.
    """
    try:
        found = _Machine(content).run()
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not a dictionary")
        named = {key.decode() if isinstance(key, bytes) else str(key): value for key, value in found.items()}
        return {key: _plain(key, value) for key, value in named.items()}
    # pickletools looks for what is missing in vain, at the end of the file as in the stack.
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise BadInput(f"{place} is damaged or no CIFAR file ({one_line(error)}); download it again") from error


class _Name(NamedTuple):
    module: str
    name: str


class _Kind:
    """The type of an array's numbers, whose order of bytes is told after the rest."""

    def __init__(self, code: object) -> None:
        if not isinstance(code, str) or not _KIND.fullmatch(code):
            raise ValueError(f"numbers of the type {_told(code)}")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        _, order, *others = state
        if order not in ("<", ">", "=", "|") or others[:3] != [None] * 3:
            raise ValueError("numbers of several parts")
        self.dtype = self.dtype if order == "|" else self.dtype.newbyteorder(order)


class _Array:
    """An array that is begun empty and gets its content afterwards."""

    value: np.ndarray | None = None


class _Machine:
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
            if name in _VALUES:
                if isinstance(argument, int) and abs(argument) >= _LONGEST:
                    raise ValueError("a number of more than 64 bits")
                self._stack.append(argument)
            elif name in _MADE:
                self._stack.append(_MADE[name]())
            elif name in _MEMO:
                self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
            elif name in _RECALLED:
                self._stack.append(self._memo[argument])
            elif name not in ("PROTO", "FRAME"):
                step: Callable[[_Machine, Any], None] | None = getattr(_Machine, f"_{name.lower()}", None)
                if step is None:
                    raise ValueError(f"the operation {name}, which no image file needs")
                step(self, argument)
        raise ValueError("it does not come to its end")

    def _mark(self, _: object) -> None:
        self._stack.append(_MARK)

    def _marked(self) -> list[Any]:
        """What is on the stack above the last mark."""
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                found = self._stack[at + 1 :]
                del self._stack[at:]
                return found
        raise ValueError("no mark where one belongs")

    def _several(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def _tuple(self, _: object) -> None:
        self._stack.append(tuple(self._marked()))

    def _tuple1(self, _: object) -> None:
        self._stack.append(tuple(self._several(1)))

    def _tuple2(self, _: object) -> None:
        self._stack.append(tuple(self._several(2)))

    def _tuple3(self, _: object) -> None:
        self._stack.append(tuple(self._several(3)))

    def _list(self, _: object) -> None:
        self._stack.append(self._marked())

    def _append(self, _: object) -> None:
        self._extend(self._several(1))

    def _appends(self, _: object) -> None:
        self._extend(self._marked())

    def _extend(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("values for a list that is none")
        self._stack[-1].extend(values)

    def _dict(self, _: object) -> None:
        values = self._marked()
        self._stack.append({})
        self._set(values)

    def _setitem(self, _: object) -> None:
        self._set(self._several(2))

    def _setitems(self, _: object) -> None:
        self._set(self._marked())

    def _set(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not dict or len(values) % 2:
            raise ValueError("names and values for a dictionary that is none")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if type(key) not in (str, bytes, int):
                raise ValueError(f"a key that is a {type(key).__name__}")
            self._stack[-1][key] = value

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: object) -> None:
        self._name(*self._several(2))

    def _name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no word")
        # The first is what numpy 2 says, the second numpy 1.
        found = _Name(module.replace("numpy._core.", "numpy.core.", 1), name)
        if found not in _NAMES:
            raise ValueError(f"it asks for {_told(f'{module}.{name}')}, which no image file needs")
        self._stack.append(found)

    def _reduce(self, _: object) -> None:
        name, arguments = self._several(2)
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of what cannot be called")
        self._stack.append(getattr(self, _NAMES[name])(*arguments))

    def _build(self, _: object) -> None:
        state, begun = self._stack.pop(), self._stack[-1]
        if isinstance(begun, _Kind):
            begun.build(state)
        elif isinstance(begun, _Array):
            _, shape, kind, fortran, data = state
            begun.value = self._frombuffer(data, kind, shape, "F" if fortran else "C")
        else:
            raise ValueError(f"a state of a {type(begun).__name__}")

    def _not_called(self, *_: object) -> None:
        raise ValueError("a call of what is a type")

    def _begun(self, kind: object, shape: object, _: object) -> _Array:
        # It is always begun empty: another shape could only ask for memory that the file does not fill.
        if kind != _Name("numpy", "ndarray") or shape != (0,):
            raise ValueError("an array is begun as one of another shape or kind")
        return _Array()

    def _dtype(self, code: object, *_: object) -> _Kind:
        return _Kind(code.decode("latin1") if isinstance(code, bytes) else code)

    def _encoded(self, text: object, coding: object) -> bytes:
        # The only way in which protocols 0 to 2 can hold the bytes of Python 3.
        if not isinstance(text, str) or coding != "latin1":
            raise ValueError(f"bytes are written as {_told(coding)}")
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
        if not isinstance(content, (bytes, bytearray)) or not isinstance(kind, _Kind) or not isinstance(shape, tuple):
            raise ValueError("an array of what is no array's")
        if not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 8:
            raise ValueError("an array of a shape that is none")
        if math.prod(shape) * kind.dtype.itemsize != len(content):
            raise ValueError(f"{len(content):,} bytes for an array of the shape {_told(shape)}")
        return np.frombuffer(content, kind.dtype).reshape(shape, order="F" if order == "F" else "C")


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_RECALLED = {"GET", "BINGET", "LONG_BINGET"}
_NAMES = {
    ("numpy", "ndarray"): "_not_called",
    ("numpy", "dtype"): "_dtype",
    ("numpy.core.multiarray", "_reconstruct"): "_begun",
    ("numpy.core.multiarray", "scalar"): "_scalar",
    ("numpy.core.numeric", "_frombuffer"): "_frombuffer",
    ("_codecs", "encode"): "_encoded",
    ("__builtin__", "bytes"): "_no_bytes",  # of which protocols 0 to 2 write the empty ones as a call
}


def _told(value: object) -> str:
    """What a value is, in few words: one that holds others might have no end."""
    return repr(value)[:60] if isinstance(value, (str, bytes, int)) else f"a {type(value).__name__}"


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, list):
        if odd := [each for each in value if type(each) not in (int, float, bool, str, bytes)]:
            raise ValueError(f"{_told(key)} holds a {type(odd[0]).__name__} within a list")
        return value
    if type(value) in (int, float, bool, str, bytes, type(None), np.ndarray):
        return value
    raise ValueError(f"{_told(key)} is a {type(value).__name__}")
