"""What is fuzzed: a good input of each kind, its damage, and the reader that must refuse or read it."""

import gzip
import io
import json
import pickle
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from scipy.io import savemat
from torch import Tensor

from sslticket.analysis import endpoints
from sslticket.cli import inspect_commands
from sslticket.data import shards, tar
from sslticket.data.datasets import arrays
from sslticket.data.datasets.imagenet import Devkit, ImageNetLayout
from sslticket.data.datasets.lists import Places365Layout
from sslticket.data.manifest import Manifest
from sslticket.errors import BadInput
from sslticket.evaluation.controls import NaturalMask
from sslticket.pruning.mask import Mask
from sslticket.results import run_dir as run_folder
from sslticket.results import table, table_files
from sslticket.storage.files import write_json, write_row
from sslticket.storage.tensorfile import tensors_hash, unpack_tensors
from sslticket.storage.tensorfile import write_tensor_file as write_tensors
from sslticket.ticket import Ticket, _packed
from sslticket.training import checkpoint, progress, snapshots
from tests.fuzz.mutations import changed, damaged, text
from tests.report.analysed import CHANNELS, CONNECTIVITY, MAGNITUDES, OVERLAP, STABILITY
from tests.report.conftest import LEVEL, SCORE, SHARED


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
    sparse = Ticket.from_dense_weights(Mask(alive), weights, level=3, head=head, **told)
    dense = Ticket.from_dense_weights(Mask.ones_like(weights, list(shapes)), weights, level=0, **told)
    return [sparse, dense]


class Tickets:
    """Ticket files, plain and packed: flipped, cut, and forged with a right hash, so that what lies behind the hash is
    reached; and packed ones whose streams are damaged or tell of other tensors.
    """

    name, other = "ticket", "another"

    def __init__(self, folder: Path) -> None:
        self._path, self._again = folder / "ticket.safetensors", folder / "again.safetensors"
        self._good = []
        for ticket in tickets():
            header, tensors = ticket._header_and_tensors
            packed = _packed(header, tensors, ticket.hash)
            for told, own in ((header | {"hash": ticket.hash}, tensors), packed):
                self._good.append((container({"sslticket": text(told)}, own), header, tensors, ticket.hash))
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
        elif kind < 0.6:
            content = forged_streams(header, tensors, rng)
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
            assert Ticket.read_header(self._path)["hash"] == found, "its hash is not that of its content"
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
            digest = tensors_hash(json.loads(told), tensors)
            told = text(header | {"hash": digest})
            if rng.random() < 0.5 and all(value.dtype in _CODES for value in tensors.values()):
                with suppress(KeyError):  # and packed
                    header, streams = _packed(json.loads(text(header)), tensors, digest)
                    return container({"sslticket": text(header)}, streams)
    return container({"sslticket": told}, tensors)


def forged_streams(header: dict[str, Any], tensors: dict[str, Tensor], rng: Random) -> bytes:
    """A packed file with other streams, or with another table of them, and the hash of what can be unpacked."""
    told, streams = _packed(header, tensors, "0" * 16)
    if rng.random() < 0.6:
        table = changed(json.loads(zlib.decompress(streams["table"].numpy().tobytes())), rng)
        streams["table"] = _stream(zlib.compress(text(table).encode("utf-8", "replace")))
    else:
        name = rng.choice(list(streams))
        content = streams[name].numpy().tobytes()
        if rng.random() < 0.5:
            content = zlib.compress(damaged(content, rng))
        streams[name] = _stream(content if rng.random() < 0.3 else damaged(content, rng))
    own = {name: value for name, value in told.items() if name not in ("format", "ticket_hash")}
    with suppress(ValueError, RecursionError, RuntimeError, BadInput):
        listed, unpacked = unpack_tensors(streams)
        told["ticket_hash"] = tensors_hash(own | {"format": 2 if "head" in listed else 1} | listed, unpacked)
    return container({"sslticket": text(told)}, streams)


def _stream(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8))


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


