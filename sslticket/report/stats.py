"""Means and spreads of series over searches, and tests of whether two series differ at a density.

A value here is the mean of one search over its evaluation seeds: trainings of one search share its ticket, so they are
no independent evidence of what another search would find.

The two sides of a test are treated as independent. Searches of two objectives that share a seed share their
initialisation, which makes their results alike rather than unlike, and the interval and the test then err on the side
of caution. A test of pairs would use that, but turns signs: with six pairs its least p is 2/64, which no correction for
several densities leaves below 5%, while 6 against 6 can be dealt in 924 ways.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_string_dtype
from scipy import special

from sslticket.report import naming
from sslticket.results.rows import CONTROLS, SUPERVISED_OBJECTIVES, shared_controls

FloatArray = npt.NDArray[np.float64]

ALPHA = 0.05
MAX_PERMUTATIONS = 20_000
"""Up to so many ways to deal the values to the two sides, all are tried; else so many are drawn at random, less one."""


class Difference(NamedTuple):
    """Differences of two means, each of shape (...).

    Attributes:
        mean: First less second, in the unit of what was given.
        low: Lower end of the 95% interval; NaN where a side has one value.
        high: Upper end.
        p: Two-sided p, the larger of the permutation test's and Welch's; 1 where a side has one value.
        smallest_p: Smallest p that so few could reach; 1 where a side has one value.
    """

    mean: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray
    smallest_p: float


def compare_means(first: FloatArray, second: FloatArray) -> Difference:
    """Compare means of independent values.

    The interval is Welch's (1947), which takes the two sides' spreads as they are. The test is Fisher's permutation
    test of the difference of means, exact where all deals are tried. It asks whether the sides are alike in all;
    where one merely varies more it calls too many different, so Welch's test has to agree, and the larger p counts.

    Args:
        first: Values of one side, of shape (..., n).
        second: Values of the other, of shape (..., m) with the same leading axes.
    """
    n, m = first.shape[-1], second.shape[-1]
    mean = first.mean(axis=-1) - second.mean(axis=-1)
    if min(n, m) == 1:
        nothing = np.full_like(mean, math.nan)
        return Difference(mean, nothing, nothing, np.ones_like(mean), 1.0)
    deals = math.comb(n + m, n)
    shuffled = _all_deals(first, second) if deals <= MAX_PERMUTATIONS else _drawn_deals(first, second)
    variances = first.var(axis=-1, ddof=1) / n, second.var(axis=-1, ddof=1) / m
    error = np.sqrt(sum(variances))
    constant = error == 0  # sides that do not vary have no t
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = sum(variances) ** 2 / sum(v**2 / (k - 1) for v, k in zip(variances, (n, m), strict=True))
        welch = 2 * special.stdtr(freedom, -np.abs(mean / error))
        reach = np.where(constant, 0.0, special.stdtrit(freedom, 1 - ALPHA / 2) * error)
    p = np.maximum(shuffled, np.where(constant, 0.0, welch))
    return Difference(mean, mean - reach, mean + reach, p, 2 / min(deals, MAX_PERMUTATIONS))


def _all_deals(first: FloatArray, second: FloatArray) -> FloatArray:
    """The two-sided p of Fisher's permutation test over all ways to deal the values to the two sides.

    It is that of `scipy.stats.permutation_test`, whose import takes as long as half of a report.
    """
    n, total = first.shape[-1], first.shape[-1] + second.shape[-1]
    chosen = np.zeros((math.comb(total, n), total))
    chosen[np.arange(len(chosen))[:, None], np.array(list(combinations(range(total), n)))] = 1.0
    weights = chosen / n - (1 - chosen) / (total - n)
    # The first deal is the one that was seen. Accuracies are counts of images over their number, so many deals give
    # the very same difference; sums in another order would part these in the sixteenth digit.
    values = np.concatenate([first, second], axis=-1)
    differences = np.round(np.einsum("...v,dv->...d", values, weights), 12)
    seen = differences[..., :1]
    beyond = np.minimum((differences >= seen).mean(axis=-1), (differences <= seen).mean(axis=-1))
    found: FloatArray = np.minimum(1.0, 2 * beyond)
    return found


def _drawn_deals(first: FloatArray, second: FloatArray) -> FloatArray:
    """The same over deals that are drawn at random, where they are too many."""
    from scipy import stats

    found: FloatArray = stats.permutation_test(
        (first, second),
        lambda one, two, axis: np.round(one.mean(axis=axis) - two.mean(axis=axis), 12),
        permutation_type="independent",
        vectorized=True,
        n_resamples=MAX_PERMUTATIONS - 1,
        batch=256,  # of many comparisons at once all deals would not fit in memory
        axis=-1,
        random_state=np.random.default_rng(0),  # so that a report repeats itself
    ).pvalue
    return found


def student_interval(mean: FloatArray, sd: FloatArray, n: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Student's 95% interval of means; NaN where n is 1.

    Args:
        mean: Means of `n` values each.
        sd: Their standard deviations, with n - 1.
        n: Numbers of values.
    """
    with np.errstate(invalid="ignore"):  # no degrees of freedom have no quantile, but NaN
        reach = special.stdtrit(n - 1.0, 1 - ALPHA / 2) * sd / np.sqrt(n)
    return mean - reach, mean + reach


