"""What trainings under protocols need of a device's memory."""

from collections.abc import Iterable

from sslticket.evaluation.images import Gallery, Splits
from sslticket.evaluation.protocols import Protocol
from sslticket.objectives.supervised import Supervised
from sslticket.training.memory import Needs, Room, Unmeasured, resident
from sslticket.training.workbench import Workbench

Kind = tuple[Protocol, str, int]
"""A protocol, a model, and the channels of the images."""


class Memory:
    """Tells it for a workbench; each kind of training is looked at once."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._found: dict[Kind, Needs | None] = {}

    def needs(self, protocol: Protocol, model: str, splits: Splits) -> Needs | None:
        """Of a training; None where that shows only when it runs."""
        kind = (protocol, model, splits.training.dataset.channels)
        if kind not in self._found:
            self._found[kind] = self._measured(protocol, model, splits)
        return self._found[kind]

    def lines(self, kinds: Iterable[Kind], gallery: Gallery) -> list[str]:
        """A line for each kind of training, for a person."""
        told = {kind: self._told(kind, gallery) for kind in kinds}
        return [
            f"memory: {text}" if len(told) == 1 else f"memory of {model} under {protocol.name}: {text}"
            for (protocol, model, _), text in told.items()
        ]

    def _told(self, kind: Kind, gallery: Gallery) -> str:
        protocol, model, channels = kind
        needs, device = self.needs(protocol, model, gallery.splits(protocol, channels)), self._bench.accelerator.device
        if needs is None:
            return "known only when it runs"
        fit = protocol.fit_for(model)
        part = self._bench.machine.part(fit.batch_size, fit.ghost_batch, protocol.name, whole=False, normalised=False)
        need = needs.need(part)
        room = None if device.type == "cpu" else Room.on(device)
        return str(need) if room is None else room.beside(need)

    def _measured(self, protocol: Protocol, model: str, splits: Splits) -> Needs | None:
        source = splits.training
        view, _ = protocol.views(source.dataset)
        try:
            return Needs.of(
                lambda kind: kind.build(
                    model,
                    Supervised(),
                    channels=source.dataset.channels,
                    image_size=view.size,
                    classes=len(source.manifest.classes),
                    seed=0,
                ),
                (view,),
                protocol.fit_for(model),
                self._bench.precision,
                channels=source.dataset.channels,
                resident=resident(source, (view,)),
                gpu=self._bench.accelerator.device.type == "cuda",
            )
        except Unmeasured:
            return None
