"""What work comes to, and how fast devices do it by what was measured: rows, a user's own table, and a published one.

A plan is made before anything runs. Its steps are exact; its hours are steps at a speed that somebody measured, and it
says who.
"""

import csv
import io
import math
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslticket import models, processes, provenance
from sslticket.config.training import format_duration
from sslticket.data.datasets.catalogue import known_dataset
from sslticket.errors import BadInput
from sslticket.storage.files import atomic_write, cache_folder, file_lock, read_json
from sslticket.training.memory import ShapeOnlyMode, format_bytes
from sslticket.training.numerics import numerics_of_row

Row = Mapping[str, Any]
TABLE = "throughput.csv"
"""The table beside this file, and a user's own in the cache folder."""
ROW_BYTES = 2_000
"""About as many has a row; the settings of its recipe take most of it."""
_FEWEST_STEPS = 20  # of a run whose speed is worth keeping
_OWN_ROWS, _OWN_TABLE, _SHIPPED = "rows of these runs", "your earlier runs", "sslticket's table"


class Workload(NamedTuple):
    """The training that a job does.

    Attributes:
        model: Name of the network.
        protocol: Name of the protocol; "" for a search.
        image_size: Side in pixels of the images that the network sees.
        numerics: How the training computes, see `Numerics`.
        steps: Optimiser steps.
        samples: Source images that it sees; 0 where nothing is left to be trained.
        objective: What is learnt.
        learnt: Whether masks are learnt too.
        batch_size: Images of a step.
        multiply_adds: Those of one source image's forward and backward pass; 0 where nobody counted.
        measured: Images that are measured at its end.
        measured_multiply_adds: Those of one measured image.
        length: Length of the whole training as its settings have it, such as "90ep"; "" where nobody says.
    """

    model: str
    protocol: str
    image_size: int
    numerics: str
    steps: int
    samples: int
    objective: str = "supervised"
    learnt: bool = False
    batch_size: int = 0
    multiply_adds: float = 0.0
    measured: int = 0
    measured_multiply_adds: float = 0.0
    length: str = ""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a device trains one kind of training: a line of a table.

    Attributes:
        device: Name of the device, as rows have it.
        machine: Name of its processor; "" where the device says all.
        model: Name of the network.
        objective: What is learnt.
        learnt: Whether masks are learnt too.
        image_size: Side in pixels of the images that the network sees.
        batch_size: Images of a step.
        numerics: How the training computes.
        images_per_second: Source images that are trained on in a second.
        measured_per_second: Images that are measured in a second, after a training; None where nobody knows.
        training_seconds: What a training takes beside its steps and measured images: to score, save and load.
        command_seconds: What a command takes beside its trainings: to start, to read the images, to end.
        kind: "measured" by this project or a user of it, "published" by others and not measured here.
        source: Who measured it, and how: a command, or the place of a publication.
        commit: Commit of the code; "" for what others published.
        cores: Processor cores of the machine; 0 where nobody says.
        date: Day of the measurement.
        multiply_adds: Those of a source image in training; 0 where nobody counted.
        protocol: Name of the protocol, of rows; "" else.
        passes: Of rows, images that went forward and backward for a source image.
    """

    device: str
    machine: str = ""
    model: str
    objective: str = "supervised"
    learnt: bool = False
    image_size: int
    batch_size: int = 0
    numerics: str
    images_per_second: float
    measured_per_second: float | None = None
    training_seconds: float | None = None
    command_seconds: float | None = None
    kind: str = "measured"
    source: str = ""
    commit: str = ""
    cores: int = 0
    date: str = ""
    multiply_adds: float = 0.0
    protocol: str = ""
    passes: tuple[float, float] = (0.0, 0.0)

    @property
    def operations(self) -> float:
        """The multiply-adds of a source image, counted for the network where the line does not have them."""
        if self.multiply_adds or not self.image_size:
            return self.multiply_adds
        return training_multiply_adds([(self.image_size, *self.passes)], self.model, 3)


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a piece of work comes to.

    Attributes:
        trainings: Trainings from early weights to an end.
        steps: Optimiser steps of all together, at most.
        samples: Source images that they see, those of scores included.
        forward_images: Images that go forward through a backbone in training, each time.
        seconds: Time of one worker, which may have several devices; None where no speed is known.
        speed_source: Where the speed is from, in words.
        memory_bytes: Memory that one device needs; None where that is not known.
        disk_bytes: Bytes of files that stay; None where that is not known.
        devices: Devices of one worker.
        lengths: How many trainings there are of each length.
        about: Whether the numbers of images are only about right.
        unknown: Pieces of work of which no speed is known.
        uncounted: Pieces of work of which nobody knows how many images there are, and which are in no number here.
    """

    trainings: int = 0
    steps: int = 0
    samples: int = 0
    forward_images: int = 0
    seconds: float | None = 0.0
    speed_source: str = ""
    memory_bytes: int | None = None
    disk_bytes: int | None = 0
    devices: int = 1
    lengths: tuple[tuple[str, int], ...] = ()
    about: bool = False
    unknown: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()

    @property
    def gpu_hours(self) -> float | None:
        """Hours of one device that the work takes, whichever kind of device that is; None where that is not known."""
        return None if self.seconds is None else self.seconds * self.devices / 3600

    def __add__(self, other: "CostEstimate") -> "CostEstimate":
        """Both, one after the other."""
        seconds = None if self.seconds is None or other.seconds is None else self.seconds + other.seconds
        disk = None if self.disk_bytes is None or other.disk_bytes is None else self.disk_bytes + other.disk_bytes
        memory = [each.memory_bytes for each in (self, other) if each.memory_bytes is not None]
        lengths = dict(self.lengths)
        for length, count in other.lengths:
            lengths[length] = lengths.get(length, 0) + count
        sources = [part for each in (self, other) for part in each.speed_source.split("; ") if part]
        return CostEstimate(
            trainings=self.trainings + other.trainings,
            steps=self.steps + other.steps,
            samples=self.samples + other.samples,
            forward_images=self.forward_images + other.forward_images,
            seconds=seconds,
            speed_source="; ".join(dict.fromkeys(sources)),
            memory_bytes=max(memory) if memory else None,
            disk_bytes=disk,
            devices=max(self.devices, other.devices),
            lengths=tuple(lengths.items()),
            about=self.about or other.about,
            unknown=tuple(dict.fromkeys((*self.unknown, *other.unknown))),
            uncounted=tuple(dict.fromkeys((*self.uncounted, *other.uncounted))),
        )

    def times(self, count: int) -> "CostEstimate":
        """The same so many times."""
        return replace(
            self,
            trainings=self.trainings * count,
            steps=self.steps * count,
            samples=self.samples * count,
            forward_images=self.forward_images * count,
            seconds=None if self.seconds is None else self.seconds * count,
            disk_bytes=None if self.disk_bytes is None else self.disk_bytes * count,
            lengths=tuple((length, number * count) for length, number in self.lengths),
        )

    def describe_trainings(self) -> str:
        """How many trainings of which lengths, in words: "135 trainings of 90ep"."""
        kinds = [f"{count:,} of {length}" for length, count in self.lengths]
        noun = "training" if self.trainings == 1 else "trainings"
        if len(kinds) == 1:
            return f"{self.trainings:,} {noun} of {self.lengths[0][0]}"
        shown = f": {', '.join(kinds[:4])}{', ...' if len(kinds) > 4 else ''}" if kinds else ""
        return f"{self.trainings:,} {noun}{shown}"

    def describe_time(self) -> str:
        """The time of one worker and where its speed is from, in words."""
        if self.seconds is None:
            what = f" of {', '.join(self.unknown[:3])}{', ...' if self.unknown[3:] else ''}" if self.unknown else ""
            return f"unknown: no speed{what} was measured on this device; give --probe-speed"
        return f"about {format_duration(self.seconds)}{f' ({self.speed_source})' if self.speed_source else ''}"

    def summary(self) -> str:
        """The line that is printed before anything starts."""
        words = f"{self.describe_trainings()}, {self.steps:,} steps, {self.describe_time()}"
        return f"{words} on {self.devices} devices" if self.devices > 1 else words

    def lines(self) -> list[tuple[str, str]]:
        """A table of two columns for a person."""
        about = "about " if self.about else ""
        hours = self.gpu_hours
        shown = f"{'; '.join(self.uncounted[:3])}{'; ...' if self.uncounted[3:] else ''}"
        without = [("not counted", f"{shown} (nobody publishes how many images)")] if self.uncounted else []
        if without and not self.trainings:
            return without
        found = [
            ("trainings", f"{self.describe_trainings()} = {about}{self.steps:,} steps"),
            ("images seen", f"{about}{self.samples:,} samples, {self.forward_images:,} images forward"),
            ("time", self.describe_time()),
        ]
        if hours is not None:
            name = "1 device" if self.devices == 1 else f"{self.devices} devices"
            found.append(("device hours", f"{_significant(hours)} with {name}"))
        if self.memory_bytes is not None:
            found.append(("memory", f"{format_bytes(self.memory_bytes)} a device"))
        if self.disk_bytes is not None:
            found.append(("disk", format_bytes(self.disk_bytes)))
        return [*found, *without]


