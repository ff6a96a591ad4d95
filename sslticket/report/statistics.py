"""Trainings pooled into series, their means and spreads, and whether two series differ."""

import math
from collections.abc import Hashable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from sslticket.report import schema

Floats = npt.NDArray[np.float64]

PANEL = ["protocol", "target", "model"]
"""Numbers may be compared, and are drawn in one picture, where these agree."""
RESAMPLES = 10_000


def label_agnostic(objective: str) -> bool:
    """Whether tickets of this objective were found without any label."""
    return objective.removesuffix("-shuffled") not in schema.WITH_LABELS


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `table.rows` with two more columns, and densities rounded so that replicates share them.

    `tickets` names what found the tickets, as briefly as tells those of one model apart: objective, subset, source
    and, where these do not do, recipe. `series` is that with the control, or "random": a globally permuted mask with
    weights drawn anew owes nothing to the run whose density it copies, so all runs share this control.
    """
    same = ["model", "objective", "source", "subset", "subset_by"]
    # Repeats of a recipe under other seeds are pooled; other recipes that these columns do not tell apart are not.
    recipes = frame.drop_duplicates([*same, "recipe"])
    clash = set(recipes.loc[recipes.duplicated(same, keep=False), "recipe"])
    sources = frame.groupby("model")["source"].transform("nunique")

    def name(row: dict[Hashable, Any], sources: int) -> str:
        text = str(row["objective"])
        if row["subset"] < 1:
            text += f" {100 * row['subset']:g}%" + (" of classes" if row["subset_by"] == "classes" else "")
        if sources > 1:
            text += f" from {row['source']}"
        return f"{text} ({row['recipe']})" if row["recipe"] in clash else text

    tickets = [name(row, each) for row, each in zip(frame[[*same, "recipe"]].to_dict("records"), sources, strict=True)]
    frame = frame.assign(tickets=tickets, density=frame["density"].map(_rounded))
    plain = frame["control"].isna() | (frame["control"] == "ticket")
    series = frame["tickets"].where(plain, frame["tickets"] + ", " + frame["control"].fillna(""))
    return frame.assign(series=series.mask(frame["control"] == "random", "random"))


def _rounded(density: float) -> float:
    # Runs of one model at one rate agree to far more digits than this; different levels differ in the first two.
    return float(f"{density:.4g}")


def trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """The score rows of a frame of `named`, each training once, though two runs list it or a run folder was copied."""
    scores = frame[frame["kind"] == "score"]
    is_random = scores["control"] == "random"
    blank = scores[["objective", "source"]].mask(is_random, "")
    scores = scores.assign(objective=blank["objective"], source=blank["source"])
    shared = scores[is_random].drop_duplicates([*PANEL, "density", "seed"])
    own = scores[~is_random].drop_duplicates([*PANEL, "run", "control", "level", "seed", "ticket_hash"])
    return pd.concat([own, shared])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of every series at every density, from the frame of `table.rows`.

    Returns:
        One row per protocol, target, model, series and density, densest first, with `top1`, `top5` (means, fractions),
        `top1_sd` (standard deviation over trainings with n - 1; missing for one), `n` (trainings), `searches` (search
        seeds among them; 0 for random tickets, which no search finds), `level` (the lowest that has this density),
        and `tickets`, `objective`, `source`, `subset` and `control` of the series (empty where it is "random").
    """
    scores = trainings(named(frame))
    is_random = scores["control"] == "random"
    scores = scores.assign(
        tickets=scores["tickets"].mask(is_random, ""),
        subset=scores["subset"].mask(is_random, 1.0),
        search_seed=scores["search_seed"].mask(is_random),
    )
    keys = [*PANEL, "series", "tickets", "objective", "source", "subset", "control", "density"]
    means = scores.groupby(keys, as_index=False).agg(
        level=("level", "min"),
        top1=("top1", "mean"),
        top1_sd=("top1", "std"),
        top5=("top5", "mean"),
        n=("top1", "size"),
        searches=("search_seed", "nunique"),
    )
    means["place"] = means["control"].map(schema.CONTROLS.index) * 2 + (means["objective"] != "supervised")
    means = means.sort_values([*PANEL, "place", "series", "density"], ascending=[True] * 5 + [False])
    return means.drop(columns="place").reset_index(drop=True)


def sparsest_common(panel: pd.DataFrame) -> pd.DataFrame:
    """The rows of a panel's tickets and random tickets at the sparsest density that all of them have; maybe none.

    Label-agnostic series come first, then those that need labels, then random.
    """
    main = panel[panel["control"].isin(["ticket", "random"])]
    shared = main.groupby("density")["series"].nunique()
    shared = shared[shared == main["series"].nunique()]
    here = main[main["density"] == (shared.index.min() if len(shared) else math.nan)]
    place = ~here["objective"].map(label_agnostic) + 2 * (here["control"] == "random")
    return here.loc[place.sort_values(kind="stable").index]


class Interval(NamedTuple):
    """A difference of two means and its 95% percentile bootstrap interval."""

    difference: float  # first less second, in the unit of what was given
    low: float  # NaN where there are too few to resample
    high: float
    least_p: float  # the smallest two-sided p that an exact test could reach with so few: below 0.05 or none can tell

    @property
    def verdict(self) -> str:
        """Whether the two differ: "more", "less", "no difference shown" or "too few to tell"."""
        if math.isnan(self.low) or self.least_p >= 0.05:
            return "too few to tell"
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "more" if self.difference > 0 else "less"


def paired(differences: Floats) -> Interval:
    """The mean of differences of pairs, resampled pair by pair.

    With n pairs, a sign test cannot get below p = 2 / 2**n: six are the fewest that can tell.
    """
    n = len(differences)
    low, high = _percentiles(differences[_resamples(n, 0)].mean(axis=1)) if n > 1 else (math.nan, math.nan)
    return Interval(float(differences.mean()), low, high, 2 / 2**n)


def unpaired(first: Floats, second: Floats) -> Interval:
    """The difference of two means, each side resampled by itself.

    A permutation test cannot get below p = 2 / C(n + m, n): four on each side are the fewest that can tell.
    """
    low = high = math.nan
    if min(len(first), len(second)) > 1:
        one, other = (side[_resamples(len(side), turn)].mean(axis=1) for turn, side in enumerate((first, second)))
        low, high = _percentiles(one - other)
    ways = math.comb(len(first) + len(second), len(first))
    return Interval(float(first.mean() - second.mean()), low, high, 2 / ways)


@cache
def _resamples(n: int, stream: int) -> npt.NDArray[np.int64]:
    """(RESAMPLES, n) places drawn with replacement; the same for every comparison, so that a report repeats itself."""
    return np.random.default_rng([0, stream]).integers(n, size=(RESAMPLES, n))


def _percentiles(means: Floats) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
