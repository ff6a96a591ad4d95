"""Tickets that others give away are what their rows say, and those of the zoo are what its table says."""

import json
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from sslticket.cli.commands import run_command
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.errors import BadInput
from sslticket.export.rescoring import chance_of_a_difference
from sslticket.results.table import read_rows
from sslticket.ticket import Ticket

ZOO = Path(__file__).parents[2] / "examples" / "zoo"
DIGITS = "digits-conv3-labels-level-6"
ROW = "ticket.ticket.digits-demo.own-head.seed0.jsonl"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A folder with one ticket of the zoo."""
    shutil.copytree(ZOO / DIGITS, tmp_path / "zoo" / DIGITS)
    return tmp_path / "zoo"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first measurement left, so that others can go on from there."""
    return tmp_path_factory.mktemp("measured")


def told(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[str, str]:
    """What the command prints, and the error that it ends with or ""."""
    try:
        run_command(["rescore", *map(str, words), "--seeds", "0", "--quiet"])
    except BadInput as error:
        return capsys.readouterr().out, str(error)
    return capsys.readouterr().out, ""


def change(file: Path, **fields: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields) + "\n")


def test_seeds_that_no_row_has_are_refused_with_those_that_there_are(zoo: Path) -> None:
    with pytest.raises(BadInput, match=r"^--seeds must be some of the rows', which are 0 1 2, got 7 9; leave it out"):
        run_command(["rescore", str(zoo), "--seeds", "7", "9", "--quiet"])


def test_a_ticket_of_the_zoo_scores_what_its_row_says(
    zoo: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((path, path.read_bytes()) for path in zoo.rglob("*") if path.is_file())
    out, error = told(capsys, zoo, "--out", measured)
    assert error == ""
    assert "218 of 13,968 prunable weights" in out
    assert "loads into conv3; model.safetensors, config.json" in out
    recorded = 100 * json.loads((zoo / DIGITS / "rows" / ROW).read_text())["top1"]
    assert f"{DIGITS} digits-demo own head seed 0: {recorded:.2f} recorded" in out
    assert "1 ticket verified and loaded, 1 row beside them, 1 measured again" in out
    assert "2 of other seeds" in out
    assert sorted((path, path.read_bytes()) for path in zoo.rglob("*") if path.is_file()) == before

    again = json.loads(next(measured.rglob(ROW)).read_text())
    file = zoo / DIGITS / "rows" / ROW
    # As another processor would have rounded: a little off is told, and is close.
    change(file, top1=again["top1"] - 0.01)
    out, error = told(capsys, zoo, "--out", measured)
    assert "+1.00, within " in out
    assert error == ""
    out, error = told(capsys, zoo, "--out", measured, "--tolerance", "0.5")
    assert "PROBLEM" in out
    assert "+1.00, more than 0.50 points" in out
    assert error.startswith("1 problem")
    change(file, top1=again["top1"] - 0.2)
    out, error = told(capsys, zoo, "--out", measured)
    assert "+20.00, more than " in out
    assert error.startswith("1 problem")
    change(file, top1=again["top1"])
    change(file, **{key: again[key] for key in ("top1", "top5", "loss")})
    out, error = told(capsys, zoo, "--out", measured, "--tolerance", "0")
    assert "the same to the bit" in out
    assert error == ""


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"density": 0.5}, "says density 0.5, and the ticket says 0.0156"),
        ({"objective": "rotnet"}, "says objective rotnet, and the ticket says supervised"),
        ({"ticket_hash": "0123456789abcdef"}, "is about the ticket with hash 0123456789abcdef, and this one has"),
        ({"protocol_hash": "01234567"}, "under other settings of digits-demo"),
        ({"top1": 1.5}, "has top1 1.5"),
    ],
)
def test_a_row_that_is_about_something_else_is_a_problem(
    zoo: Path, capsys: pytest.CaptureFixture[str], fields: dict[str, object], line: str
) -> None:
    change(zoo / DIGITS / "rows" / ROW, **fields)
    out, error = told(capsys, zoo, "--dry-run")
    assert [each for each in out.splitlines() if each.startswith("PROBLEM") and line in each]
    assert error.startswith("1 problem")


