"""Files of several writers in one folder."""

import os
import socket
import time
from pathlib import Path

from sslticket.files import sweep, written_whole


def test_what_dead_writers_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    host, gone = socket.gethostname(), 2**30  # no system has so many processes
    (tmp_path / "rows").mkdir()
    names = {
        f".a.jsonl.{host}.{gone}.part": False,
        f".a.jsonl.{host}.{os.getppid()}.part": True,
        f".a.jsonl.elsewhere.{gone}.part": True,
        f".old.jsonl.elsewhere.{gone}.part": False,
        ".old.jsonl.part": False,
        ".a.jsonl.claim": True,
        "a.part": True,
    }
    for name in names:
        (tmp_path / "rows" / name).write_text("half")
        if name.startswith(".old"):
            os.utime(tmp_path / "rows" / name, (time.time() - 3700,) * 2)
    with written_whole(tmp_path / "rows" / "b.jsonl") as unfinished:
        unfinished.write_text("whole")
        sweep(tmp_path)
    assert (tmp_path / "rows" / "b.jsonl").read_text() == "whole"
    assert {path.name for path in (tmp_path / "rows").iterdir()} == {
        "b.jsonl",
        *(name for name, stays in names.items() if stays),
    }
