"""JSON that may come from anywhere, and that nothing reads what comes from anywhere in another way."""

import ast
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslticket.errors import BadInput
from sslticket.storage.files import MAX_JSON_BYTES, parse_json, read_bytes, read_json

ROOT = Path(__file__).parent.parent.parent / "sslticket"

ALLOWED = {
    ("json", "JSONDecoder"): {"storage/files.py"},
    ("torch", "load"): {"storage/state_files.py"},
    ("np", "load"): {"data/datasets/folders.py", "data/decode.py"},
}
"""What reads files of others and where it may be, since it is bounded there."""
READERS = {
    *(("json", "load"), ("json", "loads"), ("json", "JSONDecoder"), ("torch", "load")),
    *(("pickle", "load"), ("pickle", "loads"), ("pickle", "Unpickler"), ("pd", "read_pickle"), ("pd", "read_json")),
    *(("np", "load"), ("np", "fromfile"), ("gzip", "decompress"), ("zlib", "decompress"), ("io", "loadmat")),
}


def reads() -> Iterator[tuple[tuple[str, str], str]]:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield (node.value.id, node.attr), str(path.relative_to(ROOT))
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    yield ((node.module or "").split(".")[-1], alias.name), str(path.relative_to(ROOT))


def test_only_bounded_readers_read() -> None:
    found = {(what, where) for what, where in reads() if what in READERS}
    assert {(what, where) for what, where in found if where not in ALLOWED.get(what, ())} == set()
    assert {what for what, _ in found} == ALLOWED.keys()


BAD = {
    "deep": (b"[" * 10**6, "nested more than 32"),
    "deep and whole": (b"[" * 40 + b"]" * 40, "nested more than 32"),
    "long numbers": (b"9" * 10**6, "a number of 1,000,000 digits"),
    "NaN": (b"[NaN]", "not finite"),
    "too large for a float": (b"[1e999]", "not finite"),
    "a key twice": (b'{"seed": 1, "seed": 2}', "the key 'seed' is in it twice"),
    "half a character": (rb'"\ud800"', "half a character"),
    "no UTF-8": (b'["\xff"]', "byte 2 is no UTF-8"),
    "another coding": ("[1]".encode("utf-16"), "byte 0 is no UTF-8"),
    "cut short": (b'{"a": 1', "line 1, column"),
    "nothing": (b"", "no JSON"),
    "too long": (b" " * (MAX_JSON_BYTES + 1), "longer than"),
}


@pytest.mark.parametrize(("text", "why"), BAD.values(), ids=BAD)
def test_bad_json_is_one_line_with_the_place_and_the_fix(text: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=rf"^here is damaged \(.*{why}.*\); do that$") as caught:
        parse_json(text, "here", fix="do that")
    assert "\n" not in str(caught.value)


def test_good_json_is_what_it_always_was() -> None:
    value = {"a": [1, -2.5, None, True, "\u00e9\U0001f600"], "b": {"c": 10**39}, "name": os.fsdecode(b"\xff.jpg")}
    for text in (json.dumps(value), json.dumps(value).encode(), b"\xef\xbb\xbf" + json.dumps(value).encode()):
        assert parse_json(text, "here") == value
    assert parse_json("[" * 32 + "]" * 32, "here")
    assert str(parse_json("[NaN, -Infinity]", "here", finite=False)) == "[nan, -inf]"


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="pipe is no file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(BadInput, match="no file"):
        read_json(Path("/dev/zero"))
    (tmp_path / "long").write_bytes(bytes(11))
    assert read_bytes(tmp_path / "long", 11) == bytes(11)
    with pytest.raises(BadInput, match="more than the 10 bytes"):
        read_bytes(tmp_path / "long", 10)