class Files:
    """Files of another kind, of which one is damaged at a time."""

    other = "another"

    def __init__(self, name: str, folder: Path, read: Callable[[Path], Any]) -> None:
        """The good files are those that are in the folder."""
        self.name, self._folder, self._read = name, folder, read
        self._good = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        self._worse: Path | None = None
        self.before = read(folder)
        self.fixed: set[str] = set()

    def mutate(self, rng: Random) -> None:
        if self._worse:
            self._worse.write_bytes(self._good[self._worse])
        path = rng.choice([path for path in self._good if path.name not in self.fixed])
        self._worse, content = path, self._good[path]
        if path.suffix in (".json", ".jsonl") and rng.random() < 0.7:
            content = text(changed(json.loads(content), rng)).encode("utf-8", "replace") + b"\n"
        elif path.suffix == ".safetensors" and rng.random() < 0.5:
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            about = header["__metadata__"]
            if rng.random() < 0.7:
                key = rng.choice(list(about))
                header["__metadata__"] = {key: text(changed(json.loads(about[key]), rng))}
            else:
                header = changed(header, rng)
            told = text(header).encode("utf-8", "replace")
            content = len(told).to_bytes(8, "little") + told + content[8 + length :]
        elif path.suffix == ".gz" and rng.random() < 0.7:
            content = gzip.compress(damaged(gzip.decompress(content), rng), 1)
        else:
            content = damaged(content, rng)
        path.write_bytes(content)

    def read(self) -> Any:
        return self._read(self._folder)


def _rows(folder: Path) -> Files:
    (folder / "rows").mkdir()
    kinds = (SCORE, LEVEL, STABILITY, CONNECTIVITY, MAGNITUDES, OVERLAP, CHANNELS)
    for number, kind in enumerate(kinds):
        told = {"search": "IMP", "settings": {"lr": 0.1, "rewind": "1ep"}, "rewind_samples": 640, "within": ""}
        write_row(folder / "rows" / f"{number}.jsonl", SHARED | told | kind)

    def read(folder: Path) -> str:
        frame = table.flatten_rows(table.read_rows([folder]))
        return str(frame.to_csv(index=False))

    return Files("row", folder, read)


def _tables(folder: Path) -> Files:
    _rows(folder)
    for ending in table_files.TABLE_ENDINGS:
        table.write_table([folder], folder / f"table{ending}")
    shutil.rmtree(folder / "rows")

    def read(folder: Path) -> str:
        return str(table.flatten_rows(table.read_rows(sorted(folder.iterdir()))).to_csv(index=False))

    return Files("table", folder, read)


def _recipe(folder: Path) -> Files:
    content = {"recipe": {"seed": 0, "search": {"is": "IMP", "levels": 8}}, "data_hash": "0123", "command": "x"}
    write_json(folder / "recipe.json", content)
    return Files("recipe", folder, run_folder._read_recipe_file)


def _status(folder: Path) -> Files:
    told = progress.Status(
        task="x", step=1, steps=2, rate=3.0, loss=0.5, probe=None, left=9.0, host="h", pid=1, time=1.7e9
    )
    told.write(folder / progress.STATUS_FOLDER / "h.1.json")

    def read(folder: Path) -> list[progress.Status]:
        if not (found := progress.read_statuses(folder)):
            raise BadInput("left out")
        assert [(inspect_commands._process_line(each), each.silent_seconds) for each in found]
        return found

    return Files("status", folder, read)


def _plain(tensors: dict[str, Tensor]) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in tensors.items()}


def _snapshot(folder: Path) -> Files:
    state = {"net/backbone.conv.weight": torch.arange(6.0), "optimizer/0/step": torch.tensor(3.0)}
    write_tensors(folder / "early.safetensors", "snapshot", {"step": 3, "scaler": None}, state)

    def read(folder: Path) -> object:
        state, header = checkpoint._read_checkpoint(folder / "early.safetensors")
        return _plain(state), header["step"], header["scaler"]

    return Files("snapshot", folder, read)


