"""Nine minutes on one card: the GPU's tests, then what training steps cost, each beside a plain torch loop.

Run       make bench-gpu, or python benchmarks/gpu.py [--out FOLDER] [--minutes 9] [--small]
          python benchmarks/gpu.py --table FOLDER/rows.jsonl     the rows as the table of docs/gpu.md
Needs     a CUDA device; --small goes the same way on a CPU, in under a minute, and its numbers mean nothing.

A row is written as soon as it is measured, and what is left when time is out is named. Lightly, DALI and photographs
(SSLTICKET_TEST_DATA) are used where they are; what needs one that is missing is skipped by name.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gpu_steps
import gpu_table
import torch
from compare import NotHere
from gpu_steps import CASES, Case
from images import Images

from sslticket import provenance
from sslticket.data.loader import Sampler
from sslticket.data.source import make_loader, open_split

ROOT = Path(__file__).parents[1]
_TESTS = 200.0  # seconds at most
_EAGER, _COMPILED = 15.0, 100.0  # seconds that a case takes: guesses, with which time is shared out
_LIGHTLY = "SimCLR"

Row = dict[str, Any]


class Bench:
    """One call on one machine.

    Attributes:
        rows: the file of its rows.
    """

    def __init__(self, out: Path, minutes: float, small: bool) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.rows, self._log = out / "rows.jsonl", out / "tests.log"
        self._small, self._ends = small, time.monotonic() + 60 * minutes
        self._gpu = torch.cuda.is_available()
        self._device = torch.device("cuda" if self._gpu else "cpu")
        self._rates: dict[str, float] = {}
        self.rows.unlink(missing_ok=True)

    def run(self) -> None:
        """All sections, as far as time goes."""
        self._say(self._machine())
        for precision, rate in self._ceilings():
            self._rates[precision] = rate
            self._say({"kind": "ceiling", "name": f"matrix product, {precision}", "rate": rate})
        self._section("tests", "tests", _TESTS, self._tests)
        masked = f"{CASES[0].name}, plain torch with masks"
        self._section("step", masked, _EAGER, self._masks)
        for case in CASES:
            takes = _COMPILED if case.compiled else _EAGER
            self._section("step", case.name, takes, lambda case=case: self._step(case))  # type: ignore[misc]
        self._section("loader", "photographs, RotNet's view", 20.0, self._photographs)

    def _section(self, kind: str, name: str, takes: float, work: Callable[[], Row]) -> None:
        """A row of what is measured, or of why it is not; one that fails must not cost the others."""
        row: Row = {"kind": kind, "name": name}
        if time.monotonic() + takes > self._ends:
            self._say(row | {"skipped": "out of time"})
            return
        began = time.monotonic()
        try:
            row |= work()
        except Exception as error:
            row["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        gc.collect()  # circles of an earlier case's objects would count in the next one's peak
        if self._gpu:
            torch.cuda.empty_cache()
        self._say(row | {"took": round(time.monotonic() - began, 1)})

    def _say(self, row: Row) -> None:
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(row)}\n")
        print(json.dumps(row), flush=True)

    def _machine(self) -> Row:
        name = torch.cuda.get_device_name() if self._gpu else platform.processor() or "a CPU"
        return {
            "kind": "machine",
            "name": name,
            "memory": torch.cuda.get_device_properties(0).total_memory if self._gpu else None,
            "versions": provenance.library_versions(),
            "commit": provenance.git_commit(),
            "small": self._small,
            "missing": [package for package in ("lightly", "nvidia.dali") if not _there(package)],
        }

    def _ceilings(self) -> Iterator[tuple[str, float]]:
        """Operations a second of a large matrix product, of random numbers: of zeros it is faster."""
        side = 8192 if self._gpu else 256
        torch.set_float32_matmul_precision("high")
        for precision, kind in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
            a, b = (torch.randn(side, side, device=self._device).to(kind) for _ in range(2))
            for _ in range(3):
                a @ b
            wait = torch.cuda.synchronize if self._gpu else lambda: None
            wait()
            began = time.perf_counter()
            for _ in range(10):
                a @ b
            wait()
            yield precision, 10 * 2 * side**3 / (time.perf_counter() - began)

    def _tests(self) -> Row:
        """The tests of the GPU, in a process of their own: a crash there must not end this one."""
        command = [sys.executable, "-m", "pytest", "tests/test_gpu.py", "-v", "--tb=short", "-p", "no:cacheprovider"]
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with self._log.open("w", encoding="utf-8") as log:
            try:
                done = subprocess.run(
                    [*command, "-o", "addopts=--strict-markers", "-m", "not slow"],
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": paths, "TQDM_DISABLE": "1"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=_TESTS,
                    check=False,
                )
                ended = f"ended with code {done.returncode}"
            except subprocess.TimeoutExpired:
                ended = f"cut off after {_TESTS:.0f} s"
        lines = self._log.read_text(encoding="utf-8").splitlines()
        told = [line for line in lines if line.startswith("tests/")]
        counts = {
            how.lower(): sum(f" {how}" in line for line in told) for how in ("PASSED", "FAILED", "ERROR", "SKIPPED")
        }
        return counts | {"ended": ended, "odd": [line for line in told if " FAILED" in line or " ERROR" in line][:20]}

    def _masks(self) -> Row:
        case = CASES[0].small() if self._small else CASES[0]
        cost = gpu_steps.mask_cost(case, self._device, rounds=1 if self._small else 3)
        return {"batch": case.batch, "size": case.size} | cost

    def _step(self, case: Case) -> Row:
        if _LIGHTLY in case.name and not _there("lightly"):
            return {"skipped": "lightly is missing"}
        case = case.small() if self._small else case
        measured = gpu_steps.measured(case, self._device, self._rates, rounds=1 if self._small else 3)
        return {"batch": case.batch, "size": case.size} | measured

    def _photographs(self) -> Row:
        """ImageNet's photographs, decoded on the GPU."""
        if not _there("nvidia.dali"):
            return {"skipped": "nvidia.dali is missing"}
        images = Images()
        try:
            source = open_split("imagenet", "train", images.photographs)
        except NotHere as reason:
            return {"skipped": str(reason)}
        batch, count = (8, 2) if self._small else (256, 20)
        batches = make_loader(
            source,
            (source.dataset.train_view,),
            Sampler(len(source.manifest), batch, seed=0),
            augment_seed=0,
            device=self._device,
            threads=len(os.sched_getaffinity(0)),
            max_bad_images=0,
            channels_last=True,
        )
        began = 0.0
        for number, _ in enumerate(batches.train(0, count + 1)):
            if number == 0:
                began = time.perf_counter()
        if self._gpu:
            torch.cuda.synchronize()
        images.close()
        return {"images": count * batch / (time.perf_counter() - began), "batch": batch}


def _there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that it lies in
        return False


def main(words: list[str]) -> None:
    """Measure, or print a table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-out")), help="folder of the rows")
    parser.add_argument("--minutes", type=float, default=9.0, help="at most [9]")
    parser.add_argument("--small", action="store_true", help="the same way through the code, on a CPU too")
    parser.add_argument("--table", type=Path, metavar="ROWS", help="print these rows as Markdown and measure nothing")
    given = parser.parse_args(words)
    if given.table:
        print(gpu_table.table([json.loads(line) for line in given.table.read_text(encoding="utf-8").splitlines()]))
        return
    os.environ.setdefault("TQDM_DISABLE", "1")
    # CUDA before 12.6 crashes where its profiler is taken down and set up again beside graphs.
    os.environ.setdefault("TEARDOWN_CUPTI", "0")
    if not (torch.cuda.is_available() or given.small):
        sys.exit("error: there is no CUDA device; give --small to go the same way on a CPU")
    Bench(given.out, given.minutes, given.small).run()


if __name__ == "__main__":
    main(sys.argv[1:])
