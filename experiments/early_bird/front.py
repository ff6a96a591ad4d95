"""Cost and accuracy of early birds, from the rows of early_bird_sweep.py.

Run       python experiments/early_bird/front.py docs/searches/early_bird.parquet docs/searches/early_bird.png
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from sslticket.report.chart import Axis, Chart, Curve, Point, assign_styles
from sslticket.report.figures import draw_charts, figure_bytes
from sslticket.results.table import read_rows
from sslticket.storage.files import atomic_write

SETTING = ["model", "bound", "window", "every"]


def front(rows: pd.DataFrame) -> pd.DataFrame:
    """For each search setting and level the searches' cost in source images and their tickets' top-1, mean and spread.

    A bound of 1 is full iterative magnitude pruning, which compares no masks.
    """
    scores = rows[rows["kind"] == "score"]
    settings = pd.DataFrame(map(_early_bird, scores["settings"]), index=scores.index)
    lines = scores.assign(**{name: settings[name] for name in SETTING[1:]})
    by_level = lines.groupby([*SETTING, "level", "density"])
    found = by_level.agg(
        searches=("search_seed", "nunique"),
        cost=("search_samples", "mean"),
        top1=("top1", "mean"),
        spread=("top1", "std"),
    ).reset_index()
    whole = found[found["bound"] == 1].set_index(["model", "level"])
    keys = pd.MultiIndex.from_frame(found[["model", "level"]])
    found["share"] = found["cost"] / whole.loc[keys, "cost"].to_numpy()
    found["less"] = found["top1"] - whole.loc[keys, "top1"].to_numpy()
    return found.sort_values(["model", "level", "cost"], ascending=[True, True, False], ignore_index=True)


def _early_bird(settings: dict[str, Any]) -> dict[str, object]:
    bound = settings.get("settled", settings.get("early_bird"))
    if bound is None:
        return {"bound": 1.0, "window": 0, "every": ""}
    window = settings.get("settled_window", settings.get("early_bird_window"))
    return {"bound": bound, "window": window, "every": settings.get("settled_every", settings.get("early_bird_every"))}


def charts(found: pd.DataFrame) -> list[Chart]:
    """Top-1 against cost for each network, a curve for each density."""
    drawn = []
    for model, own in found.groupby("model"):
        curves = []
        for density, level in own.groupby("density"):
            points = (
                Point(cost, top1, "", top1 - spread, top1 + spread)
                for cost, top1, spread in level.sort_values("cost")[["cost", "top1", "spread"]].itertuples(index=False)
            )
            curves.append(Curve(f"{100 * float(str(density)):.3g}% of the weights", tuple(points)))
        x, y = Axis("source images of the search", "count", log=True), Axis("top-1", "value")
        drawn.append(Chart(str(model), f"{model}: cost of a search, worth of its ticket", x, y, tuple(curves)))
    return drawn


def table_lines(rows: pd.DataFrame) -> Iterator[str]:
    """The lines of the page's table."""
    lines: list[dict[Any, Any]] = front(rows).to_dict("records")
    for line in lines:
        how = (
            "none"
            if line["bound"] == 1
            else f"{line['bound']:g}, {line['window']} mask{'s' * (line['window'] > 1)}, {line['every']}"
        )
        where = f"{line['model']} | {how} | {100 * line['density']:.3g}%"
        top1 = f"{100 * line['top1']:.1f} ± {100 * line['spread']:.1f} | {100 * line['less']:+.1f}"
        yield f"| {where} | {line['cost']:,.0f} | {1 / line['share']:.1f}x | {top1} |"


def draw(rows: pd.DataFrame, picture: Path) -> None:
    """Draws top-1 against cost."""
    parts = charts(front(rows))
    names = list(dict.fromkeys(curve.series for chart in parts for curve in chart.curves))
    figure = draw_charts(parts, assign_styles([(name, name, "ticket") for name in names]))
    with atomic_write(picture) as unfinished:
        unfinished.write_bytes(figure_bytes(figure, "png"))


if __name__ == "__main__":
    given = read_rows([Path(sys.argv[1])])
    print(*table_lines(given), sep="\n")
    if len(sys.argv) > 2:
        draw(given, Path(sys.argv[2]))
