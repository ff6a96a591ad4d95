"""Figures and tables of the papers: each is a file in `sweeps/PAPER/` that says what is run and what is drawn."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from sslticket.config.recipe import ImageIdentity, Precision, Recipe
from sslticket.config.recipe_files import published_folder
from sslticket.config.training import Clock, Span
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.errors import BadInput, unknown_name
from sslticket.provenance import git_commit
from sslticket.registry import load_user_file
from sslticket.results.rows import TicketRow

if TYPE_CHECKING:
    import pandas as pd

    from sslticket.campaign.panels import Check, Finding, Panel
    from sslticket.campaign.sweep import Analyse, Cell, Evaluate, Sweep

SCALES = ("paper", "small", "trial")
"""The published settings; what two processor cores do in minutes to hours; what shows in minutes that all is wired."""


class Paper(NamedTuple):
    """A paper whose figures can be made.

    Attributes:
        number: By which `published.csv` names it.
        title: Its title.
        source: Authors, year and link.
    """

    number: str
    title: str
    source: str


PAPERS = {
    "one_ticket": Paper("000", "One Ticket to Win Them All", "Morcos et al. 2019, https://arxiv.org/abs/1906.02773"),
    "one_ticket_report": Paper(
        "001", "Reproducibility report of One Ticket to Win Them All", "Gohil, Narayanan & Jain 2020"
    ),
    "limited_supervision": Paper(
        "002", "Finding Winning Tickets with Limited (or No) Supervision", "anonymous authors, under review"
    ),
    "stabilizing": Paper(
        "003", "Stabilizing the Lottery Ticket Hypothesis", "Frankle et al. 2019, https://arxiv.org/abs/1903.01611"
    ),
    "continuous_sparsification": Paper(
        "004",
        "Winning the Lottery with Continuous Sparsification",
        "Savarese et al. 2019, https://arxiv.org/abs/1912.04427",
    ),
}
"""The papers by the names of their folders, in the order in which they are listed."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure or a table of a paper.

    Attributes:
        paper: Name of the paper's folder, such as "stabilizing".
        place: Where it is in the paper, such as "Figure 3".
        title: What it shows, in a few words.
        question: What it answers, in one sentence.
        scales: The sweeps of each scale: "paper" has the published settings, "small" and "trial" our own.
        without: Why a scale has no sweeps, by its name.
        stand_ins: What takes the place of the paper's networks and data sets at a scale: {"small": {"vgg19": "conv6"}}.
        panels: What is drawn, in the paper's order and words, or by the scale's name where scales differ in more than
            the stand-ins, which `at` puts in.
        findings: What the paper states about it, to be told from the rows.
        left_out: What of the paper's figure is not made at any scale, and why, in a sentence; "" where all is.
        means: What a scale takes in place of the published settings, in a sentence, by its name.
        planned: Whether its numbers follow from the settings, so that nothing is trained.
    """

    paper: str
    place: str
    title: str
    question: str
    scales: "Mapping[str, Sequence[Sweep]]"
    without: Mapping[str, str] = field(default_factory=dict)
    stand_ins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    panels: "Sequence[Panel] | Mapping[str, Sequence[Panel]]" = ()
    findings: "Sequence[Finding]" = ()
    left_out: str = ""
    means: Mapping[str, str] = field(default_factory=dict)
    planned: bool = False

    def __post_init__(self) -> None:
        if self.paper not in PAPERS:
            raise unknown_name("paper", self.paper, PAPERS)
        for scale in SCALES:
            if (scale in self.scales) == (scale in self.without):
                raise BadInput(
                    f"{self.name} must have either sweeps or a reason why it has none for the scale {scale}; give it "
                    "in scales or in without"
                )

    @property
    def name(self) -> str:
        """By which `sslticket reproduce` knows it, such as "stabilizing_figure3"."""
        return f"{self.paper}_{self.stem}"

    @property
    def stem(self) -> str:
        """Name of its file, such as "figure3"."""
        return self.place.lower().replace(" ", "")

    @cached_property
    def published_as(self) -> str:
        """Number of the paper in `published.csv`."""
        return PAPERS[self.paper].number

    def sweeps(self, scale: str, seeds: Sequence[int] | None = None) -> "tuple[Sweep, ...]":
        """What is run at a scale.

        Args:
            scale: The scale.
            seeds: Seeds of the searches; None for those of the scale.

        Raises:
            BadInput: If there is no such scale, or the figure cannot be made at it, saying why.
        """
        if scale not in SCALES:
            raise unknown_name("scale", scale, SCALES)
        if scale in self.without:
            others = " or ".join(f"--scale {other}" for other in SCALES if other in self.scales)
            raise BadInput(
                f"{self.name} cannot be made at the scale {scale}: {self.without[scale]}"
                + f"; give {others}" * bool(others)
            )
        return tuple(sweep if seeds is None else replace(sweep, seeds=tuple(seeds)) for sweep in self.scales[scale])

    def at(self, scale: str) -> "ScaledFigure":
        """The figure as it is drawn at a scale: with its panels, and the findings that are about one of them.

        The networks and data sets of the scale take the place of the paper's, and titles and labels say so in brackets.
        """
        panels = self.panels[scale] if isinstance(self.panels, Mapping) else self.panels
        made = {panel.title: _ScaledPanel.of(panel, self.stand_ins.get(scale, {})) for panel in panels}
        findings = []
        for finding in self.findings:
            panel = made.get(finding.check.panel or panels[0].title)
            if panel is not None and (check := panel.check(finding.check)) is not None:
                findings.append(replace(finding, check=check))
        return ScaledFigure(
            name=self.name,
            published_as=self.published_as,
            place=self.place,
            title=self.title,
            question=self.question,
            panels=tuple(each.panel for each in made.values()),
            findings=tuple(findings),
        )


@dataclass(frozen=True, kw_only=True)
class ScaledFigure:
    """A figure as it is drawn at a scale.

    Attributes:
        name: Name of the figure.
        published_as: Number of its paper in `published.csv`.
        place: Where it is in the paper.
        title: What it shows, in a few words.
        question: What it answers, in one sentence.
        panels: What is drawn.
        findings: What the paper states about these panels.
    """

    name: str
    published_as: str
    place: str
    title: str
    question: str
    panels: "Sequence[Panel]"
    findings: "Sequence[Finding]"


class _ScaledPanel(NamedTuple):
    """A panel as it is drawn at a scale, and its labels there by those that the figure's file has."""

    panel: "Panel"
    labels: Mapping[str, str]

    @classmethod
    def of(cls, panel: "Panel", names: Mapping[str, str]) -> "_ScaledPanel":
        """Puts the names of a scale in the place of the paper's in filters, and behind title and labels in brackets."""

        def renamed(filters: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
            new = {column: _renamed(value, names) for column, value in filters.items()}
            changed = [new[name] for name in _TOLD if name in new and new[name] != filters[name]]
            told = ", ".join(dict.fromkeys(_flat(changed)))
            return new, f" [{told}]" if told else ""

        where, title = renamed(panel.where)
        series = {label: renamed(filters) for label, filters in panel.series.items()}
        labels = {label: f"{label}{words}" for label, (_, words) in series.items()}
        anew = replace(
            panel,
            title=f"{panel.title}{title}",
            where=where,
            series={labels[label]: filters for label, (filters, _) in series.items()},
            order=_renamed(tuple(panel.order), labels),
            fronts=_renamed(tuple(panel.fronts), labels),
            published=tuple(replace(each, series=labels.get(each.series, "")) for each in panel.published),
        )
        return cls(anew, labels)

    def check(self, check: "Check") -> "Check | None":
        """A check of the panel by its title and labels here; None where a series is not in it."""
        given = {
            name: getattr(check, name) for name in ("series", "reference", "contrast", "less") if hasattr(check, name)
        }
        known = {*self.labels, "dense", ""}
        if not all(label in known for value in given.values() for label in _flat(value)):
            return None
        anew = {name: _renamed(value, self.labels) for name, value in given.items()}
        return replace(check, panel=self.panel.title, **anew)


_TOLD = ("model", "target", "source", "rewind", "within", "optimizer")
"""Columns of a filter whose stand-ins a title or a label names."""


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A value, or several within one another, by other names."""
    if isinstance(value, (list, tuple)):
        return tuple(_renamed(each, names) for each in value)
    return names.get(value, value) if isinstance(value, str) else value


def _flat(value: Any) -> list[str]:
    """The labels of a check, those within tuples too."""
    return [value] if isinstance(value, str) else [label for each in value for label in _flat(each)]


_STEM = re.compile(r"(?P<kind>figure|table)(?P<letter>[a-z]?)(?P<number>\d+)")
"""What a figure's file is called; others in its folder hold what several figures share."""


def figure_files() -> dict[str, Path]:
    """The file of each figure by the figure's name, in the order of the papers and of the places in them."""
    return {
        f"{paper}_{file.stem}": file
        for paper in PAPERS
        for file in sorted((published_folder("sweeps") / paper).glob("*.py"), key=_place_in_paper)
        if _STEM.fullmatch(file.stem)
    }


def _place_in_paper(file: Path) -> tuple[bool, bool, int]:
    """Figures before tables, and those of the appendix last."""
    found = _STEM.fullmatch(file.stem)
    return (found["kind"] != "figure", found["letter"] != "", int(found["number"])) if found else (True, True, 0)


def figures() -> dict[str, Figure]:
    """All figures and tables that can be made, by name, such as "limited_supervision_figure1".

    Raises:
        BadInput: If a file defines no `figure = Figure(...)`, or that of another place.
    """
    return {name: _load(name, file) for name, file in figure_files().items()}


def find_figure(name: str) -> Figure:
    """The figure of a name.

    Args:
        name: "stabilizing_figure3"; "stabilizing:figure3" and "003:figure3", with the paper's number, are the same, in
            any case and with any of " ", "-", "_", "." and "/" between the parts.

    Raises:
        BadInput: If there is none, naming the nearest ones.
    """
    files = figure_files()
    wanted = re.sub(r"[\s:/._-]+", "_", name.strip().lower().removesuffix(".py").removeprefix("sweeps/"))
    wanted = re.sub(r"(figure|table)_(?=[a-z]?\d)", r"\1", re.sub(r"(^|_)fig(?=[_a-z]?\d)", r"\1figure", wanted))
    for paper, told in PAPERS.items():
        wanted = re.sub(rf"^0*{int(told.number)}_|^{told.number}_", f"{paper}_", wanted)
    if wanted not in files:
        raise unknown_name("figure", name if name in files else wanted, files)
    return _load(wanted, files[wanted])


def _load(name: str, file: Path) -> Figure:
    found = getattr(load_user_file(file), "figure", None)
    if not isinstance(found, Figure):
        raise BadInput(f"{file} must define a figure; write figure = Figure(...) in it")
    if found.name != name:
        raise BadInput(
            f"{file} must define the figure {name}, got {found.name}; give it the paper and place of its file"
        )
    return found


def cells_left(cells: "Sequence[Cell]", rows: "pd.DataFrame") -> "list[Cell]":
    """The cells of which rows do not have all that is measured, for rows that others made and that are input.

    Args:
        cells: The cells of a campaign.
        rows: A frame of `read_rows`.
    """
    from sslticket.campaign.sweep import measurements_of

    known = dict(list(rows.groupby(["recipe", "search_seed"])))
    found = rows["settings"].map(lambda own: own if isinstance(own, Mapping) else {})
    told = {(own.get("folder"), own["images_hash"]) for own in found if own.get("images_hash")}
    identities = [None, *(ImageIdentity(folder=folder, images_hash=images) for folder, images in told)]
    settled: dict[tuple[str, bool], Recipe] = {}

    def rows_of(cell: "Cell") -> "Iterator[pd.DataFrame]":
        # A search records what its recipe leaves open: the precision of its device, lengths of its images, and which
        # images these were.
        key = cell.recipe.family, cell.trial
        if key not in settled:
            settled[key] = _settled_recipe(cell)
        for recipe in (cell.recipe, settled[key]):
            for identity in identities:
                identified = replace(recipe, data=replace(recipe.data, identity=identity))
                for precision in (None, *get_args(Precision)):
                    name = replace(identified, precision=precision).family
                    if (name, cell.recipe.seed) in known:
                        yield known[name, cell.recipe.seed]

    def has_rows(cell: "Cell") -> bool:
        return any(
            set(range(1, cell.last_level + 1)) <= set(own.loc[own["kind"] == "level", "level"])
            and all(_is_measured(own, each, cell.last_level, cell.recipe) for each in measurements_of([cell]))
            for own in rows_of(cell)
        )

    return [cell for cell in cells if not has_rows(cell)]


def _settled_recipe(cell: "Cell") -> Recipe:
    """The recipe of a cell with lengths that are held, and W_k within a trial, by the numbers of the catalogue."""
    from sslticket.config.runtime import RuntimeConfig
    from sslticket.search.estimate import SearchWork  # torch

    try:
        runtime, trial, given = RuntimeConfig(), cell.trial, cell.rewind_given
        return SearchWork.of_recipe(cell.recipe, runtime, trial=trial, rewind_given=given).recipe
    except BadInput:  # of so many images nobody knows, or they are not here
        return cell.recipe


def _is_measured(rows: "pd.DataFrame", measured: "Evaluate | Analyse", last: int, recipe: Recipe) -> bool:
    """Whether a search's rows have all of an evaluation or an analysis, controls of the dense network aside.

    Where no heads are asked for, which are trained depends on what is measured beside: one of them is enough.
    """
    from sslticket.analysis.base import TicketAnalysis
    from sslticket.campaign.sweep import Evaluate
    from sslticket.campaign.worker import levels_of, make_analysis  # torch
    from sslticket.evaluation.protocols import resolve_protocol

    analysis = None if isinstance(measured, Evaluate) else make_analysis(measured)
    rows = rows[rows["kind"] == ("score" if analysis is None else analysis.kind)]
    # Columns of which no row tells anything are of numbers.
    rows = rows.astype(dict.fromkeys(("protocol_hash", "start", "control", "head"), object))
    levels = {level for level in range(last + 1) if levels_of(measured).includes(level)}
    if isinstance(analysis, TicketAnalysis):
        each = type(analysis).rows is TicketAnalysis.rows  # else its rows are not of one ticket each
        return levels <= set(rows["level"]) if each else not rows.empty
    for name in measured.protocols:
        protocol = resolve_protocol(name, recipe.to_dict())
        settings = protocol.hash_for(recipe.model)
        own = rows[(rows["protocol"] == protocol.name) & (rows["protocol_hash"].fillna(settings) == settings)]
        own = own[own["start"].fillna("0") == protocol.start]
        if isinstance(measured, Evaluate) and measured.curve is not None:
            own = own[own["curve_every"] == measured.curve]
        if measured.part is not None:
            own = own[[str(target).endswith(f"[{measured.part}]") for target in own["target"]]]
        seeds = (recipe.seed,) if measured.seeds == "search" else measured.seeds or protocol.seeds
        for control in ("ticket", *measured.controls):
            wanted = levels if control == "ticket" else levels - {0}
            for head in measured.heads or (None,):
                some = own[own["control"].fillna("ticket") == control]
                # Controls whose weights are drawn anew have a new head, whichever is asked for.
                some = some if head is None or control != "ticket" else some[some["head"].fillna(head) == head]
                if not all(wanted <= set(some.loc[some["seed"] == seed, "level"]) for seed in seeds):
                    return False
    return bool(levels)


def planned_rows(cells: "Sequence[Cell]") -> "pd.DataFrame":
    """Rows of what follows from settings alone, for figures that train nothing: the rewind point of each search.

    The number of images is the catalogue's, times the fraction that is taken.
    """
    import pandas as pd

    from sslticket.results.rows import row_columns

    return pd.DataFrame([_planned_row(cell) for cell in cells], columns=row_columns())


def _planned_row(cell: "Cell") -> dict[str, Any]:
    recipe, training = cell.recipe, cell.recipe.training
    counts = get_dataset(recipe.data.dataset).image_counts
    images = round((counts or (0, 0))[0] * recipe.data.subset)
    clock = Clock(length=Span.parse(training.length), batch_size=training.batch_size, set_size=images)
    steps = clock.steps(Span.parse(recipe.search.rewind))  # type: ignore[attr-defined]
    record = recipe.record
    row = TicketRow(
        run=recipe.key,
        recipe=recipe.family,
        objective=recipe.task,
        model=recipe.model,
        source=recipe.data.name,
        subset=recipe.data.subset,
        subset_by=recipe.data.subset_by,
        level=0,
        density=1.0,
        within="",
        ticket_hash="",
        search_seed=recipe.seed,
        search=record.search_name,
        settings=record.settings(),
        rewind_samples=steps * clock.batch_size,
        command="",
        commit=git_commit(),
        versions={},
        data_hash="",
        device="",
        precision="",
        loss=None,
        samples=0,
        seconds=0.0,
        steps=steps,
        metrics={},
        search_samples=steps * clock.batch_size,
        search_epochs=steps * clock.batch_size / images,
        layers={},
        bad_images=0,
    )
    return row.to_dict()