def _significant(number: float) -> str:
    return f"{number:,.0f}" if number >= 99.5 else f"{number:.2g}"


class Throughput:
    """Images a second that a device has trained on, by kind of training, from what was measured.

    Rows of the runs at hand come first, then what this user measured before, then the package's own table. Where no
    line fits, one of another size, network or objective is scaled by the multiply-adds of an image, which says so.
    """

    _KEY_TYPES = dict.fromkeys(("device", "precision", "model"), (str,)) | {
        "samples": (int,),
        "seconds": (int, float),
    }

    def __init__(
        self,
        runs: Iterable[Path],
        device: str,
        image_size: Callable[[str], int],
        *,
        rows: Iterable[Row] = (),
        tables: Iterable[Sequence[Speed]] = (),
        probed: Speed | None = None,
        elsewhere: bool = False,
    ) -> None:
        """Reads the rows of runs' folders that a device has measured; what cannot be read is left out.

        Args:
            runs: Folders of runs.
            device: Name of the device, as rows have it.
            image_size: Side in pixels of the images of a protocol, by its name; raises BadInput for an unknown one.
            rows: Further rows.
            tables: Lines of tables, the ones that are preferred first.
            probed: What was measured a moment ago, and takes the place of all for its own kind of training.
            elsewhere: Whether the device is not this one, which computes as its own lines say.
        """
        found = [*(row for run in runs for row in _read_rows(run)), *rows]
        self.device, self.probed, self._elsewhere = device, probed, elsewhere
        own = [speed for row in found if (speed := self._speed_of_row(row, image_size)) is not None]
        self.devices, one = _split_count(device)
        self._tiers = [own]
        for table in tables:
            lines = [each for each in table if each.device == device]
            self._tiers.append(lines or [_together(each, self.devices) for each in table if each.device == one])

    @classmethod
    def known(
        cls,
        device: str,
        image_size: Callable[[str], int],
        *,
        runs: Iterable[Path] = (),
        rows: Iterable[Row] = (),
        probed: Speed | None = None,
    ) -> "Throughput":
        """All that is known of a device: rows, this user's table, and the package's."""
        tables, elsewhere = (own_table(), shipped_table()), device != device_name()
        return cls(runs, device, image_size, rows=rows, tables=tables, probed=probed, elsewhere=elsewhere)

    def images_per_second(self, work: Workload) -> float | None:
        """The median over lines of the same protocol, or else of images of that size; None where there are none."""
        found = self.find(work)
        return None if found is None else found[0].images_per_second

    def find(self, work: Workload) -> tuple[Speed, str] | None:
        """How fast the device does this work, and where that is from; None where it is not known."""
        if self.probed is not None:
            return self._probed_speed(self.probed, work)
        numerics = [speed.numerics for tier in self._tiers for speed in tier]
        how = ""
        if self._elsewhere and numerics and work.numerics not in numerics:
            work = work._replace(numerics=numerics[0])
            how = f"at {work.numerics}"
        fitting = [speed for tier in self._tiers if (speed := _exact(tier, work)) is not None]
        return (_filled(fitting), _words(fitting[0], how)) if fitting else self._scaled(work)

    def seconds(self, works: Iterable[Workload], *, beside: bool = True) -> float | None:
        """The time that trainings take together; None where a speed is not known.

        Args:
            works: The trainings.
            beside: Whether what they take beside their steps is counted, as far as it is known.
        """
        total = 0.0
        for work in works:
            found = self.find(work)
            if found is None:
                if not work.samples:
                    continue
                return None
            speed = found[0]
            total += work.samples / speed.images_per_second
            if beside and work.samples:
                total += (speed.training_seconds or 0.0) + measured_seconds(speed, work)
        return total

    def estimate(self, works: Iterable[Workload]) -> str:
        """The time that trainings take together, in words; measuring and loading come on top."""
        seconds = self.seconds(works, beside=False)
        if seconds is None:
            return "unknown"
        return f"about {format_duration(seconds)}" if seconds else "none"

    def _speed_of_row(self, row: Row, image_size: Callable[[str], int]) -> Speed | None:
        typed = all(type(row.get(key)) in kinds for key, kinds in self._KEY_TYPES.items())
        if not typed or row["device"] != self.device or not row["seconds"] or not row["samples"]:
            return None
        protocol = row["protocol"] if isinstance(row.get("protocol"), str) else ""
        settings = row.get("settings") if isinstance(row.get("settings"), Mapping) else {}
        try:
            size = image_size(protocol) if protocol else _size_of_search(settings or {})
        except BadInput:  # a protocol of an older version, or of a user
            size = 0
        steps = row.get("steps")
        if not protocol and (not isinstance(steps, int) or steps < _FEWEST_STEPS):
            return None
        return Speed(
            device=row["device"],
            model=row["model"],
            objective="supervised" if protocol else str(row.get("objective", "")),
            learnt=not protocol and row.get("search") in LEARNT_SEARCHES,
            image_size=size,
            batch_size=round(row["samples"] / steps) if isinstance(steps, int) and steps else 0,
            numerics=numerics_of_row(row),
            images_per_second=row["samples"] / row["seconds"],
            source=_OWN_ROWS,
            protocol=protocol,
            passes=_passes_of_row(row),
        )

    def _probed_speed(self, probed: Speed, work: Workload) -> tuple[Speed, str] | None:
        same = (probed.model, probed.objective, probed.image_size) == (work.model, work.objective, work.image_size)
        words = f"measured a moment ago{f' {probed.source}' if probed.source else ''}"
        if same:
            return probed, words
        scaled = _scale(probed, work)
        return None if scaled is None else (scaled, f"{words}, scaled{_from(probed)}")

    def _scaled(self, work: Workload) -> tuple[Speed, str] | None:
        """A line of other trainings at the same numerics, scaled by multiply-adds."""
        if not work.multiply_adds:
            return None
        lines = [speed for tier in self._tiers for speed in tier if speed.numerics == work.numerics]
        lines = [speed for speed in lines if speed.operations]
        if not lines:
            return None

        def distance(speed: Speed) -> tuple[bool, bool, float]:
            far = abs(math.log(speed.operations / work.multiply_adds))
            return speed.model != work.model, speed.learnt != work.learnt, far

        nearest = min(lines, key=distance)
        scaled = _scale(nearest, work)
        return None if scaled is None else (scaled, _words(nearest, f"scaled{_from(nearest)}"))


