"""`sslticket evaluate`, `report`, `rows` and `inspect` in this process."""

import shutil
from pathlib import Path

import pytest

from sslticket import models
from sslticket.cli.commands import run_command
from sslticket.config.flags import parse_numbers
from sslticket.config.recipe import Data
from sslticket.errors import BadInput
from sslticket.pruning.effective_sparsity import effective_mask
from sslticket.ticket import Ticket
from tests.runs import recipe, search


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


def sslticket(*words: object) -> None:
    run_command([str(word) for word in words])


def test_from_tickets_to_a_report(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(run, tmp_path / run.name)
    words = (
        "evaluate",
        folder,
        "--protocol",
        "digits-demo",
        "--levels",
        "0",
        "3",
        "--seeds",
        "0-1",
        "--controls",
        "random",
    )
    sslticket(*words)
    assert "8 rows measured\n" in capsys.readouterr().out
    sslticket(*words)
    assert "0 rows measured, 8 were there already" in capsys.readouterr().out
    sslticket("report", tmp_path, "-o", tmp_path / "page.html")
    printed = capsys.readouterr().out
    assert "supervised" in printed
    assert "standard deviation over searches" in printed
    assert printed.endswith(f"report: {tmp_path / 'page.html'}\n")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    figures, table = tmp_path / "figures", tmp_path / "table.tex"
    sslticket(
        "report", tmp_path, "-o", tmp_path / "page.html", "--figures", figures, "--format", "svg", "--latex", table
    )
    lines = capsys.readouterr().out.splitlines()
    drawn = [path.suffix for path in figures.iterdir() if path.suffix != ".json"]
    assert set(drawn) == {".svg"}
    assert len([*figures.glob("*.vl.json")]) > 0
    assert lines[-4:-2] == [f"figures: {len(drawn)} in {figures}", f"table: {table}"]
    assert r"\caption{Top-1 in \% of conv3 on digits (protocol digits-demo)" in table.read_text()
    sslticket("rows", tmp_path, "-o", tmp_path / "rows.csv")
    assert capsys.readouterr().out.endswith(f"table: {tmp_path / 'rows.csv'}, 13 rows\n")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 14


def test_a_dry_run_tells_what_is_left_and_trains_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sslticket(
        "evaluate", run, "--protocol", "digits-demo", "--controls", "random", "random", "--seeds", "0-1", "--dry-run"
    )
    printed = capsys.readouterr().out
    assert "16 rows, 0 done\nleft: 16 trainings, 409,600 samples, training time about " in printed
    assert "trainings: 16 trainings of 200it = 3,200 steps\n" in printed
    assert not list((run / "rows").glob("level-*"))


def test_inspect_tells_everything_about_a_ticket(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "tickets" / "level-02.safetensors"
    sslticket("inspect", path)
    text = capsys.readouterr().out
    ticket = Ticket.load(path)
    assert f"{path}, {path.stat().st_size:,} bytes, hash {ticket.hash}" in text
    assert "2, density 25.0000%: 3,492 of 13,968 prunable weights" in text
    assert "after 64 samples; the search saw 320" in text
    assert "the classification layer of 10 classes at the same step" in text
    whole = (3_492 + 240) / 14_208  # with biases and batch norm
    assert f"all       density {whole:.4%}: 3,732 of 14,208 parameters of the backbone\n" in text
    alive = effective_mask(
        models.create_model("conv3", channels=1, image_size=8), ticket.mask, channels=1, image_size=8
    )
    on = f"{alive.survivors:,} weights lie on a path from the image to the features\n"
    assert f"effective density {alive.survivors / 13_968:.4%}: {on}" in text
    for name, (kept, total) in ticket.mask.layer_counts().items():
        (line,) = (line for line in text.splitlines() if line.startswith(name))
        assert line.split()[1:4] == [f"{kept:,}", f"{total:,}", f"{kept / total:.3%}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "{run}", "--protocol", "digit"], "unknown protocol 'digit'; did you mean digits-demo"),
        (["evaluate", "{run}", "--protocol", "digits-demo", "--controls", "rndom"], "did you mean random"),
        (["evaluate", "{run}", "--protocol", "digits-demo", "--seeds", "a-b"], "write it like 0 1 2 or 0-5"),
        (["evaluate", "{run}", "--protocol", "digits-demo", "--seeds", "0-99999999999"], "at most 10,000 numbers"),
        (["evaluate", "{run}/recipe.json", "--protocol", "digits-demo"], "recipe.json is no ticket; give .safetensors"),
        (
            ["evaluate", "{run}/initial.safetensors", "--protocol", "digits-demo"],
            "initial.safetensors is W_0 and none of the tickets, .* give --controls reset",
        ),
        (["evaluate", "{run}", "--protocol", "digits-demo", "--seeds", "5-2"], "must be a range that rises, got '5-2'"),
        (["evaluate", "{run}", "--protocol", "digits-demo", "--probe", "9it"], "unknown flag '--probe'"),
        (["evaluate", "{run}"], "required: --protocol"),
        (["evaluate", "/nowhere", "--protocol", "cifar10"], "there is nothing at /nowhere"),
        (["inspect", "/nowhere"], "there is no ticket at /nowhere"),
        (["export", "/nowhere", "{run}/out"], "there is no ticket at /nowhere"),
        (["export", "{run}/tickets/level-00.safetensors", "{run}"], "is there already and not empty"),
        (["export", "{run}/tickets/level-00.safetensors", "x.pt", "--format", "onnx"], "invalid choice: 'onnx'"),
        (["inspect", "{run}"], "the folder of a run with 4 tickets"),
        (["inspect", "hf://nobody"], "write it hf://user/name"),
        (["report", "{run}", "-o", "page.pdf"], r"ends in \.html"),
        (["report", "{run}", "--latex", "table.txt"], r"ends in \.tex"),
        (["rows", "{run}", "-o", "rows.xls"], r"\.parquet or \.csv"),
        (["rows", "/nowhere"], "no folder /nowhere"),
        (["report", "{run}", "--outptu", "x.html"], "unknown flag '--outptu'; did you mean --output"),
        (["evalute", "{run}"], "evalute"),
    ],
)
def test_bad_input_is_one_line(run: Path, words: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        sslticket(*[word.format(run=run) for word in words])
    assert "\n" not in str(caught.value)


@pytest.mark.data
def test_a_ticket_for_another_model_is_refused(
    tmp_path: Path, test_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fashion_mnist").symlink_to(test_data / "fashion-mnist")
    monkeypatch.setenv("SSLTICKET_DATA", str(tmp_path / "data"))
    lenet = search(tmp_path / "runs", recipe(model="lenet300", data=Data(dataset="digits"))).run_dir.path
    with pytest.raises(
        BadInput, match=r"images of 8 pixels, and fashion_mnist-demo shows 12: fc1\.weight of lenet300 is \(300, 64\)"
    ):
        sslticket("evaluate", lenet, "--protocol", "fashion_mnist-demo", "--levels", 1)
    assert not list((lenet / "rows").glob("level-*"))


def test_a_folder_that_a_flag_takes_is_named_with_the_flag(run: Path) -> None:
    with pytest.raises(BadInput, match=f"{run} stands behind --seeds, which takes it; write it before --seeds"):
        sslticket("evaluate", "--protocol", "own", "--seeds", "0", run)
    with pytest.raises(BadInput, match="the following arguments are required: tickets"):
        sslticket("evaluate", "--protocol", "own", "--seeds", "0")


def test_numbers_and_ranges() -> None:
    assert parse_numbers(["0", "2", "4-6"], "--seeds") == [0, 2, 4, 5, 6]
