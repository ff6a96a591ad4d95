"""Run folders, tickets, rows, flags and names of version 0.1.0 still work, with the runs that commit 9d2e5d9 made."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

import sslticket
from sslticket import Adam, Data, Recipe, RotNet, Ticket, TrainConfig, evaluate_tickets, load_recipe, read_rows
from sslticket.cli.commands import run_command
from sslticket.search.imp import IMP

ARCHIVE = Path(__file__).with_name("runs-0.1.0.tar.xz")
ROTNET, SETTLED = "rotnet-conv3-digits-03254e1c", "supervised-conv3-digits-216d9135"
FLAGS = "--length 20it --levels 2 --batch-size 32 --rewind 4it"
SETTLED_FLAGS = f"{FLAGS} --settled 0.5 --settled-window 1 --settled-every 3it"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "runs", filter="data")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("name", "flags", "folder"), [("rotnet_digits", FLAGS, ROTNET), ("supervised_digits", SETTLED_FLAGS, SETTLED)]
)
def test_the_flags_of_then_lead_to_the_same_folder_which_is_done(
    runs: Path, capfd: pytest.CaptureFixture[str], name: str, flags: str, folder: str
) -> None:
    before = {path: path.read_bytes() for path in (runs / folder / "tickets").iterdir()}
    run_command(["run", name, *flags.split(), "--out", str(runs)])
    assert f"tickets of levels 0 to 2: {runs / folder / 'tickets'}" in capfd.readouterr().out
    assert {path: path.read_bytes() for path in (runs / folder / "tickets").iterdir()} == before


def test_a_search_goes_on_from_the_last_ticket_and_w_k_of_then(runs: Path) -> None:
    ticket = runs / ROTNET / "tickets" / "level-02.safetensors"
    before = Ticket.load(ticket)
    ticket.unlink()
    (runs / ROTNET / "rows" / "search.level-02.jsonl").unlink()
    run_command(["run", "rotnet_digits", *FLAGS.split(), "--out", str(runs)])
    after = Ticket.load(ticket)
    assert after.recipe == before.recipe
    assert after.survivors == before.survivors
    # Machines round differently, so that a weight at the threshold may fall on either side.
    shared = sum(int((after.mask[name] & before.mask[name]).sum()) for name in before.mask)
    assert shared >= 0.99 * before.survivors


def test_a_recipe_of_then_is_read_and_has_its_key(runs: Path) -> None:
    for folder in (ROTNET, SETTLED):
        tree = json.loads((runs / folder / "recipe.json").read_text())["recipe"]
        recipe = Recipe.from_dict(tree)
        assert recipe.key == folder
        assert recipe.to_dict() == tree


def test_scores_of_then_are_not_measured_again(runs: Path) -> None:
    files = {path: path.read_bytes() for path in (runs / ROTNET / "rows").iterdir()}
    rows = evaluate_tickets(runs / ROTNET, protocol="digits-demo", controls=["random"], seeds=[0])
    assert list(rows["control"]) == ["ticket", "random"] * 3
    assert {path: path.read_bytes() for path in (runs / ROTNET / "rows").iterdir()} == files


def test_rows_of_every_kind_of_then_are_read_and_drawn(runs: Path, tmp_path: Path) -> None:
    rows = read_rows(runs)
    assert set(rows["kind"]) == {"level", "score", "stability", "connectivity", "magnitudes", "overlap"}
    assert len(rows) == len(list(runs.glob("*/rows/*.jsonl"))) == 39
    run_command(["report", str(runs), "-o", str(tmp_path / "report.html")])
    assert (tmp_path / "report.html").stat().st_size > 50_000


def test_a_ticket_of_then_is_shown_and_exported(runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ticket = runs / SETTLED / "tickets" / "level-02.safetensors"
    run_command(["inspect", str(ticket)])
    assert "3,492" in capfd.readouterr().out
    run_command(["export", str(ticket), str(tmp_path / "folder")])
    assert Ticket.load(tmp_path / "folder").hash == Ticket.load(ticket).hash


def test_names_of_then_mean_what_they_did() -> None:
    assert sslticket.Fit is TrainConfig
    old = Recipe(  # type: ignore[call-arg]  # the former name is for files of that time
        model="conv3",
        data=Data(dataset="digits"),
        objective=RotNet(),
        fit=sslticket.Fit(
            length="200it",
            batch_size=128,
            optimizer=Adam(lr=3e-3, weight_decay=0.0),
            drops=("140it", "180it"),
        ),
        search=IMP(levels=6, rate=0.5, rewind="30it"),
    )
    assert old == load_recipe("rotnet_digits")


def test_a_recipe_file_of_then_runs(runs: Path, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "recipes" / "rotnet_digits.py").read_text()
    file = tmp_path / "rotnet_digits.py"
    file.write_text(text.replace("TrainConfig", "Fit").replace("training=", "fit="))
    shutil.rmtree(runs / SETTLED)
    run_command(["run", str(file), *FLAGS.split(), "--out", str(runs)])
    assert [path.name for path in runs.iterdir()] == [ROTNET]
