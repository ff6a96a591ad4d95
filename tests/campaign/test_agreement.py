"""Agreement with a paper: verdicts by literal numbers against scipy, tau by hand, and what can never be borne out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sslticket.campaign.agreement import Judge, Verdict, order_agreement
from sslticket.campaign.panel_values import name_rows, panel_values
from sslticket.campaign.panels import Between, Check, Gap, Matches, Ordering, Panel, Published, Ratio, Trend, Value
from sslticket.errors import BadInput
from sslticket.report.stats import holm_correction
from tests.campaign.made_rows import finding, frame, row, scored

SERIES = {
    "labels": {"objective": "supervised", "control": "ticket"},
    "RotNet": {"objective": "rotnet", "control": "ticket"},
    "random": {"control": "random"},
}
PANEL = Panel(title="accuracy", series=SERIES)
DENSE = [0.90, 0.91, 0.90, 0.92, 0.91, 0.90]
LABELS = {1.0: DENSE, 0.25: [0.86, 0.87, 0.85, 0.88, 0.86, 0.87], 0.0625: [0.80, 0.81, 0.79, 0.82, 0.80, 0.81]}
ROTNET = {1.0: DENSE, 0.25: [0.84, 0.85, 0.84, 0.86, 0.85, 0.84], 0.0625: [0.80, 0.82, 0.80, 0.82, 0.79, 0.82]}
RANDOM = {0.25: [0.70, 0.72, 0.71, 0.69, 0.73, 0.70], 0.0625: [0.50, 0.52, 0.51, 0.49, 0.53, 0.50]}


def rows(**others: Any) -> pd.DataFrame:
    told = {"supervised": LABELS, "rotnet": ROTNET, "random": RANDOM} | others
    controls = {"random": "random"}
    return frame(
        *(
            scored("supervised" if name in controls else name, values, control=controls.get(name, "ticket"))
            for name, values in told.items()
        )
    )


def judge(panel: Panel, told: pd.DataFrame, *checks: Check, scale: str = "paper", paper: str = "003") -> list[Verdict]:
    values = panel_values(panel, name_rows(told, panel.x))
    return Judge([values], paper=paper, scale=scale).verdicts([finding(check) for check in checks])


def lines(panel: Panel, told: pd.DataFrame, scale: str = "paper", paper: str = "003") -> list[str]:
    values = panel_values(panel, name_rows(told, panel.x))
    return list(Judge([values], paper=paper, scale=scale).agreement_lines(values))


@pytest.mark.parametrize(
    ("theirs", "ours", "tau"),
    [
        # Of 6 pairs of four, all are in order; 5 are and 1 is not; 2 are and 4 are not.
        ([4, 3, 2, 1], [0.9, 0.8, 0.7, 0.6], 1.0),
        ([4, 3, 2, 1], [0.9, 0.8, 0.6, 0.7], (5 - 1) / 6),
        ([4, 3, 2, 1], [0.6, 0.7, 0.9, 0.8], (1 - 5) / 6),
        # Of 3 pairs one is tied by the paper: (2 - 0) / sqrt((3 - 1) * 3).
        ([2, 2, 1], [0.9, 0.8, 0.7], 2 / np.sqrt(2 * 3)),
        ([2, 1], [0.7, 0.9], -1.0),
        ([2, 1], [0.7, 0.7], None),
        ([1], [0.7], None),
    ],
)
def test_kendalls_tau_is_that_of_the_pairs(theirs, ours, tau) -> None:
    assert order_agreement(theirs, ours) == (None if tau is None else pytest.approx(tau))


def test_the_order_of_series_is_compared_at_each_place_that_they_share() -> None:
    panel = Panel(title="accuracy", series=SERIES, order=("labels", "RotNet", "random"))
    [line] = lines(panel, rows())
    # At 25% all three pairs are in order; at 6.25% RotNet (80.8) is above labels (80.5): 2 are and 1 is not.
    assert "labels > RotNet > random: mean 0.67 over 2 (1.00 at 25%, 0.33 at 6.25%)" in line
    [line] = lines(
        Panel(title="accuracy", series=SERIES, order=("labels", "RotNet"), order_at=Between(high=0.1)), rows()
    )
    assert "mean -1.00 over 1 (-1.00 at 6.25%)" in line


def test_an_ordering_is_borne_out_where_every_pair_differs() -> None:
    [verdict] = judge(PANEL, rows(), Ordering(series=(("labels", "RotNet"), "random")))
    assert verdict.verdict == "borne out"
    # Six searches of each side can be dealt in 924 ways, and only two are as far apart.
    assert verdict.p == pytest.approx(2 / 924)
    means = [np.mean([LABELS[0.25], LABELS[0.0625]], axis=0), np.mean([RANDOM[0.25], RANDOM[0.0625]], axis=0)]
    ends = stats.ttest_ind(*means, equal_var=False).confidence_interval()
    assert f"labels less random +{100 * (means[0] - means[1]).mean():.3g} points" in verdict.numbers
    assert f"({100 * ends.low:+.3g} to {100 * ends.high:+.3g}), 6 against 6" in verdict.numbers


def test_places_where_an_ordering_is_the_other_way_are_told() -> None:
    """A series may be better on the mean over places, and worse at one of them."""
    [verdict] = judge(PANEL, rows(), Ordering(series=("labels", "RotNet")))
    wide, narrow = (100 * (np.mean(LABELS[x]) - np.mean(ROTNET[x])) for x in (0.25, 0.0625))
    assert wide + narrow > 0 > narrow
    assert verdict.numbers.startswith(f"labels less RotNet {(wide + narrow) / 2:+.3g} points (")
    assert f") on the mean of 2 places, but {narrow:+.3g} points at 6.25%, 6 against 6" in verdict.numbers
    [verdict] = judge(PANEL, rows(), Ordering(series=("labels", "RotNet"), at=Between(low=0.2)))
    assert "places" not in verdict.numbers
    up, down = [0.8, 0.82], [0.7, 0.72]
    many = {place / 10: up if place < 6 else down for place in range(1, 10)}
    told = rows(supervised=many, rotnet={x: down if y == up else up for x, y in many.items()}, random={})
    [verdict] = judge(PANEL, told, Ordering(series=("labels", "RotNet")))
    assert "on the mean of 9 places, but the other way at 4 of them, 2 against 2" in verdict.numbers


def test_an_ordering_is_not_borne_out_where_a_pair_is_the_other_way_round() -> None:
    [verdict] = judge(PANEL, rows(), Ordering(series=("random", "labels")))
    assert (verdict.verdict, verdict.p) == ("not borne out", pytest.approx(2 / 924))


def test_the_p_of_several_findings_are_corrected_together() -> None:
    checks = [
        Ordering(series=("labels", "random")),
        Ordering(series=("labels", "RotNet"), at=Between(low=0.2)),
        Ordering(series=("labels", "RotNet"), at=Between(high=0.1)),
    ]
    alone = [judge(PANEL, rows(), check)[0].p for check in checks]
    together = [verdict.p for verdict in judge(PANEL, rows(), *checks)]
    assert together == pytest.approx(list(holm_correction(np.array(alone))))
    assert together[0] == pytest.approx(3 * 2 / 924)


def test_likeness_needs_an_interval_within_the_margin_and_a_series_that_was_told_apart() -> None:
    at = Between(high=0.1)
    near, far = Gap(series=("labels", "RotNet"), at=at, low=-0.03, high=0.03), Gap(series=("labels", "random"), at=at,
                                                                                  low=-0.03, high=0.03)  # fmt: skip
    like, unlike = judge(PANEL, rows(), near, far)
    assert (like.verdict, unlike.verdict) == ("borne out", "not borne out")
    # Tighter than the interval: nothing can be said.
    [tight] = judge(PANEL, rows(), Gap(series=("labels", "RotNet"), at=at, low=-0.005, high=0.005))
    assert tight.verdict == "cannot be told"
    assert tight.why == "neither it nor its contrary is shown at 5%"


def test_likeness_shows_nothing_where_random_tickets_are_as_good() -> None:
    easy = rows(random={0.0625: [0.80, 0.81, 0.79, 0.81, 0.80, 0.80]})
    check = Gap(series=("labels", "RotNet"), at=Between(high=0.1), low=-0.03, high=0.03)
    [verdict] = judge(PANEL, easy, check)
    assert verdict.verdict == "cannot be told"
    assert "random cannot be told from labels" in verdict.why
    assert "could not have failed" in verdict.why
    alone = Panel(title="accuracy", series={name: SERIES[name] for name in ("labels", "RotNet")})
    [verdict] = judge(alone, rows(), check)
    assert "no control in this panel" in verdict.why


def test_a_gap_that_is_stated_is_found_or_refuted_by_its_published_bounds() -> None:
    published = Published(drawn="note", place="section 4.2", quantity="gap_points")
    wide = rows(rotnet={0.25: [0.84, 0.845, 0.83, 0.85, 0.84, 0.845]})  # 2.3 points below
    check = Gap(series=("labels", "RotNet"), at=Between(low=0.2), published=published)
    [verdict] = judge(PANEL, wide, check, paper="002")
    assert verdict.verdict == "borne out"
    assert "stated 1% to 4%" in verdict.numbers
    [verdict] = judge(PANEL, rows(rotnet={0.25: [0.73, 0.74, 0.73, 0.75, 0.74, 0.73]}), check, paper="002")
    assert verdict.verdict == "not borne out"


def test_tickets_match_the_dense_network_where_no_place_is_worse_by_the_margin() -> None:
    check = Matches(series="labels", at=Between(low=0.2), margin=0.06)
    [verdict] = judge(PANEL, rows(), check)
    assert verdict.verdict == "borne out"
    loss = 100 * (np.mean(LABELS[0.25]) - np.mean(DENSE))
    assert f"labels less dense, the least of 1 places: {loss:+.3g} points" in verdict.numbers
    [verdict] = judge(PANEL, rows(), Matches(series="labels", margin=0.06))
    assert verdict.verdict == "not borne out"  # 10 points are lost at 6.25%


def stability(distances: dict[str, list[float]]) -> pd.DataFrame:
    return frame(
        [
            row(kind="stability", control=control, replicate=None if control == "ticket" else seed, search_seed=seed,
                top1=0.8, dense_top1=0.9, order_distance=value, order_angle=30.0, pruning_distance=1.0,
                pruning_angle=40.0)
            for control, values in distances.items()
            for seed, value in enumerate(values)
        ]
    )  # fmt: skip


STABLE = Panel(
    title="stability", kind="table", rows="stability", columns={"data order": "order_distance"},
    series={"IMP": {"control": "ticket"}, "random": {"control": "local"}},
    published=[
        Published(drawn="cells", place="Figure 3 table", network="Lenet", method="IMP ticket",
                  quantity="order_distance", series="IMP", column="data order"),
        Published(drawn="cells", place="Figure 3 table", network="Lenet", method="random",
                  quantity="order_distance", series="random", column="data order"),
    ],
)  # fmt: skip


def test_a_ratio_is_that_of_geometric_means_and_rounds_to_the_published_one() -> None:
    told = stability({"ticket": [20, 20.1, 19.9, 20, 20.1, 19.9], "local": [56, 56.1, 55.9, 56, 56.1, 55.9]})
    published = Published(drawn="note", place="Figure 3 table", network="Lenet", quantity="order_distance_ratio")
    check = Ratio(column="data order", series=("random", "IMP"), published=published)
    [verdict] = judge(STABLE, told, check)
    assert verdict.verdict == "borne out"
    assert "random over IMP 2.8 (2.7" in verdict.numbers
    [verdict] = judge(STABLE, told, Ratio(column="data order", series=("random", "IMP"), high=1.1))
    assert verdict.verdict == "not borne out"


def test_stability_is_beside_the_dense_network_that_its_own_row_has() -> None:
    columns = {"top-1": "top1", "gain": "gain_on_dense"}
    panel = replace(STABLE, columns=columns, published=())
    told = stability({"ticket": [20.0] * 6, "local": [56.0] * 6})
    dense, gains = 0.8 + 0.001 * told["search_seed"], {"ticket": 0.02, "local": -0.1}
    told = told.assign(dense_top1=dense, top1=dense + told["control"].map(gains) + 0.0002 * told["search_seed"])
    [verdict] = judge(panel, told, Matches(series="IMP", column="top-1", contrast="random"))
    assert verdict.verdict == "borne out"
    assert "IMP less dense, the least of 1 places: +2.05 points (" in verdict.numbers
    assert judge(panel, told, Matches(series="random", column="top-1", contrast="IMP"))[0].verdict == "not borne out"
    [verdict] = judge(panel, told, Ordering(series=("IMP", "random"), column="gain"))
    assert "IMP less random +12 points (" in verdict.numbers


def test_the_share_of_published_values_inside_our_interval_is_told_at_their_scale_only() -> None:
    told = stability({"ticket": [20, 21, 22, 20, 21, 22], "local": [40, 41, 42, 40, 41, 42]})
    mean, reach = 21, stats.t.ppf(0.975, 5) * np.std([20, 21, 22] * 2, ddof=1) / np.sqrt(6)
    assert mean - reach <= 20.7 <= mean + reach
    assert not 41 - reach <= 58.6 <= 41 + reach
    assert lines(STABLE, told) == [
        "stability: data order: Kendall's tau with the published values 1.00 over 2 lines",
        "stability: 1 of 2 published values inside our 95% interval (50%)",
    ]
    assert lines(STABLE, told, scale="small")[1] == "stability: 2 published values not compared: other scale"


def test_a_number_of_the_papers_own_networks_is_told_at_their_scale_only() -> None:
    check = Value(series="labels", at=Between(low=0.2), low=0.8)
    for scale, expected in (("paper", "borne out"), ("small", "cannot be told")):
        assert judge(PANEL, rows(), check, scale=scale)[0].verdict == expected
    [verdict] = judge(PANEL, rows(), Value(series="random", low=0.6))
    assert verdict.verdict == "not borne out"
    assert "at 6.25%, n = 6" in verdict.numbers


def slopes(values: dict[float, list[float]]) -> list[float]:
    """What each search gains from place to place, by least squares."""
    rising = [values[x] for x in sorted(values)]
    return [float(np.polyfit(range(len(rising)), own, 1)[0]) for own in zip(*rising, strict=True)]


def test_a_trend_is_that_of_the_slopes_of_the_searches() -> None:
    [verdict] = judge(PANEL, rows(), Trend(series="labels", rising=True))
    assert verdict.verdict == "cannot be told"  # two densities below the dense network
    more = {1.0: DENSE, 0.5: [0.88, 0.89] * 3, 0.25: [0.86] * 6, 0.125: [0.82, 0.81, 0.83] * 2}
    [verdict] = judge(PANEL, rows(supervised=more), Trend(series="labels", rising=True))
    own = slopes({x: more[x] for x in (0.5, 0.25, 0.125)})
    assert (verdict.verdict, verdict.p) == ("borne out", pytest.approx(stats.ttest_1samp(own, 0).pvalue))
    low, high = stats.t.interval(0.95, 5, loc=np.mean(own), scale=stats.sem(own))
    told = f"labels {100 * np.mean(own):+.3g} points ({100 * low:+.3g} to {100 * high:+.3g}) from place to place"
    assert told in verdict.numbers
    assert "of the 3 on density, 6 searches" in verdict.numbers
    [verdict] = judge(PANEL, rows(supervised=more), Trend(series="labels", rising=False))
    assert verdict.verdict == "not borne out"


def test_two_searches_that_go_apart_show_no_trend_however_many_places_they_have() -> None:
    densities = [0.5, 0.35, 0.25, 0.18, 0.125]
    apart = {x: [0.8 + 0.02 * place, 0.8 - 0.01 * place] for place, x in enumerate(densities)}
    [verdict] = judge(PANEL, rows(supervised=apart, random={}), Trend(series="labels", rising=True))
    assert (verdict.verdict, verdict.why) == ("cannot be told", "neither it nor its contrary is shown at 5%")
    assert verdict.p == pytest.approx(stats.ttest_1samp([0.02, -0.01], 0).pvalue)


def test_searches_that_all_have_the_same_value_are_no_certainty() -> None:
    same = {0.5: [0.8] * 2, 0.25: [0.7] * 2, 0.125: [0.6] * 2}
    [verdict] = judge(PANEL, rows(supervised=same, random={}), Trend(series="labels", rising=True))
    assert (verdict.verdict, verdict.p) == ("cannot be told", 0.5)


def test_a_gap_has_a_trend_by_the_searches_for_which_controls_were_drawn() -> None:
    better = {0.5: [0.89, 0.88, 0.9], 0.25: [0.86, 0.85, 0.87], 0.125: [0.8, 0.81, 0.82]}
    worse = {0.5: [0.85, 0.86, 0.85], 0.25: [0.78, 0.8, 0.77], 0.125: [0.6, 0.62, 0.61]}
    told = rows(supervised=better, random=worse)
    [verdict] = judge(PANEL, told, Trend(series="labels", less="random", rising=False))
    own = slopes({x: [a - b for a, b in zip(better[x], worse[x], strict=True)] for x in better})
    assert (verdict.verdict, verdict.p) == ("borne out", pytest.approx(stats.ttest_1samp(own, 0).pvalue))
    assert f"labels less random {100 * np.mean(own):+.3g} points" in verdict.numbers


def test_a_gap_beyond_its_bounds_needs_no_more_searches_than_one_within() -> None:
    """Thirteen statements: the least p of six against six, 2/924, stays below 5% after Holm's correction."""
    far = Gap(series=("labels", "RotNet"), low=-0.01, high=0.01)
    worse = {x: [each - 0.06 for each in own] for x, own in LABELS.items() if x < 1}
    verdicts = judge(PANEL, rows(rotnet=worse), *[far] * 13)
    assert {each.verdict for each in verdicts} == {"not borne out"}
    assert verdicts[0].p == pytest.approx(13 * 2 / 924)


