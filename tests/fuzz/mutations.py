"""Damage that is drawn: to bytes, and to JSON values that stay JSON."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (
    0,
    1,
    2,
    3,
    8,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63,
    2**64 - 1,
)

# What Python's json writes of no value: too deep, too long, twice, or none.
RAW = {
    "@deep": "[" * 5000 + "]" * 5000,
    "@nested": '{"a":' * 40 + "1" + "}" * 40,
    "@digits": "9" * 6000,
    "@long": "1" + "0" * 39,
    "@nan": "NaN",
    "@infinite": "-Infinity",
    "@huge": "1e999",
    "@twice": '{"a": 1, "a": 2}',
    "@half": '"\\ud800"',
    "@open": '"',
}
HOSTILE = (
    *(
        None,
        True,
        False,
        -1,
        -5,
        0,
        1,
        2,
        7,
        255,
        2**31,
        2**53,
        2**63,
        -(2**63),
        10**20,
        0.0,
        -0.0,
        0.5,
        1.5,
        1e308,
        -1e-308,
    ),
    *(
        "",
        " ",
        "x" * 2000,
        "\0",
        "\x1b[2J",
        "a\nb",
        "../../x",
        "/etc/passwd",
        "é",
        "\udcff",
        "1",
        "nan",
        "<b>",
        "level",
    ),
    *([], {}, [[]], [None], [1, 2], [2**40, 2**40], {"a": 1}, {"": {}}),
    *RAW,
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes with one to four places changed, lost or put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _BYTES[rng.randrange(len(_BYTES))](data, rng)
    return bytes(data)


def _flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice(
            (0, 1, 9, 10, 32, 34, 46, 91, 123, 127, 128, 255, rng.randrange(256))
        )


def _number(data: bytearray, rng: random.Random) -> None:
    size = rng.choice((2, 4, 8))
    if len(data) >= size:
        at = rng.randrange(len(data) - size + 1)
        value = rng.choice(NUMBERS) % (1 << 8 * size)
        data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _lose(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 2, 8, 64))]


def _insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(
        (rng.randbytes(rng.choice((1, 4, 16))), bytes(8), data[at : at + 32], b"\xef\xbb\xbf", b"[" * 2000)
    )


def _digit(data: bytearray, rng: random.Random) -> None:
    """Another digit: what is text stays well-formed."""
    places = [at for at in (rng.randrange(len(data)) for _ in range(16)) if 48 <= data[at] < 58] if data else []
    for at in places[:1]:
        data[at] = rng.randrange(48, 58)


_BYTES: Sequence[Callable[[bytearray, random.Random], None]] = (
    _flip,
    _flip,
    _set,
    _number,
    _cut,
    _lose,
    _insert,
    _digit,
)


def changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with one or two of its parts lost, doubled, renamed, exchanged, or made hostile."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2))):
        homes = [node for node in _nodes(value) if node]
        if not homes:
            return copy.deepcopy(rng.choice(HOSTILE))
        home = rng.choice(homes)
        keys = list(home) if isinstance(home, dict) else list(range(len(home)))
        key, what = rng.choice(keys), rng.random()
        if what < 0.15:
            del home[key]
        elif what < 0.25:
            name = rng.choice(("", "x", "\x1b", "a/b", "z" * 600, rng.choice([str(each) for each in keys])))
            if isinstance(home, dict):
                home[name] = home.pop(key)
            else:
                home.append(home[key])
        elif what < 0.4:
            home[key] = copy.deepcopy(rng.choice(_nodes(value)))
        elif what < 0.5 and type(home[key]) in (int, float):
            home[key] += rng.choice((1, -1, 0.5, 2**32))
        else:
            home[key] = copy.deepcopy(rng.choice(HOSTILE))
    return value


def text(value: Any) -> str:
    """JSON, or what it would be if it could say what `RAW` names."""
    written = json.dumps(value)
    if '"@' in written:
        for name, raw in RAW.items():
            written = written.replace(f'"{name}"', raw)
    return written


def _nodes(value: Any) -> list[Any]:
    """All lists and dictionaries within a value."""
    found, left = [], [value]
    while left:
        node = left.pop()
        if isinstance(node, (dict, list)):
            found.append(node)
            left += node.values() if isinstance(node, dict) else node
    return found
