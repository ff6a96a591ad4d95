"""The harness of the benchmarks, and the page that is written from its rows. Nothing is timed here."""

import importlib
import json
import os
import sys
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def module(name: str) -> ModuleType:
    """A file of the benchmarks, which are scripts that find their neighbours by the search path."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


compare = module("compare")


def test_contenders_take_turns_in_processes_of_their_own_and_warm_rounds_do_not_count(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def contender(name: str):
        def prepare():
            rounds = count()

            def work():
                with log.open("a") as file:
                    file.write(name)
                return os.getpid(), next(rounds)

            return work

        return prepare

    turns = compare.in_turn({"a": contender("a"), "b": contender("b")}, 2, warm=1)
    assert log.read_text() == "ababab"
    told = {name: [turn.told for turn in each] for name, each in turns.items()}
    assert [number for _, number in told["a"]] == [number for _, number in told["b"]] == [1, 2]
    assert len({process for each in told.values() for process, _ in each} | {os.getpid()}) == 3


def test_what_fails_in_a_contender_is_told_and_what_the_machine_lacks_stays_that() -> None:
    def broken():
        raise ValueError("no such network")

    def lacking():
        def work():
            raise compare.NotHere("set OPEN_LTH")

        return work

    with pytest.raises(RuntimeError, match="no such network"):
        compare.in_turn({"ours": broken}, 1)
    with pytest.raises(compare.NotHere, match="set OPEN_LTH"):
        compare.in_turn({"ours": lacking}, 1)


def turns(ours: list[float], other: list[float]) -> dict[str, list[Any]]:
    return {
        "ours": [compare.Turn(each, 0.0, 0) for each in ours],
        "other": [compare.Turn(each, 0.0, 0) for each in other],
    }


def test_a_ratio_is_the_median_over_rounds_with_the_least_and_the_greatest() -> None:
    line = compare.compared(turns([1.0, 2.0, 4.0], [3.0, 4.0, 4.0]), "w", "t", other="other", target=2.0, per=2)
    assert (line.ratio, line.low, line.high, line.met, line.rounds) == (2.0, 1.0, 3.0, True, 3)
    assert (line.ours, line.other) == (1000.0, 2000.0)  # milliseconds of a half


@pytest.mark.parametrize(
    ("kind", "ours", "target", "met"),
    [("faster", 1.0, 2.1, False), ("more", 2.05, 1.02, False), ("more", 2.02, 1.02, True), ("of", 1.1, 0.5, False)],
)
def test_a_target_is_missed_on_its_own_side(kind: str, ours: float, target: float, met: bool) -> None:
    line = compare.compared(turns([ours], [2.0]), "w", "t", other="other", kind=kind, target=target)
    assert line.met is met


def test_a_line_survives_its_row_and_one_that_was_not_measured_says_why() -> None:
    line = compare.compared(turns([1.0], [2.0]), "what", "bare torch", other="other", target=1.5)
    row = json.loads(json.dumps(compare.as_row(line) | {"topic": "t", "commit": "c"}))
    assert compare.from_row(row) == line
    assert compare.cells(line)[2:] == ("2,000 ms bare torch", "2.00x faster (2.00x to 2.00x)", ">= 1.50x", "yes")
    assert compare.cells(compare.not_measured("search", "set OPEN_LTH"))[1] == "not measured: set OPEN_LTH"


def test_the_tables_of_the_page_are_those_of_the_rows() -> None:
    table = module("speed_table")
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.filled(page) == page


def test_every_topic_is_on_the_page_and_every_row_is_of_a_topic() -> None:
    bench, page = module("bench"), module("speed_table").PAGE.read_text(encoding="utf-8")
    shown = {name for line in page.splitlines() if " begins:" in line for name in line.split()[1].split("+")}
    assert shown - {"origin"} == set(bench.TOPICS)
    assert {path.stem for path in bench.RESULTS.glob("*.jsonl")} <= set(bench.TOPICS)


def test_a_topic_that_was_measured_at_this_commit_is_not_measured_again(tmp_path: Path, monkeypatch) -> None:
    bench = module("bench")
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    machine = {"commit": "abc", "processor": "p", "versions": {"torch": "1"}}
    row = compare.as_row(compare.Line(what="w", ours=1.0)) | {"topic": "selection", **machine}
    (tmp_path / "selection.jsonl").write_text(json.dumps(row) + "\n")
    assert [line.what for line in bench._known("selection", machine)] == ["w"]
    assert bench._known("selection", machine | {"commit": "abd"}) == []
    assert bench._known("startup", machine) == []
    dirty = machine | {"commit": "abc+changes"}
    (tmp_path / "selection.jsonl").write_text(json.dumps(row | dirty) + "\n")
    assert bench._known("selection", dirty) == []  # nobody knows which changes
