"""Everything that a report shows, computed once from the rows: panels, charts, sections, and notes for its reader."""

import inspect
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, cast

import pandas as pd

from sslticket.escaping import shell_quote
from sslticket.report import naming, sections, stats, text, verdicts
from sslticket.report.chart import Chart, HeatMap, SeriesStyle, assign_styles
from sslticket.report.sections import Section, mask_analyses, scores, training_analyses
from sslticket.report.stats import PANEL_KEYS
from sslticket.results import table
from sslticket.results.rows import ROW_TYPES, DivergedRow, shared_controls


def kind_title(kind: str) -> str:
    """What rows of a kind are called."""
    return ROW_TYPES[kind].title or kind.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Panel:
    """What may be compared: the numbers of one protocol, target and model, in the same layers, see `PANEL_KEYS`.

    Attributes:
        number: Place among the panels.
        summary: Its rows of `stats.summarize`.
        comparisons: Its rows of `stats.compare_series`.
        costs: The frame of `scores.mean_costs`, of all models.
        facts: What each series is, by which charts of many are split.
        searches: Its rows of `stats.means_of_searches`.
    """

    number: int
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    costs: pd.DataFrame
    facts: sections.SeriesFacts
    searches: pd.DataFrame

    @cached_property
    def common_rows(self) -> pd.DataFrame:
        """The rows at the sparsest density that all series have, or most; maybe none."""
        return stats.rows_at_sparsest_common_density(self.summary)

    @cached_property
    def own_head_rows(self) -> pd.DataFrame:
        """The rows of other tickets at that density: with their own head, which are not alike."""
        here = self.summary["density"].eq(self.density) & (self.summary["control"] == "ticket")
        return self.summary[here & ~self.summary["series"].isin(self.common_rows["series"])]

    @property
    def density(self) -> float:
        """The sparsest density that all series have, or most; NaN where no two share one."""
        return float(self.common_rows["density"].iloc[0]) if len(self.common_rows) else math.nan

    @cached_property
    def accuracy_charts(self) -> list[Chart]:
        """Top-1 against density: one chart, or parts of it where it has many series."""
        return sections.split_chart(scores.accuracy_chart(self.summary, self.searches, self.verdicts), self.facts)

    @cached_property
    def error_charts(self) -> list[Chart]:
        """The same as errors on a logarithmic axis."""
        found = map(scores.error_chart, self.accuracy_charts)
        return [chart for chart in found if chart.curves]

    @cached_property
    def verdicts(self) -> dict[str, verdicts.Verdict]:
        """Whether the tickets of each series match the dense network, and win."""
        return verdicts.judge_panel(self.searches)

    @property
    def bold(self) -> dict[str, tuple[float, ...]]:
        """Densities of each series of tickets at which its mean matches the dense network's."""
        tickets = set(self.summary.loc[self.summary["control"] == "ticket", "series"])
        return {name: each.bold for name, each in self.verdicts.items() if name in tickets}

    @cached_property
    def difference_maps(self) -> list[HeatMap]:
        """What the charts of differences show, as tables."""
        return [scores.difference_map(own) for own in self._differences]

    @property
    def _differences(self) -> list[pd.DataFrame]:
        random = self.comparisons["against"].map(stats.is_random_series).astype(bool)
        return [own for own in (self.comparisons[~random], self.comparisons[random]) if len(own)]

    @cached_property
    def difference_charts(self) -> list[list[Chart]]:
        """Gains on supervised and on random tickets, where there are such, each in one chart or in parts."""
        return [sections.split_chart(scores.difference_chart(own), self.facts) for own in self._differences]

    @cached_property
    def cost_charts(self) -> dict[str, list[Chart]]:
        """Top-1 against what the search cost, by unit, in one chart or in parts; empty where no row tells."""
        found = scores.cost_charts(self.summary, self.costs, self.density)
        return {unit: sections.split_chart(chart, self.facts) for unit, chart in found}