def work_cost(
    works: Sequence[Workload], throughput: Throughput, *, devices: int = 1, disk_bytes: int | None = None
) -> CostEstimate:
    """What trainings under protocols come to: each sees every image forward once.

    Args:
        works: The trainings; alike ones may be listed many times.
        throughput: How fast the device is.
        devices: Devices of one worker.
        disk_bytes: Bytes of files that stay; None where that is not known.
    """
    total = CostEstimate(devices=devices, disk_bytes=disk_bytes)
    for work, count in Counter(works).items():
        if not work.samples:
            continue
        found, seconds = throughput.find(work), throughput.seconds([work])
        one = CostEstimate(
            trainings=1,
            steps=work.steps,
            samples=work.samples,
            forward_images=work.samples,
            seconds=seconds,
            speed_source="" if found is None else found[1],
            devices=devices,
            lengths=((work.length or f"{work.steps:,} steps", 1),),
            unknown=() if found else (f"{work.model} at {work.image_size} px",),
        )
        total += one.times(count)
    return total


LEARNT_SEARCHES = ("ContinuousSparsification", "StochasticSparsification", "EdgePopup")
"""Names of the searches whose masks are learnt in training, which takes longer."""


def measured_seconds(speed: Speed, work: Workload) -> float:
    """The time that the images take which are measured at the end of a training.

    Where nobody measured it, an image goes forward as fast as in training, of which a third is forward.
    """
    if not work.measured:
        return 0.0
    if speed.measured_per_second:
        return work.measured / speed.measured_per_second
    share = work.measured_multiply_adds / work.multiply_adds if work.multiply_adds else 1 / 3
    return work.measured * share / speed.images_per_second