def _training(folder: Path) -> Files:
    path = folder / "search.level-01.step-0000000003.safetensors"
    header = snapshots.Header(
        about={"recipe": "a-1", "network": "0123"},
        step=3,
        ended=False,
        seconds=1.5,
        loss=2.25,
        collapsed_steps=[0, 0],
        forward_images=96,
        backward_images=96,
        unreadable={},
        computed={"device": ["cpu"]},
        companion={"probe": {"2": 0.5}},
        state={"scaler": None},
    )
    write_tensors(path, "training", asdict(header), {"net/backbone.conv.weight": torch.arange(6.0)})

    def read(folder: Path) -> object:
        found, tensors = snapshots.Header.read(path, whole=True)
        return found, _plain(tensors)

    return Files("training", folder, read)


def _natural(folder: Path) -> Files:
    alive = Mask({"a.weight": torch.arange(12).view(3, 4) % 3 > 0, "b.weight": torch.arange(9) > 2})
    NaturalMask(alive, {"model": "conv3", "data_hash": "0123"}).save(folder / "natural.safetensors")

    def read(folder: Path) -> object:
        found = NaturalMask.load(folder / "natural.safetensors")
        return _plain(found.mask.layers), found.provenance

    return Files("natural", folder, read)


def _endpoint(folder: Path) -> Files:
    told = {"data_hash": "0123", "top1": 0.5, "layers": {"a": [1, 2]}}
    write_tensors(folder / "end.safetensors", "endpoint", told, {"backbone.a": torch.arange(5.0)})

    def read(folder: Path) -> object:
        found = endpoints.Endpoint.load(folder / "end.safetensors", weights=True)
        return _plain(found.state), found.measurements

    return Files("endpoint", folder, read)


