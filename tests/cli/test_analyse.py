"""`sslticket analyse` in this process, and in several."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sslticket.cli.commands import run_command
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.training.numerics import Numerics
from tests.runs import search


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search(tmp_path_factory.mktemp("runs")).run_dir.path


@pytest.fixture
def run(found: Path, tmp_path: Path) -> Path:
    return shutil.copytree(found, tmp_path / found.name)


def sslticket(*words: object) -> None:
    run_command([str(word) for word in words])


def test_a_dry_run_tells_what_is_done_and_left_and_trainings_are_counted_once(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "analyse",
        "stability",
        run,
        "--protocol",
        "digits-demo@k",
        "--seeds",
        "0",
        "--levels",
        "1-2",
        "--controls",
    )
    sslticket(*words, "local", "--dry-run")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    # W_k after 64 samples is step 1 of 200 steps of 128 images, where training starts at k. Tickets: two orders each,
    # and the dense network once.
    assert lines[1].startswith(f"digits-demo@k ticket 2 0 5 199 {5 * 199 * 128:,} about ")
    assert lines[2].startswith(f"digits-demo@k local 2 0 4 199 {4 * 199 * 128:,} about ")
    assert lines[3] == "4 rows, 0 done"
    assert lines[4].startswith(f"left: 9 trainings, {9 * 199 * 128:,} samples, training time about ")
    assert lines[5] == f"trainings: 9 trainings of 200it = {9 * 199:,} steps"
    assert f"numerics: {Numerics.resolve(RuntimeConfig(), None)}" in lines
    assert lines[-1].startswith("memory: 2.8 MB a device for a part of 128 images: activations 2.3, ")
    assert not (run / "endpoints").exists()
    assert not list((run / "rows").glob("*stability*"))
    sslticket("analyse", "magnitudes", run, "--protocol", "digits-demo@k", "--seeds", "0")
    printed = capsys.readouterr().out
    assert "level 0 ticket seed 0: 100.00% of 13,968 weights are above 1.19e-07" in printed
    assert printed.endswith("1 row measured, 0 were there already\n")
    sslticket(*words, "--dry-run")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1].startswith(f"digits-demo@k ticket 2 0 4 199 {4 * 199 * 128:,} about"), "the dense training is there"


def test_masks_are_compared_and_counted_without_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sslticket("analyse", "overlap", run, "--pairs", "all", "--levels", "1-2")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    # A quarter of the weights are within a half of them.
    assert lines[1].startswith("supervised supervised one 1 2 0.500 ")
    assert lines[2] == "1 row written"
    sslticket("analyse", "channels", run)
    printed = capsys.readouterr().out.splitlines()
    assert "level 0: density 100.000%, 0 of " in printed[0]
    assert printed[-1] == "4 rows written"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["{run}", "--protocol", "digits-demo"],
            "unknown analysis .*known: channels, .*magnitudes, overlap, rewind, stability",
        ),
        ([], "required: ANALYSIS"),
        (["stability", "{run}"], "required: --protocol"),
        (["stability", "{run}", "--protocol", "digit"], "unknown protocol 'digit'; did you mean digits-demo"),
        (["stability", "{run}", "--protocol", "digits-demo", "--controls", "lcal"], "did you mean local"),
        (
            ["connectivity", "{run}", "--protocol", "digits-demo", "--points", "1"],
            "--points must be at least 3, .* got 1; give --points 3 or more",
        ),
        (["magnitudes", "{run}", "--protocol", "digits-demo", "--levels", "x"], "write it like 0 1 2 or 0-5"),
        (["connectivity", "{run}", "--protocol", "digits-demo", "--pints", "3"], "did you mean --points"),
        (["overlap", "{run}"], "of 4 tickets no two are sparse and of one network and level; give the folders of"),
        (["overlap", "{run}", "--pairs", "levels"], "invalid choice: 'levels'"),
        (["channels", "{run}/nowhere"], "there is nothing at .*nowhere; give ticket files or folders of runs"),
        (["rewind", "{run}"], "no scores below .* differ in their rewind point only; search with several --rewind"),
        (["rewind", "{run}/nowhere"], "no folder .*nowhere"),
    ],
)
def test_bad_input_is_one_line(run: Path, words: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        sslticket("analyse", *[word.format(run=run) for word in words])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_two_commands_at_once_share_rows_and_endpoints(run: Path) -> None:
    words = ["analyse", "connectivity", str(run), "--protocol", "digits-demo", "--seeds", "0-1", "--levels", "1"]
    command = [sys.executable, "-m", "sslticket", *words, "--controls", "local", "--points", "3"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate(timeout=250) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sum(int(out.splitlines()[-1].split()[0]) for out, _ in printed) == 4, "each row was written by exactly one"
    rows = [json.loads(path.read_text()) for path in (run / "rows").glob("*.connectivity*.jsonl")]
    assert {(row["control"], row["seed"]) for row in rows} == {(c, s) for c in ("ticket", "local") for s in (0, 1)}
    assert len(list((run / "endpoints").iterdir())) == 8, "and no claims are left"
