"""`sslticket watch` from files alone."""

import shutil
import socket
import time
from pathlib import Path

import pytest

from sslticket.cli.commands import run_command
from sslticket.cli.inspect_commands import progress_lines
from sslticket.errors import BadInput
from sslticket.training.progress import SILENT_AFTER, STATUS_FOLDER, Status, read_statuses, remove_dead_statuses
from tests.runs import recipe, search

TOLD = Status(
    task="level 4/4",
    step=1200,
    steps=3000,
    rate=5234.4,
    loss=0.81234,
    probe=0.412,
    left=80.0,
    host=socket.gethostname(),
    pid=1,
    time=0.0,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs"), recipe()).run_dir.path


def told(run: Path, name: str, **changes: object) -> None:
    Status(**(vars(TOLD) | changes)).write(run / STATUS_FOLDER / f"{name}.json")


def test_tickets_rows_and_processes_of_each_run(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / run.name)
    (folder / "tickets" / "level-03.safetensors").unlink()
    for name in (
        "level-01.ticket.a.seed0",
        "level-02.ticket.a.seed0",
        "level-01.random.a.seed0",
        "my.net.ticket.b.seed1",
    ):
        (folder / "rows" / f"{name}.jsonl").touch()
    told(folder, "here", pid=1, time=time.time() - 1000)  # process 1 always runs, whoever's it is
    told(folder, "away", host="elsewhere", time=time.time(), probe=None, left=None)
    told(folder, "dead", pid=2**30, time=time.time() - 65)
    told(folder, "gone", host="elsewhere", time=time.time() - SILENT_AFTER - 80)
    assert progress_lines([tmp_path]) == [
        str(folder),
        "  search   3 of 4 tickets, 1 left",
        "  rows     a: ticket 2, random 1",
        "  rows     b: ticket 1",
        "  running  level 4/4 step 1,200/3,000, 5,234 samples/s, loss 0.8123 (elsewhere:1)",
        f"  stopped  level 4/4 step 1,200/3,000, 5,234 samples/s, loss 0.8123, nearest neighbours 41.2% "
        f"({TOLD.host}:{2**30}, not heard of for 1 min 05 s)",
        "  stopped  level 4/4 step 1,200/3,000, 5,234 samples/s, loss 0.8123, nearest neighbours 41.2% "
        "(elsewhere:1, not heard of for 3 min 20 s)",
        "  running  level 4/4 step 1,200/3,000, 5,234 samples/s, loss 0.8123, nearest neighbours 41.2%, "
        f"1 min 20 s left ({TOLD.host}:1)",
        "3 tickets, 4 rows, 2 at work",
    ]
    remove_dead_statuses(folder)
    assert [each.silent_seconds for each in read_statuses(folder)] == [None, None]


def test_a_search_that_goes_on_takes_the_place_of_the_killed_one(tmp_path: Path) -> None:
    folder = search(tmp_path, recipe()).run_dir.path
    (folder / "tickets" / "level-03.safetensors").unlink()
    told(folder, "dead", pid=2**30, time=time.time() - 65)
    assert len(progress_lines([tmp_path])) == 4
    search(tmp_path, recipe())
    assert progress_lines([tmp_path]) == [
        str(folder),
        "  search   4 of 4 tickets, done",
        "4 tickets, 0 rows, 0 at work",
    ]


def test_a_finished_search_and_output_that_is_no_terminal(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["watch", str(run.parent)])
    assert capsys.readouterr().out.splitlines() == [
        str(run),
        "  search   4 of 4 tickets, done",
        "4 tickets, 0 rows, 0 at work",
    ]


def test_bad_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no folder .*nowhere; give folders of runs"):
        progress_lines([tmp_path / "nowhere"])
    with pytest.raises(BadInput, match="holds no runs; give folders of runs"):
        progress_lines([tmp_path])
    with pytest.raises(BadInput, match="--every must be above 0 seconds, got 0"):
        run_command(["watch", str(tmp_path), "--every", "0"])
