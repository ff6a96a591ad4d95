"""Trainings pooled into series, and their means and spreads."""

import math

import pandas as pd

from sslticket.report import naming, schema

PANEL = ["protocol", "target", "model", "within"]
"""Numbers may be compared, and are drawn in one picture, where these agree: densities are of the same layers."""


def label_agnostic(objective: str) -> bool:
    """Whether tickets of this objective were found without any label."""
    return objective.removesuffix("-shuffled") not in schema.WITH_LABELS


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `table.rows` with `tickets` and `variant` of `naming.named`, `series`, `exact` and `density`.

    `series` is the name of the tickets with the control, or the control alone where all runs share it: a globally
    permuted mask with weights drawn anew owes nothing to the run whose density it copies. Networks of grey images have
    a shared control of their own where there are networks of colour images too.

    `exact` is the density rounded so that replicates share it. So is `density`, but where the searches of a series
    come to densities of their own, it is the mean of those of a level, so that a level stays one point.
    """
    # Rows that were written before there were such limits tell of none.
    frame = naming.named(frame.assign(within=frame["within"].astype(object).where(frame["within"].notna(), "")))
    control = frame["control"].astype(object).where(frame["control"].notna(), "")
    series = frame["tickets"].where(control.isin(["", "ticket"]), frame["tickets"] + ", " + control)
    channels = frame.groupby(PANEL, dropna=False)["channels"]
    grey = (channels.transform("nunique") > 1) & (frame["channels"] == 1)
    shared = control + grey.map({True: ", grey images", False: ""})
    return frame.assign(
        series=series.mask(frame["control"].isin(schema.SHARED_CONTROLS), shared),
        exact=frame["density"].map(_rounded),
        density=_pooled(frame),
    )


def _pooled(frame: pd.DataFrame) -> "pd.Series[float]":
    level = ["model", "tickets", "level"]
    found = frame.drop_duplicates([*level, "ticket_hash"]).groupby(level)["density"].agg(["mean", "min", "max"])
    own = found.map(_rounded).loc[pd.MultiIndex.from_frame(frame[level])].set_index(frame.index)
    return frame["density"].map(_rounded).mask(own["min"] < own["max"], own["mean"])


def _rounded(density: float) -> float:
    # Runs of one model at one rate agree to far more digits than this; different levels differ in the first two.
    return float(f"{density:.4g}")


def trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """The score rows of a frame of `named`, each training once, though two runs list it or a run folder was copied."""
    scores = frame[frame["kind"] == "score"]
    is_shared = scores["control"].isin(schema.SHARED_CONTROLS)
    blank = scores[["objective", "source"]].mask(is_shared, "")
    scores = scores.assign(objective=blank["objective"], source=blank["source"])
    shared = scores[is_shared].drop_duplicates([*PANEL, "series", "exact", "seed"])
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
    kinds = zip(means["control"], means["objective"], strict=True)
    means["place"] = [2 * schema.CONTROLS.index(control) + (objective != "supervised") for control, objective in kinds]
    means = means.sort_values([*PANEL, "place", "series", "density"], ascending=[True] * (len(PANEL) + 2) + [False])
    return means.drop(columns="place").reset_index(drop=True)


def sparsest_common(panel: pd.DataFrame) -> pd.DataFrame:
    """The rows of a panel's tickets and random tickets at the sparsest density that all of them have, or most.

    None where no two share one: searches that come to densities of their own need not meet others.

    Label-agnostic series come first, then those that need labels, then random.
    """
    main = panel[panel["control"].isin(["ticket", "random"])]
    shared = main.groupby("density")["series"].nunique()
    shared = shared[shared == shared.max()] if main["series"].nunique() == 1 or shared.max() > 1 else shared[:0]
    here = main[main["density"] == (shared.index.min() if len(shared) else math.nan)]
    kinds = zip(here["objective"], here["control"], strict=True)
    place = [(not label_agnostic(objective)) + 2 * (control == "random") for objective, control in kinds]
    return here.loc[pd.Series(place, here.index, int).sort_values(kind="stable").index]
