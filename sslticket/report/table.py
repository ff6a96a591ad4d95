"""All rows as one tidy pandas frame, their means and spreads, and the table for the terminal; no torch, no drawing."""

import json
import math
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sslticket.errors import BadInput
from sslticket.report import schema

_REMAKE = "delete the file and run the command that made it again"

MISSING = "\N{EN DASH}"
PANEL = ["protocol", "target", "model"]
"""Numbers may be compared, and are drawn in one picture, where these agree."""


def nothing(folders: Sequence[Path], what: str = "rows") -> BadInput:
    """The error for folders that hold no rows, or none of the kind that is needed."""
    looked = ", ".join(map(str, folders)) or "no folder at all"
    return BadInput(f"no {what} (rows/*.jsonl) below {looked}; make some with `sslticket evaluate RUN`")


def rows(folders: Sequence[Path]) -> pd.DataFrame:
    """Every row below `folders`, one measurement each, with a column for every key; what a kind lacks is missing.

    Rows of both kinds are in one frame: `frame[frame.kind == "score"]` picks one. Their order depends on what they
    say, not on where they were found.

    Raises:
        BadInput: if a folder is not there, holds no rows, or a line is no row; file and line number are named.
    """
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"no folder {folder}; give the run folders, or the folder that holds them")
    # A set, since one given folder may lie within another.
    files = {file.resolve() for folder in folders for file in folder.rglob("*.jsonl") if file.parent.name == "rows"}
    found = [row for file in sorted(files) if not file.name.startswith(".") for row in _read(file)]
    if not found:
        raise nothing(folders)
    frame = pd.DataFrame(found, columns=schema.COLUMNS)
    order = ["run", "kind", "protocol", "level", "control", "seed", "search_seed", "ticket_hash"]
    return frame.sort_values(order, kind="stable", ignore_index=True)


