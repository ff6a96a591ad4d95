"""Figures and tables of the papers: each is a file in `sweeps/PAPER/` that says what is run and what is drawn."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from sslticket.errors import BadInput, unknown_name
from sslticket.registry import load_user_file

if TYPE_CHECKING:
    from sslticket.campaign.panels import Finding, Panel
    from sslticket.campaign.sweep import Sweep

Scale = Literal["paper", "small", "trial"]
SCALES: tuple[Scale, ...] = get_args(Scale)
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
        "001", "Reproducibility report of One Ticket to Win Them All", "Gohil et al. 2020, ReScience C 6(2)"
    ),
    "limited_supervision": Paper(
        "002", "Finding Winning Tickets with Limited (or No) Supervision", "anonymous submission to ICLR 2021"
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
        panels: What is drawn, in the paper's order and words; `panels_at` has the stand-ins of a scale in them.
        findings: What the paper states about it, to be told from the rows.
        left_out: What of the paper's figure is not made at any scale, and why, in a sentence; "" where all is.
        means: What a scale takes in place of the published settings, in a sentence, by its name.
    """

    paper: str
    place: str
    title: str
    question: str
    scales: "Mapping[Scale, Sequence[Sweep]]"
    without: Mapping[Scale, str] = field(default_factory=dict)
    stand_ins: Mapping[Scale, Mapping[str, str]] = field(default_factory=dict)
    panels: "Sequence[Panel]" = ()
    findings: "Sequence[Finding]" = ()
    left_out: str = ""
    means: Mapping[Scale, str] = field(default_factory=dict)

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

    def sweeps(self, scale: Scale) -> "tuple[Sweep, ...]":
        """What is run at a scale.

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
        return tuple(self.scales[scale])

    def panels_at(self, scale: Scale) -> "tuple[Panel, ...]":
        """The panels with the networks and data sets of a scale in the place of the paper's."""
        names = self.stand_ins.get(scale, {})
        return tuple(replace(panel, where=_renamed(panel.where, names)) for panel in self.panels)


def _renamed(where: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A filter on columns in which values have other names; a value may be several."""
    return {
        column: names.get(value, value)
        if isinstance(value, str)
        else tuple(names.get(each, each) if isinstance(each, str) else each for each in value)
        if isinstance(value, (list, tuple))
        else value
        for column, value in where.items()
    }


_STEM = re.compile(r"(?P<kind>figure|table)(?P<letter>[a-z]?)(?P<number>\d+)")
"""What a figure's file is called; others in its folder hold what several figures share."""


def figures_folder() -> Path:
    """The folder that holds one for each paper: beside the package in a checkout, in it where it is installed."""
    installed = Path(__file__).parents[1] / "sweeps"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "sweeps"


def figure_files() -> dict[str, Path]:
    """The file of each figure by the figure's name, in the order of the papers and of the places in them."""
    return {
        f"{paper}_{file.stem}": file
        for paper in PAPERS
        for file in sorted((figures_folder() / paper).glob("*.py"), key=_place_in_paper)
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
