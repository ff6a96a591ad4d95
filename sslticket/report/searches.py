"""Charts of searches: what they cost, and what their networks learnt."""

import math
from collections.abc import Iterator

import pandas as pd

from sslticket.report import text
from sslticket.report.accuracy import DENSITY
from sslticket.report.chart import Axis, Chart, Curve, Point

COSTS = {
    "samples": Axis("images seen by the search (log scale)", "count", log=True),
    "seconds": Axis("time of the search's trainings (log scale)", "seconds", log=True),
    "steps": Axis("steps of the search (log scale)", "count", log=True),
}


def levels(frame: pd.DataFrame) -> pd.DataFrame:
    """The level rows of a frame of `statistics.named`, each once, with the cost of the search up to each of them.

    Returns:
        The rows with `cost_samples`, `cost_seconds` and `cost_steps`, summed over the trainings that led to the
        ticket, and `trained`, the density of the network that was trained: the row of level L tells of the training
        of the ticket of level L - 1 (missing for level 0, the steps up to W_k).
    """
    own = frame[frame["kind"] == "level"].drop_duplicates(["run", "level"]).sort_values(["run", "level"])
    runs = own.groupby("run")
    follows = runs["level"].diff() == 1
    return own.assign(
        cost_samples=own["search_samples"].astype(float),
        cost_seconds=runs["seconds"].cumsum(),
        cost_steps=runs["steps"].cumsum(),
        trained=runs["density"].shift().where(follows),
    )


def costs(levels: pd.DataFrame) -> pd.DataFrame:
    """Mean cost of a ticket over the searches of a recipe: one row per model, tickets and density."""
    keys = ["model", "tickets", "density"]
    means = {f"cost_{unit}": (f"cost_{unit}", "mean") for unit in COSTS}
    return levels.groupby(keys, as_index=False).agg(**means)


def cost(panel: pd.DataFrame, costs: pd.DataFrame, number: int, stressed: float) -> Iterator[tuple[str, Chart]]:
    """Top-1 of each ticket against the cost of the search up to it, for each unit of cost; none where no row tells.

    Args:
        panel: the rows of a `statistics.summary` of one protocol, target and model.
        costs: from `costs`.
        number: of the panel, for the charts' names.
        stressed: the density whose points are ringed.
    """
    own = panel[panel["control"] == "ticket"].merge(costs, on=["model", "tickets", "density"])
    for unit, axis in COSTS.items():
        drawn = []
        # A search that rewinds to its initialisation pays nothing for its first ticket; a log axis has no place for it.
        for name, series in own[own[f"cost_{unit}"] > 0].groupby("series", sort=False):
            points = tuple(
                Point(
                    row[f"cost_{unit}"],
                    100 * row["top1"],
                    f"{name} at {text.percent(row['density'])}%: {text.spread(row['top1'], row['top1_sd'])}% after "
                    f"{axis.words(row[f'cost_{unit}'])}{'' if unit == 'seconds' else f' {unit}'}",
                    stressed=row["density"] == stressed,
                )
                for row in series.to_dict("records")
            )
            drawn.append(Curve(str(name), points))
        if drawn:
            title = f"{text.where(panel)}: top-1 against {unit} of the search"
            y = Axis(f"top-1 on {panel['target'].iloc[0]}, %")
            yield unit, Chart(f"cost-{unit}-{number}", title, axis, y, tuple(drawn), bounds=(0, 100))


def metrics(levels: pd.DataFrame) -> Iterator[Chart]:
    """Each measure that searches took of their own networks, and the probe's last value, against density."""
    trained = levels[levels["trained"].notna()]
    long = [
        (row["model"], name, row["tickets"], row["trained"], value)
        for row in trained.to_dict("records")
        for name, value in _measures(row["metrics"], row["probe"]).items()
    ]
    frame = pd.DataFrame(long, columns=["model", "metric", "tickets", "density", "value"])
    for number, ((model, metric), own) in enumerate(frame.groupby(["model", "metric"])):
        means = own.groupby(["tickets", "density"])["value"].agg(["mean", "std", "size"]).reset_index()
        drawn = []
        for name, curve in means.sort_values("density", ascending=False).groupby("tickets"):
            points = tuple(
                Point(
                    row["density"],
                    row["mean"],
                    f"{name} at {text.percent(row['density'])}%: {metric} {row['mean']:.4g}, "
                    f"{row['size']} search{'es' * (row['size'] > 1)}",
                    row["mean"] - row["std"],
                    row["mean"] + row["std"],
                )
                for row in curve.to_dict("records")
            )
            drawn.append(Curve(str(name), points))
        yield Chart(
            f"metric-{number}",
            f"{model}: {metric}",
            DENSITY,
            Axis(str(metric)),
            tuple(drawn),
            bounds=_bounds(str(metric)),
        )


def _bounds(metric: str) -> tuple[float, float]:
    """Where a band must end: accuracies are fractions."""
    return (0, 1) if metric.startswith("top") or "accuracy" in metric else (-math.inf, math.inf)


def _measures(metrics: dict[str, float], probe: object) -> dict[str, float]:
    last = list(probe.values())[-1:] if isinstance(probe, dict) else []
    return metrics | dict.fromkeys(["nearest neighbours"] * len(last), *last)


def probes(levels: pd.DataFrame) -> Iterator[Chart]:
    """The probe's accuracy during the first training of each search and, dashed, during its last."""
    trained = levels[levels["trained"].notna() & levels["probe"].map(bool, na_action="ignore").eq(True)]
    for number, (model, own) in enumerate(trained.groupby("model")):
        drawn = []
        for name, series in own.groupby("tickets"):
            ends = {series["trained"].max(): "", series["trained"].min(): "6 3"}
            for density, dash in sorted(ends.items(), reverse=True):
                probed = pd.DataFrame(list(series.loc[series["trained"] == density, "probe"])).mean()
                points = tuple(
                    Point(
                        float(step),
                        100 * value,
                        f"{name} with {text.percent(density)}% of the weights, step {step}: {100 * value:.1f}%",
                    )
                    for step, value in sorted((int(str(step)), value) for step, value in probed.items())
                )
                drawn.append(Curve(str(name), points, dash, "last" if dash else ""))
        x, y = Axis("step of the training", "count"), Axis("nearest neighbours' accuracy, %")
        yield Chart(f"probe-{number}", f"{model}: probe during training", x, y, tuple(drawn), bounds=(0, 100))
