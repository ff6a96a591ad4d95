"""Charts of scores and of searches: top-1 against density and against cost, transfer, and what the networks learned."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from sslticket.report import text
from sslticket.report.chart import Axis, Chart, Curve, HeatMap, Point
from sslticket.report.sections import DENSITY_AXIS, mean_curves
from sslticket.report.stats import is_random_series
from sslticket.report.verdicts import Verdict


def panel_slug(panel: pd.DataFrame) -> str:
    """What a panel is of, for names of files: "conv3-cifar10-small", with the target where the protocol hides it."""
    first = panel.iloc[0]
    told = [each for each in (first["model"], first["target"]) if each not in first["protocol"]]
    return "-".join(filter(None, [*told, first["within"], first["protocol"], first["condition"]]))


def _panel_title(panel: pd.DataFrame) -> str:
    return f"{text.describe_panel(panel)} under {panel['protocol'].iloc[0]}"


def accuracy_chart(panel: pd.DataFrame, searches: pd.DataFrame, verdicts: Mapping[str, Verdict]) -> Chart:
    """Top-1 of each series of a panel against density: means, with a band of one standard deviation over searches.

    Args:
        panel: Rows of `stats.summarize` of one protocol, target and model.
        searches: Rows of `stats.means_of_searches` of it, each of which is a dot where they are several.
        verdicts: Of `verdicts.judge_panel`, whose densities are marked.
    """
    dots: dict[str, list[tuple[float, float]]] = {}
    for name, *place in zip(*(searches[key].tolist() for key in ("series", "density", "top1")), strict=True):
        dots.setdefault(name, []).append((place[0], 100 * place[1]))
    points: dict[str, list[Point]] = {}
    for row in panel[["series", *_POINT_KEYS]].to_dict("records"):
        verdict = verdicts.get(row["series"])
        badges = verdict.badges(row["density"]) if verdict and row["control"] == "ticket" else ()
        points.setdefault(row["series"], []).append(_accuracy_point(row["series"], row, badges))
    curves = [
        Curve(name, tuple(own), dots=tuple(dots[name]) if len(dots.get(name, ())) > len(own) else ())
        for name, own in points.items()
    ]
    dense = panel[(panel["density"] == 1) & (panel["control"] == "ticket")]
    of = f", {dense['series'].iloc[0]}" if len(dense) > 1 else ""
    return Chart(
        name=f"top1-by-density-{panel_slug(panel)}",
        title=f"{_panel_title(panel)}: top-1 against density",
        x=DENSITY_AXIS,
        y=Axis(f"top-1 on {panel['target'].iloc[0]}, %"),
        curves=tuple(curves),
        horizontal_line=(100 * float(dense["top1"].iloc[0]), f"dense{of}") if len(dense) else None,
        y_bounds=(0, 100),
    )


_POINT_KEYS = ["density", "top1", "top1_sd", "low", "high", "n", "what", "trainings", "effective", "cut", "control"]


def error_chart(accuracy: Chart) -> Chart:
    """The same as an error on a logarithmic axis, on which equal ratios are equally far apart."""

    def turned(point: Point) -> Point:
        return replace(point, y=100 - point.y, low=100 - point.high, high=100 - point.low)

    curves = tuple(
        replace(
            curve,
            points=tuple(turned(point) for point in curve.points if point.y < 100),
            dots=tuple((x, 100 - y) for x, y in curve.dots if y < 100),
        )
        for curve in accuracy.curves
    )
    line = accuracy.horizontal_line
    return replace(
        accuracy,
        name=accuracy.name.replace("top1-", "error-", 1),
        title=accuracy.title.replace("top-1 against", "top-1 error against"),
        y=Axis(accuracy.y.label.replace("top-1 on", "top-1 error on").replace(", %", ", % (log scale)"), log=True),
        curves=tuple(curve for curve in curves if curve.points),
        horizontal_line=None if line is None or line[0] >= 100 else (100 - line[0], line[1]),
    )


def _accuracy_point(series: str, row: dict[Any, Any], badges: tuple[str, ...]) -> Point:
    mean, sd = 100 * row["top1"], 100 * row["top1_sd"]
    at = f"{series} at {text.format_percent(row['density'])}%: {text.format_mean_sd(row['top1'], row['top1_sd'])}%"
    interval = "" if math.isnan(row["low"]) else f", 95% interval {100 * row['low']:.1f} to {100 * row['high']:.1f}%"
    sample = text.format_sample_size(row["n"], row["what"], row["trainings"])
    warning = text.disconnection_warning(row["effective"], row["cut"], row["n"])
    marks = "".join(f"; {_BADGE_WORDS[each]}" for each in badges)
    return Point(row["density"], mean, f"{at}{interval}, {sample}{warning}{marks}", mean - sd, mean + sd, badges=badges)


_BADGE_WORDS = {
    "error": "matching within one standard error",
    "error+": "winning within one standard error",
    "point": "matching within 1 point",
    "point+": "winning within 1 point",
}


def difference_chart(found: pd.DataFrame) -> Chart:
    """What each series gains on its reference at each density, with the 95% interval as a band.

    Args:
        found: Rows of `stats.compare_series` of one panel, all against supervised or all against random tickets.
    """
    points: dict[str, list[Point]] = {}
    keys = ["series", "against", "density", "difference", "low", "high", "verdict", "why"]
    for row in found[keys].to_dict("records"):
        at = f"{row['series']} minus {row['against']} at {text.format_percent(row['density'])}%"
        interval = f"95% interval {text.format_interval(row['low'], row['high'])}"
        tooltip = f"{at}: {text.format_points(row['difference'])} points, {interval}: {text.format_verdict(row)}"
        point = Point(row["density"], 100 * row["difference"], tooltip, 100 * row["low"], 100 * row["high"])
        points.setdefault(row["series"], []).append(point)
    against = _reference(found)
    return Chart(
        name=f"top1-minus-{against}-{panel_slug(found)}",
        title=f"{_panel_title(found)}: top-1 minus that of {against} tickets",
        x=DENSITY_AXIS,
        y=Axis(f"top-1 minus {against}, points"),
        curves=tuple(Curve(name, tuple(own)) for name, own in points.items()),
        horizontal_line=(0.0, against),
    )


def _reference(found: pd.DataFrame) -> str:
    return "random" if found["against"].map(is_random_series).all() else "supervised"


def difference_map(found: pd.DataFrame) -> HeatMap:
    """The same as a table: series down, densities across, shaded by how far above or below the reference they are.

    Args:
        found: Rows of `stats.compare_series`, as in `difference_chart`.
    """
    densities = sorted(found["density"].unique(), reverse=True)
    greatest = float(found["difference"].abs().max()) or 1.0
    cells: dict[str, dict[float, tuple[str, float]]] = {}
    for row in found[["series", "density", "difference", "verdict"]].to_dict("records"):
        shown = text.format_points(row["difference"]) + "*" * (row["verdict"] in ("more", "less"))
        cells.setdefault(row["series"], {})[row["density"]] = shown, row["difference"] / greatest
    against = _reference(found)
    return HeatMap(
        name=f"map-top1-minus-{against}-{panel_slug(found)}",
        title=f"{_panel_title(found)}: top-1 minus {against}, points (* differs at 5%)",
        corner="weights that remain",
        rows=tuple(cells),
        columns=tuple(f"{text.format_percent(each)}%" for each in densities),
        cells=tuple(tuple(own.get(each) for each in densities) for own in cells.values()),
        of_differences=True,
    )


def transfer_maps(summary: pd.DataFrame) -> Iterator[tuple[float, HeatMap]]:
    """For each model that several protocols scored, and each density, sparsest last: tickets down, protocols across.

    A column is shaded from its least to its greatest mean, since targets are not equally hard.
    """
    main = summary[summary["control"].isin(["ticket", "random"])]
    for number, ((network, within), own) in enumerate(main.groupby(["model", "within"])):
        model, suffix = text.describe_network(str(network), str(within)), f"-{number}" if within else ""
        own = own.assign(protocol=_protocol_columns(own))
        if own["protocol"].nunique() < 2:
            continue
        # All matrices of a model have the same shape, so that the eye keeps its place from one to the next.
        series, protocols = own["series"].unique(), own["protocol"].unique()
        for density, here in sorted(own.groupby("density"), key=lambda each: -float(str(each[0]))):
            weights = text.format_percent(float(str(density)))
            yield (
                float(str(density)),
                HeatMap(
                    name=f"transfer-{network}{suffix}-{weights}",
                    title=f"{model} with {weights}% of its weights: top-1 in %",
                    corner="tickets",
                    rows=tuple(series),
                    columns=tuple(protocols),
                    cells=_transfer_cells(here, list(series), list(protocols)),
                ),
            )


def _protocol_columns(own: pd.DataFrame) -> "pd.Series[str]":
    """The names of the columns: protocols, with the target where one has several, and what else tells panels apart."""
    targets = own.groupby("protocol")["target"].transform("nunique") > 1
    return own["protocol"] + (" on " + own["target"]).where(targets, "") + own["condition"].map(text.add_condition)


def _transfer_cells(
    here: pd.DataFrame, series: Sequence[str], protocols: Sequence[str]
) -> tuple[tuple[tuple[str, float] | None, ...], ...]:
    ends = here.groupby("protocol")["top1"].agg(["min", "max"])
    cells = {}
    for row in here.to_dict("records"):
        low, high = ends.loc[row["protocol"]]
        shade = (row["top1"] - low) / (high - low) if high > low else 0.5
        cells[row["series"], row["protocol"]] = (text.format_mean_sd(row["top1"], row["top1_sd"]), float(shade))
    return tuple(tuple(cells.get((name, protocol)) for protocol in protocols) for name in series)


def fullest_map_index(matrices: Sequence[tuple[float, HeatMap]]) -> int:
    """The index of the matrix to show first: the sparsest of those with the most cells filled."""
    filled = [sum(cell is not None for line in heat.cells for cell in line) for _, heat in matrices]
    return max(range(len(matrices)), key=lambda index: (filled[index], -matrices[index][0]))


COST_AXES = {
    "forward_images": Axis("images through the network (log scale)", "count", log=True),
    "samples": Axis("source images seen by the search (log scale)", "count", log=True),
    "seconds": Axis("time of the search's trainings (log scale)", "seconds", log=True),
    "epochs": Axis("epochs of the search (log scale)", "count", log=True),
    "steps": Axis("steps of the search (log scale)", "count", log=True),
}
COST_NAMES = {
    "forward_images": "images through the network",
    "samples": "source images",
    "seconds": "time",
    "epochs": "epochs",
    "steps": "steps",
}
"""What a search cost: a source image goes through the network once for each of its views, four times for RotNet."""
TRAINED_DENSITY_AXIS = Axis("weights of the network that was trained (log scale)", "density", log=True)


def level_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The level rows of a frame of `stats.name_series`, each once, with the cost of the search up to each of them.

    Returns:
        The rows with `cost_forward_images` and `cost_epochs` (missing for older rows), `cost_samples`, `cost_seconds`
            and `cost_steps`, summed over the trainings that led to the ticket, and with `trained`: the density of the
            network whose training found it, which `loss`, `metrics` and `probe` are of, as the row tells, else that of
            the level before. It is missing for level 0, the steps up to W_k.
    """
    search = ["tickets", "run"]
    own = frame[frame["kind"] == "level"].drop_duplicates([*search, "level"]).sort_values([*search, "level"])
    runs = own.groupby(search)
    before = runs["density"].shift().where(runs["level"].diff() == 1)
    # The density of a level may be a mean over searches, to which that of a single one is no neighbour.
    known = own[[*search, "trained_level"]].merge(
        own[[*search, "level", "density"]].rename(columns={"level": "trained_level"}),
        on=[*search, "trained_level"],
        how="left",
    )
    trained = pd.Series(known["density"].to_numpy(float), own.index).fillna(own["trained_density"].astype(float))
    return own.assign(
        cost_forward_images=own["search_forward_images"].astype(float),
        cost_samples=own["search_samples"].astype(float),
        cost_epochs=own["search_epochs"].astype(float),
        cost_seconds=runs["seconds"].cumsum(),
        cost_steps=runs["steps"].cumsum(),
        trained=trained.fillna(before).where(own["level"] > 0),
    )


