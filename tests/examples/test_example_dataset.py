"""The example of a data set of one's own is searched, evaluated and reported, by its file and then by its name."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from sslticket import Data, RuntimeConfig, evaluate_tickets, find_tickets, load_recipe, write_report
from sslticket.cli.commands import run_command
from sslticket.cli.recipe_commands import run_with_flags
from tests.digits import write_digits
from tests.runs import recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "supervised_digits.py"
PARITY = f"{ROOT / 'examples' / 'npz_dataset.py'}:PARITY"
SHORT = "--length 8it --batch-size 16 --levels 1 --rewind 2it"


@pytest.fixture
def parity(tmp_path: Path) -> Path:
    """A folder with parity.npz: 128 training and 64 evaluation images of digits, even (0) or odd (1)."""
    digits = load_digits()
    pixels, labels = (digits.images * 15).astype(np.uint8)[..., None], digits.target % 2
    splits = {"train": slice(0, 128), "eval": slice(128, 192)}
    arrays = {
        f"{split}_{name}": values[rows]
        for split, rows in splits.items()
        for name, values in (("images", pixels), ("labels", labels))
    }
    np.savez(tmp_path / "parity.npz", **arrays)
    return tmp_path


def sslticket(*words: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which has loaded no file yet."""
    return subprocess.run([sys.executable, "-m", "sslticket", *map(str, words)], capture_output=True, text=True)


def score(run: Path, data_root: Path) -> pd.DataFrame:
    """The rows of a run's last ticket and of its random control, and a report of them."""
    words = ["--protocol", "own", "--levels", "1", "--controls", "random", "--seeds", "0", "--data-root", data_root]
    done = sslticket("evaluate", run, *words)
    assert done.returncode == 0, done.stderr
    run_command(["report", str(run), "--output", str(run / "report.html")])
    run_command(["rows", str(run), "--output", str(run / "rows.csv")])
    return pd.read_csv(run / "rows.csv")


def test_a_data_set_in_ones_own_file_is_searched_evaluated_and_reported(parity: Path) -> None:
    run_with_flags(
        load_recipe(RECIPE), ["--dataset", PARITY, "--data-root", str(parity), *SHORT.split(), "--out", str(parity)]
    )
    (run,) = parity.glob("supervised-conv3-parity-*")
    rows = score(run, parity)
    assert rows.source.str.fullmatch(r"parity\[[0-9a-f]{8}\]").all()
    assert "parity[" in (run / "report.html").read_text()


def test_a_run_of_somebody_elses_names_the_file_and_does_not_run_it(
    parity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = RuntimeConfig(data_root=parity)
    find_tickets(recipe(data=Data(dataset=PARITY)), out=parity, runtime=runtime, progress=False)
    monkeypatch.setenv("SSLTICKET_CACHE", str(parity / "of-another-user"))
    (run,) = parity.glob("supervised-conv3-parity-*")
    words = ("evaluate", run, "--protocol", "own", "--data-root", parity, "--dry-run")
    done = sslticket(*words)
    assert (done.returncode, "--parts" in done.stderr) == (2, True), done.stderr
    assert sslticket(*words, "--parts", PARITY.removesuffix(":PARITY")).returncode == 0


def test_any_folder_is_searched_evaluated_and_reported_with_a_split_of_its_own(tmp_path: Path) -> None:
    write_digits(tmp_path / "numbers", train=10)
    data = ["--dataset", "folder:numbers", "--image-size", "8", "--data-root", str(tmp_path)]
    run_with_flags(load_recipe(RECIPE), [*data, *SHORT.split(), "--out", str(tmp_path)])
    (run,) = tmp_path.glob("supervised-conv3-numbers-*")
    rows = score(run, tmp_path)
    assert rows.source.str.fullmatch(r"numbers\[[0-9a-f]{8}\]").all()
    assert (rows.data_hash != rows.eval_hash).all()


def test_python_has_the_same_ways(parity: Path) -> None:
    runtime = RuntimeConfig(data_root=parity)
    found = recipe(data=Data(dataset=PARITY))
    tickets = find_tickets(found, out=parity / "runs", runtime=runtime, progress=False)
    rows = evaluate_tickets(tickets[-1], protocol="own", runtime=runtime, progress=False)
    assert rows.source.str.startswith("parity[").all()
    write_report(parity / "runs", parity / "report.html")
    assert "parity[" in (parity / "report.html").read_text()
