"""Do label-agnostic and supervised tickets differ at each density? Every series against labels and against random."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sslticket.report import inference, statistics
from sslticket.report.statistics import KINSHIP, PANEL

COLUMNS = [
    *(*PANEL, "series", "against", "density", "difference", "low", "high", "p", "verdict", "why"),
    *("n", "n_against", "trainings", "trainings_against", "densities"),
]


def comparisons(frame: pd.DataFrame) -> pd.DataFrame:
    """Each series of tickets less its references, at each density that both have, from the frame of `table.rows`.

    Sides are the searches' means over their evaluation seeds, and are compared as independent ones. The references
    are in `_references`.

    Returns:
        One row per panel, series, `against` and density (densest first) with `difference`, `low`, `high` (fractions;
        the bounds of Welch's 95% interval of this density by itself, missing for too few), `p` (corrected by Holm for
        the `densities` at which these two are tested), `verdict` (see `inference.verdict`), `why` there are too few to
        tell, `n` and `n_against` (searches of each side, or draws of a control), `trainings` and `trainings_against`.
    """
    scores = statistics.trainings(statistics.named(frame))
    scores = scores[scores["control"].isin(["ticket", "random"])]
    keys = [*PANEL, "series", *KINSHIP, "control", "head", "numerics", "density"]
    found: list[dict[str, Any]] = []
    for key, panel in statistics.searches(scores, keys).groupby(PANEL):
        groups = dict(iter(panel.groupby("series")))
        for name, own in groups.items():
            for against in _references(panel, own.iloc[0]):
                found += [
                    dict(zip(PANEL, key, strict=True)) | {"series": name, "against": against} | row
                    for row in _at_each_density(own, groups[against])
                ]
    ordered = pd.DataFrame(found, columns=COLUMNS)
    by = [*PANEL, "series", "against", "density"]
    return ordered.sort_values(by, ascending=[True] * (len(PANEL) + 2) + [False], ignore_index=True)


def _references(panel: pd.DataFrame, own: "pd.Series[Any]") -> list[str]:
    """The series that one is compared with: supervised tickets, and random ones.

    Tickets that start with a new head are compared with supervised ones that do; those with their own head with no
    other objective's, for what classes it knows is no part of a label-agnostic ticket. A random ticket has everything
    drawn anew, so all are compared with it.
    """
    if own["control"] == "random":
        return []
    labels = labelled(panel, own)
    if own["head"] != "new":
        labels = labels[labels["objective"] == own["objective"]]
    # Tickets of other objectives are compared with those found the same way, supervised ones with the usual search's.
    search, variant = ("IMP", "") if own["objective"] == "supervised" else (own["search"], own["variant"])
    labels = labels[labels["head"] == own["head"]].assign(
        other_images=lambda each: each["images"] != own["images"],
        other_numerics=lambda each: each["numerics"] != own["numerics"],
        other_search=lambda each: each["search"] != search,
        other=lambda each: each["variant"] != variant,
    )
    order = ["other_images", "other_numerics", "subset", "other_search", "other", "series"]
    labels = labels.sort_values(order, ascending=[True, True, False, True, True, True])
    random = panel[panel["control"] == "random"]
    random = random.assign(other=random["numerics"] != own["numerics"]).sort_values(["other", "series"])
    chosen = [*labels["series"].head(1), *random["series"].head(1)]
    return [each for each in chosen if each != own["series"]]


def labelled(panel: pd.DataFrame, own: "pd.Series[Any]") -> pd.DataFrame:
    """The rows of supervised tickets that were found on the same images, as far as rows tell."""
    labels = panel[(panel["objective"] == "supervised") & (panel["source"] == own["source"])]
    if not own["images"]:
        return pd.DataFrame(labels)
    alike: pd.DataFrame = labels[labels["images"].isin([own["images"], ""])]
    return alike


def _at_each_density(own: pd.DataFrame, other: pd.DataFrame) -> list[dict[str, Any]]:
    """The comparisons of two series, with p corrected for the number of densities."""
    held = list(_sides(own, other))
    if not held:
        return []
    found: list[Any] = [None] * len(held)
    # Those of equal sizes are computed together.
    sizes = [(len(each.own), len(each.other)) for each in held]
    for size in dict.fromkeys(sizes):
        places = [place for place, each in enumerate(sizes) if each == size]
        one = np.array([held[place].own["top1"] for place in places], np.float64)
        two = np.array([held[place].other["top1"] for place in places], np.float64)
        differ = inference.difference(one, two)
        for line, place in enumerate(places):
            found[place] = [float(part[line]) for part in differ[:4]] + [differ.least_p]
    p, least = inference.corrected(*(np.array([each[part] for each in found]) for part in (3, 4)))
    able = sum(each[4] < inference.ALPHA for each in found)
    rows = []
    for (density, first, second), each, told, reachable in zip(held, found, p, least, strict=True):
        verdict = inference.verdict(each[0], told, reachable)
        row = {"density": density, "difference": each[0], "low": each[1], "high": each[2], "p": float(told)}
        why = _why(len(first), len(second), second["unit"].iloc[0].split()[0], able)
        row |= {"verdict": verdict, "why": why if verdict == "too few to tell" else ""}
        row |= {"n": len(first), "n_against": len(second), "densities": able}
        row |= {"trainings": int(first["trainings"].sum()), "trainings_against": int(second["trainings"].sum())}
        rows.append(row)
    return rows


class _Sides(NamedTuple):
    """The searches of two series at a density, a row each."""

    density: float
    own: pd.DataFrame
    other: pd.DataFrame


def _sides(own: pd.DataFrame, other: pd.DataFrame) -> Iterator[_Sides]:
    """Those at each density that both have."""
    others = dict(iter(other.groupby("density")))
    for density, here in own.groupby("density"):
        if density in others:
            yield _Sides(float(str(density)), here, others[density])


def _why(n: int, m: int, what: str, densities: int) -> str:
    if n == 1:
        return "one search"
    if m == 1:
        return f"one {what} to compare with"
    return f"{n} against {m}" + (f" at {densities} densities" if densities > 1 else "")
