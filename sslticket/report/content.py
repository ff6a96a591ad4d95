"""Everything that a report draws, computed once from the rows: for the page and for the files beside it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from sslticket.report import notes, sections, stats, text
from sslticket.report.chart import Chart, HeatMap, SeriesStyle, assign_styles
from sslticket.report.sections import Section, mask_analyses, scores, training_analyses
from sslticket.report.stats import PANEL_KEYS
from sslticket.results import table


@dataclass(frozen=True)
class Panel:
    """What may be compared: the numbers of one protocol, target and model, in the same layers, see `PANEL`."""

    number: int
    summary: pd.DataFrame  # the rows of `statistics.summary`
    comparisons: pd.DataFrame  # those of `comparison.comparisons`
    costs: pd.DataFrame  # from `searches.costs`, of all models

    @cached_property
    def common_rows(self) -> pd.DataFrame:
        """The rows at the sparsest density that all series have, or most; maybe none."""
        return stats.rows_at_sparsest_common_density(self.summary)

    @cached_property
    def own_head_rows(self) -> pd.DataFrame:
        """The rows of other tickets at that density: with their own head, which are not alike."""
        held = self.summary["density"].eq(self.density) & (self.summary["control"] == "ticket")
        return self.summary[held & ~self.summary["series"].isin(self.common_rows["series"])]

    @property
    def density(self) -> float:
        """The sparsest density that all series have, or most; NaN where no two share one."""
        return float(self.common_rows["density"].iloc[0]) if len(self.common_rows) else math.nan

    def accuracy_chart(self) -> Chart:
        """Top-1 against density."""
        return scores.accuracy_chart(self.summary, self.number)

    def difference_charts(self) -> Iterator[Chart]:
        """Gains on supervised and on random tickets, where there are such."""
        random = self.comparisons["against"] == "random"
        for own in (self.comparisons[~random], self.comparisons[random]):
            if len(own):
                yield scores.difference_chart(own, self.number)

    def cost_charts(self) -> dict[str, Chart]:
        """Top-1 against what the search cost, by unit; empty where no row tells."""
        return dict(scores.cost_charts(self.summary, self.costs, self.number, self.density))


class Content:
    """All charts and heat maps of a frame of `table.rows`."""

    def __init__(self, frame: pd.DataFrame) -> None:
        frame = table.printable_rows(frame)
        self.rows = stats.name_series(frame)
        self.summary = stats.summarize(frame)
        self.levels = scores.level_rows(self.rows)
        self.comparisons = stats.compare_series(frame)
        self.costs = scores.mean_costs(self.levels)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know, a sentence each."""
        return tuple(notes.notes_of_series(self.rows))

    @cached_property
    def shared_styles(self) -> dict[str, SeriesStyle]:
        """The look of each series that several parts of the page have; of tickets that were never scored, too."""
        measured = self.rows[self.rows["protocol"].notna() & (self.rows["kind"] != "score")]
        searched = self.levels.assign(series=self.levels["tickets"], control="ticket")
        names = [each[["series", "tickets", "control"]] for each in (self.summary, searched, measured)]
        series = pd.concat(names).drop_duplicates("series").itertuples(index=False)
        return assign_styles([(str(name), str(tickets), str(control)) for name, tickets, control in series])

    @cached_property
    def styles(self) -> dict[str, SeriesStyle]:
        """The look of every series."""
        found = self.shared_styles
        for part in self.sections:
            found = found | assign_styles([each for each in part.series if each[0] not in found], first=len(found))
        return found

    @cached_property
    def subjects(self) -> list[str]:
        """The networks and the images of the panels, or where nothing was scored, those of the tickets."""
        if self.panels:
            return list(dict.fromkeys(text.describe_panel(panel.summary) for panel in self.panels))
        found = self.rows[["model", "source"]].drop_duplicates().itertuples(index=False)
        return [f"{model} on {source}" for model, source in found]

    @cached_property
    def panels(self) -> list[Panel]:
        """One for each protocol, target and model; those first whose tickets were found on the target itself."""
        groups = [own for _, own in self.summary.groupby(PANEL_KEYS, sort=False)]
        groups.sort(key=lambda own: not (own["source"] == own["target"]).any())
        return [Panel(number, own, self._panel_comparisons(own), self.costs) for number, own in enumerate(groups)]

    def _panel_comparisons(self, own: pd.DataFrame) -> pd.DataFrame:
        first = own.iloc[0]
        found = self.comparisons[(self.comparisons[PANEL_KEYS] == first[PANEL_KEYS]).all(axis=1)]
        places = found["series"].map({name: place for place, name in enumerate(self.shared_styles)})
        ordered: pd.DataFrame = found.loc[places.sort_values(kind="stable").index]
        return ordered

    @cached_property
    def transfer_maps(self) -> list[tuple[float, HeatMap]]:
        """Matrices of tickets and protocols, for each model and density."""
        return list(scores.transfer_maps(self.summary))

    @cached_property
    def learned_charts(self) -> list[Chart]:
        """What the searches' networks learnt of their own tasks."""
        return [*scores.metric_charts(self.levels), *scores.probe_charts(self.levels)]

    @cached_property
    def layer_maps(self) -> list[HeatMap]:
        """The density of each layer; of tickets without level rows, from the analysis of their channels."""
        found = pd.concat([self.levels, sections.rows_of_kind(self.rows, "channels")])
        return list(mask_analyses.layer_density_maps(found.drop_duplicates(["tickets", "run", "level"])))

    @cached_property
    def sections(self) -> list[Section]:
        """A section for each analysis that has rows."""
        builders = (
            training_analyses.rewinding_section,
            training_analyses.stability_section,
            training_analyses.connectivity_section,
            training_analyses.magnitudes_section,
            mask_analyses.overlap_section,
            mask_analyses.dead_channels_section,
        )
        return [found for build in builders if (found := build(self.rows))]

    def charts(self) -> Iterator[Chart]:
        """Every chart."""
        for panel in self.panels:
            yield panel.accuracy_chart()
            yield from panel.difference_charts()
            yield from panel.cost_charts().values()
        yield from self.learned_charts
        for part in self.sections:
            yield from part.charts()

    def heat_maps(self) -> Iterator[HeatMap]:
        """Every heat map."""
        for _, heat in self.transfer_maps:
            yield heat
        yield from self.layer_maps
        for part in self.sections:
            yield from part.heat_maps()