def mean_costs(levels: pd.DataFrame) -> pd.DataFrame:
    """Mean cost of a ticket over the searches of a recipe: one row per model, tickets and density.

    A cost that one of the searches does not tell is missing.
    """
    keys = ["model", "tickets", "density"]
    found = {f"cost_{unit}": (f"cost_{unit}", lambda each: each.mean(skipna=False)) for unit in COST_AXES}
    return levels.groupby(keys, as_index=False).agg(**found)


def cost_charts(panel: pd.DataFrame, costs: pd.DataFrame, highlighted: float) -> Iterator[tuple[str, Chart]]:
    """Top-1 of each ticket against the cost of the search up to it, for each unit of cost; none where no row tells.

    Args:
        panel: Rows of `stats.summarize` of one protocol, target and model.
        costs: Frame of `mean_costs`.
        highlighted: Density whose points are ringed.
    """
    keys = ["model", "tickets", "density", "series", "top1", "top1_sd"]
    own = panel.loc[panel["control"] == "ticket", keys].merge(costs, on=["model", "tickets", "density"])
    rows = own.to_dict("records")
    for unit, axis in COST_AXES.items():
        points: dict[str, list[Point]] = {}
        for row in rows:
            # A search that rewinds to its initialisation pays nothing for its first ticket, and a log axis has no 0.
            if not row[f"cost_{unit}"] > 0:
                continue
            at, mean = text.format_percent(row["density"]), text.format_mean_sd(row["top1"], row["top1_sd"])
            cost = axis.format(row[f"cost_{unit}"]) + ("" if unit == "seconds" else f" {COST_NAMES[unit]}")
            tooltip = f"{row['series']} at {at}%: {mean}% after {cost}"
            ringed = row["density"] == highlighted
            point = Point(row[f"cost_{unit}"], 100 * row["top1"], tooltip, highlighted=ringed)
            points.setdefault(row["series"], []).append(point)
        if points:
            title = f"{_panel_title(panel)}: top-1 against the search's {COST_NAMES[unit]}"
            y = Axis(f"top-1 on {panel['target'].iloc[0]}, %")
            curves = tuple(Curve(name, tuple(each)) for name, each in points.items())
            yield (
                unit,
                Chart(f"top1-by-{_COST_FILES[unit]}-{panel_slug(panel)}", title, axis, y, curves, y_bounds=(0, 100)),
            )


