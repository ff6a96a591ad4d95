"""What the tests of examples of parts share: a short search, its evaluation and its report, by commands."""

import subprocess
import sys
from pathlib import Path

import pandas as pd

from sslticket import load_recipe
from sslticket.cli.commands import run_command
from sslticket.cli.recipe_commands import run_with_flags

ROOT = Path(__file__).parents[2]
SHORT = "--length 8it --batch-size 16 --levels 1 --rewind 2it"


def example(name: str) -> str:
    """How an example's part is named on the command line: "patch_order.py:PatchOrder"."""
    return str(ROOT / "examples" / name)


def search_by_commands(words: list[str], out: Path) -> Path:
    """Search on digits with these flags; the run's folder."""
    run_with_flags(load_recipe(ROOT / "recipes" / "supervised_digits.py"), [*words, "--out", str(out)])
    (run,) = out.glob("*-digits-*")
    return run


def evaluate_and_report_by_commands(run: Path) -> pd.DataFrame:
    """Evaluate the last ticket beside a random one, in a process that has not loaded the example, and report."""
    words = ["evaluate", str(run), "--protocol", "own", "--levels", "1", "--controls", "random", "--seeds", "0"]
    subprocess.run([sys.executable, "-m", "sslticket", *words], check=True)
    run_command(["report", str(run), "--output", str(run / "report.html")])
    run_command(["rows", str(run), "--output", str(run / "rows.csv")])
    rows = pd.read_csv(run / "rows.csv")
    assert (rows.kind == "score").sum() == 2
    return rows
