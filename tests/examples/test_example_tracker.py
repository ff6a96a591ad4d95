"""The example of a tracker of one's own follows searches and evaluations, from the command line and from Python."""

import csv
from pathlib import Path

import pytest

from sslticket import evaluate_tickets, find_tickets, load_recipe, write_report
from sslticket.cli.commands import run_command
from sslticket.cli.recipe_commands import run_with_flags
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.training.engine import Engine
from sslticket.training.trackers import TrackerSet
from tests.runs import STEPS, recipe

ROOT = Path(__file__).parents[2]
CSV_TRACKER = f"{ROOT / 'examples' / 'csv_tracker.py'}:CSVTracker"
SHORT = "--length 8it --batch-size 16 --levels 1 --rewind 2it"


def curves(run: Path) -> dict[str, list[dict[str, str]]]:
    return {
        path.stem: list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        for path in sorted((run / "curves").glob("*.csv"))
    }


def test_a_tracker_of_ones_own_follows_searches_and_evaluations_by_commands(tmp_path: Path) -> None:
    recipe_file = load_recipe(ROOT / "recipes" / "supervised_digits.py")
    run_with_flags(recipe_file, [*SHORT.split(), "--log", CSV_TRACKER, "--out", str(tmp_path)])
    (run,) = tmp_path.glob("supervised-conv3-digits-*")
    assert list(curves(run)) == ["search.level-00", "search.level-01"]
    words = ["evaluate", str(run), "--protocol", "own", "--levels", "1", "--controls", "random", "--seeds", "0"]
    run_command([*words, "--tracker", CSV_TRACKER])
    assert len(curves(run)) == 4, "a ticket and a control"
    run_command(["report", str(run), "--output", str(run / "report.html")])


def test_a_tracker_of_ones_own_gets_every_value_from_python(tmp_path: Path) -> None:
    chosen, runtime = recipe(), RuntimeConfig(tracker=(CSV_TRACKER,))
    tickets = find_tickets(chosen, out=tmp_path / "runs", runtime=runtime, progress=False)
    rows = curves(tmp_path / "runs" / chosen.key)["search.level-01"]
    assert {row["quantity"] for row in rows} >= {"loss", "lr"}
    assert [int(row["samples"]) for row in rows if row["quantity"] == "loss"][-1] == STEPS * 32
    evaluate_tickets(tickets[-1], protocol="own", runtime=runtime, progress=False)
    assert len(curves(tmp_path / "runs" / chosen.key)) > len(tickets)
    write_report(tmp_path / "runs", tmp_path / "report.html")


def test_trackers_that_are_unknown_or_cannot_be_made_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown tracker 'tensorbord'; did you mean tensorboard"):
        TrackerSet(("tensorbord",))
    file = tmp_path / "mine.py"
    file.write_text("from sslticket.training.progress import Tracker\nclass Mine(Tracker):\n    __init__ = None\n")
    engine = Engine.create(RuntimeConfig(tracker=(f"{file}:Mine",)), "fp32")
    with pytest.raises(BadInput, match=r"the tracker .*mine\.py:Mine cannot be made .* mend it or leave it out"):
        engine.trackers(tmp_path, "search.level-00")
