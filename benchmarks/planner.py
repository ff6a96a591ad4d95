"""How right a plan is: hours as `--dry-run --probe-speed` prints them, against the same commands when they are done.

Run       python benchmarks/planner.py [NAME ...]
          python benchmarks/planner.py --table >> sslticket/results/throughput.csv
Needs     SSLTICKET_TEST_DATA with Fashion-MNIST for two of the runs; without it they are left out.
Cost      About five minutes of processor time on one core.

With --table it prints lines of the package's table of speeds instead: probes of the searches below, which need no data.

One thread computes. What a run took is its processor's time, which other work on the machine changes little; a plan's
time is that of a machine that does nothing else.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sslticket import provenance

_DIGITS = "run supervised_digits"
RUNS = {
    "labels, conv3 on digits, 6 levels of IMP": _DIGITS,
    "RotNet, conv3 on Fashion-MNIST at 12 px, 4 levels": "run rotnet_digits --dataset fashion_mnist --image-size 12 "
    "--levels 4",
    "labels, LeNet on Fashion-MNIST, 3 levels": "run stabilizing_lenet300_mnist --dataset fashion_mnist --length 800it "
    "--levels 3",
    "Continuous Sparsification, conv3 on digits, 4 rounds": "run continuous_conv6_cifar10 --model conv3 "
    "--dataset digits --length 400it --rounds 4",
    "SimCLR, conv3 on digits, 3 levels": "run simclr_resnet50 --model conv3 --dataset digits --length 100it --levels 3 "
    "--batch-size 128",
    "evaluation of the first one's tickets, random tickets beside them": "evaluate RUNS/supervised-conv3-digits-* "
    "--protocol digits-demo --controls random --levels 0-4 --seeds 0-1",
}
"""What is measured; an evaluation needs the tickets of an earlier line."""
TABLE = (
    "supervised_digits",
    "rotnet_digits",
    "supervised_digits --dataset fashion_mnist --image-size 12",
    "rotnet_digits --dataset fashion_mnist --image-size 12",
    "supervised_digits --dataset cifar10 --image-size 16 --batch-size 64",
    "stabilizing_lenet300_mnist",
    "continuous_conv6_cifar10_imp",
    "continuous_conv6_cifar10",
    "stabilizing_resnet20_cifar10_standard",
    "supervised_vgg19_cifar10",
    "supervised_resnet18_cifar10",
    "supervised_resnet50",
    "rotnet_resnet50",
)
"""What the package's table has lines of, measured on a CPU."""
_WITHIN = 0.2  # of what was measured: the target


def main(names: list[str]) -> int:
    """Print a line for each run that a word of the command names, or for all; returns the exit code."""
    if names[:1] == ["--table"]:
        for search in names[1:] or TABLE:
            print(_table_line(search), flush=True)
        return 0
    data = os.environ.get("SSLTICKET_TEST_DATA")
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; commit {provenance.git_commit()}")
    print(", ".join(f"{library} {number}" for library, number in provenance.library_versions().items()), flush=True)
    print("\n| run | steps | predicted | took | on the clock | predicted / took | within 20% |")
    print("|---|---:|---:|---:|---:|---:|---|", flush=True)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for title, command in RUNS.items():
            fashion = "fashion_mnist" in command
            if (names and not any(name in title for name in names)) or (fashion and data is None):
                continue
            words = _words(command, Path(folder), data)
            steps, predicted = _plan(words)
            cpu, clock = _run(words)
            ratio = predicted / cpu
            right = abs(ratio - 1) <= _WITHIN
            missed += not right
            cells = (title, f"{steps:,}", f"{predicted:.0f} s", f"{cpu:.1f} s", f"{clock:.0f} s", f"{ratio:.2f}")
            print(f"| {' | '.join(cells)} | {'yes' if right else '**no**'} |", flush=True)
    return int(missed > 0)


def _table_line(words: str) -> str:
    """The line of a search's speed, measured in a process of its own, which starts as a command does."""
    script = "import sys; sys.path.insert(0, sys.argv[2]); import planner; print(planner.measure_line(sys.argv[1]))"
    command = [sys.executable, "-c", script, words, str(Path(__file__).parent)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def measure_line(words: str) -> str:
    """Probe a search on this device; returns a line of the table."""
    from sslticket.cli import recipe_commands
    from sslticket.config import flags
    from sslticket.config.recipe_files import load_recipe
    from sslticket.config.runtime import RuntimeConfig
    from sslticket.results.throughput import format_table
    from sslticket.search.plan import plan_search
    from sslticket.search.run_search import probe_search

    name, *rest = words.split()
    recipe = flags.choose_parts(load_recipe(name), rest)
    given = vars(recipe_commands._recipe_parser(recipe).parse_args(rest))
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_search(flags.resolve_recipe(recipe, given), RuntimeConfig(), Path(folder), dry_run=True)
        speed = probe_search(plan, RuntimeConfig())
    speed = replace(
        speed,
        source=f"sslticket run {words} --dry-run --probe-speed",
        commit=provenance.git_commit(),
        cores=len(os.sched_getaffinity(0)),
        date=time.strftime("%Y-%m-%d"),
    )
    return format_table([speed]).splitlines()[1]


def _words(command: str, folder: Path, data: str | None) -> list[str]:
    found: list[str] = []
    for word in command.split():
        found += map(str, folder.glob(word.removeprefix("RUNS/"))) if word.startswith("RUNS/") else [word]
    if found[0] == "run":
        found += ["--out", str(folder)]
    if "fashion_mnist" in found and data:
        found += ["--data-root", str(Path(data) / "fashion-mnist")]
    return found


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1"}


def _plan(words: list[str]) -> tuple[int, float]:
    """Steps and seconds of a command, as its plan prints them."""
    command = [sys.executable, "-m", "sslticket", *words, "--dry-run", "--probe-speed"]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    steps = re.search(r"^trainings.* = ([\d,]+) steps$", done.stdout, re.MULTILINE)
    seconds = re.search(r"^time:? +about (?:(\d+) h )?(?:(\d+) min ?)?(?:(\d+) s)?", done.stdout, re.MULTILINE)
    if steps is None or seconds is None:
        sys.exit(f"error: no plan of {' '.join(words)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    hours, minutes, rest = (int(number or 0) for number in seconds.groups())
    return int(steps[1].replace(",", "")), 3600 * hours + 60 * minutes + rest


def _run(words: list[str]) -> tuple[float, float]:
    """The processor's time of a command, and that on the clock."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "sslticket", *words], env=_environment(), capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"error: {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
