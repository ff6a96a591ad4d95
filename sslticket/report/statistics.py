"""Trainings pooled into series, and their means and spreads."""

import math
from collections.abc import Hashable
from typing import Any

import pandas as pd

from sslticket.report import schema

PANEL = ["protocol", "target", "model", "within"]
"""Numbers may be compared, and are drawn in one picture, where these agree: densities are of the same layers."""


def label_agnostic(objective: str) -> bool:
    """Whether tickets of this objective were found without any label."""
    return objective.removesuffix("-shuffled") not in schema.WITH_LABELS


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `table.rows` with two more columns, and densities rounded so that replicates share them.

    `tickets` names what found the tickets, as briefly as tells those of one model apart: objective, subset, source
    and, where these do not do, recipe. `series` is that with the control, or the control alone where all runs share
    it: a globally permuted mask with weights drawn anew owes nothing to the run whose density it copies. Networks of
    grey images have a shared control of their own where there are networks of colour images too.
    """
    same = ["model", "objective", "source", "subset", "subset_by"]
    # Rows that were written before there were such limits tell of none.
    frame = frame.assign(within=frame["within"].astype(object).fillna(""))
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
    channels = frame.groupby(PANEL, dropna=False)["channels"]
    grey = (channels.transform("nunique") > 1) & (frame["channels"] == 1)
    shared = frame["control"].fillna("") + grey.map({True: ", grey images", False: ""})
    return frame.assign(series=series.mask(frame["control"].isin(schema.SHARED_CONTROLS), shared))


def _rounded(density: float) -> float:
    # Runs of one model at one rate agree to far more digits than this; different levels differ in the first two.
    return float(f"{density:.4g}")


def trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """The score rows of a frame of `named`, each training once, though two runs list it or a run folder was copied."""
    scores = frame[frame["kind"] == "score"]
    is_shared = scores["control"].isin(schema.SHARED_CONTROLS)
    blank = scores[["objective", "source"]].mask(is_shared, "")
    scores = scores.assign(objective=blank["objective"], source=blank["source"])
    shared = scores[is_shared].drop_duplicates([*PANEL, "series", "density", "seed"])
    own = scores[~is_shared].drop_duplicates([*PANEL, "run", "control", "level", "seed", "ticket_hash"])
    return pd.concat([own, shared])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of every series at every density, from the frame of `table.rows`.

    Returns:
        One row per protocol, target, model, series and density, densest first, with `top1`, `top5` (means, fractions),
        `top1_sd` (standard deviation over trainings with n - 1; missing for one), `n` (trainings), `searches` (search
        seeds among them; 0 for shared controls, which no search finds), `level` (the lowest that has this density),
        and `tickets`, `objective`, `source`, `subset` and `control` of the series (empty where it is shared).
    """
    scores = trainings(named(frame))
    is_shared = scores["control"].isin(schema.SHARED_CONTROLS)
    scores = scores.assign(
        tickets=scores["tickets"].mask(is_shared, ""),
        subset=scores["subset"].mask(is_shared, 1.0),
        search_seed=scores["search_seed"].mask(is_shared),
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
    means = means.sort_values([*PANEL, "place", "series", "density"], ascending=[True] * (len(PANEL) + 2) + [False])
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
