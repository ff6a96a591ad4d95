"""Rows tell of tickets, not of processes: a search that was killed after every file that it wrote has the same rows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.objectives.byol import BYOL
from sslticket.objectives.rotnet import RotNet
from sslticket.pruning.criteria import SNIP, GraSP, SynFlow
from sslticket.search.dynamic import RigL
from sslticket.search.imp import IMP
from sslticket.search.learned import ContinuousSparsification, EdgePopup, StochasticSparsification
from sslticket.search.oneshot import OneShot
from sslticket.search.plan import plan_search
from sslticket.storage.leases import InHand
from sslticket.ticket import Ticket
from tests.runs import REWIND, recipe, search

ROOT = Path(__file__).parents[2]
AT = f"{REWIND}it"
SOFT: dict[str, Any] = {"rounds": 2, "score_lr": 2.0}

SEARCHES = {
    "imp": recipe(search=IMP(levels=2, rate=0.5, rewind=AT)),
    "imp-byol-finetune": recipe(
        BYOL(hidden=16, dim=8, momentum=0.9), search=IMP(levels=2, rate=0.5, rewind=AT, retrain="finetune")
    ),
    "imp-settled-snip": recipe(
        search=IMP(
            levels=2,
            rate=0.5,
            rewind=AT,
            early_bird=0.9,
            early_bird_window=1,
            early_bird_every="1it",
            criterion=SNIP(score_images=32),
        )
    ),
    "oneshot": recipe(search=OneShot(levels=3, rate=0.5, rewind=AT)),
    "oneshot-synflow": recipe(search=OneShot(levels=3, rate=0.5, rewind=AT, criterion=SynFlow(rounds=2))),
    "oneshot-grasp-start": recipe(
        RotNet(), search=OneShot(levels=3, rate=0.5, rewind=AT, scored="start", criterion=GraSP(score_images=40))
    ),
    "continuous": recipe(search=ContinuousSparsification(rewind=AT, **SOFT)),
    "continuous-rewind": recipe(search=ContinuousSparsification(rewind=AT, rewind_weights=True, **SOFT)),
    "stochastic": recipe(search=StochasticSparsification(rewind=AT, **SOFT)),
    "edgepopup": recipe(search=EdgePopup(density=0.25)),
    "rigl": recipe(search=RigL(densities=(0.5, 0.2), update_interval="2it", update_until="100%")),
}


LEFT = (("", "safetensors"), ("search.", "jsonl"))


class Killed(BaseException):
    """No clean-up of ours knows it, as none knows SIGKILL."""


def told(folder: Path) -> dict[str, dict[str, Any]]:
    """What the rows of a search say, but for the clock."""
    rows = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/rows/*.jsonl"))}
    for row in rows.values():
        del row["command"]  # which names the folder
        row.pop("seconds", None)
    return rows


def files(folder: Path) -> dict[str, bytes]:
    """Everything but rows that a search leaves."""
    left = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(left)}


@pytest.mark.parametrize("which", SEARCHES.values(), ids=SEARCHES)
def test_a_search_that_is_killed_after_every_file_has_the_rows_of_one_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: Recipe
) -> None:
    search(tmp_path / "whole", which)
    replace, kills = Path.replace, 0

    def last_act(self: Path, target: Path) -> Path:
        known = target.exists()  # an earlier process was killed here
        replace(self, target)
        if known or ".status" in target.parts:
            return target
        raise Killed

    for _ in range(40):
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", last_act)
            try:
                search(tmp_path / "killed", which)
            except Killed:
                kills += 1
            else:
                break
    assert kills >= 5, "recipe, W_0, snapshot, a row and a ticket at least"
    assert told(tmp_path / "killed") == told(tmp_path / "whole")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


@pytest.mark.slow
def test_rows_are_those_of_an_unkilled_search_when_a_real_process_was_killed_between_its_levels(tmp_path: Path) -> None:
    code = "from tests.search.test_killed import *; search(Path(sys.argv[1]), SEARCHES['oneshot'])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def started(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, str(tmp_path / out)]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)

    assert started("whole").wait() == 0
    killed = 0
    for mark in ("level-01.safetensors", "level-02.safetensors"):
        process = started("killed")
        while process.poll() is None and not list((tmp_path / "killed").rglob(mark)):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed, "it was never caught at work"
    assert started("killed").wait() == 0
    assert told(tmp_path / "killed") == told(tmp_path / "whole")


def test_a_search_that_another_went_on_with_while_it_was_stopped_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Ticket.save

    def save_and_lose(self: Ticket, path: Path) -> None:
        save(self, path)
        if path.name == "level-01.safetensors":
            (path.parents[1] / ".lock").unlink()
            (path.parents[1] / ".lock").write_text("n9")

    monkeypatch.setattr(Ticket, "save", save_and_lose)
    with pytest.raises(InHand, match=r"another process has gone on with the search in .*more than 75 s"):
        search(tmp_path)
    left = {path.name for path in tmp_path.rglob("*level-0*")}
    assert left == {f"{start}level-0{level}.{end}" for level in (0, 1) for start, end in LEFT}
    (lock,) = tmp_path.rglob(".lock")
    assert lock.read_text() == "n9"


def test_images_that_could_not_be_read_are_counted_up_to_the_ticket_that_is_there(tmp_path: Path) -> None:
    folder = plan_search(recipe(), RuntimeConfig(), tmp_path).run_dir
    assert folder.unreadable_images(9) == {}
    folder.save_unreadable_images(0, {})
    assert not folder.path.exists(), "nothing is written of nothing"
    folder.save_unreadable_images(1, {"b.JPEG": "cut"})
    folder.save_unreadable_images(2, {"b.JPEG": "cut", "a.JPEG": "empty"})
    assert (folder.unreadable_images(0), folder.unreadable_images(1)) == ({}, {"b.JPEG": "cut"})
    assert folder.unreadable_images(2) == {"a.JPEG": "empty", "b.JPEG": "cut"}
    folder.save_unreadable_images(2, {"b.JPEG": "cut", "c.JPEG": "empty"})  # the ticket of level 2 was deleted
    assert folder.unreadable_images(2) == {"b.JPEG": "cut", "c.JPEG": "empty"}