def _exact(tier: Sequence[Speed], work: Workload) -> Speed | None:
    """The median of the lines of this kind of training: of its protocol, or its image size, at the nearest batch."""
    kind = (work.numerics, work.model, work.objective, work.learnt)
    same = [each for each in tier if (each.numerics, each.model, each.objective, each.learnt) == kind]
    of_protocol = [each for each in same if each.protocol and each.protocol == work.protocol]
    chosen = of_protocol or [each for each in same if each.image_size == work.image_size]
    if not chosen:
        return None
    if work.batch_size:
        gaps = [abs(math.log((each.batch_size or work.batch_size) / work.batch_size)) for each in chosen]
        chosen = [each for each, gap in zip(chosen, gaps, strict=True) if gap <= min(gaps) + 0.05]

    def middle(name: str) -> float | None:
        values = [value for each in chosen if (value := getattr(each, name)) is not None]
        return median(values) if values else None

    return replace(
        chosen[-1],
        images_per_second=median(each.images_per_second for each in chosen),
        measured_per_second=middle("measured_per_second"),
        training_seconds=middle("training_seconds"),
        command_seconds=middle("command_seconds"),
    )


def _filled(speeds: Sequence[Speed]) -> Speed:
    """The first, with what it does not know from the next that does: rows know nothing but the speed of training."""
    known: dict[str, Any] = {}
    for name in ("measured_per_second", "training_seconds", "command_seconds"):
        known[name] = next((value for each in speeds if (value := getattr(each, name)) is not None), None)
    return replace(speeds[0], **known)


