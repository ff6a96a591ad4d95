"""Two processes never do one piece of work; a dead one's is free again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sslticket.evaluation.claims import SILENT, claim_of, claimed

HOLD = """
import sys, time
from pathlib import Path
from sslticket.evaluation.claims import claimed
with claimed([Path(sys.argv[1])]) as mine:
    print(len(mine), flush=True)
    time.sleep(60)
"""


def test_a_claim_is_anothers_until_its_block_ends(tmp_path: Path) -> None:
    first, second = tmp_path / "rows" / "a.jsonl", tmp_path / "rows" / "b.jsonl"
    with claimed([first]) as mine:
        assert mine == [first]
        with claimed([first, second]) as others:
            assert others == [second]
        with claimed([second]) as again:
            assert again == [second]
    with claimed([first]) as mine:
        assert mine == [first]
    assert list(first.parent.iterdir()) == []


def test_a_killed_processs_claim_is_free_at_once(tmp_path: Path) -> None:
    target = tmp_path / "row.jsonl"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        with claimed([target]) as mine:
            assert mine == []
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert claim_of(target).exists()
    with claimed([target]) as mine:
        assert mine == [target]


def test_another_machines_claim_is_free_when_it_has_been_silent_for_long(tmp_path: Path) -> None:
    target = tmp_path / "row.jsonl"
    claim_of(target).write_text("another machine")
    with claimed([target]) as mine:
        assert mine == []
    assert claim_of(target).read_text() == "another machine"
    os.utime(claim_of(target), times=(0, time.time() - SILENT - 1))
    with claimed([target]) as mine:
        assert mine == [target]
    assert not claim_of(target).exists()
