"""Accuracy and stability against the rewind point, of searches that differ in nothing else."""

import hashlib
import json

import pandas as pd

from sslticket.report import schema, section, stability, statistics
from sslticket.report.chart import Axis, Chart
from sslticket.report.curves import means
from sslticket.report.section import Choice, Pick, Section

_EXPLAINED = (
    "Searches that differ in their rewind point only: what their tickets of one density are worth, and how stable they "
    "are, by the images that the network had seen when W_k was taken. 0 is the initialisation."
)


def sweeps(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of searches from which others differ in the rewind point only, named as if that were no setting.

    Args:
        frame: of `statistics.named`.

    Returns:
        Score and stability rows, each once, named anew; none where no rewind point was varied. Rows of recipes that do
        not tell their settings or W_k, as older ones, are left out; so are controls that owe nothing to a search.
    """
    held = pd.concat([section.rows(frame, kind) for kind in ("score", "stability")])
    held = held[held["settings"].notna() & held["rewind_samples"].notna()]
    held = held[~held["control"].isin(schema.SHARED_CONTROLS)]
    settings = [{name: value for name, value in each.items() if name != "rewind"} for each in held["settings"]]
    if not settings:
        return held
    recipes = [hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()[:8] for each in settings]
    anew = held.assign(settings=pd.Series(settings, held.index), recipe=recipes, density=held["exact"])
    named = statistics.named(anew)
    varied = named.groupby(["model", "tickets"])["rewind_samples"].transform("nunique") > 1
    own = named[varied]
    return own.assign(rewind_samples=own["rewind_samples"].astype(float))


def build(frame: pd.DataFrame) -> Section | None:
    """The section of all sweeps in a frame of `statistics.named`; None where there are none."""
    own = sweeps(frame)
    if own.empty:
        return None
    axis = _axis(own)
    own = own.assign(place=own["rewind_samples"].clip(lower=axis.zero))
    choices = []
    for number, (where, panel) in enumerate(section.panels(own)):
        for place, (weights, here) in enumerate(section.densities(panel)):
            title = f"{where}, {weights} of the weights"
            choices.append(Choice(title, tuple(_charts(here, axis, f"{number}-{place}", title))))
    looked = own[["series", "tickets", "control"]].drop_duplicates("series").sort_values(["tickets", "control"])
    order = looked.loc[(looked["control"] != "ticket").sort_values(kind="stable").index]
    series = tuple((str(name), str(tickets), str(control)) for name, tickets, control in order.itertuples(index=False))
    title = "Sensitivity to the rewind point"
    return Section("rewinding", title, _EXPLAINED, (Pick("Measured:", tuple(choices)),), series)


def _axis(own: pd.DataFrame) -> Axis:
    points = own["rewind_samples"]
    zero = points[points > 0].min() / 3 if (points == 0).any() else 0.0
    return Axis("images seen at W_k (log scale)", "count", log=True, zero=float(zero))


def _charts(here: pd.DataFrame, axis: Axis, name: str, where: str) -> list[Chart]:
    scores = here[here["kind"] == "score"]
    scores = scores.assign(percent=100 * scores["top1"].astype(float))
    curves = means(scores, "place", axis, "percent", "top-1 in %")
    y = Axis(f"top-1 on {here['target'].iloc[0]}, %")
    found = [Chart(f"rewinding-{name}", f"{where}: top-1", axis, y, curves, bounds=(0, 100))]
    measured = here[here["kind"] == "stability"]
    found += [
        stability.chart(measured, each, "place", axis, f"rewinding-{each}-{name}", where) for each in stability.MEASURES
    ]
    return [chart for chart in found if chart.curves]
