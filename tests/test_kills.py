"""The measurement with kills goes its whole way, in its small form, and what was killed three times is as if never."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kills.py"


@pytest.mark.slow
def test_three_kills_change_nothing(tmp_path: Path) -> None:
    words = ["--kills", "3", "--seed", "1", "--out", str(tmp_path), "--only", "search IMP", "export"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    counts = done.stdout.splitlines()[-1].split()
    assert counts[3] == "3", done.stdout
    assert counts[-2] == "0", done.stdout
    again = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=True)
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[3:], "it goes on where it was"