def _scale(speed: Speed, work: Workload) -> Speed | None:
    if not (speed.operations and work.multiply_adds):
        return None
    factor = speed.operations / work.multiply_adds
    # What a measured image takes depends on network and size, too: it follows from the speed of training.
    return replace(speed, images_per_second=speed.images_per_second * factor, measured_per_second=None)


def _from(speed: Speed) -> str:
    task = "" if speed.objective == "supervised" else f"{speed.objective} of "
    return f" from {task}{speed.model} at {speed.image_size} px"


def _words(speed: Speed, how: str) -> str:
    """Where a speed is from, for a person."""
    if speed.kind == "published":
        where = f"published, not measured here: {speed.source}"
    elif speed.source == _OWN_ROWS:
        where = _OWN_ROWS
    else:
        table = _OWN_TABLE if speed.source.startswith(_OWN_TABLE) else _SHIPPED
        where = f"{table}, on {speed.machine}" if speed.machine else table
        where += speed.source[speed.source.rfind("; ") :] if "taken to be" in speed.source else ""
    return f"{where}, {how}" if how else where


def _read_rows(run: Path) -> Iterator[Row]:
    for file in sorted((run / "rows").glob("*level-*.jsonl")):
        try:
            row = read_json(file)
        except (OSError, ValueError):  # for others to complain about
            continue
        if isinstance(row, dict):
            yield row


def _passes_of_row(row: Row) -> tuple[float, float]:
    """Images that went forward and backward for each source image; of older rows one each."""
    forward, backward = (row.get(f"{way}_images") for way in ("forward", "backward"))
    if isinstance(forward, int) and isinstance(backward, int) and row["samples"]:
        return forward / row["samples"], backward / row["samples"]
    return 1.0, 1.0


def _size_of_search(settings: Mapping[str, Any]) -> int:
    """Side in pixels of what a search's network saw, by the settings in its rows; 0 where they do not tell."""
    given = settings.get("image_size")
    dataset = known_dataset(settings.get("dataset"))
    return given if isinstance(given, int) else 0 if dataset is None else dataset.train_view.size


@cache
def network_shape(model: str, channels: int, image_size: int) -> nn.Module:
    """A network's layers with their shapes and without values, built once; nothing may be changed in it.

    Raises:
        BadInput: If there is no such network.
    """
    with ShapeOnlyMode(), torch.random.fork_rng(devices=[]):
        return models.create_model(model, channels=channels, image_size=image_size).eval()


def multiply_adds_of(model: str, channels: int, image_size: int) -> int:
    """Multiply-adds of an image's way through a network's convolutional and linear layers; 0 where they are unknown."""
    return _forward_shape(model, channels, image_size)[0]


