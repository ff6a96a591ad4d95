"""The example of an analysis of one's own: its flags, its rows and its section of the report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sslticket import analyse_tickets
from sslticket.analysis import ANALYSES
from sslticket.cli.commands import run_command
from sslticket.ticket import Ticket
from tests.runs import search

NORM = f"{Path(__file__).parents[2] / 'examples' / 'weight_norm.py'}:WeightNorm"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


def test_an_analysis_of_ones_own_has_flags_rows_and_a_section(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["analyse", NORM, str(run), "--order", "1"])
    assert "4 rows written" in capsys.readouterr().out
    ticket = Ticket.load(run / "tickets" / "level-02.safetensors")
    kept = torch.cat([ticket.weights[name][mask] for name, mask in ticket.mask.items()])
    row = json.loads((run / "rows" / "level-02.weight_norm.jsonl").read_text())
    assert row["mean_norm"] == pytest.approx(float(kept.abs().mean()), rel=1e-5)
    assert list(row["parts"]) == [NORM]
    # Another process, which has not seen the file, loads it since this user has run it before.
    words = ["report", str(run), "--output", str(run / "report.html")]
    subprocess.run([sys.executable, "-m", "sslticket", *words], check=True, capture_output=True)
    page = (run / "report.html").read_text()
    assert "Norm of the surviving weights" in page


def test_an_analysis_of_ones_own_runs_in_python(run: Path) -> None:
    frame = analyse_tickets(run, analysis=ANALYSES.get(NORM)(order=2), levels=(1, 2))
    assert list(frame["level"]) == [1, 2]
    assert (frame["mean_norm"] > 0).all()


def test_fields_of_an_analysis_may_be_called_as_flags_of_its_command(run: Path, tmp_path: Path) -> None:
    source = Path(NORM.partition(":")[0]).read_text()
    fields = 'levels: int = 2\n    help: int = 1\n    seeds: int = 1\n    out: str = "a"'
    renamed = source.replace('kind = "weight_norm"', 'kind = "awkward"').replace("order: int = 2", fields)
    renamed = renamed.replace("self.order", "self.levels + self.help - self.seeds")
    (tmp_path / "awkward.py").write_text(renamed)
    name = f"{tmp_path / 'awkward.py'}:WeightNorm"
    run_command(["analyse", name, str(run), "--levels", "2", "--analysis.levels", "1", "--analysis.out", "b"])
    run_command(["analyse", NORM, str(run), "--levels", "2", "--order", "1"])
    row, known = (
        json.loads((run / "rows" / f"level-02.{kind}.jsonl").read_text()) for kind in ("awkward", "weight_norm")
    )
    assert row["mean_norm"] == known["mean_norm"]
    assert not (run / "rows" / "level-01.awkward.jsonl").exists()
    with pytest.raises(SystemExit):
        run_command(["analyse", name, "--help"])
