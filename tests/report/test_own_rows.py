"""Rows of analyses and controls from outside the package: read, checked, drawn, or left out with the reason."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from sslticket import registry, report
from sslticket.errors import BadInput
from sslticket.evaluation import CONTROLS
from sslticket.evaluation.controls import Control
from sslticket.pruning.mask import Mask
from sslticket.report.content import Content
from sslticket.report.sections import FigureGroup, Picker, Section
from sslticket.results import rows, table
from sslticket.results.row_schema import Amount, Fraction
from sslticket.results.rows import Row, TargetFields, row_error
from sslticket.ticket import Ticket
from tests.report.conftest import SHARED

Json = dict[str, Any]
SOURCE = '''
"""An analysis that counts."""
from dataclasses import dataclass
from typing import ClassVar
from sslticket.results.row_schema import Amount
from sslticket.results.rows import Row

@dataclass(frozen=True, kw_only=True)
class CountRow(Row):
    """How many there are."""
    kind: ClassVar[str] = "counted"
    title: ClassVar[str] = "Counts"
    count_of_all: Amount
'''


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Classes of a test are known to no other, and nobody's cache folder has its files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_user_modules", {})
    before, controls = dict(rows.ROW_TYPES), dict(rows.CONTROLS)
    table._load_part.cache_clear()
    yield
    for known, earlier in ((rows.ROW_TYPES, before), (rows.CONTROLS, controls)):
        known.clear()
        known.update(earlier)


def counted(file: Path, **changes: Any) -> Json:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.exists() else "0" * 16
    parts = {f"{file}:CountRow": digest}
    return SHARED_ROW | {"kind": "counted", "count_of_all": 3, "parts": parts} | changes


SHARED_ROW = {key: value for key, value in SHARED.items() if key not in ("loss", "samples", "seconds", "steps")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "counting.py"
    path.write_text(SOURCE)
    return path


def test_rows_of_an_analysis_that_the_user_has_run_are_drawn_without_a_flag(
    file: Path, runs: Callable[..., Path], score: Callable[..., Json], tmp_path: Path
) -> None:
    registry.remember_parts({f"{file}:CountRow": hashlib.sha256(file.read_bytes()).hexdigest()[:16]})
    written = report.write_report([runs(score(), counted(file))], tmp_path / "report.html")
    page = written.html.read_text("utf-8")
    assert '<section id="counted"><h2>Counts</h2><p class="soft">How many there are.</p>' in page
    assert "conv: count of all" in page
    assert written.notes == ()


def test_no_code_of_a_file_runs_that_the_user_has_not_run_before(
    file: Path, runs: Callable[..., Path], score: Callable[..., Json], tmp_path: Path
) -> None:
    file.write_text(SOURCE + f"\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    written = report.write_report([runs(score(), counted(file), counted(file))], tmp_path / "report.html")
    assert not (tmp_path / "ran").exists()
    assert [note.partition(": ")[0] for note in written.notes] == ["2 rows of the kind counted left out"]
    assert f"give --parts {file} to run it" in written.notes[0]


def test_rows_of_an_earlier_state_of_a_file_are_drawn_with_the_others_whatever_their_order(
    file: Path, runs: Callable[..., Path], score: Callable[..., Json]
) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    registry.remember_parts({f"{file}:CountRow": digest})
    earlier = counted(file, parts={f"{file}:CountRow": "0" * 16}, run="earlier")
    frame = table.read_rows([runs(score(), earlier, counted(file))])
    assert (frame["kind"] == "counted").sum() == 2
    (note,) = frame.attrs["left_out"]
    assert note == (
        f"1 row of the kind counted read with its file as it is now: {file}, which defines CountRow, has changed since"
    )


def test_a_table_with_rows_of_ones_own_is_read_where_their_file_is_known(
    file: Path, runs: Callable[..., Path], score: Callable[..., Json], tmp_path: Path
) -> None:
    registry.load_user_file(file)
    table.write_table([runs(score(), counted(file))], tmp_path / "rows.csv")
    assert table.read_rows([tmp_path / "rows.csv"])["count_of_all"].dropna().tolist() == [3]
    del rows.ROW_TYPES["counted"]
    registry._user_modules.clear()
    left = table.read_rows([tmp_path / "rows.csv"])
    assert left["kind"].tolist() == ["score"]
    assert left.attrs["left_out"][0].startswith("1 row of the kind counted left out: ")


def test_where_all_rows_are_left_out_the_file_to_give_is_named(runs: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"1 row of the kind counted left out: .*gone\.py.*--parts FILE\.py"):
        table.read_rows([runs(counted(tmp_path / "gone.py"))])


def test_a_table_has_a_column_for_each_key_of_ones_own(file: Path, runs: Callable[..., Path], tmp_path: Path) -> None:
    registry.load_user_file(file)
    table.write_table([runs(counted(file))], tmp_path / "rows.csv")
    assert pd.read_csv(tmp_path / "rows.csv")["count_of_all"].tolist() == [3]


def test_a_row_of_ones_own_is_checked_as_others_are(file: Path) -> None:
    registry.load_user_file(file)
    assert row_error(counted(file)) is None
    assert row_error(counted(file, count_of_all="3")) == (
        "has count_of_all '3', which is of the wrong type: it must be a number"
    )
    assert row_error(counted(file, count_of_all=-3.0)) == "has count_of_all -3.0, which must be from 0 to 9.0072e+15"


def test_a_key_has_one_type_in_all_kinds() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Odd(Row):
        kind: ClassVar[str] = "odd"
        top1: str

    with pytest.raises(ValueError, match="'top1' of rows of kind 'odd' must be a number as in other kinds, got text"):
        rows.row_columns()


def test_two_classes_cannot_share_a_kind() -> None:
    with pytest.raises(ValueError, match="`kind` must be of one class of rows, got 'score', which ScoreRow has"):
        type("Other", (Row,), {"kind": "score", "__module__": __name__})


@dataclass(frozen=True, kw_only=True)
class ShareRow(TargetFields, Row):
    """The share of something."""

    share: Fraction
    length: Amount | None = None


def test_an_analysis_brings_its_own_section(score: Callable[..., Json]) -> None:
    @dataclass(frozen=True, kw_only=True)
    class HalfRow(ShareRow):
        kind: ClassVar[str] = "half"

    class Halves:
        row_type = HalfRow

        @staticmethod
        def section(frame: pd.DataFrame) -> Section:
            return Section("half", "Halves", "Of all.", (Picker("Shown:", (FigureGroup("none"),)),))

    row = {key: value for key, value in score(kind="half", share=0.5).items() if key not in ("top1", "top5", "loss")}
    frame = pd.DataFrame([row], columns=rows.row_columns())
    # Without an analysis beside its rows: a chart of each of its numbers.
    [section] = Content(frame).sections
    assert [chart.title for chart in section.charts()] == ["conv on digits, protocol digits: share"]
    globals()["Halves"] = Halves
    try:
        assert [each.title for each in Content(frame).sections] == ["Halves"]
    finally:
        del globals()["Halves"]


def test_rows_of_many_fields_warn_of_nothing(score: Callable[..., Json]) -> None:
    columns = [*rows.row_columns(), *(f"field{index}" for index in range(40))]  # warnings are errors in tests
    assert len(Content(pd.DataFrame([score()], columns=columns)).summary) == 1


def test_a_control_of_ones_own_is_pooled_as_its_class_says(score: Callable[..., Json]) -> None:
    scores = [score(), score(control="mirrored", run="a", replicate=0), score(control="mirrored", run="b", replicate=0)]
    frame = pd.DataFrame([row | {"ticket_hash": row["run"]} for row in scores], columns=rows.row_columns())
    assert "rotnet, mirrored" in set(Content(frame).summary["series"])
    rows.CONTROLS["mirrored"] = rows.ControlInfo("weights in a mirror", shared=True)
    own = Content(frame).summary.set_index("series").loc["mirrored"]
    assert (own["n"], own["trainings"]) == (1, 1)


def test_a_class_of_a_control_tells_reports_what_it_is() -> None:
    class Mirrored(Control):
        name = "mirrored"
        description = "weights in a mirror"
        shared = True

        def mask(self, ticket: Ticket, *, seed: int, natural: Mask | None) -> Mask:
            return ticket.mask

    assert rows.CONTROLS["mirrored"] == rows.ControlInfo("weights in a mirror", shared=True, keeps_weights=False)


def test_reports_know_all_controls_of_the_package() -> None:
    assert {"ticket", *CONTROLS.names()} <= rows.CONTROLS.keys()
    for name in CONTROLS.names():
        control = CONTROLS.get(name)
        assert (control.shared, control.keeps_weights) == rows.CONTROLS[name][1:], name
