"""Everything that a report draws, computed once from the rows: for the page and for the files beside it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from sslticket.report import (
    accuracy,
    comparison,
    connectivity,
    layers,
    magnitudes,
    notes,
    overlap,
    rewinding,
    searches,
    section,
    stability,
    statistics,
    table,
    text,
)
from sslticket.report.chart import Chart, Heat, Look, looks
from sslticket.report.section import Section
from sslticket.report.statistics import PANEL


@dataclass(frozen=True)
class Panel:
    """What may be compared: the numbers of one protocol, target and model, in the same layers, see `PANEL`."""

    number: int
    summary: pd.DataFrame  # the rows of `statistics.summary`
    comparisons: pd.DataFrame  # those of `comparison.comparisons`
    costs: pd.DataFrame  # from `searches.costs`, of all models

    @cached_property
    def common(self) -> pd.DataFrame:
        """The rows at the sparsest density that all series have, or most; maybe none."""
        return statistics.sparsest_common(self.summary)

    @cached_property
    def beside(self) -> pd.DataFrame:
        """The rows of other tickets at that density: with their own head, which are not alike."""
        held = self.summary["density"].eq(self.density) & (self.summary["control"] == "ticket")
        return self.summary[held & ~self.summary["series"].isin(self.common["series"])]

    @property
    def density(self) -> float:
        """The sparsest density that all series have, or most; NaN where no two share one."""
        return float(self.common["density"].iloc[0]) if len(self.common) else math.nan

    def accuracy(self) -> Chart:
        """Top-1 against density."""
        return accuracy.curves(self.summary, self.number)

    def differences(self) -> Iterator[Chart]:
        """Gains on supervised and on random tickets, where there are such."""
        random = self.comparisons["against"] == "random"
        for own in (self.comparisons[~random], self.comparisons[random]):
            if len(own):
                yield accuracy.differences(own, self.number)

    def cost(self) -> dict[str, Chart]:
        """Top-1 against what the search cost, by unit; empty where no row tells."""
        return dict(searches.cost(self.summary, self.costs, self.number, self.density))


class Content:
    """All charts and heat maps of a frame of `table.rows`."""

    def __init__(self, frame: pd.DataFrame) -> None:
        frame = table.readable(frame)
        self.named = statistics.named(frame)
        self.summary = statistics.summary(frame)
        self.levels = searches.levels(self.named)
        self.comparisons = comparison.comparisons(frame)
        self.costs = searches.costs(self.levels)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know, a sentence each."""
        return tuple(notes.notes(self.named))

    @cached_property
    def shared(self) -> dict[str, Look]:
        """The look of each series that several parts of the page have; of tickets that were never scored, too."""
        measured = self.named[self.named["protocol"].notna() & (self.named["kind"] != "score")]
        searched = self.levels.assign(series=self.levels["tickets"], control="ticket")
        names = [each[["series", "tickets", "control"]] for each in (self.summary, searched, measured)]
        series = pd.concat(names).drop_duplicates("series").itertuples(index=False)
        return looks([(str(name), str(tickets), str(control)) for name, tickets, control in series])

    @cached_property
    def looks(self) -> dict[str, Look]:
        """The look of every series."""
        found = self.shared
        for part in self.analyses:
            found = found | looks([each for each in part.series if each[0] not in found], first=len(found))
        return found

    @cached_property
    def places(self) -> list[str]:
        """The networks and the images of the panels, or where nothing was scored, those of the tickets."""
        if self.panels:
            return list(dict.fromkeys(text.where(panel.summary) for panel in self.panels))
        found = self.named[["model", "source"]].drop_duplicates().itertuples(index=False)
        return [f"{model} on {source}" for model, source in found]

    @cached_property
    def panels(self) -> list[Panel]:
        """One for each protocol, target and model; those first whose tickets were found on the target itself."""
        groups = [own for _, own in self.summary.groupby(PANEL, sort=False)]
        groups.sort(key=lambda own: not (own["source"] == own["target"]).any())
        return [Panel(number, own, self._compared(own), self.costs) for number, own in enumerate(groups)]

    def _compared(self, own: pd.DataFrame) -> pd.DataFrame:
        first = own.iloc[0]
        found = self.comparisons[(self.comparisons[PANEL] == first[PANEL]).all(axis=1)]
        places = found["series"].map({name: place for place, name in enumerate(self.shared)})
        ordered: pd.DataFrame = found.loc[places.sort_values(kind="stable").index]
        return ordered

    @cached_property
    def transfer(self) -> list[tuple[float, Heat]]:
        """Matrices of tickets and protocols, for each model and density."""
        return list(accuracy.transfer(self.summary))

    @cached_property
    def learnt(self) -> list[Chart]:
        """What the searches' networks learnt of their own tasks."""
        return [*searches.metrics(self.levels), *searches.probes(self.levels)]

    @cached_property
    def layers(self) -> list[Heat]:
        """The density of each layer; of tickets without level rows, from the analysis of their channels."""
        found = pd.concat([self.levels, section.rows(self.named, "channels")])
        return list(layers.densities(found.drop_duplicates(["tickets", "run", "level"])))

    @cached_property
    def analyses(self) -> list[Section]:
        """A section for each analysis that has rows."""
        kinds = (rewinding, stability, connectivity, magnitudes, overlap, layers)
        return [found for kind in kinds if (found := kind.build(self.named))]

    def charts(self) -> Iterator[Chart]:
        """Every chart."""
        for panel in self.panels:
            yield panel.accuracy()
            yield from panel.differences()
            yield from panel.cost().values()
        yield from self.learnt
        for part in self.analyses:
            yield from part.charts()

    def heats(self) -> Iterator[Heat]:
        """Every heat map."""
        for _, heat in self.transfer:
            yield heat
        yield from self.layers
        for part in self.analyses:
            yield from part.heats()
