"""How long a training will take, from how long others took."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from sslticket.data.catalogue import dataset
from sslticket.errors import BadInput
from sslticket.evaluation import protocols
from sslticket.evaluation.protocols import Protocol
from sslticket.files import read_json
from sslticket.training.numerics import computed

_WANTED = dict.fromkeys(("device", "precision", "model", "protocol"), (str,)) | {
    "samples": (int,),
    "seconds": (int, float),
}
"""What a row must tell, and its types."""


def image_size(protocol: Protocol) -> int:
    """The side in pixels of what a network is shown in training."""
    return protocol.views(dataset(protocol.dataset))[0].size


class Pace:
    """Images a second that a device has trained on, by model; from the rows that are there."""

    def __init__(self, runs: Iterable[Path], device: str) -> None:
        """Reads the rows of these runs' folders that this device has measured."""
        named, sized = defaultdict(list), defaultdict(list)
        for row in _scores(runs):
            if row["device"] != device or not row["seconds"]:
                continue
            rate, how = row["samples"] / row["seconds"], computed(row)
            named[how, row["model"], row["protocol"]].append(rate)
            try:
                sized[how, row["model"], image_size(protocols.find(row["protocol"]))].append(rate)
            except BadInput:  # a protocol of an older version
                continue
        self._named, self._sized = named, sized

    def rate(self, model: str, protocol: Protocol, numerics: str) -> float | None:
        """Source images a second of what computes so under this protocol, or else on images of its size.

        None where none was measured.
        """
        size = image_size(protocol)
        found = self._named.get((numerics, model, protocol.name)) or self._sized.get((numerics, model, size))
        return median(found) if found else None


def _scores(runs: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The rows that score tickets; what cannot be read is for others to complain about."""
    for run in runs:
        for file in sorted((run / "rows").glob("level-*.jsonl")):
            try:
                row = read_json(file)
            except (OSError, ValueError):
                continue
            if isinstance(row, dict) and all(type(row.get(key)) in kinds for key, kinds in _WANTED.items()):
                yield row
