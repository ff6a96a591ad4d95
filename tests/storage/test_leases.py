"""Two processes never do one piece of work; a dead one's is free again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sslticket.storage.leases import EXPIRY_SECONDS, hold_leases, lease_path

HOLD = """
import sys, time
from pathlib import Path
from sslticket.storage.leases import hold_leases
with hold_leases([Path(sys.argv[1])]) as mine:
    print(len(mine), flush=True)
    time.sleep(60)
"""


def test_a_claim_is_anothers_until_its_block_ends(tmp_path: Path) -> None:
    first, second = tmp_path / "rows" / "a.jsonl", tmp_path / "rows" / "b.jsonl"
    with hold_leases([first]) as mine:
        assert mine == [first]
        with hold_leases([first, second]) as others:
            assert others == [second]
        with hold_leases([second]) as again:
            assert again == [second]
    with hold_leases([first]) as mine:
        assert mine == [first]
    assert list(first.parent.iterdir()) == []


def test_a_killed_processs_claim_is_free_at_once(tmp_path: Path) -> None:
    target = tmp_path / "row.jsonl"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        with hold_leases([target]) as mine:
            assert mine == []
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert lease_path(target).exists()
    with hold_leases([target]) as mine:
        assert mine == [target]


def test_another_machines_claim_is_free_when_it_has_been_silent_for_long(tmp_path: Path) -> None:
    target = tmp_path / "row.jsonl"
    lease_path(target).write_text("another machine")
    with hold_leases([target]) as mine:
        assert mine == []
    assert lease_path(target).read_text() == "another machine"
    os.utime(lease_path(target), times=(0, time.time() - EXPIRY_SECONDS - 1))
    with hold_leases([target]) as mine:
        assert mine == [target]
    assert not lease_path(target).exists()
