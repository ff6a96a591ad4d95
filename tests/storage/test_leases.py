"""Two processes never do one piece of work; a dead one's is free again."""

import fcntl
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sslticket.storage import leases
from sslticket.storage.leases import Holder, InHand, hold_alone, hold_leases, lease_path, look_at_lease

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


def other_machine(**changes: object) -> Holder:
    """A process that no machine here has."""
    return Holder(**({"host": "n9", "pid": 77, "boot": "other", "cluster": "dev", "job": "12"} | changes))


def leave(target: Path, holder: Holder, silent: float = 0.0) -> Path:
    """The lease of a holder that gave its last sign so many seconds ago."""
    path = lease_path(target)
    path.write_bytes(holder.to_bytes())
    last = path.stat().st_mtime - silent
    os.utime(path, times=(0, last))
    return path


def taken(target: Path) -> bool:
    with hold_leases([target]) as mine:
        return mine == [target]


def requeued(monkeypatch: pytest.MonkeyPatch, job: str, restart: int, cluster: str = "dev") -> None:
    for name, value in {"CLUSTER_NAME": cluster, "JOB_ID": job, "RESTART_COUNT": str(restart)}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_a_lease_tells_in_json_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requeued(monkeypatch, "1234", 1)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "1230")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    with hold_leases([tmp_path / "row.jsonl"]):
        content = json.loads(lease_path(tmp_path / "row.jsonl").read_text())
        held = look_at_lease(lease_path(tmp_path / "row.jsonl"))
    names = {"host": socket.gethostname(), "pid": os.getpid(), "job": "1234", "array_job": "1230", "array_task": "4"}
    assert names.items() <= content.items()
    assert content["restart"] == 1
    assert str(held.holder) == f"job 1230_4 (restart 1) on node {socket.gethostname()}, pid {os.getpid()}"
    assert held.until == "as soon as it ends"
    assert look_at_lease(lease_path(tmp_path / "row.jsonl")) is None


@pytest.mark.parametrize("text", [b"n9", b"{broken", b"[1]", b"{}", b"\xff", b'{"host": 1}'])
def test_text_that_is_no_json_is_the_name_of_a_machine(text: bytes) -> None:
    holder = Holder.parse(text)
    assert holder.host
    assert holder.pid is None
    assert Holder.parse(b"n9") == Holder(host="n9")


@pytest.mark.parametrize("content", [b"another machine", other_machine().to_bytes()], ids=["plain", "json"])
def test_another_machines_claim_is_free_75_s_after_its_last_sign(tmp_path: Path, content: bytes) -> None:
    path = lease_path(target := tmp_path / "row.jsonl")
    path.write_bytes(content)
    assert not taken(target)
    assert path.read_bytes() == content
    os.utime(path, times=(0, path.stat().st_mtime - 70))
    assert not taken(target)
    os.utime(path, times=(0, path.stat().st_mtime - 6))
    assert taken(target)
    assert not path.exists()


@pytest.mark.parametrize("wrong", [-7200, 7200])
def test_a_clock_that_is_wrong_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + wrong)
    leave(tmp_path / "fresh", other_machine())
    leave(tmp_path / "silent", other_machine(), silent=80)
    assert not taken(tmp_path / "fresh")
    assert taken(tmp_path / "silent")


def test_a_job_that_runs_again_has_its_lease_at_once_and_no_other_job_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(target := tmp_path / "row.jsonl", other_machine(restart=1))
    for job, restart, cluster in (("12", 1, "dev"), ("12", 0, "dev"), ("13", 2, "dev"), ("12", 2, "prod")):
        requeued(monkeypatch, job, restart, cluster)
        assert not taken(target), (job, restart, cluster)
    requeued(monkeypatch, "12", 2)
    assert taken(target)


def test_one_name_of_two_machines_does_not_make_them_one(tmp_path: Path) -> None:
    leave(target := tmp_path / "row.jsonl", other_machine(host=socket.gethostname()))
    assert not taken(target)
    leave(target, other_machine(host=socket.gethostname(), boot=""))  # as old versions told
    assert taken(target)


