"""Heat maps of layers: what is left of each, and how many of its output channels lost every weight."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from sslticket.report import section, text
from sslticket.report.chart import Heat
from sslticket.report.section import Choice, Pick, Section

_EXPLAINED = (
    "Output channels that lost every weight, in % of the layer's, the input at the top, from the densest ticket to the "
    "sparsest. Orange: a layer all of whose channels are dead."
)


def densities(rows: pd.DataFrame) -> Iterator[Heat]:
    """The density of each layer (down, in the network's order) in each ticket (across), a map for each recipe.

    Numbers are means over the recipe's searches, in %. Shades are logarithmic. A layer that lost every weight in each
    of them has the shade NaN: the network is cut there.

    Args:
        rows: of levels, or of channels, each ticket once.
    """
    for number, own in enumerate(_recipes(rows)):
        left = _shares(own, "layers")
        least = math.log(min(0.1, left[left > 0].min()))
        shades = np.where(left > 0, 1 - np.log(left, where=left > 0, out=np.zeros_like(left)) / least, math.nan)
        yield _heat(own, "layers", f"layers-{number}", left, shades)


def build(frame: pd.DataFrame) -> Section | None:
    """The section of dead channels, of all such rows in a frame of `statistics.named`; None where there are none."""
    choices = []
    for number, own in enumerate(_recipes(section.rows(frame, "channels"))):
        dead = _shares(own, "dead")
        heat = _heat(own, "dead", f"dead-{number}", dead, np.where(dead < 1, dead, math.nan))
        choices.append(Choice(heat.title, heats=(heat,)))
    return Section("dead", "Dead channels", _EXPLAINED, (Pick("Tickets:", tuple(choices)),)) if choices else None


def _recipes(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for _, own in rows.groupby(["model", "tickets"]):
        yield own


def _shares(own: pd.DataFrame, key: str) -> npt.NDArray[np.float64]:
    """(layers, densities): of `key`, names to [some, all], means over the searches at a density, densest first."""
    names = list(own[key].iloc[0])
    shares = pd.DataFrame([[row[name][0] / row[name][1] for name in names] for row in own[key]], own.index)
    searches = shares.groupby([own["density"], own["unit"]]).mean()
    return searches.groupby(level="density").mean().loc[_places(own)].to_numpy(np.float64).T


def _places(own: pd.DataFrame) -> list[float]:
    return sorted(own["density"].unique(), reverse=True)


def _heat(
    own: pd.DataFrame, key: str, name: str, values: npt.NDArray[np.float64], shades: npt.NDArray[np.float64]
) -> Heat:
    searches = own["unit"].nunique()
    of = f": mean of {searches} searches" if searches > 1 else ""
    return Heat(
        name=name,
        title=f"{section.network(own)}, {own['tickets'].iloc[0]}{of}",
        corner="layer",
        rows=tuple(own[key].iloc[0]),
        columns=tuple(f"{text.percent(density)}%" for density in _places(own)),
        cells=tuple(
            tuple((text.percent(value), float(shade)) for value, shade in zip(*line, strict=True))
            for line in zip(values, shades, strict=True)
        ),
    )
