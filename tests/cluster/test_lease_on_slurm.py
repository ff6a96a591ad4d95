"""On a real SLURM: a crashed node's work is its own job's at once when it runs again, and anybody's within 90 s."""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

from sslticket.storage.leases import lease_path
from tests.cluster.conftest import Cluster
from tests.runs import search

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def holder_of(row: Path) -> dict[str, object]:
    try:
        return json.loads(lease_path(row).read_text())
    except (FileNotFoundError, ValueError):
        return {}


@pytest.mark.timeout(240)
def test_rows_of_a_crashed_node_are_taken_over(slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.delenv("TQDM_DISABLE", raising=False)  # lines about who is waited for are the bar's
    rows = {}
    for name in ("requeued", "given-up"):
        run = search(tmp_path / name).run_dir.path
        rows[name] = run / "rows" / "level-00.ticket.digits-demo.own-head.seed0.jsonl"

    def evaluate(name: str, log: str, *arguments: str) -> str:
        command = f"{sys.executable} -m sslticket evaluate {rows[name].parents[1]} --protocol digits-demo"
        output = ("--open-mode=append", f"--output={tmp_path / log}")
        return slurm.submit("-c1", *output, *arguments, "--wrap", f"{command} --levels 0 --seeds 0")

    own = evaluate("requeued", "own", "--requeue")
    slurm.wait_running(own)
    (node,) = slurm.nodes_of(own)
    lost = evaluate("given-up", "lost", "--no-requeue", "-w", node)
    slurm.wait(lambda: holder_of(rows["given-up"]) and holder_of(rows["requeued"]), what="both at work")
    assert holder_of(rows["given-up"])["job"] == lost
    slurm.node("crash", node)
    crashed = time.monotonic()
    other = evaluate("given-up", "other", "-x", node)

    slurm.wait(lambda: holder_of(rows["requeued"]).get("restart") == 1, 90, "the job to run again")
    print(f"\nown requeue: had the lease {time.monotonic() - crashed:.1f} s after the crash")
    assert "waiting" not in (tmp_path / "own").read_text()
    slurm.wait(lambda: holder_of(rows["given-up"]).get("job") == other, 90, "the other job to take over")
    taken = time.monotonic() - crashed
    print(f"another job: had the lease {taken:.1f} s after the crash")
    assert taken < 90
    slurm.wait(rows["requeued"].exists, what="the first row")
    said = (
        rf"waiting for a row that job {lost} on node {node}, pid \d+, has in hand; it is free at \d\d:\d\d:\d\d unless"
    )
    assert re.search(said, (tmp_path / "other").read_text())
