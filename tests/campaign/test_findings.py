"""The page of the papers' findings: what it says is what its rows say, and these are of the sweeps that it names."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sslticket.campaign import worker
from sslticket.campaign.figure import ScaledFigure
from sslticket.campaign.sweep import expand, load_sweeps
from sslticket.registry import load_user_file
from tests.campaign.made_rows import likenesses_without_contrast

ROOT = Path(__file__).parents[2]
ROWS = {path.stem: path for path in (ROOT / "docs" / "findings").glob("*.parquet")}
SWEEPS = [path for path in sorted((ROOT / "sweeps" / "findings").glob("*.py")) if "sweeps = " in path.read_text()]


def test_the_page_says_what_its_rows_say() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "findings.py", "--check"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_has_six_searches_of_each_kind_and_asks_of_its_own_rows(file: Path) -> None:
    cells = expand(load_sweeps(file))
    worker.check_cells(cells)
    assert [cell.recipe.seed for cell in cells] == sorted(cell.recipe.seed for cell in cells)
    families = pd.Series([cell.recipe.family for cell in cells]).value_counts()
    assert set(families) == {6}
    models = {cell.recipe.model for cell in cells}
    for figure in getattr(load_user_file(file), "figures", []):
        assert isinstance(figure, ScaledFigure)
        for panel in figure.panels:
            assert (
                not isinstance(named := panel.where.get("model", ""), str)
                or not named
                or any(model.rpartition(":")[2] == named for model in models)
            ), panel.title
        titles = {panel.title: panel for panel in figure.panels}
        for finding in figure.findings:
            assert finding.check.panel in titles
        assert likenesses_without_contrast(figure) == []


@pytest.mark.parametrize("name", sorted(ROWS))
def test_rows_of_a_sweep_are_of_searches_that_it_has(name: str) -> None:
    file = ROOT / "sweeps" / "findings" / f"{name}.py"
    if not file.is_file():
        pytest.skip("a figure of a paper, whose rows `reproduce --rows` checks")
    # Rows have the precision of the device that made them, which recipes leave open. What names a search on a part of a
    # set has the hash of its images, which are not here.
    families = {replace(cell.recipe, precision="fp32").family for cell in expand(load_sweeps(file))}
    rows = pd.read_parquet(ROWS[name])
    whole = rows[(rows["kind"] == "level") & ~rows["source"].str.contains("[", regex=False)]
    assert len(whole) > 0 or not any("[" not in cell.recipe.data.name for cell in expand(load_sweeps(file)))
    assert set(whole["recipe"]) <= families
