import pytest, torch
from pathlib import Path
from tests.device import pretend
from tests.runs import recipe, search, tickets

def test_a(tmp_path, monkeypatch, accelerator):
    found = tickets(search(tmp_path, recipe()))
    print(accelerator.tally.waits, sum(accelerator.tally.kernels.values()))