def test_what_is_shown_by_itself_only_says_so() -> None:
    alike = {0.25: [0.852, 0.858, 0.849, 0.862, 0.851, 0.853], 0.0625: [0.784, 0.79, 0.78, 0.80, 0.79, 0.793]}
    alone, *_ = judge(PANEL, rows(rotnet=alike), Ordering(series=("labels", "RotNet")))
    assert alone.p < 0.05
    beside, *_ = judge(PANEL, rows(rotnet=alike), *[Ordering(series=("labels", "RotNet"))] * 20)
    assert (beside.verdict, alone.verdict) == ("cannot be told", "borne out")
    why = f"is shown by itself (p = {alone.p:.2g}), not beside the figure's other findings"
    assert beside.why == f"it {why}"
    contrary, *_ = judge(PANEL, rows(rotnet=alike), *[Ordering(series=("RotNet", "labels"))] * 20)
    assert (
        contrary.why == f"its contrary is shown by itself (p = {alone.p:.2g}), not beside the figure's other findings"
    )


def test_a_pair_the_other_way_round_is_corrected_though_another_pair_has_too_few_searches() -> None:
    """The least p of a statement is that of whichever of its parts could decide it (Tarone 1990)."""
    values = panel_values(PANEL, name_rows(rows(random={x: own[:2] for x, own in RANDOM.items()}), "density"))
    check = Ordering(series=("RotNet", "labels", "random"))
    alone, *_ = Judge([values], paper="003").verdicts([finding(check)])
    beside, *_ = Judge([values], paper="003").verdicts([finding(check)] * 4)
    assert (alone.p > 0, beside.p) == (True, pytest.approx(min(1.0, 4 * alone.p)))


