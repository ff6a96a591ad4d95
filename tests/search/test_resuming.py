"""A run that goes on with other code, versions or numbers says so, and its rows tell which level had which."""

import json
from pathlib import Path

import pytest

from sslticket import provenance
from sslticket.analysis.base import run_analysis
from sslticket.analysis.magnitudes import Magnitudes
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.evaluation import tasks
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol
from sslticket.search.imp import IMP
from sslticket.training.engine import Engine
from tests.runs import recipe, search


def rewritten(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes) + "\n", encoding="utf-8")


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """The folder of a search of three levels whose last two tickets are gone."""
    folder = search(tmp_path, recipe(search=IMP(levels=3, rate=0.5, rewind="2it"))).run_dir
    for level in (2, 3):
        folder.ticket_path(level).unlink()
    return folder.path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return next((line for line in capsys.readouterr().err.splitlines() if "goes on otherwise" in line), "")


def test_a_search_that_goes_on_with_the_same_says_nothing(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    search(found.parent)
    assert said(capsys) == ""


def test_a_search_that_goes_on_with_another_commit_torch_and_threads_says_which_levels_had_which(
    found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = provenance.library_versions()
    for level in (0, 1):
        rewritten(
            found / "rows" / f"search.level-0{level}.jsonl", commit="0123456789ab", versions=now | {"torch": "2.0.1"}
        )
    rewritten(found / "rows" / "search.level-01.jsonl", device="cpu, 64 threads")
    capsys.readouterr()
    search(found.parent)
    code = f"commit 0123456789ab (now {provenance.git_commit()})"
    torch = f"torch 2.0.1 (now {now['torch']})"
    assert f"level 0 with {code}, {torch}; level 1 with {code}, device cpu, 64 threads (now cpu, " in said(capsys)
    rows = [json.loads((found / "rows" / f"search.level-0{level}.jsonl").read_text()) for level in range(4)]
    assert [row["versions"]["torch"] for row in rows] == ["2.0.1", "2.0.1", now["torch"], now["torch"]]


def test_a_search_that_goes_on_with_files_that_are_not_committed_says_so(
    found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewritten(found / "recipe.json", code="00ff00ff00ff00ff")
    capsys.readouterr()
    search(found.parent)
    assert f"other code or another recipe file (hash 00ff00ff00ff00ff, now {provenance.code_hash()})" in said(capsys)


def test_a_search_that_is_finished_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = search(tmp_path).run_dir
    rewritten(folder.row_path(0), commit="0123456789ab")
    capsys.readouterr()
    search(tmp_path)
    assert said(capsys) == ""


def test_rows_of_other_versions_that_stay_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = search(tmp_path, recipe(search=IMP(levels=1, rate=0.5, rewind="2it"))).run_dir
    short = Protocol(
        name="short", dataset="digits", training=TrainConfig(length="4it", batch_size=32, optimizer=SGD(lr=0.1))
    )
    matrix = tasks.make_tasks(tasks.find_ticket_files([folder.path], tasks.Levels((0,))), [], [short], [0], ["new"])
    bench = Engine.create(RuntimeConfig(), "fp32")
    for do, file in (
        (lambda: list(evaluate_tasks(matrix, bench)), matrix[0].row_file),
        (lambda: list(run_analysis(Magnitudes(), matrix, bench)), Magnitudes().row_file(matrix[0])),
    ):
        do()
        rewritten(file, commit="0123456789ab", versions=provenance.library_versions() | {"timm": "1.0.1"})
        capsys.readouterr()
        assert do() == []
        told = capsys.readouterr().err
        assert "rows that are there stay, though measured otherwise: 1 with commit 0123456789ab (now" in told
        assert f"timm 1.0.1 (now {provenance.library_versions()['timm']})" in told


def test_what_nobody_knows_is_no_difference() -> None:
    now = {"commit": "abc", "versions": {"torch": "2.11.0"}, "numerics": "fp32"}
    assert provenance.provenance_differences({"commit": "", "versions": {"torch": "2.11.0"}}, now) == ""
    assert provenance.provenance_differences({}, now) == ""
    assert (
        provenance.provenance_differences({"versions": {"torch": "2.11.0", "timm": "1.0"}}, now)
        == "timm 1.0 (now none)"
    )
