"""What is fuzzed: a good input of each kind, its damage, and the reader that must refuse or read it."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Protocol

import torch
from torch import Tensor

from sslticket.masking.mask import Mask
from sslticket.tensors import digest
from sslticket.ticket import Ticket
from tests.fuzz.mutations import changed, damaged, text


class Reader(Protocol):
    """One kind of input in a folder of its own.

    Attributes:
        name: of the reader.
        before: what it reads of the good input.
        other: what an input is that differs from the good one and is good too; "another", or a fault where a hash must
            tell them apart.
    """

    name: str
    before: Any
    other: str

    def mutate(self, rng: Random) -> None:
        """Put a damaged input in the place of the last one."""

    def read(self) -> Any:
        """Read the input."""


def tickets() -> list[Ticket]:
    """Small ones with both codings, an emptied layer, batch norm and a classification layer; and a dense one."""
    torch.manual_seed(0)
    shapes = {"conv.weight": (4, 3, 3, 3), "wide.weight": (6, 40), "gone.weight": (5, 7), "near.weight": (3, 16)}
    weights: dict[str, Tensor] = {name: torch.randn(shape) for name, shape in shapes.items()}
    alive = {name: torch.rand(shape) < 0.4 for name, shape in shapes.items()}
    alive["wide.weight"] = torch.rand(6, 40) < 0.02
    alive["wide.weight"][0, 3] = True
    alive["gone.weight"][:] = False
    weights |= {"norm.running_var": torch.rand(4), "norm.num_batches_tracked": torch.tensor(7)}
    told = {
        "recipe": {"model": "conv3", "seed": 3, "search": {"is": "IMP", "levels": 8, "rate": 0.2}},
        "provenance": {"dataset": "digits", "seed": 3, "data_hash": "0123456789abcdef", "versions": {"torch": "2"}},
    }
    head = {"weight": torch.randn(3, 4), "bias": torch.zeros(3)}
    sparse = Ticket.make(Mask(alive), weights, level=3, head=head, **told)
    dense = Ticket.make(Mask.ones_like(weights, list(shapes)), weights, level=0, **told)
    return [sparse, dense]


class Tickets:
    """Ticket files: flipped, cut, and forged with a right hash, so that what lies behind the hash is reached."""

    name, other = "ticket", "another"

    def __init__(self, folder: Path) -> None:
        self._path, self._again = folder / "ticket.safetensors", folder / "again.safetensors"
        self._good = []
        for ticket in tickets():
            header, tensors = ticket._packed
            ticket.save(self._path)
            self._good.append((self._path.read_bytes(), header, tensors, ticket.hash))
        self.before: object = None
        self._forged = False

    def mutate(self, rng: Random) -> None:
        content, header, tensors, self.before = rng.choice(self._good)
        kind = rng.random()
        self._forged = kind >= 0.4
        if kind < 0.3:
            content = damaged(content, rng)
        elif kind < 0.4:
            content = self._container(content, rng)
        else:
            content = forged(header, tensors, rng)
        self._path.write_bytes(content)

    def read(self) -> object:
        ticket = Ticket.load(self._path)
        assert self._forged or ticket.hash == self.before, "damage is not seen by the hash"
        if ticket.hash != self.before:
            vars(ticket).pop("hash")
            found = ticket.hash
            ticket.save(self._again)
            assert Ticket.load(self._again).hash == found, "what is written again is not what was read"
            assert Ticket.header(self._path)["hash"] == found, "its hash is not that of its content"
        return ticket.hash

    @staticmethod
    def _container(content: bytes, rng: Random) -> bytes:
        """Another header of the safetensors file: types, shapes, offsets and names."""
        length = int.from_bytes(content[:8], "little")
        header = text(changed(json.loads(content[8 : 8 + length]), rng)).encode()
        return len(header).to_bytes(8, "little") + header + content[8 + length :]


def forged(header: dict[str, Any], tensors: dict[str, Tensor], rng: Random) -> bytes:
    """A whole file with a right hash, whose header or tensors are not what they were."""
    tensors = {name: value.clone() for name, value in tensors.items()}
    for _ in range(rng.choice((0, 0, 1, 2))):
        _change(tensors, rng)
    header = changed(header, rng) if rng.random() < 0.7 else header
    told = text(header)
    if isinstance(header, dict):
        with suppress(ValueError, RecursionError, RuntimeError):  # one that could be hashed
            told = text(header | {"hash": digest(json.loads(told), tensors)})
    return container({"sslticket": told}, tensors)


def container(about: dict[str, str], tensors: dict[str, Tensor]) -> bytes:
    """A safetensors file, several times faster than the library writes one."""
    header: dict[str, Any] = {"__metadata__": about}
    parts, end = [], 0
    for name, value in tensors.items():
        data = value.contiguous().flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b""
        offsets, end = [end, end + len(data)], end + len(data)
        header[name] = {"dtype": _CODES[value.dtype], "shape": list(value.shape), "data_offsets": offsets}
        parts.append(data)
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + b"".join(parts)


_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.uint16: "U16",
}


def _change(tensors: dict[str, Tensor], rng: Random) -> None:
    name = rng.choice(list(tensors))
    value, what = tensors[name], rng.randrange(9)
    if what == 0:
        del tensors[name]
    elif what == 1:
        tensors[rng.choice(("", "whole/x", "mask/\x1b[2J", "kept/conv.weight", "head/", name + "x"))] = value.clone()
    elif what == 2:
        kinds = (
            torch.float64,
            torch.float16,
            torch.int64,
            torch.bool,
            torch.complex64,
            torch.float8_e4m3fn,
            torch.uint16,
        )
        tensors[name] = value.real.to(rng.choice(kinds))
    elif what == 3:
        tensors[name] = value[..., None] if rng.random() < 0.5 else value.flatten()[: rng.randrange(value.numel() + 1)]
    elif what == 4 and value.is_floating_point() and value.numel():
        value.view(-1)[rng.randrange(value.numel())] = rng.choice(
            (float("nan"), float("inf"), -float("inf"), 1e30, -0.0)
        )
    elif what == 5:
        tensors[name] = torch.zeros(rng.choice(((0,), (0, 2**40), (1,), (2, 0, 3))), dtype=value.dtype)
    elif value.dtype == torch.uint8 and value.numel():
        value.view(-1)[rng.randrange(value.numel())] = rng.choice((0, 1, 254, 255, rng.randrange(256)))


READERS: dict[str, Callable[[Path], Reader]] = {Tickets.name: Tickets}
