"""A real SLURM for the tests of this folder: three virtual nodes that can crash, a partition that preempts another."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "sbatch", "unshare", "nsenter", "ss")


def run(*command: str, check: bool = True) -> str:
    """What a command prints."""
    return subprocess.run(command, check=check, text=True, capture_output=True, timeout=60).stdout.strip()


class Cluster:
    """Nodes n1, n2 and n3 of two cores each, partitions `main` (default, preempted after 15 s) and `urgent`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def node(self, verb: str, name: str) -> None:
        """Does `start`, `kill` or `crash` to a node, see slurm_node.sh."""
        subprocess.run(
            [HERE / "slurm_node.sh", verb, name],
            check=True,
            timeout=30,
            env=os.environ | {"ROOT": str(self.root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def submit(self, *arguments: str) -> str:
        """The id of a job that `sbatch` with these arguments starts."""
        return run("sbatch", "--parsable", *arguments)

    def state(self, job_id: str) -> str:
        """Its state: PENDING, RUNNING, COMPLETED, ..."""
        return run("squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T", check=False)

    def nodes_of(self, job_id: str) -> list[str]:
        """The names of the nodes on which it runs."""
        return run("scontrol", "show", "hostnames", run("squeue", "-h", "-j", job_id, "-o", "%N")).split()

    def wait(self, condition: Callable[[], object], timeout: float = 60, what: str = "condition") -> None:
        """Waits until a condition holds; the test fails where it takes longer."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                queue, nodes = run("squeue", check=False), run("sinfo", "-N", check=False)
                pytest.fail(f"waited {timeout:.0f} s for {what}\n{queue}\n{nodes}")
            time.sleep(0.2)

    def wait_running(self, job_id: str, timeout: float = 60) -> None:
        """Waits until a job runs."""
        self.wait(lambda: self.state(job_id) == "RUNNING", timeout, f"job {job_id} to run")

    def heal(self) -> None:
        """Ends all jobs and brings every node back."""
        run("scancel", "--user", str(os.getuid()), check=False)
        for line in run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines():
            name, state = line.split()
            if state.startswith(("down", "drain")) or state.endswith("*"):
                self.node("start", name)
                run("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)
        self.wait(lambda: not run("squeue", "-h"), what="an empty queue")
        self.wait(lambda: set(run("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}, what="idle nodes")


def free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nobody listens at, below those that the system gives by itself."""
    blocks = range(12_000, 32_000, count)
    for number in range(len(blocks)):
        first = blocks[(os.getpid() + number) % len(blocks)]
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise OSError("no free ports")


def missing_part() -> str:
    """What a cluster here lacks; "" for nothing."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"SLURM is not installed (no {', '.join(missing)}): run `make slurm-install`"
    if os.geteuid() != 0 or subprocess.run(["unshare", "--uts", "--pid", "--fork", "--mount-proc", "true"]).returncode:
        return "nodes are namespaces, which only root may make"
    return ""


@pytest.fixture(scope="session")
def slurm_session() -> Iterator[Cluster]:
    """A cluster that lasts as long as the session; where there can be none, tests are skipped, or fail if they must."""
    refuse = pytest.fail if os.environ.get("REQUIRE_SLURM") == "1" else pytest.skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin:/sbin")
        if missing := missing_part():
            refuse(missing)
        root = Path("/tmp") / f"slurm-test-{os.getpid()}"  # short: names of sockets end at 107 bytes
        settings = os.environ | {"ROOT": str(root), "BASE_PORT": str(free_ports(200))}
        with (log := Path(f"{root}.log")).open("w") as printed:  # no pipe, which its daemons would keep open
            started = subprocess.run([HERE / "slurm_up.sh"], env=settings, stdout=printed, stderr=printed, timeout=120)
        try:
            if started.returncode:
                refuse(f"slurm_up.sh failed: {log.read_text()[-2000:]}")
            patch.setenv("SLURM_CONF", f"{root}/etc/slurm.conf")
            yield Cluster(root)
        finally:
            subprocess.run([HERE / "slurm_down.sh"], env=settings, stdout=subprocess.DEVNULL, timeout=120)
            shutil.rmtree(root, ignore_errors=True)
            log.unlink()


@pytest.fixture
def slurm(slurm_session: Cluster) -> Cluster:
    """The cluster without jobs and with all its nodes."""
    slurm_session.heal()
    return slurm_session
