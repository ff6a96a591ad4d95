"""Looking on while a search trains: the objective's own metrics, and a probe of what the features know."""

from dataclasses import replace

from sslticket.config.training import Span
from sslticket.data.augment import View
from sslticket.data.datasets.locate import MissingSplit
from sslticket.data.loader import Loader
from sslticket.data.source import DataSource, convert_channels, open_split
from sslticket.errors import BadInput
from sslticket.objectives.base import objective_of
from sslticket.search.plan import SearchPlan
from sslticket.training.engine import Engine
from sslticket.training.metrics import knn_accuracy, measure_metrics
from sslticket.training.network import MaskedNetwork

_BANK_IMAGES, _QUERY_IMAGES = (
    50_000,
    10_000,
)  # images of a probe at most: small sets whole, of ImageNet evenly spaced parts


class Monitor:
    """Measures a net, and changes nothing in it but its mode.

    Attributes:
        probe_interval: optimiser steps between two probes; None where there are none.
        evaluation: the evaluation images, the subset's classes of them; None where the dataset has none.
    """

    def __init__(self, plan: SearchPlan, bench: Engine, net: MaskedNetwork) -> None:
        """Finds the evaluation images.

        Raises:
            BadInput: if a probe was asked for and there are none.
        """
        self._plan, self._bench, self._net = plan, bench, net
        probe = bench.runtime.probe
        self.probe_interval = None if probe is None else max(1, plan.clock.steps(Span.parse(probe)))
        self.evaluation = _open_evaluation_split(plan, bench)
        if self.probe_interval is not None and self.evaluation is None:
            raise BadInput(
                f"--probe needs evaluation images, and {plan.recipe.data.dataset} has none; add them or leave it out"
            )

    def probe_steps(self, start: int, stop: int) -> list[int]:
        """The steps between these two after which to probe."""
        every = self.probe_interval or stop + 1
        return list(range((start // every + 1) * every, stop, every))

    def metrics(self) -> dict[str, float]:
        """The objective's metrics on the evaluation images; nothing where there are none.

        Shuffled labels can only be learnt by heart: theirs are measured on the training images. Metrics are left out
        where a whole training sees fewer images than there are to measure: they would take longer than the training.
        """
        images, objective = self._plan.images, objective_of(self._plan.recipe)
        source = images.source if images.permutation else self.evaluation
        clock = self._plan.clock
        if source is None or clock.total_steps * clock.batch_size < len(source.manifest):
            return {}
        views = (self._eval_view(),) if objective.views_compared == 1 else images.views[: objective.views_compared]
        return measure_metrics(self._bench.accelerator, self._net, self._make_loader(source, views))

    def probe(self) -> float:
        """Top-1 accuracy of the nearest-neighbour vote on the evaluation images, a fraction."""
        assert self.evaluation is not None, "there are no evaluation images to probe with"
        true, evaluation = self._plan.images.true_labels, self.evaluation
        bank = replace(true, manifest=true.manifest.evenly_spaced(_BANK_IMAGES))
        queries = replace(evaluation, manifest=evaluation.manifest.evenly_spaced(_QUERY_IMAGES))
        return knn_accuracy(
            self._bench.accelerator,
            self._net,
            self._make_loader(bank, (self._eval_view(),)),
            self._make_loader(queries, (self._eval_view(),)),
            len(true.manifest.classes),
        )

    def _eval_view(self) -> View:
        dataset = self._plan.images.source.dataset
        return dataset.eval_view.at_size(self._plan.recipe.data.image_size)

    def _make_loader(self, source: DataSource, views: tuple[View, ...]) -> Loader:
        return self._bench.make_loader(
            source, views, batch_size=self._plan.recipe.training.batch_size, order=0, augment=0
        )


def _open_evaluation_split(plan: SearchPlan, bench: Engine) -> DataSource | None:
    """The evaluation split, the subset's classes of it; None where the dataset has none."""
    try:
        source = open_split(plan.recipe.data.dataset, "eval", bench.runtime.data_root)
    except MissingSplit:
        return None
    source = convert_channels(source, plan.images.source.dataset.channels)
    return replace(source, manifest=source.manifest.take_classes(plan.images.true_labels.manifest.classes))
