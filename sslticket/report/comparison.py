"""Do label-agnostic and supervised tickets differ at each density? Every series against labels and against random."""

from typing import Any

import numpy as np
import pandas as pd

from sslticket.report import resampling, statistics
from sslticket.report.statistics import PANEL

COLUMNS = [
    *(*PANEL, "series", "against", "density", "difference", "low", "high"),
    *("p", "paired_by", "pairs", "n", "n_against", "verdict"),
]


def comparisons(frame: pd.DataFrame) -> pd.DataFrame:
    """Each series of tickets less its reference, at each density that both have, from the frame of `table.rows`.

    The references are "random" and, for tickets that are not the reference themselves, the supervised tickets of the
    same source with the largest subset.

    Returns:
        One row per panel, series, `against` and density (densest first) with `difference`, `low`, `high` (fractions;
        the bounds of the 95% interval, missing for too few), `p` (of the permutation test), `paired_by` ("search and
        evaluation seed", "evaluation seed" or ""), `pairs`, `n` and `n_against` (trainings of each side) and
        `verdict`.
    """
    scores = statistics.trainings(statistics.named(frame))
    scores = scores[scores["control"].isin(["ticket", "random"])]
    found: list[dict[str, Any]] = []
    for key, panel in scores.groupby(PANEL):
        groups = dict(iter(panel.groupby("series")))
        for name, own in groups.items():
            for against in _references(panel, own):
                found += [
                    dict(zip(PANEL, key, strict=True)) | {"series": name, "against": against} | row
                    for row in _at_each_density(own, groups[against])
                ]
    ordered = pd.DataFrame(found, columns=COLUMNS)
    by = [*PANEL, "series", "against", "density"]
    return ordered.sort_values(by, ascending=[True] * (len(PANEL) + 2) + [False], ignore_index=True)


def _references(panel: pd.DataFrame, own: pd.DataFrame) -> list[str]:
    if own["control"].iloc[0] == "random":
        return []
    labels = panel[(panel["objective"] == "supervised") & (panel["source"] == own["source"].iloc[0])]
    labels = labels.sort_values(["subset", "series"], ascending=[False, True])
    chosen = [*labels["series"].head(1), *panel.loc[panel["control"] == "random", "series"].head(1)]
    return [each for each in chosen if each != own["series"].iloc[0]]


def _at_each_density(own: pd.DataFrame, other: pd.DataFrame) -> list[dict[str, Any]]:
    others = dict(iter(other.groupby("density")))
    return [
        {"density": density} | _compare(here, others[density])
        for density, here in own.groupby("density")
        if density in others
    ]


def _compare(own: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    # A random ticket has no search seed of its own: it is one training for all searches.
    random = other["control"].iloc[0] == "random"
    keys = ["seed"] if random else ["search_seed", "seed"]
    one, two = (side.groupby(keys)["top1"].mean() for side in (own, other))
    differences = (one - two).dropna().to_numpy(np.float64)
    paired_by = "evaluation seed" if random else "search and evaluation seed"
    if len(differences) > 1 or len(one) == len(two) == len(differences) == 1:
        found = resampling.paired(differences)
    else:
        found = resampling.unpaired(own["top1"].to_numpy(np.float64), other["top1"].to_numpy(np.float64))
        differences, paired_by = differences[:0], ""
    return {
        "difference": found.mean,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        "paired_by": paired_by,
        "pairs": len(differences),
        "n": len(own),
        "n_against": len(other),
        "verdict": found.verdict,
    }
