"""Trainings pooled into series, and their means and spreads over searches."""

import math

import numpy as np
import pandas as pd

from sslticket.report import identity, inference, naming, schema

PANEL = [*identity.PLACE, "apart"]
"""Numbers may be compared, and are drawn in one picture, where these agree: densities are of the same layers, and the
protocol's settings, the start of its schedule and the images on both sides are the same (`identity.apart`)."""
KINSHIP = ["tickets", "objective", "source", "images", "subset", "search", "variant"]
"""What a summary tells of the tickets of a series; empty for controls that all runs share."""


def label_agnostic(objective: str) -> bool:
    """Whether tickets of this objective were found without any label."""
    return objective.removesuffix("-shuffled") not in schema.WITH_LABELS


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `table.rows` with all that tells which rows may be pooled.

    Beside the columns of `identity.completed` and `naming.named` these are:

    `apart`: what tells panels of the same names apart, see `identity.apart`.
    `series`: the name of the tickets with the head, where it is the ticket's own, the numerics, where there are
    several, and the control; or the control alone where all runs share it, since its mask and weights owe nothing to
    the run whose density it copies. Networks of grey images have a shared control of their own where there are networks
    of colour images too.
    `unit`: what is drawn independently and so counts as one, "search 0" or "draw 0".
    `exact`: the density rounded so that replicates share it. So is `density`, but where the searches of a series come
    to densities of their own, it is the mean of those of a level, so that a level stays one point.
    `cut`: whether the weights that lie on a path from input to output are at most half of the density, or none.
    """
    frame = naming.named(identity.completed(frame))
    frame = frame.assign(apart=identity.apart(frame))
    return frame.assign(
        series=_series(frame),
        unit=_units(frame),
        exact=frame["density"].map(_rounded),
        density=_pooled(frame),
        cut=_cut(frame),
    )


def _series(frame: pd.DataFrame) -> "pd.Series[str]":
    control = frame["control"].astype(object).where(frame["control"].notna(), "")
    is_shared = control.isin(schema.SHARED_CONTROLS)
    grey = frame["channels"] == 1
    grey &= frame.groupby(identity.PLACE, dropna=False)["channels"].transform("nunique") > 1
    base = frame["tickets"].mask(is_shared, control + grey.map({True: ", grey images", False: ""}))
    own = ((frame["head"] == "own") & frame["kind"].isin(identity.TARGETED)).map({True: ", own head", False: ""})
    plain = control.isin(["", "ticket"]) | is_shared
    series = base + own + (", " + control).mask(plain, "")
    # A series that was computed in two ways in one panel is told apart everywhere, so that it keeps its names.
    mixed = identity.several(frame.assign(series=series), ["kind", *PANEL, "series"], "numerics")
    mixed &= frame["kind"].isin(identity.TARGETED)
    mixed = mixed.groupby(series).transform("any") & frame["kind"].isin(identity.TARGETED)
    return series + (", " + frame["numerics"]).where(mixed, "")


def _units(frame: pd.DataFrame) -> "pd.Series[str]":
    """The search; of a score of a control the search for which it was drawn.

    Controls were once drawn anew for every evaluation seed, whatever the search: these have no `replicate`.
    """
    kept = frame["control"].isna() | frame["control"].isin(["ticket", *schema.OWNED_CONTROLS])
    drawn = (frame["kind"] == "score") & ~kept
    units = "search " + frame["search_seed"].astype(int).astype(str)
    by_seed = "draw of seed " + frame["seed"].astype("Int64").astype(str)
    by_search = "draw " + frame["replicate"].astype("Int64").astype(str)
    return units.mask(drawn, by_seed).mask(drawn & frame["replicate"].notna(), by_search)


def _pooled(frame: pd.DataFrame) -> "pd.Series[float]":
    level = ["model", "tickets", "level"]
    found = frame.drop_duplicates([*level, "ticket_hash"]).groupby(level)["density"].agg(["mean", "min", "max"])
    own = found.map(_rounded).loc[pd.MultiIndex.from_frame(frame[level])].set_index(frame.index)
    return frame["density"].map(_rounded).mask(own["min"] < own["max"], own["mean"])


def _rounded(density: float) -> float:
    # Runs of one model at one rate agree to far more digits than this; different levels differ in the first two.
    return float(f"{density:.4g}")


def _cut(frame: pd.DataFrame) -> "pd.Series[bool]":
    own = frame["control_density"].astype(float)
    effective = frame["effective_density"].astype(float)
    return (effective == 0) | (effective < own.where(own.notna(), frame["density"].astype(float)) / 2)


def trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """The score rows of a frame of `named`, each training once, though two runs list it or a run folder was copied."""
    scores = frame[frame["kind"] == "score"]
    is_shared = scores["control"].isin(schema.SHARED_CONTROLS)
    blank = scores[KINSHIP].astype(object).mask(is_shared, "").assign(subset=scores["subset"].mask(is_shared, 1.0))
    scores = scores.assign(**{key: blank[key] for key in KINSHIP})
    once = [*PANEL, "series", "unit", "seed"]
    shared = scores[is_shared].drop_duplicates([*once, "exact"])
    own = scores[~is_shared].drop_duplicates([*once, "run", "level", "ticket_hash"])
    return pd.concat([own, shared])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of every series at every density, from the frame of `table.rows`.

    Trainings of one search are averaged first: what is counted, and varies, are searches, or of controls the draws.

    Returns:
        One row per panel, series and density, densest first, with `top1`, `top5` (means, fractions), `top1_sd`
        (standard deviation over searches with n - 1; missing for one), `low` and `high` (Student's 95% interval of the
        mean; missing for one), `n` (searches, or draws of a control), `what` of these it counts, `trainings`, `level`
        (the lowest that has this density), `effective` (the least effective density, missing where no row tells) and
        `cut` (of how many searches it is 0 or below half of the density), and `KINSHIP`, `control`, `head` and
        `numerics` of the series.
    """
    keys = [*PANEL, "series", *KINSHIP, "control", "head", "numerics", "density"]
    scores = trainings(named(frame))
    own = searches(scores, keys)
    means = own.groupby(keys, as_index=False, dropna=False).agg(
        level=("level", "min"),
        top1=("top1", "mean"),
        top1_sd=("top1", "std"),
        top5=("top5", "mean"),
        n=("unit", "size"),
        what=("unit", lambda units: units.iloc[0].split()[0]),
        trainings=("trainings", "sum"),
        effective=("effective", "min"),
        cut=("cut", "sum"),
    )
    means["low"], means["high"] = inference.interval(
        means["top1"].to_numpy(np.float64), means["top1_sd"].to_numpy(np.float64), means["n"].to_numpy(np.int64)
    )
    kinds = zip(means["control"], means["objective"], strict=True)
    means["place"] = [2 * schema.CONTROLS.index(control) + (objective != "supervised") for control, objective in kinds]
    means = means.sort_values([*PANEL, "place", "series", "density"], ascending=[True] * (len(PANEL) + 2) + [False])
    return means.drop(columns="place").reset_index(drop=True)