def _read(file: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            raise BadInput(f"{file}, line {number} is no JSON; {_REMAKE}") from None
        if fault := schema.wrong(row):
            raise BadInput(f"{file}, line {number} {fault}; {_REMAKE}")
        yield row


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of every series at every density.

    A series is what one curve shows: the tickets that one objective found on one source and subset, or one control of
    these, or "random": a globally permuted mask with weights drawn anew owes nothing to the run whose density it
    copies, so all runs share this control, and a training that several of them list counts once.

    Returns:
        One row per protocol, target, model, series and density, densest first, with `top1`, `top5` (means, fractions),
        `top1_sd` (standard deviation with n - 1; missing for one training), `n` (trainings), `level` (the lowest that
        has this density), and `objective`, `source` and `control` of the series (the first two empty for "random").
    """
    scores = frame[frame["kind"] == "score"]
    scores = scores.assign(series=_series(frame).loc[scores.index], density=scores["density"].map(_rounded))
    is_random = scores["control"] == "random"
    scores.loc[is_random, ["objective", "source"]] = ""
    shared = scores[is_random].drop_duplicates([*PANEL, "density", "seed"])
    # A copied run folder repeats its rows.
    own = scores[~is_random].drop_duplicates([*PANEL, "run", "control", "level", "seed", "ticket_hash"])
    keys = [*PANEL, "series", "objective", "source", "control", "density"]
    means = (
        pd.concat([own, shared])
        .groupby(keys, as_index=False)
        .agg(
            level=("level", "min"),
            top1=("top1", "mean"),
            top1_sd=("top1", "std"),
            top5=("top5", "mean"),
            n=("top1", "size"),
        )
    )
    means["place"] = means["control"].map(schema.CONTROLS.index) * 2 + (means["objective"] != "supervised")
    means = means.sort_values([*PANEL, "place", "series", "density"], ascending=[True] * 5 + [False])
    return means.drop(columns="place").reset_index(drop=True)


def _rounded(density: float) -> float:
    # Runs of one model at one rate agree to far more digits than this; different levels differ in the first two.
    return float(f"{density:.4g}")


def _series(frame: pd.DataFrame) -> "pd.Series[str]":
    """The name of each score row's series, as short as tells the series of this frame apart."""
    same = ["model", "objective", "source", "subset", "subset_by"]
    # Repeats of a recipe under other seeds are pooled; other recipes that these columns do not tell apart are not.
    recipes = frame.drop_duplicates([*same, "recipe"])
    clash = set(recipes.loc[recipes.duplicated(same, keep=False), "recipe"])
    scores = frame[frame["kind"] == "score"]
    sources = scores.groupby(PANEL)["source"].transform("nunique")

    def name(row: dict[Hashable, Any], sources: int) -> str:
        if row["control"] == "random":
            return "random"
        text = str(row["objective"])
        if row["subset"] < 1:
            text += f" {100 * row['subset']:g}%" + (" of classes" if row["subset_by"] == "classes" else "")
        if sources > 1:
            text += f" from {row['source']}"
        if row["recipe"] in clash:
            text += f" ({row['recipe']})"
        return text if row["control"] == "ticket" else f"{text}, {row['control']}"

    names = [name(row, each) for row, each in zip(scores.to_dict("records"), sources, strict=True)]
    return pd.Series(names, index=scores.index, dtype=object)


def sparsest_common(panel: pd.DataFrame) -> pd.DataFrame:
    """The rows of a panel's tickets and random tickets at the sparsest density that all of them have; maybe none.

    Label-agnostic series come first, then supervised ones, then random.
    """
    main = panel[panel["control"].isin(["ticket", "random"])]
    shared = main.groupby("density")["series"].nunique()
    shared = shared[shared == main["series"].nunique()]
    here = main[main["density"] == (shared.index.min() if len(shared) else math.nan)]
    place = (here["objective"] == "supervised") + 2 * (here["control"] == "random")
    return here.loc[place.sort_values(kind="stable").index]


def percent(density: float) -> str:
    """A density in per cent to three digits: "100", "51.2", "1.07"."""
    return f"{100 * density:.3g}"


def spread(mean: float, sd: float) -> str:
    """A fraction and its standard deviation in per cent: "97.2 ± 0.3", or "97.2" for a single training."""
    return f"{100 * mean:.1f}" if math.isnan(sd) else f"{100 * mean:.1f} ± {100 * sd:.1f}"


def grid(panel: pd.DataFrame) -> pd.DataFrame:
    """One panel of a summary as cells of text: densities down (densest first), series across, "–" for unmeasured.

    Where not all cells have the same n, a column's name tells it, or each cell of a column that mixes them.
    """
    columns = {}
    for name, series in panel.groupby("series", sort=False):
        counts = series["n"].unique()
        told = "" if panel["n"].nunique() == 1 or len(counts) > 1 else f" (n={counts[0]})"
        columns[f"{name}{told}"] = {
            row["density"]: spread(row["top1"], row["top1_sd"]) + (f" (n={row['n']})" if len(counts) > 1 else "")
            for row in series.to_dict("records")
        }
    return pd.DataFrame(columns).sort_index(ascending=False).fillna(MISSING)


def caption(panel: pd.DataFrame) -> str:
    """What a panel's numbers are, in one line."""
    first, counts = panel.iloc[0], panel["n"].unique()
    repeats = f", n = {counts[0]}" if len(counts) == 1 else ""
    where = f"{first['model']} on {first['target']} (protocol {first['protocol']})"
    return f"Top-1 in % of {where}: mean ± standard deviation{repeats}"


def text(summary: pd.DataFrame) -> str:
    """The summary for the terminal: for every protocol and model a table, densities in per cent of the weights."""
    tables = []
    for _, panel in summary.groupby(PANEL, sort=False):
        cells = grid(panel)
        columns = [["density", *(f"{percent(density)}%" for density in cells.index)]]
        columns += [[name, *cells[name]] for name in cells.columns]
        widths = [max(map(len, column)) for column in columns]
        columns = [
            [cell.rjust(width) for cell in (column[0], "-" * width, *column[1:])]
            for column, width in zip(columns, widths, strict=True)
        ]
        lines = ["  ".join(line) for line in zip(*columns, strict=True)]
        tables.append("\n".join([caption(panel), "", *lines]))
    return "\n\n".join(tables)
