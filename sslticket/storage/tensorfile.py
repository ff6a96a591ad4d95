"""Tensors and a JSON header from a safetensors file, of which no byte is trusted; pickle is never used."""

import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sslticket.errors import BadInput, one_line
from sslticket.storage.files import atomic_write, open_regular, parse_json

TensorKinds = dict[str, tuple[torch.dtype, list[int]]]
"""Types and shapes of tensors by their names."""

_MAX_HEADER_BYTES = 1 << 24
"""Bytes of a file's header, which a network of a thousand layers fills to a fiftieth."""
_MAX_NAME = 500  # characters
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_CODES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types that networks have, by the names of safetensors and in the order in which its files have them."""
_DTYPES = {code: dtype for dtype, code in _CODES.items()}
_TABLE = "table"
"""The stream that tells what the others hold."""
_MAX_UNPACKED, _UNPACKED_PER_BYTE = 1 << 26, 256
"""Bytes that packed tensors may fill: 64 MiB, and 256 more for each byte of their streams; zlib alone would allow
a thousand."""
_LEAST_GAIN = 1 / 32
"""Share of a stream that deflating it must save: what saves less is stored, which is ten times faster to read."""
_SAMPLED_BYTES = 1 << 20
"""Length from which on pieces of a stream of floats tell whether it is worth deflating: most of these are noise."""
_SEARCHED_BYTES = (1 << 22, 1 << 18)
"""Length up to which repetitions are looked for in a stream, and in one of floats, which have few: that takes twenty
times as long as runs and a Huffman code."""


def read_tensor_file(
    path: Path, key: str, *, what: str, fix: str, whole: bool = True
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file holds; all sizes are those that the file has room for.

    Args:
        path: Path of the file.
        key: Key of the header in the file's metadata.
        what: What the file should be, for errors.
        fix: What to do about a damaged one, for errors.
        whole: Whether the tensors are read too.

    Returns:
        The header, of whose content only the hash is looked at where there is one, and the tensors by name.

    Raises:
        BadInput: If the file is no whole safetensors file, has no such header, or a tensor has a name that cannot be
            printed or a type that networks do not have; or if they are not what the header's hash is of.
        OSError: If it is not there or cannot be read.
    """
    _check_header_length(path, fix)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(key)
            names = list(file.keys()) if whole else []
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, MemoryError) as error:
        raise _damaged_file(path, one_line(error), fix) from None
    if text is None:
        raise BadInput(f"{path} is a safetensors file, but no {what}")
    header = parse_json(text, f"the header of {path}", most=_MAX_HEADER_BYTES, fix=fix)
    if not isinstance(header, dict):
        raise BadInput(f"the header of {path} is damaged (it has no names); {fix}")
    for name, value in tensors.items():
        if not is_tensor_name(name):
            raise _damaged_file(path, f"a tensor is named {name[:80]!r}", fix)
        if value.dtype not in _CODES:
            raise _damaged_file(path, f"{name} has the type {value.dtype}", fix)
        if not value.numel() and value.dim() != 1:  # a layer that lost every weight has none, in a row
            raise _damaged_file(path, f"{name} has the shape {list(value.shape)}", fix)
    own = {name: value for name, value in header.items() if name != "hash"}
    if whole and "hash" in header and header["hash"] != tensors_hash(own, tensors):
        raise BadInput(f"{path} is a damaged {what}: its content does not match its hash; {fix}")
    return header, tensors


