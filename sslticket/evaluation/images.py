"""The images of a protocol, as a ticket's network takes them."""

from dataclasses import dataclass, replace
from pathlib import Path

from sslticket.data.bad import name_empty
from sslticket.data.channels import in_channels
from sslticket.data.halves import half
from sslticket.data.opening import Source, open_split
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
            BadInput: if one is missing, or their classes differ.
        """
        training = open_split(protocol.dataset, "train", data_root)
        if protocol.half is not None:
            training = replace(training, manifest=half(training.manifest, protocol.half))
        evaluation = open_split(protocol.dataset, "eval", data_root)
        if training.manifest.classes != evaluation.manifest.classes:
            odd = set(training.manifest.classes) ^ set(evaluation.manifest.classes)
            raise BadInput(
                f"the training and evaluation images of {protocol.dataset} have different classes, {min(odd)!r} is in "
                "one only; check the data"
            )
        name_empty(training.manifest)
        name_empty(evaluation.manifest)
        return cls(training, evaluation)

    def in_channels(self, channels: int) -> "Splits":
        """The same images, grey or in colour."""
        return Splits(in_channels(self.training, channels), in_channels(self.evaluation, channels))


class Gallery:
    """Opens each set, or half of it, once for all protocols, and turns it once for each number of channels."""

    def __init__(self, data_root: Path | None) -> None:
        self._data_root = data_root
        self._open: dict[tuple[str, str | None, int | None], Splits] = {}

    def splits(self, protocol: Protocol, channels: int) -> Splits:
        """The protocol's images with so many channels.

        Raises:
            BadInput: if they are not there, or cannot have these channels.
        """
        whole, turned = ((protocol.dataset, protocol.half, each) for each in (None, channels))
        if whole not in self._open:
            self._open[whole] = Splits.open(protocol, self._data_root)
        if turned not in self._open:
            self._open[turned] = self._open[whole].in_channels(channels)
        return self._open[turned]
