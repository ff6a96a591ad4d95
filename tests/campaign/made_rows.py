"""Rows whose numbers a test chooses, rows that are committed as evidence, and a figure without sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from sslticket.campaign.figure import ScaledFigure
from sslticket.campaign.panels import Check, Finding, Gap, Matches, Panel
from sslticket.results.rows import row_columns
from sslticket.results.table import read_rows

DOCS = Path(__file__).parents[2] / "docs"

SHARED: dict[str, Any] = {
    "run": "run",
    "recipe": "aa11bb22",
    "objective": "supervised",
    "model": "conv3",
    "source": "cifar10",
    "subset": 1.0,
    "subset_by": "samples",
    "level": 2,
    "density": 0.25,
    "ticket_hash": "77aa",
    "search_seed": 0,
    "search": "IMP",
    "loss": 0.5,
    "samples": 1280,
    "seconds": 2.5,
    "steps": 10,
    "command": "sslticket evaluate runs",
    "commit": "0123abc",
    "versions": {"torch": "2.11"},
    "data_hash": "8d3f",
    "device": "cpu",
    "precision": "fp32",
    "kind": "score",
    "control": "ticket",
    "protocol": "small",
    "target": "cifar10",
    "seed": 0,
    "top5": 1.0,
}


def row(**changes: Any) -> dict[str, Any]:
    """A score row with some keys changed; the run, recipe and ticket follow from objective, seed and level."""
    told = SHARED | changes
    if "recipe" not in changes:
        told["recipe"] = f"{told['objective']}-{told['search']}"
    told["run"] = changes.get("run", f"{told['recipe']}-{told['search_seed']}")
    told["ticket_hash"] = f"{told['run']}-{told['level']}"
    return told


def scored(
    objective: str, values: Mapping[float, Sequence[float]], *, control: str = "ticket", **changes: Any
) -> list[dict[str, Any]]:
    """Scores of a series: for each density, what each of its searches reaches."""
    return [
        row(objective=objective, control=control, density=density, level=level, search_seed=seed, seed=seed,
            replicate=None if control == "ticket" else seed, top1=top1, **changes)
        for level, (density, own) in enumerate(values.items())
        for seed, top1 in enumerate(own)
    ]  # fmt: skip


def frame(*series: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as `read_rows` gives them."""
    return pd.DataFrame([each for own in series for each in own], columns=row_columns())


@cache
def committed(name: str) -> pd.DataFrame:
    """Rows that are committed in docs/."""
    return read_rows([DOCS / name])


@dataclass(frozen=True)
class Sketch:
    """A figure with panels and findings, and nothing to run."""

    panels: Sequence[Panel]
    findings: Sequence[Finding] = ()
    published_as: str = "003"
    place: str = "Figure 3"
    name: str = "stabilizing_figure3"
    title: str = "A figure"
    question: str = "What does it show?"
    extra: Mapping[str, Any] = field(default_factory=dict)


def finding(check: Check, text: str = "The paper says so.", number: int | None = None) -> Finding:
    """A finding with any words."""
    return Finding(text=text, check=check, number=number)


def likenesses_without_contrast(figure: ScaledFigure) -> list[str]:
    """The statements of a figure that two series are alike, where nothing in the panel could show that they are not."""
    found = []
    for finding in figure.findings:
        check = finding.check
        if not isinstance(check, Gap | Matches):
            continue
        alike = isinstance(check, Matches) or check.published is not None or check.low <= 0 <= check.high
        own = {check.series} if isinstance(check, Matches) else set(check.series)
        [panel] = [each for each in figure.panels if each.title == check.panel]
        controls = [check.contrast] if check.contrast else [each for each in panel.series if "random" in each.lower()]
        if alike and not (set(controls) - own) & set(panel.series):
            found.append(finding.text)
    return found
