"""The example of a search of one's own is searched, evaluated and reported, from the command line and from Python."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sslticket import evaluate_tickets, find_tickets, load_recipe, write_report
from sslticket.cli.commands import run_command
from sslticket.cli.recipe_commands import run_with_flags
from sslticket.errors import BadInput
from sslticket.pruning.mask import num_kept
from sslticket.search import SEARCHES
from sslticket.ticket import Ticket
from tests.runs import recipe

ROOT = Path(__file__).parents[2]
GIVEN_DENSITIES = f"{ROOT / 'examples' / 'given_densities.py'}:GivenDensities"
SHORT = "--length 8it --batch-size 16 --rewind 2it"


def test_a_search_of_ones_own_is_searched_evaluated_and_reported_by_commands(tmp_path: Path) -> None:
    words = [*SHORT.split(), "--search", GIVEN_DENSITIES, "--densities", "0.5", "0.1", "--out", str(tmp_path)]
    run_with_flags(load_recipe(ROOT / "recipes" / "supervised_digits.py"), words)
    (run,) = tmp_path.glob("supervised-conv3-digits-*")
    words = ["evaluate", str(run), "--protocol", "own", "--levels", "2", "--controls", "random", "--seeds", "0"]
    subprocess.run([sys.executable, "-m", "sslticket", *words], check=True)  # a process that has not seen the file
    run_command(["report", str(run), "--output", str(run / "report.html")])
    assert (run / "report.html").is_file()
    ticket = Ticket.load(run / "tickets" / "level-02.safetensors")
    assert ticket.mask.survivors == num_kept(ticket.mask.total, 0.1)
    assert [part.rpartition(":")[2] for part in ticket.provenance["parts"]] == ["GivenDensities"]


def test_a_search_of_ones_own_is_searched_evaluated_and_reported_from_python(tmp_path: Path) -> None:
    chosen = replace(recipe(), search=SEARCHES.get(GIVEN_DENSITIES)(densities=(0.3,), rewind="2it"))
    dense, ticket = find_tickets(chosen, out=tmp_path / "runs", progress=False)
    for name, layer in ticket.mask.items():
        assert torch.equal(ticket.weights[name], dense.weights[name] * layer), "W_k x mask"
    assert not evaluate_tickets(ticket, protocol="own", progress=False).empty
    write_report(tmp_path / "runs", tmp_path / "report.html")


def test_a_search_of_ones_own_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    chosen = replace(recipe(), search=SEARCHES.get(GIVEN_DENSITIES)(densities=(0.5, 0.2), rewind="2it"))
    found = find_tickets(chosen, out=tmp_path, progress=False)
    last = tmp_path / chosen.key / "tickets" / "level-02.safetensors"
    before = last.read_bytes()
    last.unlink()
    assert [each.hash for each in find_tickets(chosen, out=tmp_path, progress=False)] == [each.hash for each in found]
    assert last.read_bytes() == before


def test_an_unknown_search_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(BadInput, match="unknown search 'OneShoot'; did you mean OneShot"):
        SEARCHES.get("OneShoot")
