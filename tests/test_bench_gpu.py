"""The measurement on a GPU goes its whole way on a CPU, in its small form, and its rows become a table."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def bench(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=570, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute on a core that does nothing else
def test_the_small_form_measures_every_case_and_makes_a_table(tmp_path: Path) -> None:
    done = bench("--small", "--out", tmp_path, "--minutes", "8")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [json.loads(line) for line in done.stdout.splitlines()] == rows, "printed as they go"
    assert [row["failed"] for row in rows if "failed" in row and row["kind"] != "tests"] == []
    steps = {row["name"]: row for row in rows if row["kind"] == "step"}
    assert len(steps) > 15
    assert {"ResNet-50, RotNet, bf16", "LeNet, labels, fp32", "ResNet-18 of CIFAR, CS, bf16"} <= steps.keys()
    assert all(row["images"] > 0 for row in steps.values() if "skipped" not in row)
    (tests,) = (row for row in rows if row["kind"] == "tests")
    assert tests["ended"] == "ended with code 0"
    assert tests["failed"] == 0
    assert tests["passed"] + tests["skipped"] > 50
    table = bench("--table", tmp_path / "rows.jsonl").stdout
    assert "Small form: these numbers mean nothing." in table
    for name in (name for name, row in steps.items() if "ms" in row):
        assert f"| {name} | 4 of 32 |" in table


def test_only_what_the_device_does_counts_as_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    from gpu_steps import device_events

    def event(name: str, where: DeviceType, marked: bool = False) -> SimpleNamespace:
        return SimpleNamespace(key=name, device_type=where, is_user_annotation=marked, self_device_time_total=5.0)

    seen = [
        event("aten::mm", DeviceType.CPU),  # has its kernel's time
        event("sm90_gemm", DeviceType.CUDA),
        event("Optimizer.step#SGD.step", DeviceType.CUDA, marked=True),
        event("Memset (Device)", DeviceType.CUDA),
    ]
    assert [one.key for one in device_events(seen)] == ["sm90_gemm", "Memset (Device)"]


def test_what_time_was_too_short_for_is_named(tmp_path: Path) -> None:
    done = bench("--small", "--out", tmp_path, "--minutes", "0")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row.get("skipped") for row in rows if row["kind"] == "step"} == {"out of time"}
    assert "- LeNet, labels, fp32: out of time" in bench("--table", tmp_path / "rows.jsonl").stdout