def holm_correction(p: FloatArray) -> FloatArray:
    """The p of several tests corrected so that any false one comes with at most the given chance (Holm 1979).

    Args:
        p: P of k tests of one family, of shape (..., k).
    """
    k = p.shape[-1]
    order = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, order, axis=-1) * np.arange(k, 0, -1)
    corrected = np.minimum(np.maximum.accumulate(stepped, axis=-1), 1)
    found = np.empty_like(corrected)
    np.put_along_axis(found, order, corrected, axis=-1)
    return found


def correct_p_values(p: FloatArray, least: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The p of one family corrected by Holm, and the least that each could have reached after that.

    Tests that could reach no p below 5% by themselves are left out of the count: they can call nothing different, so
    they need no correction and cost the others none (Tarone 1990).

    Args:
        p: P of k tests, of shape (..., k).
        least: Least p of each, of shape (k,), which its numbers of searches give.
    """
    able = least < ALPHA
    adjusted, reachable = p.copy(), least.copy()
    adjusted[..., able] = holm_correction(p[..., able])
    reachable[able] = holm_correction(least[able])
    return adjusted, reachable


def decide_verdict(mean: float, p: float, least_p: float) -> str:
    """Whether two sides differ: "more", "less", "no difference shown" or "too few to tell".

    Args:
        mean: First less second.
        p: Corrected p.
        least_p: Least p that so few searches could reach, corrected.
    """
    if least_p >= ALPHA:
        return "too few to tell"
    if p >= ALPHA:
        return "no difference shown"
    return "more" if mean > 0 else "less"


PANEL_KEYS = [*naming.MEASURED_ON, "condition"]
"""Numbers may be compared, and are drawn in one picture, where these agree: densities are of the same layers, and the
protocol's settings, the start of its schedule and the images on both sides are the same (`naming.panel_conditions`)."""
TICKET_KEYS = ["tickets", "objective", "source", "images", "subset", "search", "variant"]
"""What a summary tells of the tickets of a series; empty for controls that all runs share."""


def is_label_agnostic(objective: str) -> bool:
    """Whether tickets of this objective were found without any label."""
    return objective.partition("-")[0] not in SUPERVISED_OBJECTIVES


def name_series(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `table.read_rows` with all that tells which rows may be pooled.

    Beside the columns of `naming.fill_defaults` and `naming.name_tickets` these are:

    `condition`: what tells panels of the same names apart, see `naming.panel_conditions`.
    `series`: the name of the tickets with the head, where it is the ticket's own, the numerics, where there are
    several, and the control; or the control alone where all runs share it, since its mask and weights owe nothing to
    the run whose density it copies. Those of an N:M pattern are another series, and networks of grey images have a
    shared control of their own where there are networks of colour images too.
    `unit`: what is drawn independently and so counts as one, "search 0" or "draw 0".
    `exact`: the density rounded so that replicates share it. So is `density`, but where the searches of a series come
    to densities of their own, it is the mean of those of a level, so that a level stays one point.
    `pattern`: the N:M pattern that the search was asked for, also of its denser levels; "" for none.
    `cut`: whether the weights that lie on a path from input to output are at most half of the density, or none.
    """
    # pandas warns where a column is added to a frame in more than a hundred pieces; a copy has one for each type.
    frame = naming.name_tickets(naming.fill_defaults(frame.copy()))
    frame = frame.assign(condition=naming.panel_conditions(frame), pattern=frame["settings"].map(naming.asked_pattern))
    effective, density = frame["effective_density"].astype(float), frame["control_density"].astype(float)
    density = density.where(density.notna(), frame["density"].astype(float))
    return frame.assign(
        series=_series_names(frame),
        unit=_unit_names(frame),
        exact=frame["density"].map(_round_density),
        density=_pooled_density(frame),
        cut=(effective == 0) | (effective < density / 2),
    )


def is_random_series(name: str) -> bool:
    """Whether this is the name of a series of random tickets, with their pattern, images or numerics behind it."""
    return re.fullmatch(r"random( \d+:\d+)?(, .*)?", name) is not None


def _series_names(frame: pd.DataFrame) -> "pd.Series[str]":
    control = frame["control"].astype(object).where(frame["control"].notna(), "")
    is_shared = control.isin(shared_controls())
    grey = frame["channels"] == 1
    grey &= frame.groupby(naming.MEASURED_ON, dropna=False)["channels"].transform("nunique") > 1
    pattern = (" " + frame["pattern"]).where(frame["pattern"] != "", "")
    base = frame["tickets"].mask(is_shared, control + pattern + grey.map({True: ", grey images", False: ""}))
    own = ((frame["head"] == "own") & frame["kind"].isin(naming.protocol_kinds())).map({True: ", own head", False: ""})
    plain = control.isin(["", "ticket"]) | is_shared
    series = base + own + (", " + control).mask(plain, "")
    # A series that was computed in two ways in one panel is split everywhere, so that it keeps its names.
    mixed = naming.differ_within(frame.assign(series=series), ["kind", *PANEL_KEYS, "series"], "numerics")
    mixed &= frame["kind"].isin(naming.protocol_kinds())
    mixed = mixed.groupby(series).transform("any") & frame["kind"].isin(naming.protocol_kinds())
    return series + (", " + frame["numerics"]).where(mixed, "")


def search_units(seeds: "pd.Series[Any]", runs: "pd.Series[Any]") -> "pd.Series[str]":
    """Searches by their seeds; one whose seed nobody knows, of an imported ticket, by its run."""
    numbers = zip(seeds.tolist(), runs.tolist(), strict=True)
    return pd.Series([f"search {run if pd.isna(seed) else int(seed)}" for seed, run in numbers], seeds.index, object)


def _unit_names(frame: pd.DataFrame) -> "pd.Series[str]":
    """The search; of a score of a control the search for which it was drawn.

    Controls were once drawn anew for every evaluation seed, whatever the search: these have no `replicate`.
    """
    kept = frame["control"].isna() | frame["control"].isin(
        [name for name, control in CONTROLS.items() if control.keeps_weights]
    )
    drawn = (frame["kind"] == "score") & ~kept
    units = search_units(frame["search_seed"], frame["run"])
    by_seed = "draw of seed " + frame["seed"].astype("Int64").astype(str)
    by_search = "draw " + frame["replicate"].astype("Int64").astype(str)
    return units.mask(drawn, by_seed).mask(drawn & frame["replicate"].notna(), by_search)


def _pooled_density(frame: pd.DataFrame) -> "pd.Series[float]":
    level = ["model", "tickets", "level"]
    found = frame.drop_duplicates([*level, "ticket_hash"]).groupby(level)["density"].agg(["mean", "min", "max"])
    own = found.map(_round_density).loc[pd.MultiIndex.from_frame(frame[level])].set_index(frame.index)
    return frame["density"].map(_round_density).mask(own["min"] < own["max"], own["mean"])


def _round_density(density: float) -> float:
    # Runs of one model at one rate agree to far more digits than this; different levels differ in the first two.
    return float(f"{density:.4g}")


def unique_trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """The score rows of a frame of `named`, each training once, though two runs list it or a run folder was copied."""
    scores = frame[frame["kind"] == "score"]
    is_shared = scores["control"].isin(shared_controls())
    blank = scores[TICKET_KEYS].astype(object).mask(is_shared, "").assign(subset=scores["subset"].mask(is_shared, 1.0))
    scores = scores.assign(**{key: blank[key] for key in TICKET_KEYS})
    once = [*PANEL_KEYS, "series", "unit", "seed"]
    shared = scores[is_shared].drop_duplicates([*once, "exact"])
    own = scores[~is_shared].drop_duplicates([*once, "run", "level", "ticket_hash"])
    return pd.concat([own, shared])


SERIES_KEYS = [*PANEL_KEYS, "series", *TICKET_KEYS, "pattern", "control", "head", "numerics"]


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `summarize_searches`, from that of `table.read_rows`."""
    return summarize_searches(means_of_searches(unique_trainings(name_series(frame))))


def means_of_searches(scores: pd.DataFrame) -> pd.DataFrame:
    """The mean top-1 of each search, or draw of a control, at each density, from the frame of `unique_trainings`."""
    return search_means(scores, [*SERIES_KEYS, "density"])


def summarize_searches(own: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of every series at every density, from the frame of `means_of_searches`.

    Trainings of one search are averaged first: what is counted, and varies, are searches, or of controls the draws.

    Returns:
        One row per panel, series and density, densest first, with `top1` and `top5` (means, fractions), `top1_sd`
            (standard deviation over searches with n - 1; missing for one), `balanced` and `balanced_sd` (the same of
            the mean over classes; missing where a row does not tell it), `low` and `high` (Student's 95% interval of
            the mean; missing for one), `n` (searches, or draws of a control), `what` of these it counts, `trainings`,
            `level` (the lowest that has this density), `effective` (the least effective density, missing where no row
            has one) and `cut` (of how many searches it is 0 or below half of the density), and `TICKET_KEYS`,
            `control`, `head` and `numerics` of the series.
    """
    keys = [*SERIES_KEYS, "density"]
    means = own.groupby(keys, as_index=False, dropna=False).agg(
        level=("level", "min"),
        top1=("top1", "mean"),
        top1_sd=("top1", "std"),
        top5=("top5", "mean"),
        balanced=("balanced", "mean"),
        balanced_of=("balanced", "count"),
        balanced_sd=("balanced", "std"),
        n=("unit", "size"),
        what=("unit", "first"),
        trainings=("trainings", "sum"),
        effective=("effective", "min"),
        cut=("cut", "sum"),
    )
    means["balanced"] = means["balanced"].where(means["balanced_of"] == means["n"])
    means["what"] = means["what"].map(lambda unit: unit.split()[0])
    means["low"], means["high"] = student_interval(
        means["top1"].to_numpy(np.float64), means["top1_sd"].to_numpy(np.float64), means["n"].to_numpy(np.int64)
    )
    kinds = zip(means["control"], means["objective"], strict=True)
    order = {control: index for index, control in enumerate([*CONTROLS, *sorted({*means["control"]} - {*CONTROLS})])}
    means["order"] = [2 * order[control] + (objective != "supervised") for control, objective in kinds]
    means = means.sort_values(
        [*PANEL_KEYS, "order", "series", "density"], ascending=[True] * (len(PANEL_KEYS) + 2) + [False]
    )
    return plain_text(means.drop(columns=["order", "balanced_of"]).reset_index(drop=True))


def search_means(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The means of each search over its evaluation seeds: a row per `by` and `unit`.

    Args:
        scores: Rows of `unique_trainings`.
        by: Columns in which what is pooled agrees.
    """
    told = scores.assign(balanced_top1=scores["balanced_top1"].astype(float))
    found = told.groupby([*by, "unit"], as_index=False, dropna=False).agg(
        level=("level", "min"),
        top1=("top1", "mean"),
        top5=("top5", "mean"),
        balanced=("balanced_top1", "mean"),
        balanced_of=("balanced_top1", "count"),
        trainings=("top1", "size"),
        effective=("effective_density", "min"),
        cut=("cut", "any"),
    )
    found["balanced"] = found["balanced"].where(found["balanced_of"] == found["trainings"])
    return plain_text(found.drop(columns="balanced_of"))


def plain_text(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns of text as plain objects: pandas' own take ten times as long to give out their values."""
    return frame.astype(dict.fromkeys(frame.columns[[is_string_dtype(each) for each in frame.dtypes]], object))


def comparable_rows(panel: pd.DataFrame) -> pd.DataFrame:
    """The rows of a panel's tickets and random tickets that all start with a new head.

    Where no ticket does, those with their own head, since there is nothing else to compare.
    """
    main = panel[panel["control"].isin(["ticket", "random"])]
    tickets = main[main["control"] == "ticket"]
    head = "new" if (tickets["head"] == "new").any() or tickets.empty else "own"
    return main[(main["control"] == "random") | (main["head"] == head)]


def rows_at_sparsest_common_density(panel: pd.DataFrame) -> pd.DataFrame:
    """The rows of `alike` at the sparsest density that all of its series have, or most.

    None where no two share one: searches that come to densities of their own need not meet others.

    Label-agnostic series come first, then those that need labels, then random.
    """
    main = comparable_rows(panel)
    shared = main.groupby("density")["series"].nunique()
    shared = shared[shared == shared.max()] if main["series"].nunique() == 1 or shared.max() > 1 else shared[:0]
    here = main[main["density"] == (shared.index.min() if len(shared) else math.nan)]
    kinds = zip(here["objective"], here["control"], strict=True)
    order = [(not is_label_agnostic(objective)) + 2 * (control == "random") for objective, control in kinds]
    return here.loc[pd.Series(order, here.index, int).sort_values(kind="stable").index]


COMPARISON_COLUMNS = [
    *(*PANEL_KEYS, "series", "against", "density", "difference", "low", "high", "p", "verdict", "why"),
    *("n", "n_against", "trainings", "trainings_against", "densities"),
]


def compare_series(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame of `compare_searches`, from that of `table.read_rows`."""
    return compare_searches(means_of_searches(unique_trainings(name_series(frame))))


def compare_searches(searches: pd.DataFrame) -> pd.DataFrame:
    """Each series of tickets less its references, at each density that both have, from that of `means_of_searches`.

    Sides are the searches' means over their evaluation seeds, and are compared as independent ones. See
    `_reference_series` for the references.

    Returns:
        One row per panel, series, `against` and density (densest first) with `difference`, `low`, `high` (fractions;
            the bounds of Welch's 95% interval of this density by itself, missing for too few), `p` (corrected by Holm
            for the `densities` at which these two are tested), `verdict` (see `decide_verdict`), `why` there are too
            few to tell, `n` and `n_against` (searches of each side, or draws of a control), `trainings` and
            `trainings_against`.
    """
    searches = searches[searches["control"].isin(["ticket", "random"])]
    found: list[dict[str, Any]] = []
    for key, panel in searches.groupby(PANEL_KEYS):
        groups = _searches_by_density(panel)
        series = panel.drop_duplicates(SERIES_KEYS)[["series", *TICKET_KEYS, "pattern", "control", "head", "numerics"]]
        facts = series.to_dict("records")
        first = {row["series"]: row for row in facts[::-1]}
        for name, own in sorted(groups.items()):
            for against in _reference_series(facts, first[name]):
                found += [
                    dict(zip(PANEL_KEYS, key, strict=True)) | {"series": name, "against": against} | row
                    for row in _compare_at_each_density(own, groups[against])
                ]
    ordered = pd.DataFrame(found, columns=COMPARISON_COLUMNS)
    by = [*PANEL_KEYS, "series", "against", "density"]
    return plain_text(ordered.sort_values(by, ascending=[True] * (len(PANEL_KEYS) + 2) + [False], ignore_index=True))


def _reference_series(panel: Sequence[Mapping[Any, Any]], own: Mapping[Any, Any]) -> list[str]:
    """The series that one is compared with: supervised tickets, and random ones.

    Tickets that start with a new head are compared with supervised ones that do; those with their own head with no
    other objective's, for what classes it knows is no part of a label-agnostic ticket. A random ticket has everything
    drawn anew, so all are compared with it.
    """
    if own["control"] == "random":
        return []
    # Those that were found on the same images, as far as rows tell.
    labels = [
        row
        for row in panel
        if row["objective"] == "supervised"
        and row["source"] == own["source"]
        and row["head"] == own["head"]
        and (not own["images"] or row["images"] in (own["images"], ""))
        and (own["head"] == "new" or row["objective"] == own["objective"])
    ]
    # Tickets of other objectives are compared with those found the same way, supervised ones with the usual search's.
    usual = {"search": "IMP", "variant": "", "pattern": ""}
    wanted = usual if own["objective"] == "supervised" else {key: own[key] for key in usual}
    labels.sort(
        key=lambda row: (
            *(row["images"] != own["images"], row["numerics"] != own["numerics"], -row["subset"]),
            *(*(row[key] != value for key, value in wanted.items()), row["series"]),
        )
    )
    # Random tickets of another pattern are no match.
    random = [row for row in panel if (row["control"], row["pattern"]) == ("random", own["pattern"])]
    random.sort(key=lambda row: (row["numerics"] != own["numerics"], row["series"]))
    chosen = [row["series"] for row in (*labels[:1], *random[:1])]
    return [each for each in chosen if each != own["series"]]


class _Searches(NamedTuple):
    """The searches of a series at one density.

    Attributes:
        top1: The mean of each.
        trainings: How many trainings these are of.
        what: What one of them is, "search" or "draw".
    """

    top1: list[float]
    trainings: list[int]
    what: str


def _searches_by_density(panel: pd.DataFrame) -> dict[str, dict[float, _Searches]]:
    """The searches of each series at each density, from the densest of each series on as the panel has them."""
    found: dict[str, dict[float, _Searches]] = {}
    columns = (panel[key].tolist() for key in ("series", "density", "top1", "trainings", "unit"))
    for series, density, top1, trainings, unit in zip(*columns, strict=True):
        here = found.setdefault(series, {}).setdefault(density, _Searches([], [], unit.split()[0]))
        here.top1.append(top1)
        here.trainings.append(trainings)
    return found


def _compare_at_each_density(own: dict[float, _Searches], other: dict[float, _Searches]) -> list[dict[str, Any]]:
    """The comparisons of two series, with p corrected for the number of densities."""
    pairs = [(density, own[density], other[density]) for density in sorted(own) if density in other]
    if not pairs:
        return []
    found: list[Any] = [None] * len(pairs)
    # Those of equal sizes are computed together.
    sizes = [(len(first.top1), len(second.top1)) for _, first, second in pairs]
    for size in dict.fromkeys(sizes):
        alike = [index for index, each in enumerate(sizes) if each == size]
        one, two = (
            np.array([side[index].top1 for index in alike], np.float64)
            for side in ([first for _, first, _ in pairs], [second for _, _, second in pairs])
        )
        differ = compare_means(one, two)
        for line, index in enumerate(alike):
            found[index] = [float(values[line]) for values in differ[:4]] + [differ.smallest_p]
    corrected, reachable = correct_p_values(*(np.array([each[column] for each in found]) for column in (3, 4)))
    able = sum(each[4] < ALPHA for each in found)
    rows = []
    for (density, first, second), each, p, least in zip(pairs, found, corrected, reachable, strict=True):
        n, m = len(first.top1), len(second.top1)
        verdict = decide_verdict(each[0], p, least)
        why = _why_too_few(n, m, second.what, able)
        row = {"density": density, "difference": each[0], "low": each[1], "high": each[2], "p": float(p)}
        row |= {"verdict": verdict, "why": why if verdict == "too few to tell" else ""}
        row |= {"n": n, "n_against": m, "densities": able}
        row |= {"trainings": sum(first.trainings), "trainings_against": sum(second.trainings)}
        rows.append(row)
    return rows


def _why_too_few(n: int, m: int, what: str, densities: int) -> str:
    if n == 1:
        return "one search"
    if m == 1:
        return f"one {what} to compare with"
    return f"{n} against {m}" + (f" at {densities} densities" if densities > 1 else "")