def _shards(folder: Path) -> Files:
    root = folder / "train"
    root.mkdir()
    with tarfile.open(root / "shard-00000.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        lines = []
        for number in range(4):
            entry = tarfile.TarInfo(f"{number:09d}.jpg")
            entry.size = 100
            lines.append(f"a/{number}.jpg,{number % 2},0,{archive.offset + 512},100")
            archive.addfile(entry, io.BytesIO(bytes([number]) * 100))
    (root / "manifest.csv").write_text("\n".join(["file,label,shard,offset,size", *lines, ""]))
    sizes = {"shard-00000.tar": (root / "shard-00000.tar").stat().st_size}
    write_json(root / "split.json", {"images": 4, "classes": ["a", "b"], "shards": sizes})
    settings = {"short_side": 9, "quality": 9, "shard_size": 9, "images": {"train": "0123"}}
    write_json(folder / "pack.json", {"format": 1, "dataset": "imagenet", **settings})

    def read(folder: Path) -> object:
        found = shards.open_shards(folder, "train")
        if found is None:
            return None
        assert found.byte_ranges is not None
        frame = pd.DataFrame({"file": pd.Series(found.files, dtype=object), "label": found.labels})
        counts = Manifest(
            frame, found.classes, "imagenet", "train", found.root, found.archives, found.preprocessing
        ).class_counts()
        return (
            found.files,
            found.labels.tolist(),
            found.classes,
            found.byte_ranges.tolist(),
            found.preprocessing,
            counts.tolist(),
        )

    reader = Files("shards", folder, read)
    reader.fixed = {"shard-00000.tar"}
    return reader


def _idx(folder: Path) -> Files:
    images, labels = bytes((0, 0, 8, 3)) + struct.pack(">3I", 5, 4, 4), bytes((0, 0, 8, 1)) + struct.pack(">I", 5)
    (folder / "images.gz").write_bytes(gzip.compress(images + bytes(range(80))))
    (folder / "labels").write_bytes(labels + bytes(range(5)))

    def read(folder: Path) -> object:
        return [each.tolist() for each in arrays.read_idx(folder / "images.gz", folder / "labels", 10)]

    return Files("idx", folder, read)


def _cifar(folder: Path) -> Files:
    pixels = np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072)
    for protocol in range(6):
        content = {b"data": pixels, b"labels": [1, 0], b"filenames": [b"a.png", b"b.png"], b"n": np.int64(3)}
        (folder / f"data{protocol}").write_bytes(pickle.dumps(content, protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog"]}, 2))
    files = [f"data{protocol}" for protocol in range(6)]

    def read(folder: Path) -> object:
        images, labels, classes = arrays.read_cifar(folder, files, "labels", ("batches.meta", "label_names"))
        return images.tobytes(), images.shape, labels.tolist(), classes

    return Files("cifar", folder, read)


def _svhn(folder: Path) -> Files:
    pixels = np.arange(2 * 3072).astype(np.uint8).reshape(32, 32, 3, 2)
    for number, compressed in enumerate((False, True)):
        savemat(
            folder / f"{number}.mat", {"X": pixels, "y": np.array([[10], [3]], np.uint8)}, do_compression=compressed
        )

    def read(folder: Path) -> object:
        images, labels = arrays.read_svhn([folder / "0.mat", folder / "1.mat"])
        return images.tobytes(), labels.tolist()

    return Files("svhn", folder, read)


def _kit(folder: Path) -> Files:
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8"), ("children", "O")]
    synsets = [(1, "n01", "a", 0, np.empty(0)), (2, "n02", "b", 0, np.empty(0)), (3, "n03", "c", 2, np.array([1, 2]))]
    layout = ImageNetLayout()
    home = folder / "data"
    home.mkdir()
    savemat(home / layout.meta, {"synsets": np.array(synsets, kinds)[:, None]}, do_compression=True)
    (home / layout.ground_truth).write_text("2\n1\n")

    def read(folder: Path) -> object:
        found = Devkit.find(folder, layout)
        return found and (found.wnids, found.ground_truth)

    return Files("kit", folder, read)


def _tar(folder: Path) -> Files:
    for name, inner in (("plain.tar", False), ("nested.tar", True)):
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as archive:
            for number in range(3):
                entry = tarfile.TarInfo(f"n01/n01_{number}.JPEG")
                entry.size = 60
                archive.addfile(entry, io.BytesIO(bytes([number]) * 60))
        if inner:
            content, written = written.getvalue(), io.BytesIO()
            with tarfile.open(fileobj=written, mode="w") as archive:
                entry = tarfile.TarInfo("n01.tar")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        (folder / name).write_bytes(written.getvalue())

    def read(folder: Path) -> object:
        return [tar.list_tar(folder / name) for name in ("plain.tar", "nested.tar")]

    return Files("tar", folder, read)


def _places(folder: Path) -> Files:
    layout = Places365Layout(train_images=("images",), eval_images=("images",))
    (folder / "images").mkdir()
    (folder / layout.classes).write_text("/a/abbey 0\n/b/bar 1\n")
    (folder / layout.train).write_text("/a/abbey/1.jpg 0\n/b/bar/2.jpg 1\n")

    def read(folder: Path) -> object:
        found = layout.list_images(folder, "train")
        return found.files, found.labels.tolist(), found.classes

    return Files("places", folder, read)


def _subset(folder: Path) -> Files:
    frame = pd.DataFrame({"file": [f"{name}/{number}.jpg" for name in "ab" for number in range(4)]})
    manifest = Manifest(frame.assign(label=[0] * 4 + [1] * 4), ("a", "b"), "imagenet", "train", folder)
    (folder / "list.txt").write_text("a/0.jpg\na/2.jpg\nb/1.jpg\n")
    return Files("subset", folder, lambda folder: manifest.restrict_to_list(folder / "list.txt").hash)


READERS: dict[str, Callable[[Path], Reader]] = {
    "ticket": Tickets,
    "row": _rows,
    "table": _tables,
    "recipe": _recipe,
    "status": _status,
    "snapshot": _snapshot,
    "training": _training,
    "natural": _natural,
    "endpoint": _endpoint,
    "shards": _shards,
    "idx": _idx,
    "cifar": _cifar,
    "svhn": _svhn,
    "kit": _kit,
    "tar": _tar,
    "places": _places,
    "subset": _subset,
}