def test_a_live_process_of_this_machine_keeps_its_lease_however_long_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "row.jsonl"
    with hold_leases([target]):
        os.utime(lease_path(target), times=(0, 0))
        assert not taken(target)
        monkeypatch.setattr("socket.gethostname", lambda: "a node in a namespace of its own")
        assert not taken(target), "one kernel knows one lock"


def test_a_lock_that_a_server_still_keeps_of_a_dead_machine_does_not_hold_a_lease(tmp_path: Path) -> None:
    path = leave(target := tmp_path / "row.jsonl", other_machine(), silent=80)
    with path.open("a") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        assert taken(target)


def test_who_lost_a_lease_leaves_the_next_ones_alone(tmp_path: Path) -> None:
    target = tmp_path / "row.jsonl"
    lost = hold_leases([target])
    lost.__enter__()
    lease_path(target).unlink()
    with hold_leases([target]) as mine:
        assert mine == [target]
        lost.__exit__(None, None, None)
        assert lease_path(target).exists()


def test_a_lease_gives_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    path = lease_path(target := tmp_path / "row.jsonl")
    with hold_leases([target]):
        os.utime(path, times=(0, 0))
        end = time.monotonic() + 10
        while (sign := path.stat().st_mtime) == 0 and time.monotonic() < end:
            time.sleep(0.01)
    assert sign > 0


def test_of_many_processes_one_has_an_abandoned_lease(tmp_path: Path) -> None:
    count, rounds = 4, 25
    fork = multiprocessing.get_context("fork")
    barrier, wins = fork.Barrier(count), fork.Queue()

    def compete() -> None:
        for number in range(rounds):
            if barrier.wait() == 0:
                leave(tmp_path / str(number), other_machine(), silent=80)
            barrier.wait()
            with hold_leases([tmp_path / str(number)]) as mine:
                wins.put(len(mine))
                barrier.wait()

    processes = [fork.Process(target=compete) for _ in range(count)]
    for process in processes:
        process.start()
    won = sum(wins.get(timeout=60) for _ in range(count * rounds))
    for process in processes:
        process.join()
    assert rounds - 5 <= won <= rounds, "who only looked at a lease may have kept it from the others"


def alone(path: Path, notes: list[str]) -> AbstractContextManager[None]:
    return hold_alone(path, "searching in runs/a", "; wait for it", notes.append)


def test_who_must_be_alone_waits_for_a_silent_process_and_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_SECONDS", 2.0)
    path, notes = leave(tmp_path / "search", other_machine(restart=1)), []
    began = time.monotonic()
    with alone(path, notes):
        assert 1.5 < time.monotonic() - began < 6
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert len(notes) == 1
    assert re.fullmatch(
        r"waiting for job 12 \(restart 1\) on node n9, pid 77, which was searching in runs/a; it is free at "
        r"\d\d:\d\d:\d\d unless it gives a sign before",
        notes[0],
    )
    assert not path.exists()


def test_who_must_be_alone_is_refused_when_another_gives_a_sign(tmp_path: Path) -> None:
    path = leave(tmp_path / "search", other_machine(), silent=10)
    threading.Timer(0.6, os.utime, [path]).start()
    said = "another process is searching in runs/a: job 12 on node n9, pid 77; it is free 75 s after its last sign"
    with pytest.raises(InHand, match=said), alone(path, []):
        pass
    assert path.exists()


def test_who_must_be_alone_is_refused_by_a_live_process_of_this_machine(tmp_path: Path) -> None:
    said = f"pid {os.getpid()} on {socket.gethostname()}; it is free as soon as it ends; wait for it"
    path = tmp_path / ".lock"
    with alone(path, []), pytest.raises(InHand, match=re.escape(said)), alone(path, []):
        pass


def test_a_job_that_runs_again_waits_for_its_earlier_run_that_is_about_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requeued(monkeypatch, "12", 0)
    path, notes = tmp_path / ".lock", []
    earlier = alone(path, [])
    earlier.__enter__()
    requeued(monkeypatch, "12", 1)
    threading.Timer(1.5, earlier.__exit__, [None, None, None]).start()
    with alone(path, notes):
        assert len(notes) == 1
        assert "it is free as soon as it ends" in notes[0]
