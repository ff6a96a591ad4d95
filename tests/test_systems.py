"""macOS and Windows, as far as Linux can pretend to be either, and a machine without DALI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sslticket.results.table import read_rows
from tests import runs

ROOT = Path(__file__).parent.parent
# Libraries are imported as on this system; then what another lacks is taken away, and the package comes in anew.
PRETEND = """
import importlib, os, pkgutil, signal, sys, time

def import_all():
    import sslticket

    for module in pkgutil.walk_packages(sslticket.__path__, "sslticket."):
        if module.name not in ("sslticket.__main__", "sslticket.data.dali_decoder"):
            importlib.import_module(module.name)

if sys.argv[1] == "win32":
    import_all()
import psutil, sklearn.datasets, torch, torchvision
import tests.runs

for name in [name for name in sys.modules if name.split(".")[0] in ("sslticket", "tests")]:
    del sys.modules[name]
sys.modules |= dict.fromkeys(("nvidia", "nvidia.dali"))
without = ["os.memfd_create", "os.sched_getaffinity", "time.CLOCK_BOOTTIME"]
if sys.argv[1] == "win32":
    sys.modules["fcntl"] = None
    without += [f"os.{name}" for name in ("O_NONBLOCK", "getuid", "pread", "pwrite", "statvfs")]
    without += [f"signal.SIG{name}" for name in ("HUP", "KILL", "USR1", "USR2", "XCPU")]
for name in without:
    delattr(sys.modules[name.split(".")[0]], name.split(".")[1])
sys.platform = sys.argv[1]
"""
SEARCH = """
import tests.runs
from pathlib import Path
from sslticket.config.recipe import Data
from sslticket.config.runtime import RuntimeConfig
from sslticket.search.plan import plan_search
from sslticket.search.run_search import run_search

data = Data(dataset="imagenet", part="30 photographs", image_size=32)
machine = RuntimeConfig(data_root=Path(sys.argv[2]), threads=1)
planned = plan_search(tests.runs.recipe(data=data), machine, Path(sys.argv[3]))
run_search(planned, machine, show_progress=False)
"""


def pretend(system: str, script: str, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a script where a system is pretended; `code` is how it must end."""
    command = [sys.executable, "-c", PRETEND + script, system, *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.data
def test_a_mac_without_dali_finds_tickets_in_photographs_and_their_rows_say_who_decoded(
    few_photographs: Path, tmp_path: Path
) -> None:
    pretend("darwin", SEARCH, few_photographs, tmp_path)
    (tickets,) = tmp_path.glob("*/tickets")
    assert len(list(tickets.glob("level-*.safetensors"))) == 4
    rows = read_rows([tmp_path])
    assert set(rows["numerics"]) == {"fp32 torchvision-decoded"}


@pytest.mark.slow
def test_windows_imports_everything_uses_tickets_and_refuses_commands_in_a_line(tmp_path: Path) -> None:
    planned = runs.search(tmp_path)
    script = """
from sslticket import BadInput, Ticket, find_tickets, load_recipe
from sslticket.models import create_model

import_all()
network = create_model("conv3", channels=1, image_size=8)
Ticket.load(sys.argv[2]).apply(network)
print(sum(int(weight.count_nonzero()) for weight in network.parameters() if weight.dim() > 1))
try:
    find_tickets(load_recipe("supervised_digits"), out=sys.argv[3])
except BadInput as refused:
    print(refused)
sys.argv = ["sslticket", "data", "list"]
from sslticket.cli import main

main()
"""
    done = pretend("win32", script, planned.run_dir.ticket_path(3), tmp_path / "runs", code=2)
    survivors, refused = done.stdout.splitlines()
    assert int(survivors) == runs.tickets(planned)[3].survivors
    assert refused.startswith("sslticket runs on Linux and macOS")
    assert done.stderr.strip() == f"error: {refused}"
    assert not (tmp_path / "runs").exists()
