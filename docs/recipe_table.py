"""The tables of recipes/README.md and of docs/reproduce.md: of the recipes, and of the figures of the papers.

What was measured of the recipes is in recipes/results.csv.
"""

import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sslticket.campaign.figure import Figure, figures
from sslticket.campaign.sweep import expand
from sslticket.campaign.worker import datasets_of
from sslticket.config.recipe import Data
from sslticket.config.recipe_files import load_recipe, published_recipes

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "recipes" / "README.md"
FIGURES_PAGE = ROOT / "docs" / "reproduce.md"
FIGURE_COLUMNS = ("figure", "shows", "data of the published settings", "searches: paper, small, trial", "small")
COLUMNS = ("recipe", "model", "data", "objective", "part", "source", "dense network in the paper", "cost", "accuracy")
_BLOCK = re.compile(r"(?<=<!-- begin )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def filled_page() -> str:
    """The page with each of its tables written anew."""
    with (ROOT / "recipes" / "results.csv").open(newline="", encoding="utf-8") as file:
        measured = {row["recipe"]: row for row in csv.DictReader(file)}
    missing = published_recipes().keys() ^ measured.keys()
    if missing:
        raise SystemExit(f"recipes and recipes/results.csv must name the same recipes; one lacks {sorted(missing)}")

    def table(match: re.Match[str]) -> str:
        names = [name for name in measured if _group(name) == match[1]]
        return match[1] + match[2] + _table(COLUMNS, [_row(name, measured[name]) for name in names])

    return _BLOCK.sub(table, PAGE.read_text(encoding="utf-8"))


def filled_figures_page() -> str:
    """The page of the figures with the table of each paper written anew."""
    known = figures().values()

    def table(match: re.Match[str]) -> str:
        rows = [_figure_row(figure) for figure in known if figure.paper == match[1]]
        return match[1] + match[2] + _table(FIGURE_COLUMNS, rows)

    return _BLOCK.sub(table, FIGURES_PAGE.read_text(encoding="utf-8"))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figure_row(figure: Figure) -> list[str]:
    published = expand(figure.sweeps("paper"))
    others = [str(len(expand(figure.scales[scale]))) if scale in figure.scales else "-" for scale in ("small", "trial")]
    searches = "none, arithmetic" if figure.planned else ", ".join([str(len(published)), *others])
    return [
        f"[{figure.name}](../sweeps/{figure.paper}/{figure.stem}.py)",
        figure.title,
        ", ".join(datasets_of(published)),
        searches,
        figure.means.get("small") or f"not made: {figure.without['small']}",
    ]


def _group(name: str) -> str:
    """The table that has a recipe: that of the file of its paper."""
    if name.endswith("_digits"):
        return "digits"
    file = published_recipes()[name]
    return "limited_supervision" if file.stem == name else file.stem


def _row(name: str, measured: dict[str, str]) -> list[str]:
    recipe, file = load_recipe(name), published_recipes()[name]
    cost, accuracy = (measured[key] or "not measured yet" for key in ("cost", "accuracy"))
    return [
        f"[{name}]({file.name})",
        recipe.model,
        recipe.data.dataset,
        type(recipe.objective).__name__,
        _part(recipe.data),
        measured["source"] or "-",
        measured["dense network in the paper"] or "-",
        cost,
        f"{accuracy} ({measured['commit']})" if measured["commit"] else accuracy,
    ]


def _part(data: Data) -> str:
    """Which of the images and labels are used, in a few words."""
    if data.shuffle_labels:
        return "labels shuffled"
    if data.labels < 1:
        return f"{data.labels:.0%} of the labels"
    return "all" if data.subset == 1 else f"{data.subset:.0%} of the {data.subset_by.replace('samples', 'images')}"


if __name__ == "__main__":
    for file, page in ((PAGE, filled_page()), (FIGURES_PAGE, filled_figures_page())):
        if "--check" not in sys.argv:
            file.write_text(page, encoding="utf-8")
        elif page != file.read_text(encoding="utf-8"):
            sys.exit(f"{file.relative_to(ROOT)} is out of date; make tables")