_COST_FILES = {unit: f"cost-in-{name.replace(' ', '-')}" for unit, name in COST_NAMES.items()}


def metric_charts(levels: pd.DataFrame) -> Iterator[Chart]:
    """Each measure that searches took of their own networks, and the probe's last value, against what was trained.

    Losses of different objectives are in no common unit, so each has a chart of its own.
    """
    trained = levels[levels["trained"].notna()]
    long = [
        (row["model"], name, _loss_of(name, row["objective"]), row["tickets"], row["unit"], row["trained"], value)
        for row in trained.to_dict("records")
        for name, value in _search_metrics(row["metrics"], row["probe"]).items()
    ]
    frame = pd.DataFrame(long, columns=["model", "metric", "of", "tickets", "unit", "trained", "value"])
    frame = frame.sort_values("tickets", kind="stable")
    axis = TRAINED_DENSITY_AXIS
    for (model, metric, of), own in frame.groupby(["model", "metric", "of"]):
        what = f"the trained network's {metric}"
        curves = mean_curves(own, "trained", axis, "value", what, by=("tickets",), row="ticket")
        # A band must not leave where values can be: accuracies are fractions.
        is_fraction = str(metric).startswith("top") or "accuracy" in str(metric)
        bounds = (0.0, 1.0) if is_fraction else (-math.inf, math.inf)
        title = f"{model}: {metric}" + (f" of {of}" if of else "")
        name = "-".join(filter(None, ["search", str(metric), str(of), str(model)]))
        yield Chart(name, title, axis, Axis(str(metric)), curves, y_bounds=bounds)