def _own_section(rows: pd.DataFrame, kind: str) -> Section | None:
    """The section of a kind of row that this package has no charts for: its analysis's own, or one chart a number."""
    row_type = ROW_TYPES[kind]
    # The class of the analysis lies beside that of its rows.
    beside = vars(sys.modules[row_type.__module__]).values()
    analysis = next((each for each in beside if getattr(each, "row_type", None) is row_type), row_type)
    if (build := getattr(analysis, "section", None)) and (section := build(rows)) is not None:
        return cast(Section, section)
    title = getattr(analysis, "title", "") or kind_title(kind)
    return sections.number_section(rows, kind, title, (inspect.getdoc(analysis) or "").split("\n\n")[0])


class Content:
    """All charts and heat maps of a frame of `table.read_rows`."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._left_out = frame.attrs.get("left_out", [])
        frame = stats.plain_text(table.printable_rows(frame))
        self._diverged = list(_diverged_notes(frame))
        frame = _without_diverged(frame)
        # A copy lies in one piece: pandas warns of frames of more than a hundred, which kinds of rows of users lead to.
        self.rows = stats.name_series(frame).copy()
        self.trainings = stats.unique_trainings(self.rows)
        self.searches = stats.means_of_searches(self.trainings)
        self.summary = stats.summarize_searches(self.searches)
        self.levels = scores.level_rows(self.rows)
        self.comparisons = stats.compare_searches(self.searches)
        self.costs = scores.mean_costs(self.levels)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the rows, a sentence each."""
        return (*self._left_out, *self._diverged, *reader_notes(self.rows))

    @cached_property
    def shared_styles(self) -> dict[str, SeriesStyle]:
        """The style of each series that several sections have; of tickets that were never scored, too."""
        measured = self.rows[self.rows["protocol"].notna() & (self.rows["kind"] != "score")]
        searched = self.levels.assign(series=self.levels["tickets"], control="ticket")
        names = [each[["series", "tickets", "control"]] for each in (self.summary, searched, measured)]
        series = pd.concat(names).drop_duplicates("series").itertuples(index=False)
        apart = [[curve.series for curve in chart.curves] for panel in self.panels for chart in panel.accuracy_charts]
        many = any(chart.part for panel in self.panels for chart in panel.accuracy_charts)
        found = [(str(name), str(tickets), str(control)) for name, tickets, control in series]
        return assign_styles(found, facets=apart if many else ())

    @cached_property
    def styles(self) -> dict[str, SeriesStyle]:
        """The style of every series."""
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
        groups = list(self.summary.groupby(PANEL_KEYS, sort=False))
        groups.sort(key=lambda each: not (each[1]["source"] == each[1]["target"]).any())
        compared, searched = (dict(list(each.groupby(PANEL_KEYS))) for each in (self.comparisons, self.searches))
        order = {name: index for index, name in enumerate(self.summary["series"].unique())}
        found = []
        for number, (key, own) in enumerate(groups):
            beside = compared.get(key, self.comparisons[:0])
            beside = beside.loc[beside["series"].map(order).sort_values(kind="stable").index]
            found.append(Panel(number, own, beside, self.costs, self.facts, searched[key]))
        return found

    @cached_property
    def facts(self) -> sections.SeriesFacts:
        """What each series is."""
        return sections.series_facts(self.rows)

    @property
    def bold(self) -> list[dict[str, tuple[float, ...]]]:
        """Those of each panel, in the order of the summary."""
        return [panel.bold for panel in sorted(self.panels, key=lambda each: int(each.summary.index[0]))]

    @cached_property
    def transfer_maps(self) -> list[tuple[float, HeatMap]]:
        """Matrices of tickets and protocols, for each model and density."""
        return list(scores.transfer_maps(self.summary))

    @cached_property
    def learned_charts(self) -> list[Chart]:
        """What the searches' networks learned of their own tasks."""
        found = [*scores.metric_charts(self.levels), *scores.probe_charts(self.levels)]
        # Their series are the tickets, of which a row of any kind tells.
        facts = sections.series_facts(self.rows.assign(series=self.rows["tickets"], control="ticket"))
        return [part for chart in found for part in sections.split_chart(chart, facts)]

    @cached_property
    def layer_maps(self) -> list[HeatMap]:
        """The density of each layer; of tickets without level rows, from the analysis of their channels."""
        found = pd.concat([self.levels, sections.rows_of_kind(self.rows, "channels")])
        return list(mask_analyses.layer_density_maps(found.drop_duplicates(["tickets", "run", "level"])))

    @cached_property
    def sections(self) -> list[Section]:
        """A section for each analysis that has rows."""
        builders = {
            "rewinding": training_analyses.rewinding_section,
            "stability": training_analyses.stability_section,
            "connectivity": training_analyses.connectivity_section,
            "magnitudes": training_analyses.magnitudes_section,
            "overlap": mask_analyses.overlap_section,
            "channels": mask_analyses.dead_channels_section,
        }
        found = [build(self.rows) for build in builders.values()]
        measured = set(self.rows["kind"]) - {"score", "level", *builders}
        found += [_own_section(self.rows, kind) for kind in ROW_TYPES if kind in measured]
        return [self._split_section(each) for each in found if each is not None]

    def _split_section(self, part: Section) -> Section:
        pickers = tuple(
            replace(
                picker,
                groups=tuple(
                    replace(
                        group,
                        charts=tuple(own for chart in group.charts for own in sections.split_chart(chart, self.facts)),
                    )
                    for group in picker.groups
                ),
            )
            for picker in part.pickers
        )
        return replace(part, pickers=pickers)

    def charts(self) -> Iterator[Chart]:
        """Every chart."""
        for panel in self.panels:
            yield from panel.accuracy_charts
            yield from panel.error_charts
            yield from chain.from_iterable(panel.difference_charts)
            yield from chain.from_iterable(panel.cost_charts.values())
        yield from self.learned_charts
        for part in self.sections:
            yield from part.charts()

    def heat_maps(self) -> Iterator[HeatMap]:
        """Every heat map."""
        for panel in self.panels:
            yield from panel.difference_maps
        for _, heat in self.transfer_maps:
            yield heat
        yield from self.layer_maps
        for part in self.sections:
            yield from part.heat_maps()


