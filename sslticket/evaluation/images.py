"""The images of a protocol, as a ticket's network takes them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sslticket.data.bad import name_empty, name_left_out
from sslticket.data.channels import in_channels
from sslticket.data.dataset import SPLITS
from sslticket.data.halves import half
from sslticket.data.opening import Source, open_split
from sslticket.data.parts import checked
from sslticket.errors import BadInput
from sslticket.evaluation.protocols import Protocol


@dataclass(frozen=True)
class Splits:
    """A protocol's two sets of images."""

    training: Source
    evaluation: Source

    @classmethod
    def open(cls, protocol: Protocol, data_root: Path | None) -> "Splits":
        """Find both sets.

        Raises:
            BadInput: if one is missing or not the official one, or their classes differ.
        """
        both = [open_split(protocol.dataset, split, data_root) for split in SPLITS]
        training, evaluation = checked(both, protocol.part)
        if protocol.half is not None:
            training = replace(training, manifest=half(training.manifest, protocol.half))
        if training.manifest.classes != evaluation.manifest.classes:
            odd = set(training.manifest.classes) ^ set(evaluation.manifest.classes)
            raise BadInput(
                f"the training and evaluation images of {protocol.dataset} have different classes, {min(odd)!r} is in "
                "one only; check the data"
            )
        for source in (training, evaluation):
            name_empty(source.manifest)
            name_left_out(source.manifest, source.left_out)
        return cls(training, evaluation)

    def in_channels(self, channels: int) -> "Splits":
        """The same images, grey or in colour."""
        return Splits(in_channels(self.training, channels), in_channels(self.evaluation, channels))


class Gallery:
    """Opens each set, or half of it, once for all protocols, and turns it once for each number of channels."""

    def __init__(self, data_root: Path | None) -> None:
        self._data_root = data_root
        self._open: dict[tuple[str, str | None, str | None, int | None], Splits] = {}

    def splits(self, protocol: Protocol, channels: int) -> Splits:
        """The protocol's images with so many channels.

        Raises:
            BadInput: if they are not there, or cannot have these channels.
        """
        whole, turned = ((protocol.dataset, protocol.part, protocol.half, each) for each in (None, channels))
        if whole not in self._open:
            self._open[whole] = Splits.open(protocol, self._data_root)
        if turned not in self._open:
            self._open[turned] = self._open[whole].in_channels(channels)
        return self._open[turned]

    def told(self) -> list[str]:
        """How many images of each set are open, with their hashes, for a person; in the order of their names."""
        found = [
            f"{len(splits.training.manifest):,} training and {len(splits.evaluation.manifest):,} evaluation images of "
            f"{splits.training.manifest.name} with the hashes {splits.training.manifest.hash} and "
            f"{splits.evaluation.manifest.hash}"
            for (*_, channels), splits in self._open.items()
            if channels is None
        ]
        return sorted(found)

    def check(self, protocol: Protocol, channels: int, row: Mapping[str, Any] | None, path: Path) -> None:
        """Whether a row that is there already is about the protocol's images as they are here.

        What is measured needs no images any more, so where they cannot be opened, it stands.

        Raises:
            BadInput: if there is no row and the images cannot be opened, or the row is about others.
        """
        try:
            splits = self.splits(protocol, channels)
        except BadInput:
            if row is None:
                raise
            return
        for key, manifest in (("data_hash", splits.training.manifest), ("eval_hash", splits.evaluation.manifest)):
            if row is not None and row.get(key, manifest.hash) != manifest.hash:
                raise BadInput(
                    f"{path} was measured on other images of {row.get('target', manifest.name)}, with the hash "
                    f"{row[key]} and not {manifest.hash}; give the --data-root of those, name these with --part, "
                    "or move that row away"
                )