def num_features(model: str, channels: int, image_size: int) -> int:
    """Number of features that a network gives; 0 where that is not known."""
    return _forward_shape(model, channels, image_size)[1]


@cache
def _forward_shape(model: str, channels: int, image_size: int) -> tuple[int, int]:
    """The multiply-adds of an image's way through a network that is built for its size, and the number of features."""
    found = 0

    def count(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal found
        if isinstance(layer, nn.Linear):
            found += layer.weight.numel() * (output.numel() // output.shape[-1])
        elif isinstance(layer, nn.Conv2d):
            found += layer.weight.numel() * math.prod(output.shape[2:])

    hooks = []
    try:
        network = network_shape(model, channels, image_size)
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        hooks = [layer.register_forward_hook(count) for layer in layers]
        with ShapeOnlyMode(), torch.no_grad():
            features = network(torch.empty(1, channels, image_size, image_size)).shape[-1]
    except Exception:  # whatever a user's own network may raise: its speed is then not scaled
        return 0, 0
    finally:
        for hook in hooks:
            hook.remove()
    return found, features


def training_multiply_adds(passes: Iterable[tuple[int, float, float]], model: str, channels: int) -> float:
    """Multiply-adds of a source image in training: a pass backward takes twice as many as one forward.

    Args:
        passes: For each size in pixels, the images that go forward and backward through the backbone.
        model: Name of the network.
        channels: Channels of the images.
    """
    return sum(multiply_adds_of(model, channels, size) * (forward + 2 * back) for size, forward, back in passes)


def _split_count(device: str) -> tuple[int, str]:
    """How many devices "8 x NVIDIA A100" is, and of which kind."""
    count, times, one = device.partition(" x ")
    return (int(count), one) if times and count.isdigit() else (1, device)


def _together(speed: Speed, count: int) -> Speed:
    """The line of a device as that of so many, which nobody measured together: so many times as fast."""
    if count == 1:
        return speed
    source = f"{speed.source}; {count} taken to be {count} times as fast as one"
    measured = speed.measured_per_second and speed.measured_per_second * count
    return replace(
        speed, images_per_second=speed.images_per_second * count, measured_per_second=measured, source=source
    )


def device_name() -> str:
    """The device or devices of this process and those launched with it, as rows have them; see `Engine.device_name`."""
    from sslticket.config.runtime import cpu_only

    device = None if cpu_only() or not torch.accelerator.is_available() else torch.accelerator.current_accelerator()
    if device is None:
        name = f"cpu, {torch.get_num_threads()} threads"
    else:
        named = getattr(torch.get_device_module(device), "get_device_name", None)
        name = named(device) if named is not None else device.type
    count = processes.world_size()
    return f"{count} x {name}" if count > 1 else name


def find_device(name: str) -> str:
    """The device of the tables that a name or a part of one means, such as "A100", or several, "8 x A100".

    Raises:
        BadInput: If the tables have none or several of that name.
    """
    known = list(dict.fromkeys(speed.device for table in (own_table(), shipped_table()) for speed in table))
    count, one = _split_count(name)
    found = [device for device in known if one.lower() in device.lower()]
    if name in known:
        return name
    if len(found) == 1 or one in known:
        device = one if one in known else found[0]
        return device if count == 1 else f"{count} x {device}"
    which = "several devices have that name" if found else "no such device was measured"
    raise BadInput(f"--on must name a device of the tables, got {name!r}: {which}; known: {'; '.join(found or known)}")


def machine_name() -> str:
    """Name of this machine's processor."""
    with suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def process_seconds(*, alone: bool = False) -> float:
    """Seconds since this process was started.

    Args:
        alone: Where that is known, seconds that it would be on a machine that does nothing else, see `Busy`.
    """
    if alone and _computes_in_one_thread():
        return time.process_time()
    with suppress(OSError, ValueError, IndexError, AttributeError):
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    return time.process_time()


@cache
def shipped_table() -> tuple[Speed, ...]:
    """The lines of the package's table."""
    return tuple(_parse_table(resources.files(__package__).joinpath(TABLE).read_text("utf-8")))


def own_table() -> tuple[Speed, ...]:
    """The lines of this user's table, of runs that were here before; what cannot be read is left out."""
    try:
        return tuple(_parse_table((cache_folder() / TABLE).read_text("utf-8")))
    except (OSError, ValueError):
        return ()


def remember_speed(speed: Speed) -> None:
    """Writes a line into this user's table, in the place of an older one of the same kind.

    A table that cannot be written is no reason to fail.
    """
    path = cache_folder() / TABLE

    def kind(line: Speed) -> tuple[object, ...]:
        return (line.device, line.machine, line.model, line.objective, line.learnt, line.image_size, line.numerics)

    with suppress(OSError, BadInput):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path):
            others = [line for line in own_table() if (kind(line), line.batch_size) != (kind(speed), speed.batch_size)]
            with atomic_write(path) as temporary:
                temporary.write_text(format_table([*others, speed]), "utf-8")


def speed_of_rows(
    rows: Sequence[Row], work: Workload, *, trainings: int, command_seconds: float, total_seconds: float
) -> Speed | None:
    """What a command that has ended measured, for the user's table; None where it trained too little to tell.

    Args:
        rows: Rows that it wrote, with `samples`, `seconds` and `steps`.
        work: One of its trainings.
        trainings: How many it did.
        command_seconds: What it took before the first of them.
        total_seconds: What it took in all.
    """
    # Of one thread, the processor's time is what it takes on a machine that does nothing else.
    share = process_seconds(alone=True) / max(process_seconds(), 1e-9)
    command_seconds, total_seconds = command_seconds * share, total_seconds * share
    rows = [dict(row) | {"seconds": row["seconds"] * share} for row in rows]
    trained = [row for row in rows if row.get("steps", 0) and row.get("seconds")]
    if not trained or sum(row["steps"] for row in trained) < _FEWEST_STEPS:
        return None
    rates = [row["samples"] / row["seconds"] for row in trained if row["steps"] >= _FEWEST_STEPS]
    rate = median(rates or [sum(row["samples"] for row in trained) / sum(row["seconds"] for row in trained)])
    speed = Speed(
        device=trained[0]["device"],
        machine=machine_name() if str(trained[0]["device"]).rpartition(" x ")[2].startswith("cpu") else "",
        model=work.model,
        objective=work.objective,
        learnt=work.learnt,
        image_size=work.image_size,
        batch_size=work.batch_size,
        numerics=numerics_of_row(trained[0]),
        images_per_second=rate,
        multiply_adds=work.multiply_adds,
        command_seconds=round(command_seconds, 2),
        source=f"{_OWN_TABLE}: {provenance.collect_provenance().get('command', '')}"[:300],
        commit=provenance.git_commit(),
        cores=os.cpu_count() or 0,
        date=time.strftime("%Y-%m-%d"),
    )
    beside = total_seconds - command_seconds - sum(row["seconds"] for row in trained)
    beside -= trainings * measured_seconds(speed, work)
    return replace(speed, training_seconds=round(max(0.0, beside / trainings), 3)) if trainings else speed


_COLUMNS = [field.name for field in fields(Speed) if field.name not in ("protocol", "passes")]


def format_table(lines: Iterable[Speed]) -> str:
    """Lines as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for line in lines:
        values = [getattr(line, name) for name in _COLUMNS]
        writer.writerow(["" if each is None else f"{each:.5g}" if isinstance(each, float) else each for each in values])
    return text.getvalue()


def _parse_table(text: str) -> Iterator[Speed]:
    """The lines of a CSV text; those that do not fit are left out."""
    readers: Mapping[str, Callable[[str], Any]] = {
        "learnt": lambda word: word == "True",
        **dict.fromkeys(("image_size", "batch_size", "cores"), int),
        **dict.fromkeys(("images_per_second", "multiply_adds"), lambda word: float(word or 0)),
        **dict.fromkeys(
            ("measured_per_second", "training_seconds", "command_seconds"), lambda word: float(word) if word else None
        ),
    }
    for line in csv.DictReader(io.StringIO(text)):
        with suppress(ValueError, KeyError, TypeError):
            values: dict[str, Any] = {name: readers.get(name, str)(line[name]) for name in _COLUMNS}
            speed = Speed(**values)
            if speed.images_per_second > 0:
                yield speed


def _computes_on_cpu() -> bool:
    from sslticket.config.runtime import cpu_only

    return cpu_only() or not torch.accelerator.is_available()


def _computes_in_one_thread() -> bool:
    """Whether the processor's time is what a computation takes on a machine that does nothing else."""
    return _computes_on_cpu() and torch.get_num_threads() == 1


class Busy:
    """How much of a processor core this process had while the block ran, where it wanted one: 1 on a quiet machine.

    Attributes:
        share: Processor time divided by time on the clock, of one thread.
    """

    def __enter__(self) -> "Busy":
        self._began, self._used = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        took = time.monotonic() - self._began
        self.share = (time.process_time() - self._used) / took if took else 1.0

    def alone(self, seconds: float) -> float:
        """What a part of the block would have taken on a machine that does nothing else, where one thread computes."""
        return seconds * min(1.0, self.share) if _computes_in_one_thread() else seconds

    @property
    def note(self) -> str:
        """A warning where other work took a good part; "" else."""
        if self.share > 0.85 or not _computes_on_cpu():
            return ""
        if _computes_in_one_thread():
            return f"as on a quiet machine: this process had {self.share:.0%} of a core"
        return f"other work ran meanwhile: this process had {self.share:.0%} of a core, so times would be shorter alone"


_PROBE_STEPS, _MOST_PROBE_STEPS = 10, 300
"""Steps of a training of a probe, of which there are two after a first one: 20 in all, and more of quick ones."""
_PROBE_SECONDS = 1.0  # of a training's steps, so that the clock and the first step matter little
_PROBE_OPERATIONS = 2e10  # multiply-adds of a step on a CPU, about a second's: a larger batch would tell no more


class ProbedRun(NamedTuple):
    """What a short run showed.

    Attributes:
        images_per_second: Source images that it trained on in a second.
        beside: Seconds of a training beside its steps.
        trainings_seconds: Seconds of all its trainings.
    """

    images_per_second: float
    beside: float
    trainings_seconds: float

    @classmethod
    def of_rows(cls, rows: Sequence[Row], files: Sequence[Path], busy: Busy) -> "ProbedRun":
        """What a run's rows say, and the times between them.

        Args:
            rows: Its rows, in the order in which they were measured.
            files: A file that was written with each.
            busy: What the process had of a core meanwhile.
        """
        between = [later - earlier for earlier, later in pairwise(file.stat().st_mtime for file in files)]
        besides = [took - row["seconds"] for took, row in zip(between, rows[1:], strict=True)]
        beside = busy.alone(max(0.0, median(besides)) if besides else 0.0)
        rates = [row["samples"] / row["seconds"] for row in reversed(rows) if row["samples"] and row["seconds"]]
        # The first training warms everything up.
        seconds = busy.alone(1 / median(rates[:-1] or rates)) if rates else 0.0
        together = busy.alone(sum(between) + rows[0]["seconds"]) + beside
        return cls(1 / seconds if seconds else math.inf, beside, together)


def probe_speed(work: Workload, run: Callable[[int, int, int], ProbedRun], *, evaluation: int, least: int = 1) -> Speed:
    """Measures how fast this device does a kind of training: by a short run, and of more steps where these are quick.

    Args:
        work: The training.
        run: Does short trainings of a batch of so many images for so many steps, after which so many are measured.
        evaluation: Images that are measured at the end of a real one.
        least: Images of the smallest batch.
    """
    batch = work.batch_size
    if _computes_on_cpu():
        batch = min(batch, max(least, round(_PROBE_OPERATIONS / max(1.0, work.multiply_adds))))
    with Busy() as busy:
        first = last = run(batch, _PROBE_STEPS, 0)
        setup = process_seconds(alone=True) - first.trainings_seconds
        steps = min(_MOST_PROBE_STEPS, max(_PROBE_STEPS, round(_PROBE_SECONDS * first.images_per_second / batch)))
        measured = min(evaluation, steps * batch)
        if steps > _PROBE_STEPS or measured:
            last = run(batch, steps, measured)
    shown = last.beside - first.beside
    return Speed(
        device=device_name(),
        machine=machine_name(),
        model=work.model,
        objective=work.objective,
        learnt=work.learnt,
        image_size=work.image_size,
        batch_size=batch,
        numerics=work.numerics,
        images_per_second=last.images_per_second,
        measured_per_second=measured / shown if measured and shown > 0.05 * last.beside else None,
        training_seconds=first.beside,
        command_seconds=max(0.0, setup),
        source=busy.note,
        multiply_adds=work.multiply_adds,
    )