@pytest.mark.parametrize("name", ["ticket.safetensors", "model.safetensors", "config.json", "README.md"])
def test_a_flipped_byte_is_a_problem(zoo: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    file = zoo / DIGITS / name
    content = bytearray(file.read_bytes())
    digest = Ticket.load(zoo / DIGITS).hash.encode()
    place = content.find(digest) if name in ("config.json", "README.md") else len(content) - 40
    content[place] ^= 1
    file.write_bytes(content)
    shutil.copytree(ZOO / "digits-conv3-rotnet-level-6", zoo / "sound")
    out, error = told(capsys, zoo, "--dry-run")
    assert any(line.startswith("PROBLEM") and DIGITS in line for line in out.splitlines())
    assert error.startswith("1 problem")
    assert f"{zoo / 'sound'}: level 6" in out  # the others are looked at all the same


def test_missing_images_are_named_and_fail_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ZOO / "cifar10-conv3-labels-level-2"
    out, error = told(capsys, place, "--data-root", tmp_path)
    assert "1 row not measured again, though verified with their tickets: no images of cifar10 found" in out
    assert "1 ticket verified and loaded" in out
    assert "measured again:" not in out
    assert error == ""


def test_tickets_of_runs_lie_beside_their_rows_too(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    out, error = told(capsys, tmp_path / "run", "--dry-run", "--levels", "3")
    # Its protocol is one of Python's, which no name finds.
    assert "1 ticket verified and loaded, 2 rows beside them" not in out
    assert "1 row not measured again, though verified with their tickets: protocol short" in out
    assert error == ""
    assert "of controls left aside" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["hf://me/ticket"], "comes without its rows; fetch the whole repository, `hf download me/ticket"),
        ([str(ZOO), "--tolerance", "-1"], "--tolerance must be from 0 to 100 points, got -1"),
        (["/nowhere"], "there is nothing at /nowhere"),
    ],
)
def test_what_cannot_be_checked_is_refused(words: list[str], line: str) -> None:
    with pytest.raises(BadInput, match=line):
        run_command(["rescore", *words])


def test_the_tolerance_is_three_standard_errors_of_a_difference() -> None:
    # Of 100 images half of which are guessed right the standard error is 0.05.
    assert chance_of_a_difference(0.5, 100, [0.5]) == pytest.approx(3 * 2**0.5 * 0.05)
    assert chance_of_a_difference(0.5, 100, [0.4, 0.6]) == pytest.approx(3 * 2**0.5 * 0.02**0.5)
    assert chance_of_a_difference(0.5, 100, [0.5, 0.5]) == pytest.approx(3 * 2**0.5 * 0.05)  # of few seeds, by luck
    assert 0 < chance_of_a_difference(1.0, 100, [1.0]) < 0.05


def table_lines() -> Iterator[str]:
    """The lines of the zoo's table, from its tickets and their rows."""
    for folder in sorted(path for path in ZOO.iterdir() if path.is_dir()):
        ticket, rows = Ticket.load(folder), read_rows([folder])
        scores, seeds = 100 * rows["top1"], sorted(rows["seed"])
        search, objective = str(rows["search"].iloc[0]), str(rows["objective"].iloc[0])
        assert {rows[key].nunique() for key in ("protocol", "head", "search", "objective", "commit")} == {1}
        assert len(seeds) == len(set(seeds)) == 3
        assert set(rows["ticket_hash"]) == {ticket.hash}
        cells = [
            f"`{folder.name}`",
            f"{objective}, {search}",
            ticket.record.model,
            ticket.record.data.dataset,
            f"{100 * ticket.density:.3g}%",
            f"{(folder / 'ticket.safetensors').stat().st_size / 1024:.0f} KiB",
            f"{scores.mean():.1f} ± {statistics.stdev(scores):.1f}",
            f"`{rows['protocol'].iloc[0]}`, {rows['head'].iloc[0]} head",
            get_dataset(ticket.record.data.dataset).licence,
        ]
        yield f"| {' | '.join(cells)} |"


def test_the_table_of_the_zoo_is_that_of_its_tickets() -> None:
    found = [line for line in (ZOO / "README.md").read_text().splitlines() if line.startswith("| `")]
    assert found == list(table_lines())
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) < 3_000_000
