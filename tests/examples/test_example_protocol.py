"""The example of a protocol of one's own: evaluated and reported, and no two settings share a name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sslticket import evaluate_tickets, load_recipe, write_report
from sslticket.cli.commands import run_command
from sslticket.cli.recipe_commands import run_with_flags
from sslticket.errors import BadInput
from sslticket.evaluation.protocols import Protocol, find_protocol

ROOT = Path(__file__).parents[2]
WARM = f"{ROOT / 'examples' / 'warm_protocol.py'}:WARM"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of two levels on digits, by its command."""
    out = tmp_path_factory.mktemp("runs")
    words = ["--length", "8it", "--batch-size", "32", "--levels", "1", "--rewind", "2it", "--out", str(out)]
    run_with_flags(load_recipe(ROOT / "recipes" / "supervised_digits.py"), words)
    return next(out.iterdir())


def test_a_protocol_of_ones_own_scores_tickets_in_commands_and_in_python(run: Path) -> None:
    run_command(["evaluate", str(run), "--protocol", WARM, "--levels", "1", "--controls", "random", "--seeds", "0"])
    name = find_protocol(WARM).name
    rows = [json.loads(file.read_text()) for file in run.glob(f"rows/*.{name}.*.jsonl")]
    assert {row["control"]: row["protocol"] for row in rows} == {"ticket": name, "random": name}
    assert {row["steps"] for row in rows} == {40}
    frame = evaluate_tickets(run, protocol=find_protocol(WARM), seeds=(0,), levels=(1,), progress=False)
    assert set(frame["protocol"]) == {name}
    assert len(frame) == 2, "the rows were there already"
    run_command(["report", str(run), "--output", str(run / "report.html")])
    assert name in (run / "report.html").read_text()
    write_report(run, run / "again.html")
    assert (run / "again.html").exists()


def test_a_changed_protocol_has_another_name() -> None:
    warm = find_protocol(WARM)
    assert warm.name.startswith("digits-warm-")
    assert warm.pinned() == warm
    longer = replace(warm, name="digits-warm", training=replace(warm.training, length="41it")).pinned()
    assert longer.name.startswith("digits-warm-")
    assert longer.name != warm.name
    late = find_protocol(f"{WARM}@k")
    assert (late.name, late.start) == (f"{warm.name}@k", "k")


def test_a_protocol_of_ones_own_cannot_take_the_name_of_a_built_in_one() -> None:
    demo = find_protocol("digits-demo")
    bent = replace(demo, training=replace(demo.training, length="9999it")).pinned()
    assert bent.name != "digits-demo"
    assert demo.pinned() == demo
    with pytest.raises(BadInput, match=r"name must be of letters.*got 'a/b'"):
        Protocol(name="a/b", dataset="digits", training=demo.training).pinned()
