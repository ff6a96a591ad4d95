"""Networks' states in files of others, read without running code and bounded by the size of the file."""

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from sslticket.errors import BadInput, one_line
from sslticket.escaping import escape_terminal

_STATES = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "teacher")
"""Where a checkpoint keeps its network's state, the usual names first."""


def file_digest(path: Path) -> str:
    """16 hexadecimal digits over a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_tensors(path: Path) -> Any:
    """What `torch.save` or safetensors wrote: tensors and plain values.

    Raises:
        BadInput: If it is none of these, or more than these is in it.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):  # whose parts torch.save never compresses
            with zipfile.ZipFile(path) as parts:
                if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                    raise BadInput(f"{path} is compressed, which no file of torch.save is; give one as it was written")
        harmless = [
            argparse.Namespace,
            np.dtype,
            _numpy_scalar(),
            *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
        ]
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except BadInput:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        held = f"a {escape_terminal(named[1])} beside its tensors" if named else "more than a file of torch.save should"
        raise BadInput(
            f"{path} holds {held}, and reading that could run code; where you trust it, load it yourself, "
            "torch.save(model.state_dict(), FILE), and give that file"
        ) from None
    except Exception as error:  # of a file of anybody's, whose reader raises whatever comes of it
        raise BadInput(
            f"{path} cannot be read ({escape_terminal(one_line(error))}); give a file of torch.save or safetensors"
        ) from None


def _numpy_scalar() -> Any:
    """The function by which pickles make numpy's numbers; its module has moved."""
    return np.float64(0).__reduce__()[0]


def find_state(raw: Any) -> dict[str, Tensor]:
    """The tensors of the network in a checkpoint, by their names; {} where there are none."""
    if not isinstance(raw, Mapping):
        return {}
    for name in _STATES:
        if isinstance(raw.get(name), Mapping) and (found := find_state(raw[name])):
            return found
    return {str(name): value.detach() for name, value in raw.items() if isinstance(value, Tensor)}


def check_plain_tensor(name: str, value: Tensor, path: Path) -> None:
    """Refuse a tensor that is no plain array, or repeats a few bytes: a small file could ask for any memory."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
        raise BadInput(
            f"{path} holds {name} as a sparse, quantized, nested or empty tensor; give one of plain tensors, such as "
            "to_dense() and dequantize() make"
        )
    if value.numel() * value.element_size() > path.stat().st_size:
        raise BadInput(f"{path} says that {name} is larger than the file is; give a checkpoint that torch.save wrote")