_CONDITION_TITLES = {
    "protocol_hash": "the protocol's settings",
    "start": "where the schedule starts",
    "data_hash": "the training images",
    "eval_hash": "the evaluation images",
}
assert _CONDITION_TITLES.keys() == naming.CONDITIONS.keys()
_MAX_NAMES = 6  # of a list in a note


def reader_notes(frame: pd.DataFrame) -> list[str]:
    """Sentences about a frame of `stats.name_series`; what stands in backquotes is to be typed."""
    makers = (
        _head_notes,
        _disconnection_notes,
        _image_notes,
        _split_panel_notes,
        _older_row_notes,
        _numerics_notes,
        _version_notes,
    )
    return list(dict.fromkeys(sentence for make in makers for sentence in make(frame)))


def _diverged_notes(frame: pd.DataFrame) -> Iterator[str]:
    """How many trainings diverged and so are in no mean, and which."""
    found = frame[frame["kind"] == DivergedRow.kind]
    if not len(found):
        return
    named = []
    for row in found.head(_MAX_NAMES).to_dict("records"):
        of_search = pd.isna(row["protocol"])
        where = "the search" if of_search else f"{row['control']} under {row['protocol']} with seed {row['seed']:.0f}"
        named.append(
            f"{where} of {row['run']} at level {row['level']:.0f}, step {row['at_step']:,.0f} of "
            f"{row['of_steps']:,.0f}, learning rate {row['learning_rate']:.4g}"
        )
    more = f"; and {len(found) - len(named):,} more" if len(found) > len(named) else ""
    yield (
        f"{len(found):,} training{'s' * (len(found) > 1)} diverged and {'are' if len(found) > 1 else 'is'} in no mean: "
        f"{'; '.join(named)}{more}."
    )


