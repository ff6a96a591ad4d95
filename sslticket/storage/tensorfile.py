"""Tensors and a JSON header from a safetensors file, of which no byte is trusted; pickle is never used."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sslticket.errors import BadInput, one_line
from sslticket.storage.files import atomic_write, open_regular, parse_json

_MAX_HEADER_BYTES = 1 << 24
"""Bytes of a file's header, which a network of a thousand layers fills to a fiftieth."""
_MAX_NAME = 500  # characters
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_DTYPES = (*_FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)


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
        if value.dtype not in _DTYPES:
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


def is_tensor_name(name: object) -> bool:
    """Whether it can be a tensor's name: some characters, each of which can be printed."""
    return isinstance(name, str) and 0 < len(name) <= _MAX_NAME and name.isprintable()


def is_finite_tensor(value: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinities."""
    return value.dtype not in _FLOATS or bool(torch.isfinite(value).all())


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