def searches(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The means of each search over its evaluation seeds: a row per `by` and `unit`.

    Args:
        scores: of `trainings`.
        by: columns in which what is pooled agrees.
    """
    return scores.groupby([*by, "unit"], as_index=False, dropna=False).agg(
        level=("level", "min"),
        top1=("top1", "mean"),
        top5=("top5", "mean"),
        trainings=("top1", "size"),
        effective=("effective_density", "min"),
        cut=("cut", "any"),
    )


def alike(panel: pd.DataFrame) -> pd.DataFrame:
    """The rows of a panel's tickets and random tickets that all start with a new head.

    Where no ticket does, those with their own: then nothing else is left to be told.
    """
    main = panel[panel["control"].isin(["ticket", "random"])]
    tickets = main[main["control"] == "ticket"]
    head = "new" if (tickets["head"] == "new").any() or tickets.empty else "own"
    return main[(main["control"] == "random") | (main["head"] == head)]


def sparsest_common(panel: pd.DataFrame) -> pd.DataFrame:
    """The rows of `alike` at the sparsest density that all of its series have, or most.

    None where no two share one: searches that come to densities of their own need not meet others.

    Label-agnostic series come first, then those that need labels, then random.
    """
    main = alike(panel)
    shared = main.groupby("density")["series"].nunique()
    shared = shared[shared == shared.max()] if main["series"].nunique() == 1 or shared.max() > 1 else shared[:0]
    here = main[main["density"] == (shared.index.min() if len(shared) else math.nan)]
    kinds = zip(here["objective"], here["control"], strict=True)
    place = [(not label_agnostic(objective)) + 2 * (control == "random") for objective, control in kinds]
    return here.loc[pd.Series(place, here.index, int).sort_values(kind="stable").index]
