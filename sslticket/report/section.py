"""A part of the page that shows one analysis: figures to pick from, and what a reader must know to read them."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from sslticket.report import text
from sslticket.report.chart import Chart, Heat
from sslticket.report.statistics import PANEL

_ONCE = [*PANEL, "series", "unit", "run", "level", "ticket_hash", "seed", "other_run", "other_hash"]


@dataclass(frozen=True)
class Choice:
    """Figures that are shown together."""

    name: str
    charts: tuple[Chart, ...] = ()
    heats: tuple[Heat, ...] = ()


@dataclass(frozen=True)
class Pick:
    """Choices of which the page shows one."""

    label: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Section:
    """The figures of an analysis.

    Attributes:
        name: of its place in the page.
        title: its heading.
        explained: how to read it.
        picks: its figures.
        series: name, tickets and control, as `chart.looks` takes them, of those that no other part of the page has.
    """

    name: str
    title: str
    explained: str
    picks: tuple[Pick, ...]
    series: tuple[tuple[str, str, str], ...] = ()

    def charts(self) -> Iterator[Chart]:
        """All charts."""
        for pick in self.picks:
            for choice in pick.choices:
                yield from choice.charts

    def heats(self) -> Iterator[Heat]:
        """All heat maps."""
        for pick in self.picks:
            for choice in pick.choices:
                yield from choice.heats


def rows(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of one kind in a frame of `statistics.named`, each once, though a run folder was copied."""
    return frame[frame["kind"] == kind].drop_duplicates(_ONCE)


def panels(own: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows that may be drawn in one picture, and what they were measured on."""
    for _, panel in own.groupby(PANEL):
        yield f"{text.where(panel)}, protocol {panel['protocol'].iloc[0]}", panel


def network(own: pd.DataFrame) -> str:
    """The network of rows of one, pruned where."""
    return text.network(own["model"].iloc[0], own["within"].iloc[0])


def densities(own: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of about the same density, in words and densest first; with grey and colour images it differs a little."""
    about = own["density"].map(lambda density: float(f"{density:.2g}"))
    for _, here in sorted(own.groupby(about), key=lambda each: -float(str(each[0]))):
        yield f"{text.percent(here['density'].mean())}%", here
