"""Looking on while a search trains: the objective's own metrics, and a probe of what the features know."""

from dataclasses import replace

from sslticket.data.channels import in_channels
from sslticket.data.loader import Loader
from sslticket.data.opening import Source, open_split
from sslticket.data.places import MissingSplit
from sslticket.data.views import View
from sslticket.errors import BadInput
from sslticket.search.plan import Plan
from sslticket.training.measure import measure
from sslticket.training.net import Net
from sslticket.training.probe import nearest_neighbours
from sslticket.training.workbench import Workbench
from sslticket.units import Span

_BANK, _QUERIES = 50_000, 10_000  # images of a probe at most: small sets whole, of ImageNet evenly spaced parts


class Watch:
    """Measures a net, and changes nothing in it but its mode.

    Attributes:
        every: optimiser steps between two probes; None where there are none.
        evaluation: the evaluation images, the subset's classes of them; None where the dataset has none.
    """

    def __init__(self, plan: Plan, bench: Workbench, net: Net) -> None:
        """Finds the evaluation images.

        Raises:
            BadInput: if a probe was asked for and there are none.
        """
        self._plan, self._bench, self._net = plan, bench, net
        probe = bench.machine.probe
        self.every = None if probe is None else max(1, plan.clock.steps(Span.parse(probe)))
        self.evaluation = _evaluation(plan, bench)
        if self.every is not None and self.evaluation is None:
            raise BadInput(
                f"--probe needs evaluation images, and {plan.recipe.data.dataset} has none; add them or leave it out"
            )

    def steps(self, start: int, stop: int) -> list[int]:
        """The steps between these two after which to probe."""
        every = self.every or stop + 1
        return list(range((start // every + 1) * every, stop, every))

    def metrics(self) -> dict[str, float]:
        """The objective's metrics on the evaluation images; nothing where there are none.

        Shuffled labels can only be learnt by heart: theirs are measured on the training images. Metrics are left out
        where a whole training sees fewer images than there are to measure: they would take longer than the training.
        """
        images, objective = self._plan.images, self._plan.recipe.objective
        source = images.source if images.permutation else self.evaluation
        clock = self._plan.clock
        if source is None or clock.total * clock.batch_size < len(source.manifest):
            return {}
        views = (self._plain(),) if objective.compares == 1 else images.views[: objective.compares]
        return measure(self._bench.accelerator, self._net, self._batches(source, views))

    def probe(self) -> float:
        """Top-1 accuracy of the nearest-neighbour vote on the evaluation images, a fraction."""
        assert self.evaluation is not None, "there are no evaluation images to probe with"
        true, evaluation = self._plan.images.true, self.evaluation
        bank = replace(true, manifest=true.manifest.thinned(_BANK))
        queries = replace(evaluation, manifest=evaluation.manifest.thinned(_QUERIES))
        return nearest_neighbours(
            self._bench.accelerator,
            self._net,
            self._batches(bank, (self._plain(),)),
            self._batches(queries, (self._plain(),)),
            len(true.manifest.classes),
        )

    def _plain(self) -> View:
        dataset = self._plan.images.source.dataset
        return dataset.eval.resized(self._plan.recipe.data.image_size)

    def _batches(self, source: Source, views: tuple[View, ...]) -> Loader:
        return self._bench.loader(source, views, batch_size=self._plan.recipe.fit.batch_size, order=0, augment=0)


def _evaluation(plan: Plan, bench: Workbench) -> Source | None:
    """The evaluation split, the subset's classes of it; None where the dataset has none."""
    try:
        source = open_split(plan.recipe.data.dataset, "eval", bench.machine.data_root)
    except MissingSplit:
        return None
    source = in_channels(source, plan.images.source.dataset.channels)
    return replace(source, manifest=source.manifest.of_classes(plan.images.true.manifest.classes))
