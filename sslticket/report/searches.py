"""Charts of searches: what they cost, and what their networks learnt."""

import math
from collections.abc import Iterator

import pandas as pd

from sslticket.report import text
from sslticket.report.chart import Axis, Chart, Curve, Point
from sslticket.report.curves import means

COSTS = {
    "forward_images": Axis("images through the network (log scale)", "count", log=True),
    "samples": Axis("source images seen by the search (log scale)", "count", log=True),
    "seconds": Axis("time of the search's trainings (log scale)", "seconds", log=True),
    "steps": Axis("steps of the search (log scale)", "count", log=True),
}
WORDS = {
    "forward_images": "images through the network",
    "samples": "source images",
    "seconds": "time",
    "steps": "steps",
}
"""What a search cost: a source image goes through the network once for each of its views, four times for RotNet."""
TRAINED = Axis("weights of the network that was trained (log scale)", "density", log=True)


def levels(frame: pd.DataFrame) -> pd.DataFrame:
    """The level rows of a frame of `statistics.named`, each once, with the cost of the search up to each of them.

    Returns:
        The rows with `cost_forward_images` (missing for older rows), `cost_samples`, `cost_seconds` and `cost_steps`,
        summed over the trainings that led to the ticket, and `trained`, the density of the network whose training found
        it, which `loss`, `metrics` and `probe` are of: as the row tells, else that of the level before; missing for
        level 0, the steps up to W_k.
    """
    search = ["tickets", "run"]
    own = frame[frame["kind"] == "level"].drop_duplicates([*search, "level"]).sort_values([*search, "level"])
    runs = own.groupby(search)
    before = runs["density"].shift().where(runs["level"].diff() == 1)
    # The density of a level may be a mean over searches, to which that of a single one is no neighbour.
    told = own[[*search, "trained_level"]].merge(
        own[[*search, "level", "density"]].rename(columns={"level": "trained_level"}),
        on=[*search, "trained_level"],
        how="left",
    )
    trained = pd.Series(told["density"].to_numpy(float), own.index).fillna(own["trained_density"].astype(float))
    return own.assign(
        cost_forward_images=own["search_forward_images"].astype(float),
        cost_samples=own["search_samples"].astype(float),
        cost_seconds=runs["seconds"].cumsum(),
        cost_steps=runs["steps"].cumsum(),
        trained=trained.fillna(before).where(own["level"] > 0),
    )


def costs(levels: pd.DataFrame) -> pd.DataFrame:
    """Mean cost of a ticket over the searches of a recipe: one row per model, tickets and density.

    A cost that one of the searches does not tell is missing.
    """
    keys = ["model", "tickets", "density"]
    found = {f"cost_{unit}": (f"cost_{unit}", lambda each: each.mean(skipna=False)) for unit in COSTS}
    return levels.groupby(keys, as_index=False).agg(**found)


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
                    f"{axis.words(row[f'cost_{unit}'])}{'' if unit == 'seconds' else f' {WORDS[unit]}'}",
                    stressed=row["density"] == stressed,
                )
                for row in series.to_dict("records")
            )
            drawn.append(Curve(str(name), points))
        if drawn:
            title = f"{text.where(panel)}: top-1 against the search's {WORDS[unit]}"
            y = Axis(f"top-1 on {panel['target'].iloc[0]}, %")
            yield unit, Chart(f"cost-{unit}-{number}", title, axis, y, tuple(drawn), bounds=(0, 100))


def metrics(levels: pd.DataFrame) -> Iterator[Chart]:
    """Each measure that searches took of their own networks, and the probe's last value, against what was trained."""
    trained = levels[levels["trained"].notna()]
    long = [
        (row["model"], name, row["tickets"], row["unit"], row["trained"], value)
        for row in trained.to_dict("records")
        for name, value in _measures(row["metrics"], row["probe"]).items()
    ]
    frame = pd.DataFrame(long, columns=["model", "metric", "tickets", "unit", "trained", "value"])
    frame = frame.sort_values("tickets", kind="stable")
    for number, ((model, metric), own) in enumerate(frame.groupby(["model", "metric"])):
        yield Chart(
            f"metric-{number}",
            f"{model}: {metric}",
            TRAINED,
            Axis(str(metric)),
            means(own, "trained", TRAINED, "value", f"the trained network's {metric}", by=("tickets",), row="ticket"),
            bounds=_bounds(str(metric)),
        )


def _bounds(metric: str) -> tuple[float, float]:
    """Where a band must end: accuracies are fractions."""
    return (0, 1) if metric.startswith("top") or "accuracy" in metric else (-math.inf, math.inf)


def _measures(metrics: dict[str, float], probe: object) -> dict[str, float]:
    last = list(probe.values())[-1:] if isinstance(probe, dict) else []
    return metrics | dict.fromkeys(["nearest neighbours"] * len(last), *last)


def probes(levels: pd.DataFrame) -> Iterator[Chart]:
    """The probe's accuracy in the training of each search's densest network and, dashed, in that of its sparsest."""
    trained = levels[levels["trained"].notna() & levels["probe"].map(bool, na_action="ignore").eq(True)]
    for number, (model, own) in enumerate(trained.groupby("model")):
        x, y = Axis("step of the training", "count"), Axis("nearest neighbours' accuracy, %")
        drawn: list[Curve] = []
        for name, series in own.groupby("tickets"):
            ends = {series["trained"].max(): "", series["trained"].min(): "6 3"}
            for density, dash in sorted(ends.items(), reverse=True):
                at = f"{text.percent(density)}% of the weights"
                steps = _steps(series[series["trained"] == density].assign(tickets=name))
                drawn += means(
                    steps, "step", x, "value", "accuracy in %", by=("tickets",), dash=dash, called=at, row="ticket"
                )
        yield Chart(f"probe-{number}", f"{model}: probe during training", x, y, tuple(drawn), bounds=(0, 100))


def _steps(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each value of each row's probe."""
    long = [
        (row["tickets"], row["unit"], int(step), 100 * value)
        for row in rows.to_dict("records")
        for step, value in row["probe"].items()
    ]
    return pd.DataFrame(long, columns=["tickets", "unit", "step", "value"])
