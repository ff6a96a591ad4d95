"""A campaign on a real SLURM, each of whose searches two machines train, comes to the same whatever befalls its jobs.

python -m pytest tests/cluster/test_campaign_on_slurm.py -s                     4 searches, one disturbance of each kind
SSLTICKET_LONG=1 python -m pytest tests/cluster/test_campaign_on_slurm.py -s    20 searches, 15 disturbances
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from sslticket.campaign.launch import SlurmSettings, job_name, launch_slurm
from sslticket.errors import BadInput
from tests.cluster.conftest import Cluster, run

ROOT = Path(__file__).parents[2]
LONG = pytest.mark.skipif(os.environ.get("SSLTICKET_LONG") != "1", reason="takes half an hour: set SSLTICKET_LONG=1")

SWEEP = """
from sslticket import Adam, Evaluate, Protocol, Sweep, TrainConfig

SHORT = Protocol(
    name="short", dataset="digits", training=TrainConfig(length="20it", batch_size=64, optimizer=Adam(lr=3e-3))
)
sweep = Sweep(
    title="Low-shot tickets on digits",
    recipes=["supervised_digits"],
    settings={{"length": "{steps}it", "rewind": "5it", "levels": 2, "batch-size": 64, "precision": "fp32"}},
    grid={{"subset": {subsets}}},
    seeds={seeds},
    evaluate=[Evaluate(protocols=["{file}:SHORT"], controls=["random"], levels="2", seeds=[0])],
)
"""


class Campaign:
    """A sweep whose workers are two jobs of two machines each."""

    def __init__(self, cluster: Cluster, folder: Path, file: Path) -> None:
        self.cluster, self.out, self.file = cluster, folder, file
        self.name = job_name(folder)

    def launch(self) -> str:
        """What the command that starts it prints, or the same once more for what is missing of it."""
        flags = ("--nodes", "2", "--cpus-per-task", "1", "--time", "10", "--signal-seconds", "60", "--workers", "2")
        command = [
            sys.executable,
            "-m",
            "sslticket",
            "sweep",
            self.file,
            "--out",
            self.out,
            "--launch",
            "slurm",
            *flags,
        ]
        variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1"}
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def jobs(self, *words: str) -> list[str]:
        """The numbers of its jobs in the queue."""
        return run("squeue", "-h", "-r", "-n", self.name, "-o", "%i", *words).split()

    def progress(self) -> int:
        """How many tickets and rows there are."""
        return len(list(self.out.glob("*/tickets/level-*"))) + len(list(self.out.glob("*/rows/level-*")))

    def workers(self) -> list[psutil.Process]:
        """The processes that train, on all machines: nodes are namespaces, in which this one sees all."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.out) in process.cmdline() and "RANK" in process.environ():
                    found.append(process)
            except psutil.Error:  # it has ended
                continue
        return found

    def running(self) -> list[str]:
        """The numbers of its jobs that run."""
        return self.jobs("-t", "R")

    def one_of(self, find: Callable[[], list[Any]], chance: random.Random) -> Any:
        """One of what there is, as soon as there is one."""
        found: list[Any] = []
        self.cluster.wait(lambda: found.extend(find()) or found, 120, find.__name__)
        return chance.choice(found)

    def kill(self, chance: random.Random) -> None:
        """SIGKILL to a process that trains."""
        self.one_of(self.workers, chance).send_signal(signal.SIGKILL)

    def preempt(self, chance: random.Random) -> None:
        """A job of another partition takes all machines for a second."""
        urgent = self.cluster.submit("-p", "urgent", "-N3", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
        self.cluster.wait(lambda: self.cluster.state(urgent) == "COMPLETED", 90, "the urgent job")

    def requeue(self, chance: random.Random) -> None:
        """A job is put back into the queue from outside."""
        run("scontrol", "requeue", self.one_of(self.running, chance))

    def crash(self, chance: random.Random) -> None:
        """A machine on which it works loses its power, and comes back once SLURM has seen it."""
        victim = chance.choice(self.cluster.nodes_of(self.one_of(self.running, chance)))
        self.cluster.node("crash", victim)
        self.cluster.wait(lambda: "down" in run("sinfo", "-h", "-n", victim, "-o", "%T"), 90, f"{victim} to be missed")
        self.cluster.node("start", victim)
        self.cluster.wait(
            lambda: "down" not in run("sinfo", "-h", "-n", victim, "-o", "%T"), 90, f"{victim} to be back"
        )

    def disturb(self, happens: Callable[[random.Random], None], chance: random.Random) -> None:
        """Something happens once it has got on since the last time, at a random moment of its work."""
        before = self.progress()
        self.cluster.wait(lambda: self.progress() > before or not self.jobs(), 300, "it to get on")
        self.cluster.wait(lambda: len(self.workers()) > 1 or not self.jobs(), 120, "workers")
        assert self.jobs(), f"it ended before {happens.__name__}"
        time.sleep(chance.random())
        print(f"{time.strftime('%T')} {self.progress():3} files: {happens.__name__}", flush=True)
        happens(chance)

    def result(self) -> dict[str, Any]:
        """Its tickets, by their bytes, and its rows, without the time they took and where they lie."""
        found: dict[str, Any] = {}
        for path in sorted(self.out.glob("*/tickets/*.safetensors")):
            found[str(path.relative_to(self.out))] = hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(self.out.glob("*/rows/*.jsonl")):
            row = json.loads(path.read_text())
            found[str(path.relative_to(self.out))] = {k: v for k, v in row.items() if k not in ("seconds", "command")}
        return found


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"partition": "urgnt"}, "unknown partition 'urgnt'; did you mean urgent?"),
        ({"account": "rot"}, "unknown account 'rot'; did you mean root?"),
        ({"nodes": 9}, "SLURM refuses such a job: Requested node configuration is not available"),
        ({"gpus_per_node": 1}, "SLURM refuses such a job: Invalid generic resource (gres) specification"),
        ({"slurm": ("nosuch=1",)}, "SLURM refuses such a job: unrecognized option '--nosuch=1'"),
    ],
    ids=str,
)
def test_what_the_cluster_does_not_have_is_one_line_and_nothing_is_written(
    slurm: Cluster, tmp_path: Path, given: dict[str, object], told: str
) -> None:
    with pytest.raises(BadInput) as refused:
        launch_slurm(["python"], tmp_path / "out", workers=2, pieces=2, settings=SlurmSettings(**given))
    assert str(refused.value).startswith(told)
    assert "\n" not in str(refused.value)
    assert not run("squeue", "-h")
    assert not (tmp_path / "out").exists()


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize(
    ("subsets", "seeds", "steps", "times"),
    [
        pytest.param([0.1, 0.3], 2, 60, (1, 1, 1, 1), marks=pytest.mark.timeout(900), id="four_searches"),
        pytest.param(
            [0.1, 0.2, 0.3, 0.5, 1.0],
            4,
            60,
            (5, 5, 3, 2),
            marks=[LONG, pytest.mark.timeout(3600)],
            id="twenty_searches",
        ),
    ],
)
def test_kills_preemptions_requeues_and_crashes_change_no_ticket_and_no_row(
    slurm: Cluster, tmp_path: Path, subsets: list[float], seeds: int, steps: int, times: tuple[int, ...]
) -> None:
    file = tmp_path / "lowshot.py"
    file.write_text(SWEEP.format(steps=steps, subsets=subsets, seeds=list(range(seeds)), file=file))
    undisturbed, disturbed = (Campaign(slurm, tmp_path / name, file) for name in ("undisturbed", "disturbed"))
    began = time.monotonic()
    assert "2 workers" in undisturbed.launch()
    slurm.wait(lambda: not undisturbed.jobs(), 1800, "the undisturbed campaign")
    print(f"\nundisturbed: {time.monotonic() - began:.0f} s", flush=True)
    cells = len(subsets) * seeds
    assert len(undisturbed.result()) == cells * (3 + 3 + 1 + 2)  # tickets, their rows, magnitudes, ticket and control

    began, chance = time.monotonic(), random.Random(0)
    disturbed.launch()
    assert "nothing was submitted" in disturbed.launch()
    events = [disturbed.kill, disturbed.preempt, disturbed.requeue, disturbed.crash]
    plan = [event for event, count in zip(events, times, strict=True) for _ in range(count)]
    chance.shuffle(plan)
    for happens in plan:
        disturbed.disturb(happens, chance)
    slurm.wait(lambda: not disturbed.jobs(), 1800, "the disturbed campaign")
    print(f"disturbed: {time.monotonic() - began:.0f} s", flush=True)
    assert disturbed.result() == undisturbed.result()
