"""Jobs are done once, in the order in which they need one another, and what others have is waited for."""

import json
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.results.throughput import Throughput, Workload
from sslticket.results.work_queue import Job, Row, WorkQueue, describe_queue
from sslticket.storage.leases import Holder, hold_leases, lease_path
from sslticket.training.engine import Engine
from sslticket.training.progress import Progress

Log = list[str]


@dataclass(frozen=True)
class Note(Job[Log]):
    """Writes rows that say which job wrote them."""

    folder: Path
    names: tuple[str, ...]
    after: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self.folder / f"{name}.jsonl" for name in self.names)

    @property
    def needs(self) -> tuple[Path, ...]:
        return tuple(self.folder / f"{name}.jsonl" for name in self.after)

    @property
    def group(self) -> tuple[str, str]:
        return "short", "ticket"

    @property
    def workload(self) -> Workload:
        return Workload("conv3", "short", 8, "fp32", 10, 1000)

    def run(self, files: Sequence[Path], context: Log) -> list[Row]:
        context += [file.stem for file in files]
        return [{"written": file.stem} for file in files]


def queue_of(jobs: Sequence[Note], log: Log, progress: Progress) -> WorkQueue[Log]:
    def pending() -> list[Note]:
        return [job for job in jobs if not all(file.exists() for file in job.files)]

    return WorkQueue(pending, log, Engine.create(RuntimeConfig(), "fp32"), progress)


def test_a_job_waits_for_the_files_that_it_needs(tmp_path: Path) -> None:
    jobs = [Note(tmp_path, ("last",), ("middle",)), Note(tmp_path, ("middle",), ("first",)), Note(tmp_path, ("first",))]
    log: Log = []
    with Progress(0, show=False) as progress:
        rows = list(queue_of(jobs, log, progress).run([tmp_path]))
    assert log == ["first", "middle", "last"]
    assert rows == [{"written": name} for name in log]
    assert json.loads((tmp_path / "last.jsonl").read_text()) == {"written": "last"}


def test_rows_that_are_there_or_in_other_hands_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    job, log = Note(tmp_path, ("a", "b", "c")), Log()
    with Progress(0, show=False) as progress, hold_leases([tmp_path / "b.jsonl"]):
        queue = queue_of([job], log, progress)
        assert queue.attempt(job) == [{"written": "c"}]
        assert queue.attempt(job) is None
    assert log == ["c"]
    assert (tmp_path / "a.jsonl").read_text() == "{}\n"


def test_what_another_process_drops_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, log = Note(tmp_path, ("a",)), Log()
    held = hold_leases(job.files)
    held.__enter__()
    monkeypatch.setattr("time.sleep", lambda seconds: held.__exit__(None, None, None))
    with Progress(0, show=False) as progress:
        assert list(queue_of([job], log, progress).run([tmp_path])) == [{"written": "a"}]
    assert not lease_path(job.files[0]).exists()


def test_the_wait_says_whose_rows_are_in_hand_and_until_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, notes = Note(tmp_path, ("a", "b", "c")), list[str]()
    other = Holder(host="n2", pid=77, boot="other", job="1234", restart=1)
    for file in job.files[:2]:
        lease_path(file).write_bytes(other.to_bytes())
    held = hold_leases(job.files[2:])
    held.__enter__()

    def wait(seconds: float) -> None:
        held.__exit__(None, None, None)
        for file in job.files[:2]:
            lease_path(file).unlink(missing_ok=True)

    monkeypatch.setattr("time.sleep", wait)
    with Progress(0, show=False) as progress:
        monkeypatch.setattr(progress, "note", notes.append)
        assert len(list(queue_of([job], [], progress).run([tmp_path]))) == 3
    assert re.fullmatch(
        r"waiting for 2 rows that job 1234 \(restart 1\) on node n2, pid 77, has in hand; they are free at "
        r"\d\d:\d\d:\d\d unless it gives a sign before",
        notes[0],
    )
    here = f"pid {os.getpid()} on {socket.gethostname()}"
    assert notes[1:] == [f"waiting for a row that {here} has in hand; it is free as soon as it ends"]


def test_the_estimate_is_the_median_speed_of_rows_of_this_device(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for number, seconds in enumerate((1.0, 10.0, 2.0)):
        row = {"device": "cpu", "precision": "fp32", "numerics": "fp32", "model": "conv3", "protocol": "short"}
        file = tmp_path / "rows" / f"level-{number:02d}.jsonl"
        file.write_text(json.dumps(row | {"samples": 1000, "seconds": seconds}))

    def unknown(name: str) -> int:
        raise BadInput(f"no protocol {name}")

    throughput = Throughput([tmp_path], "cpu", unknown)
    work = Note(tmp_path, ("a",)).workload
    assert throughput.images_per_second(work) == 500
    assert throughput.images_per_second(work._replace(numerics="bf16")) is None
    text = describe_queue(
        [(("short", "ticket"), True), (("short", "ticket"), False)], [Note(tmp_path, ("a",))], throughput
    )
    assert " ".join(text.splitlines()[1].split()) == "short ticket 2 1 1 10 1,000 about 2 s"
    assert text.splitlines()[2] == "2 rows, 1 done"