def _head_notes(frame: pd.DataFrame) -> Iterator[str]:
    """Which supervised tickets others cannot be compared with, and how to get what is missing."""
    scores = frame[(frame["kind"] == "score") & (frame["control"] == "ticket")]
    if (scores["head"] == "own").any():
        yield (
            "Own head: the classification layer of the ticket's W_k is trained on, which label-agnostic tickets lack. "
            "All other series start with a layer drawn anew, and only these are compared between objectives."
        )
    for _, panel in scores.groupby(PANEL_KEYS):
        labels = panel[panel["objective"] == "supervised"]
        others = panel[(panel["objective"] != "supervised") & (panel["head"] == "new")]
        for source, own in labels.groupby("source"):
            waiting = others[others["source"] == source]
            if (own["head"] == "own").all() and len(waiting):
                runs = sorted(own["run"].unique())
                given = own["protocol_given"].dropna()  # a folder's protocol is not given by its name
                protocol = own["protocol"].iloc[0] if given.empty else given.iloc[0]
                yield (
                    f"{join_names(own['series'])}: scored with the own head only ({text.describe_panel(panel)}), so "
                    f"{join_names(waiting['series'])} cannot be compared with it. For the missing rows: "
                    f"`sslticket evaluate RUN --protocol {shell_quote(protocol)} --head new` "
                    f"with the folder of {join_names(runs)} as RUN."
                )


def _disconnection_notes(frame: pd.DataFrame) -> Iterator[str]:
    """Which networks are cut, or nearly."""
    found = frame[frame["cut"]]
    least = found.groupby(["model", "series", "level", "exact"])["effective_density"].min().reset_index()
    for (model, series), own in least.groupby(["model", "series"], sort=False):
        levels = [
            f"{text.format_percent(effective)}% at level {level} ({text.format_percent(density)}%)"
            for effective, level, density in own.sort_values("exact", ascending=False)[
                ["effective_density", "level", "exact"]
            ].itertuples(index=False)
        ]
        dead = " With 0%, nothing of an image reaches the output." if (own["effective_density"] == 0).any() else ""
        yield (
            f"{series} of {model}: few of the weights left lie on a path from input to output. The effective density "
            f"is only {', '.join(levels)}.{dead}"
        )


def _image_notes(frame: pd.DataFrame) -> Iterator[str]:
    """Data sets of one name whose images differ."""
    own = frame[~frame["control"].isin(shared_controls())]
    # A search of unknown images is another only where the same search tells them elsewhere.
    named = own["tickets"].str.contains("images unknown)", regex=False)
    for (model, source), here in own[(own["images"] != "") | named].groupby(["model", "source"]):
        if here["images"].nunique() > 1:
            yield (
                f"Tickets of {model} from {source} were found on different images, though these have one name, so they "
                f"are neither pooled nor compared with one another: {_names_by(here, 'images', 'tickets')}."
            )


def _split_panel_notes(frame: pd.DataFrame) -> Iterator[str]:
    """Numbers of one protocol's name that may not be compared."""
    for (kind, protocol, *_), own in _group_by_target(frame):
        if own["condition"].nunique() > 1:
            known, network = naming.resolve_conditions(own), sections.network_of_rows(own)
            differ = [words for key, words in _CONDITION_TITLES.items() if known[key].nunique() > 1]
            yield (
                f"{kind_title(kind)} of {network} under {protocol} are split, and not compared across the parts, since "
                f"they differ in {_join_words(differ)}: "
                f"{'; '.join(sorted(own['condition'].unique()))}.{_how_to_fix(known)}"
            )


def _how_to_fix(known: pd.DataFrame) -> str:
    """What to do with rows of one series of which only some tell a condition."""
    lacking = [f"`{key}`" for key in known if (known[key] == "").any() and known[key].nunique() > 1]
    if not lacking:
        return ""
    return (
        f" Older rows do not tell {_join_words(lacking)}; move them away, and `sslticket evaluate` measures them anew."
    )