@pytest.mark.parametrize(
    ("told", "check", "why"),
    [
        ({"supervised": {0.25: [0.9]}, "random": {0.25: [0.1]}}, Ordering(series=("labels", "random")), "one search"),
        ({"random": {}}, Ordering(series=("labels", "random")), "there are no rows of random"),
        ({"random": {0.5: [0.1, 0.2]}}, Ordering(series=("labels", "random")), "share no place on density"),
        ({}, Ordering(series=("labels", "random"), at=Between(high=0.01)), "no rows where the statement is about"),
        ({"supervised": {0.25: [0.9, 0.91]}, "random": {0.25: [0.1, 0.2]}}, Ordering(series=("labels", "random")),
         "so few searches cannot reach p below 5%"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_says_why(told, check, why) -> None:
    [verdict] = judge(PANEL, rows(**told), check)
    assert verdict.verdict == "cannot be told"
    assert why in verdict.why
    assert why in verdict.line


def test_two_fronts_are_compared_at_the_places_of_each_other() -> None:
    """Each has the best that its search found at most as dense, wherever both have found something."""
    labels = {0.5: [0.90, 0.91, 0.92, 0.90, 0.93, 0.91], 0.2: [0.86, 0.87, 0.85, 0.88, 0.86, 0.87]}
    rotnet = {0.4: [0.84, 0.85, 0.84, 0.86, 0.85, 0.84], 0.1: [0.70, 0.72, 0.71, 0.69, 0.73, 0.70]}
    fronts = Panel(
        title="accuracy", kind="front", series=SERIES, fronts=["labels", "RotNet"], order=("labels", "RotNet")
    )
    told = rows(supervised=labels, rotnet=rotnet, random={})
    [verdict] = judge(fronts, told, Ordering(series=("labels", "RotNet")))
    # At 50, 40 and 20% of the weights; at 10% there is nothing of labels.
    best = np.mean([labels[0.5], labels[0.2], labels[0.2]], axis=0), np.mean([rotnet[0.4]] * 2 + [rotnet[0.1]], axis=0)
    assert f"labels less RotNet {100 * (best[0] - best[1]).mean():+.3g} points" in verdict.numbers
    assert verdict.p == pytest.approx(stats.permutation_test(best, lambda a, b: np.mean(a) - np.mean(b)).pvalue)
    assert verdict.verdict == "borne out"
    [line] = lines(fronts, told)
    assert "mean 1.00 over 3 (1.00 at 50%, 1.00 at 40%, 1.00 at 20%)" in line


def test_a_trial_bears_nothing_out() -> None:
    [verdict] = judge(PANEL, rows(), Ordering(series=("labels", "random")), scale="trial")
    assert verdict.verdict == "cannot be told"
    assert "trial" in verdict.why


def test_series_of_the_same_trainings_could_not_have_differed() -> None:
    again = {"search": "IMP", "objective": "supervised"}
    twice = Panel(title="accuracy", series={"labels": SERIES["labels"], "IMP": again, "random": SERIES["random"]})
    [verdict] = judge(twice, rows(), Gap(series=("labels", "IMP"), low=-0.01, high=0.01))
    assert verdict.verdict == "cannot be told"
    assert "the same trainings" in verdict.why


def test_rows_of_searches_are_of_different_trainings() -> None:
    told = {"supervised": [0.8, 0.81, 0.79, 0.82, 0.8, 0.83], "rotnet": [0.7, 0.71, 0.72, 0.69, 0.7, 0.73]}
    levels = [
        row(kind="level", control=None, probe={}, bad_images=0, search_samples=1, level=1, density=0.25,
            objective=objective, search_seed=seed, metrics={"top1": top1})
        for objective, own in told.items()
        for seed, top1 in enumerate(own)
    ]  # fmt: skip
    series = {name: {"objective": SERIES[name]["objective"]} for name in ("labels", "RotNet")}
    panel = Panel(title="accuracy", rows="level", y="metrics.top1", series=series)
    [verdict] = judge(panel, frame(levels), Ordering(series=("labels", "RotNet")))
    assert (verdict.verdict, verdict.p) == ("borne out", pytest.approx(2 / 924))


def test_a_check_of_what_is_not_in_the_figure_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown panel 'speed'"):
        judge(PANEL, rows(), Ordering(panel="speed", series=("labels", "random")))
    with pytest.raises(BadInput, match="unknown series of the panel 'accuracy' 'label'; did you mean labels"):
        judge(PANEL, rows(), Ordering(series=("label", "random")))