def write_tensor_file(path: Path, key: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write such a file, whole or not at all; its header tells a hash of both, which `read` checks."""
    hashed = dict(header) | {"hash": tensors_hash(header, tensors)}
    with atomic_write(path) as temporary:
        save_file(dict(tensors), temporary, metadata={key: json.dumps(hashed)})


def tensors_hash(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits over a header and tensors; the order of names does not matter."""
    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {list(tensors[name].shape)}".encode())
        found.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def file_size(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> int:
    """Bytes of the safetensors file that holds these tensors and texts, without writing it."""
    header: dict[str, Any] = {"__metadata__": dict(about)}
    end, order = 0, list(_CODES)
    for name, value in sorted(tensors.items(), key=lambda each: (order.index(each[1].dtype), each[0])):
        begin, end = end, end + value.numel() * value.itemsize
        header[name] = {"dtype": _CODES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    return 8 + -(-len(text.encode()) // 8) * 8 + end


def pack_tensors(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors as a few streams of bytes, in much less space where they hold masks or floats.

    Tensors that have the first part of their name and their type in common lie one after the other. Of floats, each
    stream holds one byte of all of them: the highest, sign and exponent, takes a few bits of each, and the lowest are
    noise. Nothing is lost: `unpack_tensors` gives every bit back.

    Args:
        told: What is told with them, as JSON values.
        tensors: The tensors; their names are `part/name`.

    Returns:
        The streams by name, uint8 in a row; packed again, the same tensors give the same bytes.
    """
    kinds = {name: (value.dtype, list(value.shape)) for name, value in tensors.items()}
    listed = {name: [_CODES[dtype], shape] for name, (dtype, shape) in kinds.items()}
    streams = {_TABLE: _coded(json.dumps({"told": dict(told), "tensors": listed}).encode(), 6, zlib.Z_DEFAULT_STRATEGY)}
    for group, names in _groups(kinds).items():
        own = _stream_names(group)
        flat = [tensors[name].contiguous().view(-1).view(torch.uint8).numpy() for name in names]
        rows = np.concatenate(flat).reshape(-1, len(own))
        for byte, stream in enumerate(own):
            streams[stream] = _shortest(np.ascontiguousarray(rows[:, byte]), floats=len(own) > 1)
    return {name: torch.from_numpy(np.frombuffer(bytearray(data), np.uint8)) for name, data in streams.items()}


def unpack_tensors(streams: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `pack_tensors` was given, of streams in which no byte is trusted.

    Raises:
        ValueError: If a stream is missing, is one too many, is damaged, or holds more or less than the table says; or
            if they would fill more memory than streams of their size may.
        BadInput: If the table is no JSON.
    """
    told, kinds = _read_table(streams)
    groups = _groups(kinds)
    names = {group: _stream_names(group) for group in groups}
    expected = {_TABLE, *(stream for own in names.values() for stream in own)}
    if odd := streams.keys() ^ expected:
        raise ValueError(f"the stream {min(odd)[:80]!r} is listed or stored, but not both")
    sizes = {name: math.prod(shape) * dtype.itemsize for name, (dtype, shape) in kinds.items()}
    if (total := sum(sizes.values())) > (most := _most_unpacked(streams)):
        raise ValueError(f"{total:,} bytes of tensors, and streams of this size hold at most {most:,}")
    tensors: dict[str, Tensor] = {}
    for group, members in groups.items():
        length = sum(sizes[name] for name in members) // len(names[group])
        rows = [_unpack_stream(stream, streams[stream], length) for stream in names[group]]
        begin = 0
        for name in members:
            dtype, shape = kinds[name]
            end = begin + sizes[name] // len(rows)
            tensors[name] = _tensor_of([row[begin:end] for row in rows], dtype, shape)
            begin = end
    return told, {name: tensors[name] for name in kinds}


def read_told(path: Path) -> dict[str, Any]:
    """What `pack_tensors` was told with the tensors of a file, none of which is unpacked.

    Raises:
        ValueError: If the file has no such stream, or a damaged one.
        OSError: If it is not there or cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            table = file.get_tensor(_TABLE)
    except (SafetensorError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(one_line(error)) from None
    return _read_table({_TABLE: table})[0]


def may_unpack(streams: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    """Whether `unpack_tensors` takes the streams of these tensors: those that are nearly all zeros may be too short."""
    return sum(value.numel() * value.itemsize for value in tensors.values()) <= _most_unpacked(streams)


def _most_unpacked(streams: Mapping[str, Tensor]) -> int:
    return _MAX_UNPACKED + _UNPACKED_PER_BYTE * sum(len(stream) for stream in streams.values())


def _read_table(streams: Mapping[str, Tensor]) -> tuple[dict[str, Any], TensorKinds]:
    """What is told with the tensors, and the type and shape of each by name."""
    for name, stream in streams.items():
        if stream.dtype != torch.uint8 or stream.dim() != 1:
            raise ValueError(f"the stream {name} has the type {stream.dtype} and the shape {list(stream.shape)}")
    if _TABLE not in streams:
        raise ValueError("there is no stream that tells what the others hold")
    text = _inflate(_TABLE, streams[_TABLE], _MAX_HEADER_BYTES)
    table = parse_json(text, "the table of its tensors", most=_MAX_HEADER_BYTES)
    if not isinstance(table, dict) or table.keys() != {"told", "tensors"}:
        raise ValueError("its table does not tell of tensors")
    told, listed = table["told"], table["tensors"]
    if not isinstance(told, dict) or not isinstance(listed, dict):
        raise ValueError("its table has no names")
    kinds: TensorKinds = {}
    for name, kind in listed.items():
        if not is_tensor_name(name):
            raise ValueError(f"a tensor is named {name[:80]!r}")
        if not isinstance(kind, list) or len(kind) != 2 or not isinstance(kind[0], str) or not _is_shape(kind[1]):
            raise ValueError(f"{name} is described by {str(kind)[:80]!r}")
        if kind[0] not in _DTYPES:
            raise ValueError(f"{name} has the type {kind[0][:80]!r}")
        kinds[name] = (_DTYPES[kind[0]], kind[1])
    return told, kinds


def _is_shape(value: object) -> bool:
    """Whether it is the shape of a tensor: no sides, or some of at least 1, or a row of none."""
    if value in ([], [0]):
        return type(value) is list and not any(type(side) is not int for side in value)
    return is_tensor_shape(value, 1 << 48)


def _groups(kinds: TensorKinds) -> dict[tuple[str, torch.dtype], list[str]]:
    """Names of the tensors whose bytes lie one after the other."""
    groups: dict[tuple[str, torch.dtype], list[str]] = {}
    for name, (dtype, _) in kinds.items():
        groups.setdefault((name.partition("/")[0], dtype), []).append(name)
    return groups


def _stream_names(group: tuple[str, torch.dtype]) -> list[str]:
    """Names of a group's streams: one for each byte of a float, or one for all bytes of other values."""
    part, dtype = group
    name = f"{part}.{_CODES[dtype]}"
    return [f"{name}.{byte}" for byte in range(dtype.itemsize)] if dtype in _FLOATS else [name]


def _tensor_of(rows: list[np.ndarray], dtype: torch.dtype, shape: list[int]) -> Tensor:
    """A tensor, in memory of its own, whose bytes lie apart."""
    together = np.empty((len(rows[0]), len(rows)), np.uint8)
    for byte, row in enumerate(rows):
        together[:, byte] = row
    if dtype == torch.bool and (together > 1).any():
        raise ValueError("a truth value that is neither 0 nor 1")
    return torch.from_numpy(together.reshape(-1)).view(dtype).view(shape)


def _shortest(data: np.ndarray, *, floats: bool) -> bytes:
    """A zlib stream of bytes in the shortest of the codings that are worth their time, or the bytes themselves."""
    worth = 1 - _LEAST_GAIN
    if floats and len(data) > _SAMPLED_BYTES:
        pieces = [data[begin : begin + 4096] for begin in range(0, len(data), len(data) // 16)]
        if sum(len(_coded(piece, 1, zlib.Z_RLE)) for piece in pieces) > worth * sum(map(len, pieces)):
            return data.tobytes()
    best = _coded(data, 1, zlib.Z_RLE)
    if len(data) <= _SEARCHED_BYTES[floats]:
        best = min(best, _coded(data, 6, zlib.Z_FILTERED), key=len)
    return best if len(best) <= len(data) * worth else data.tobytes()


def _coded(data: bytes | np.ndarray, level: int, strategy: int) -> bytes:
    coder = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
    return coder.compress(cast(Any, data)) + coder.flush()  # numpy's arrays are buffers, which not all its types say


def _unpack_stream(name: str, stream: Tensor, length: int) -> np.ndarray:
    """The so many bytes of a stream, which holds them as they are where it is as long."""
    data = stream.numpy() if len(stream) == length else np.frombuffer(_inflate(name, stream, length), np.uint8)
    if len(data) < length:
        raise ValueError(f"the stream {name} holds {len(data):,} of the {length:,} bytes that are listed")
    return data


def _inflate(name: str, stream: Tensor, most: int) -> bytes:
    """The bytes of a zlib stream, of which there may be so many.

    Raises:
        ValueError: If there are more, or the stream is cut short, goes on after its end, or is none.
    """
    coder = zlib.decompressobj()
    try:
        data = coder.decompress(stream.numpy().data, most + 1)
    except zlib.error as error:
        raise ValueError(f"the stream {name} is damaged: {one_line(error)}") from None
    if not coder.eof or coder.unused_data or len(data) > most:
        raise ValueError(f"the stream {name} does not end after the {most:,} bytes that it may hold")
    return data


def is_tensor_name(name: object) -> bool:
    """Whether it can be a tensor's name: some characters, each of which can be printed."""
    return isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name.isprintable()


def is_finite_tensor(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinities."""
    if value.dtype not in _FLOATS or math.isfinite(value.sum()):
        return True  # a sum with one of them in it is none; it takes a tenth of the time
    return bool(torch.isfinite(value).all())


def is_int_between(value: object, least: int, most: int) -> bool:
    """Whether a value from JSON is a whole number, no truth value, within these bounds."""
    return type(value) is int and least <= value <= most


def is_tensor_shape(value: object, most: int) -> bool:
    """Whether a value from JSON is the shape of a tensor of one to `most` elements."""
    if not isinstance(value, list) or not 1 <= len(value) <= 8:
        return False
    count = 1
    for side in value:
        if not is_int_between(side, 1, most):
            return False
        count *= side
    return count <= most


def _check_header_length(path: Path, fix: str) -> None:
    with open_regular(path) as (file, size):
        length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise _damaged_file(path, f"{size:,} bytes are fewer than it tells", fix)
    if length > _MAX_HEADER_BYTES:
        raise _damaged_file(path, f"a header of {length:,} bytes", fix)


def _damaged_file(path: Path, why: str, fix: str) -> BadInput:
    return BadInput(f"{path} is no whole safetensors file ({why}); {fix}")
