"""Charts of scores and of searches: top-1 against density and against cost, transfer, and what the networks learned."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from sslticket.report import text
from sslticket.report.chart import Axis, Chart, Curve, HeatMap, Point
from sslticket.report.sections import DENSITY_AXIS, mean_curves


def accuracy_chart(panel: pd.DataFrame, number: int) -> Chart:
    """Top-1 of each series of a panel against density: means, with a band of one standard deviation over searches.

    Args:
        panel: Rows of `stats.summarize` of one protocol, target and model.
        number: Number of the panel, for the chart's name.
    """
    curves = [
        Curve(str(name), tuple(_accuracy_point(str(name), row) for row in own.to_dict("records")))
        for name, own in panel[["series", *_POINT_KEYS]].groupby("series", sort=False)
    ]
    dense = panel[(panel["density"] == 1) & (panel["control"] == "ticket")]
    of = f", {dense['series'].iloc[0]}" if len(dense) > 1 else ""
    return Chart(
        name=f"accuracy-{number}",
        title=f"{text.describe_panel(panel)}: top-1 against density",
        x=DENSITY_AXIS,
        y=Axis(f"top-1 on {panel['target'].iloc[0]}, %"),
        curves=tuple(curves),
        horizontal_line=(100 * float(dense["top1"].iloc[0]), f"dense{of}") if len(dense) else None,
        y_bounds=(0, 100),
    )


_POINT_KEYS = ["density", "top1", "top1_sd", "low", "high", "n", "what", "trainings", "effective", "cut"]


def _accuracy_point(series: str, row: dict[Any, Any]) -> Point:
    mean, sd = 100 * row["top1"], 100 * row["top1_sd"]
    at = f"{series} at {text.format_percent(row['density'])}%: {text.format_mean_sd(row['top1'], row['top1_sd'])}%"
    interval = "" if math.isnan(row["low"]) else f", 95% interval {100 * row['low']:.1f} to {100 * row['high']:.1f}%"
    sample = text.format_sample_size(row["n"], row["what"], row["trainings"])
    warning = text.disconnection_warning(row["effective"], row["cut"], row["n"])
    return Point(row["density"], mean, f"{at}{interval}, {sample}{warning}", mean - sd, mean + sd)


def difference_chart(found: pd.DataFrame, number: int) -> Chart:
    """What each series gains on its reference at each density, with the 95% interval as a band.

    Args:
        found: Rows of `stats.compare_series` of one panel, all against supervised or all against random tickets.
        number: Number of the panel, for the chart's name.
    """
    curves = []
    for (name, against), own in found.groupby(["series", "against"], sort=False):
        points = []
        for row in own.to_dict("records"):
            at = f"{name} less {against} at {text.format_percent(row['density'])}%"
            interval = f"95% interval {text.format_interval(row['low'], row['high'])}"
            tooltip = f"{at}: {text.format_points(row['difference'])} points, {interval}: {text.format_verdict(row)}"
            ends = 100 * row["low"], 100 * row["high"]
            points.append(Point(row["density"], 100 * row["difference"], tooltip, *ends))
        curves.append(Curve(str(name), tuple(points)))
    against = "random" if (found["against"] == "random").all() else "supervised"
    return Chart(
        name=f"difference-{against}-{number}",
        title=f"{text.describe_panel(found)}: top-1 less that of {against} tickets",
        x=DENSITY_AXIS,
        y=Axis(f"top-1 less that of {against} tickets, points"),
        curves=tuple(curves),
        horizontal_line=(0.0, against),
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
    "steps": Axis("steps of the search (log scale)", "count", log=True),
}
COST_NAMES = {
    "forward_images": "images through the network",
    "samples": "source images",
    "seconds": "time",
    "steps": "steps",
}
"""What a search cost: a source image goes through the network once for each of its views, four times for RotNet."""
TRAINED_DENSITY_AXIS = Axis("weights of the network that was trained (log scale)", "density", log=True)


def level_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The level rows of a frame of `stats.name_series`, each once, with the cost of the search up to each of them.

    Returns:
        The rows with `cost_forward_images` (missing for older rows), `cost_samples`, `cost_seconds` and `cost_steps`,
            summed over the trainings that led to the ticket, and with `trained`: the density of the network whose
            training found it, which `loss`, `metrics` and `probe` are of, as the row tells, else that of the level
            before. It is missing for level 0, the steps up to W_k.
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


def cost_charts(
    panel: pd.DataFrame, costs: pd.DataFrame, number: int, highlighted: float
) -> Iterator[tuple[str, Chart]]:
    """Top-1 of each ticket against the cost of the search up to it, for each unit of cost; none where no row tells.

    Args:
        panel: Rows of `stats.summarize` of one protocol, target and model.
        costs: Frame of `mean_costs`.
        number: Number of the panel, for the charts' names.
        highlighted: Density whose points are ringed.
    """
    own = panel[panel["control"] == "ticket"].merge(costs, on=["model", "tickets", "density"])
    for unit, axis in COST_AXES.items():
        curves = []
        # A search that rewinds to its initialisation pays nothing for its first ticket, and a log axis has no 0.
        for name, series in own[own[f"cost_{unit}"] > 0].groupby("series", sort=False):
            points = []
            for row in series.to_dict("records"):
                at, mean = text.format_percent(row["density"]), text.format_mean_sd(row["top1"], row["top1_sd"])
                cost = axis.format(row[f"cost_{unit}"]) + ("" if unit == "seconds" else f" {COST_NAMES[unit]}")
                tooltip = f"{name} at {at}%: {mean}% after {cost}"
                ringed = row["density"] == highlighted
                points.append(Point(row[f"cost_{unit}"], 100 * row["top1"], tooltip, highlighted=ringed))
            curves.append(Curve(str(name), tuple(points)))
        if curves:
            title = f"{text.describe_panel(panel)}: top-1 against the search's {COST_NAMES[unit]}"
            y = Axis(f"top-1 on {panel['target'].iloc[0]}, %")
            yield unit, Chart(f"cost-{unit}-{number}", title, axis, y, tuple(curves), y_bounds=(0, 100))


def metric_charts(levels: pd.DataFrame) -> Iterator[Chart]:
    """Each measure that searches took of their own networks, and the probe's last value, against what was trained."""
    trained = levels[levels["trained"].notna()]
    long = [
        (row["model"], name, row["tickets"], row["unit"], row["trained"], value)
        for row in trained.to_dict("records")
        for name, value in _search_metrics(row["metrics"], row["probe"]).items()
    ]
    frame = pd.DataFrame(long, columns=["model", "metric", "tickets", "unit", "trained", "value"])
    frame = frame.sort_values("tickets", kind="stable")
    axis = TRAINED_DENSITY_AXIS
    for number, ((model, metric), own) in enumerate(frame.groupby(["model", "metric"])):
        what = f"the trained network's {metric}"
        curves = mean_curves(own, "trained", axis, "value", what, by=("tickets",), row="ticket")
        # A band must not leave where values can be: accuracies are fractions.
        is_fraction = str(metric).startswith("top") or "accuracy" in str(metric)
        bounds = (0.0, 1.0) if is_fraction else (-math.inf, math.inf)
        yield Chart(f"metric-{number}", f"{model}: {metric}", axis, Axis(str(metric)), curves, y_bounds=bounds)


def _search_metrics(metrics: dict[str, float], probe: object) -> dict[str, float]:
    last = list(probe.values())[-1:] if isinstance(probe, dict) else []
    return metrics | dict.fromkeys(["nearest neighbours"] * len(last), *last)


def probe_charts(levels: pd.DataFrame) -> Iterator[Chart]:
    """The probe's accuracy in the training of each search's densest network and, dashed, in that of its sparsest."""
    trained = levels[levels["trained"].notna() & levels["probe"].map(bool, na_action="ignore").eq(True)]
    for number, (model, own) in enumerate(trained.groupby("model")):
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
        yield Chart(f"probe-{number}", f"{model}: probe during training", x, y, tuple(curves), y_bounds=(0, 100))


def _probe_steps(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each value of each row's probe."""
    long = [
        (row["tickets"], row["unit"], int(step), 100 * value)
        for row in rows.to_dict("records")
        for step, value in row["probe"].items()
    ]
    return pd.DataFrame(long, columns=["tickets", "unit", "step", "value"])
