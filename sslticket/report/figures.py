"""Accuracy against density, and density per layer: matplotlib figures, as PNG bytes or as SVG to set into a page."""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sslticket.report.table import PANEL, percent

INK, RULE, RANDOM = "#1b1f24", "#d5dae0", "#6b7280"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""For everyone's eyes: Okabe and Ito 2008, "Color Universal Design"; grey is kept for the random baseline."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# A control of a series has its colour with another line.
LINES = {"ticket": "-", "preserved": "--", "local": ":", "random": "-"}

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # names are data: a dollar sign in one is a dollar sign
    "xtick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
}


def curves(summary: pd.DataFrame, width: float = 7.2, height: float = 4.0) -> Figure:
    """Top-1 against density, one panel for each protocol, target and model of a `table.summary`.

    The dense network is at the left and densities fall to the right on a log axis. Lines are means, bands one standard
    deviation either way; the dashed line is the dense network's mean, the supervised one's where there is one.

    Args:
        summary: from `table.summary`.
        width: of a panel, in inches.
        height: of a panel, in inches.
    """
    panels = [panel for _, panel in summary.groupby(PANEL, sort=False)]
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width * across, height * down), layout="constrained")
        for place, panel in enumerate(panels, start=1):
            _panel(figure.add_subplot(down, across, place), panel)
    return figure


def _panel(axes: Axes, panel: pd.DataFrame) -> None:
    first = panel.iloc[0]
    looks = _looks(panel)
    for name, curve in panel.groupby("series", sort=False):
        colour, marker = looks[str(name)]
        density, mean = curve["density"].to_numpy(), 100 * curve["top1"].to_numpy()
        sd = 100 * curve["top1_sd"].fillna(0).to_numpy()
        control = curve["control"].iloc[0]
        face = colour if control in ("ticket", "random") else "none"
        axes.fill_between(density, mean - sd, mean + sd, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            density, mean, LINES[control], color=colour, marker=marker, markersize=4.5, markerfacecolor=face, label=name
        )
    dense = panel[(panel["density"] == 1) & (panel["control"] == "ticket")]
    if len(dense):
        axes.axhline(100 * dense["top1"].iloc[0], color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
        place = (1, 100 * dense["top1"].iloc[0])
        axes.annotate("dense", place, (0, 2), ("axes fraction", "data"), "offset points", ha="right", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_ticks(panel["density"].min())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda density, _: f"{percent(density)}%"))
    axes.invert_xaxis()
    axes.set_xlabel("weights remaining (log scale)")
    axes.set_ylabel(f"top-1 on {first['target']}, %")
    axes.grid(axis="y")
    axes.legend(loc="best", frameon=False, handlelength=2.6)
    counts = sorted(panel["n"].unique())
    repeats = f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
    axes.set_title(f"{first['model']} on {first['target']} (mean ± sd, {repeats})")


def _ticks(least: float) -> list[float]:
    """100%, 50%, 20%, 10%, 5% ... down to the sparsest; only the tens where that would be too many to read."""
    decades = range(math.floor(math.log10(least)), 1)
    subs = (1, 2, 5) if len(decades) <= 4 else (1,)
    return [sub * 10.0**power for power in decades for sub in subs if least * 0.9 <= sub * 10.0**power <= 1]


def _looks(panel: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Colour and marker of each series; a control takes the colour of the tickets that it is a control of."""
    looks: dict[str, tuple[str, str]] = {}
    kinds = panel.drop_duplicates("series")[["series", "control"]].itertuples(index=False)
    bases: dict[str, str] = {}
    for place, (series, control) in enumerate(kinds):
        base = series.removesuffix(f", {control}")
        if control != "random":
            bases.setdefault(base, COLOURS[len(bases) % len(COLOURS)])
        looks[series] = bases.get(base, RANDOM), MARKERS[place % len(MARKERS)]
    return looks


def layers(levels: pd.DataFrame) -> Figure:
    """The density of each layer (down, in the network's order) in each ticket (across) of one run's level rows.

    A layer that lost every weight is orange: the network is cut there.
    """
    records = levels.sort_values("density", ascending=False).to_dict("records")
    kept: dict[float, dict[str, tuple[int, int]]] = {row["density"]: row["layers"] for row in records}
    names = list(next(iter(kept.values())))
    density = np.array([[layer[name][0] / layer[name][1] for layer in kept.values()] for name in names])
    few = density.size <= 12 * 12 and len(kept) <= 12
    row = 0.24 if few else 0.16
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(max(4.6, 1.4 + 0.2 * len(kept)), 0.9 + row * len(names)), layout="constrained")
        axes = figure.add_subplot()
        colours = matplotlib.colormaps["Blues"].with_extremes(bad=COLOURS[1])
        scale = LogNorm(min(0.1, density[density > 0].min()), 1)
        # An image is far smaller in the page than a path for each cell.
        masked = np.ma.masked_equal(density, 0)
        image = axes.imshow(masked, cmap=colours, norm=scale, aspect="auto", interpolation="none")
        if few:
            _annotate(axes, density, scale)
        else:
            bar = figure.colorbar(
                image, ax=axes, format=FuncFormatter(lambda value, _: f"{percent(value)}%"), aspect=50
            )
            bar.outline.set_visible(False)
            bar.ax.yaxis.set_minor_locator(NullLocator())
        axes.set_yticks(range(len(names)), names, fontsize=8 if few else 6.5)
        slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(kept) > 7 else {}
        axes.set_xticks(range(len(kept)), [percent(each) for each in kept], **slant)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("weights remaining in all layers together, %")
    return figure


def _annotate(axes: Axes, density: np.ndarray, scale: LogNorm) -> None:
    for (down, across), value in np.ndenumerate(density):
        colour = "#ffffff" if value and scale(value) > 0.55 else "#000000"
        axes.text(across, down, percent(value), ha="center", va="center", fontsize=7, color=colour)


def png(figure: Figure) -> bytes:
    """The figure as a PNG at 150 dots an inch on white."""
    content = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()


def svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an <svg> element for an HTML page, the same for the same figure.

    Text stays text, the background is clear, and the figure's own colours become CSS variables (`--c-0072b2`), so that
    the page decides how they look in the dark.

    Args:
        figure: what to draw.
        name: makes the ids in it differ from those of the page's other figures.
        label: what a screen reader says, already escaped.
    """
    content = io.StringIO()
    without = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(content, format="svg", transparent=True, metadata=without)
    text = content.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Namespaces mean nothing inside HTML; ids that nothing refers to would only clash with the next figure's.
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    used = set(re.findall(r"[\"(]#([\w-]+)[\")]", text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    head = r'<svg [^>]*?(viewBox="[^"]*")[^>]*>'
    text = re.sub(head, lambda match: f'<svg {match[1]} role="img" aria-label="{label}">', text, count=1)
    return _themed(text, (INK, RULE, RANDOM, *COLOURS))


def _themed(text: str, colours: Sequence[str]) -> str:
    pattern = "|".join(colours)
    return re.sub(pattern, lambda match: f"var(--c-{match[0][1:]}, {match[0]})", text)