def _older_row_notes(frame: pd.DataFrame) -> Iterator[str]:
    """Older rows that are drawn beside newer ones."""
    for (kind, protocol, *_), own in _group_by_target(frame):
        known = naming.resolve_conditions(own)
        lacking = [key for key in _CONDITION_TITLES if (own[key].isna() & (known[key] != "")).any()]
        if lacking:
            old = own[own[lacking].isna().any(axis=1)]
            yield (
                f"Older rows do not tell {_join_words([_CONDITION_TITLES[key] for key in lacking])} "
                f"({kind_title(kind).lower()} of {join_names(old['series'])} under {protocol}); they are taken to be "
                "those of the others."
            )


def _numerics_notes(frame: pd.DataFrame) -> Iterator[str]:
    """Numbers that are drawn together though their trainings did not compute alike."""
    for (kind, protocol, *_), own in _group_by_target(frame):
        if own.groupby("condition")["numerics"].nunique().max() > 1:
            yield (
                f"{kind_title(kind)} of {sections.network_of_rows(own)} under {protocol} differ "
                f"in how numbers were computed: {_names_by(own, 'numerics', 'series')}."
            )


def _version_notes(frame: pd.DataFrame) -> Iterator[str]:
    """Series of several commits, versions of a library, or searches that computed otherwise: pooled all the same."""
    series_of: dict[tuple[str, str], list[str]] = {}
    for (kind, *_, series), own in frame.groupby(["kind", *PANEL_KEYS, "model", "series"], dropna=False):
        for words in _mixed_versions(own):
            series_of.setdefault((str(kind), words), []).append(str(series))
    for (kind, words), names in series_of.items():
        yield f"{kind_title(kind)} of {join_names(names)} were made with {words}, and are pooled."


def _mixed_versions(own: pd.DataFrame) -> Iterator[str]:
    commits = sorted(own["commit"].unique())
    if len(commits) > 1:
        yield f"{len(commits)} commits ({join_names(commits)})"
    ways = sorted(own["numerics"].unique())
    if len(ways) > 1 and own["kind"].iloc[0] not in naming.protocol_kinds():  # of those `_numerics` tells
        yield f"numbers computed in {len(ways)} ways ({join_names(ways)})"
    versions: dict[str, set[str]] = {}
    for each in {tuple(sorted(each.items())) for each in own["versions"]}:
        for library, version in each:
            versions.setdefault(library, set()).add(version)
    several = [
        f"{library} {_join_words(sorted(found))}" for library, found in sorted(versions.items()) if len(found) > 1
    ]
    if several:
        yield ", ".join(several)


def _group_by_target(frame: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    targeted: Iterable[tuple[Any, pd.DataFrame]] = frame[frame["kind"].isin(naming.protocol_kinds())].groupby(
        ["kind", *naming.MEASURED_ON]
    )
    return targeted


def _names_by(own: pd.DataFrame, key: str, names: str) -> str:
    """Names by what they have in `key`: "8d3f: rotnet; 77aa: supervised"."""
    brief = naming.shorten_hashes(own[key].unique()) if key == "images" else {each: each for each in own[key].unique()}
    return "; ".join(f"{brief[str(value)]}: {join_names(here[names])}" for value, here in own.groupby(key))


def join_names(names: Iterable[Any]) -> str:
    """Names, each once, of very many the first; those that hold a comma in quotation marks."""
    found = [
        f"\N{LEFT DOUBLE QUOTATION MARK}{each}\N{RIGHT DOUBLE QUOTATION MARK}" if "," in each else each
        for each in dict.fromkeys(map(str, names))
    ]
    return _join_words(
        found if len(found) <= _MAX_NAMES else [*found[: _MAX_NAMES - 1], f"{len(found) - _MAX_NAMES + 1} more"]
    )


def _join_words(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def notes_of_rows(frame: pd.DataFrame) -> list[str]:
    """The notes about a frame of `table.read_rows`."""
    measured = stats.name_series(_without_diverged(frame))
    return [*frame.attrs.get("left_out", []), *_diverged_notes(frame), *reader_notes(measured)]


def _without_diverged(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a result."""
    diverged = frame["kind"] == DivergedRow.kind
    return frame[~diverged].reset_index(drop=True) if diverged.any() else frame