def _loss_of(metric: str, objective: str) -> str:
    """The objective that a measure is of, where those of two are in no common unit: losses and entropies."""
    return objective if any(word in metric for word in ("loss", "entropy")) else ""


def _search_metrics(metrics: dict[str, float], probe: object) -> dict[str, float]:
    last = list(probe.values())[-1:] if isinstance(probe, dict) else []
    return metrics | dict.fromkeys(["nearest neighbours"] * len(last), *last)


def probe_charts(levels: pd.DataFrame) -> Iterator[Chart]:
    """The probe's accuracy in the training of each search's densest network and, dashed, in that of its sparsest."""
    trained = levels[levels["trained"].notna() & levels["probe"].map(bool, na_action="ignore").eq(True)]
    for model, own in trained.groupby("model"):
        x, y = Axis("step of the training", "count"), Axis("nearest neighbours' accuracy, %")
        curves: list[Curve] = []
        for name, series in own.groupby("tickets"):
            ends = {series["trained"].max(): "", series["trained"].min(): "6 3"}
            for density, dash in sorted(ends.items(), reverse=True):
                at = f"{text.format_percent(density)}% of the weights"
                steps = _probe_steps(series[series["trained"] == density].assign(tickets=name))
                curves += mean_curves(
                    steps, "step", x, "value", "accuracy in %", by=("tickets",), dash=dash, label=at, row="ticket"
                )
        yield Chart(f"search-probe-{model}", f"{model}: probe during training", x, y, tuple(curves), y_bounds=(0, 100))


def _probe_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each value of each row's probe."""
    long = [
        (row["tickets"], row["unit"], int(step), 100 * value)
        for row in rows.to_dict("records")
        for step, value in row["probe"].items()
    ]
    return pd.DataFrame(long, columns=["tickets", "unit", "step", "value"])
