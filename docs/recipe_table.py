"""The tables of recipes/README.md, from the recipes and from what was measured of them (recipes/results.csv)."""

import csv
import re
import sys
from pathlib import Path

from sslticket.config.recipe import Data
from sslticket.config.recipe_files import load_recipe, published_recipes

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "recipes" / "README.md"
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
        lines = [COLUMNS, ["---"] * len(COLUMNS), *(_row(name, measured[name]) for name in names)]
        return match[1] + match[2] + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    return _BLOCK.sub(table, PAGE.read_text(encoding="utf-8"))


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
    page = filled_page()
    if "--check" in sys.argv:
        sys.exit(None if page == PAGE.read_text(encoding="utf-8") else "recipes/README.md is out of date; make tables")
    PAGE.write_text(page, encoding="utf-8")
