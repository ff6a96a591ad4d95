"""What snapshots of a training cost it: how long it waits for one, and for being asked after every step.

Run       python benchmarks/snapshot_cost.py
Cost      a minute on a core that does nothing else.

A search on digits, of a small network and of a ResNet-50, keeps a snapshot every few seconds. What its training waits
for each is put in relation to the ten minutes that lie between two by default.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sslticket import provenance
from sslticket.config.recipe import Data, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.objectives.supervised import Supervised
from sslticket.search.imp import IMP
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search
from sslticket.training import snapshots

EVERY = 0.05  # minutes between two snapshots here
CASES = {"conv3": 2000, "resnet50": 40}
"""Networks, and steps of 8 images."""


def timed(waits: list[float], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose calls are timed."""

    def call(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        found = function(*given, **named)
        waits.append(time.perf_counter() - began)
        return found

    return call


def measure(model: str, steps: int) -> str:
    """Searches, and says what its snapshots took."""
    asked, kept, written, sizes = list[float](), list[float](), list[float](), list[int]()
    training, writer = snapshots.ResumableTraining, snapshots._Writer
    ask, keep, write = training.is_due, training._keep, writer._write

    def sized_write(own: Any, path: Path, *rest: Any) -> None:
        write(own, path, *rest)
        sizes.append(path.stat().st_size)

    recipe = Recipe(
        model=model,
        data=Data(dataset="digits"),
        objective=Supervised(),
        training=TrainConfig(length=f"{steps}it", batch_size=8, optimizer=SGD(lr=0.01)),
        search=IMP(levels=1, rate=0.5, rewind="1it"),
        precision="fp32",
    )
    machine = RuntimeConfig(snapshot_every=EVERY)
    with tempfile.TemporaryDirectory() as out:
        plan = plan_search(recipe, machine, Path(out))
        training.is_due, training._keep = timed(asked, ask), timed(kept, keep)  # type: ignore[method-assign]
        writer._write = timed(written, sized_write)  # type: ignore[method-assign]
        began = time.perf_counter()
        run_search(plan, machine, show_progress=False)
        seconds = time.perf_counter() - began
        training.is_due, training._keep, writer._write = ask, keep, write  # type: ignore[method-assign]
    wait = median(kept)
    return (
        f"{model}: {steps:,} steps in {seconds:.0f} s, {len(kept)} snapshots of {max(sizes) / 1e6:.1f} MB; "
        f"a snapshot is waited for {1e3 * wait:.0f} ms (at most {1e3 * max(kept):.0f} ms), which is "
        f"{wait / 600:.4%} of ten minutes, and written beside the training in {median(written):.2f} s; "
        f"being asked takes {1e6 * median(asked):.1f} us a step"
    )


def main() -> int:
    """Prints the machine and a line for each network."""
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, commit {provenance.git_commit()}")
    for model, steps in CASES.items():
        print(measure(model, steps), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
