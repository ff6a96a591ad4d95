"""The example of a transform of one's own is searched, evaluated and reported, by commands and from Python."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from sslticket import evaluate_tickets, find_tickets, load_recipe, write_report
from sslticket.cli.commands import run_command
from sslticket.cli.recipe_commands import run_with_flags
from sslticket.data import TRANSFORMS
from sslticket.data.augment import Transform, View
from sslticket.data.augment_ops import apply_transforms
from sslticket.errors import BadInput
from sslticket.ticket import Ticket
from tests.runs import recipe

ROOT = Path(__file__).parents[2]
POSTERIZE = f"{ROOT / 'examples' / 'posterize.py'}:Posterize"
SHORT = "--length 8it --batch-size 16 --levels 1 --rewind 2it"


def posterize(**settings: object) -> Transform:
    return TRANSFORMS.get(POSTERIZE)(**settings)  # type: ignore[arg-type]  # a user's own settings


def test_posterize_keeps_the_highest_bits_of_each_image() -> None:
    pixels = torch.arange(256.0).view(1, 1, 16, 16).repeat(64, 1, 1, 1)
    view = View(size=16, transforms=(posterize(bits=(1, 3)),))
    found = apply_transforms(pixels.clone(), view, view.sample(64, 0))
    steps = torch.stack([image.unique()[1] for image in found])
    assert set(steps.tolist()) == {128.0, 64.0, 32.0}
    assert torch.equal(found, pixels // steps.view(-1, 1, 1, 1) * steps.view(-1, 1, 1, 1))


def test_a_transform_of_ones_own_is_searched_evaluated_and_reported_by_commands(tmp_path: Path) -> None:
    words = [*SHORT.split(), "--transforms", POSTERIZE, "Solarize", "--out", str(tmp_path)]
    run_with_flags(load_recipe(ROOT / "recipes" / "supervised_digits.py"), words)
    (run,) = tmp_path.glob("supervised-conv3-digits-*")
    words = ["evaluate", str(run), "--protocol", "own", "--levels", "1", "--controls", "random", "--seeds", "0"]
    subprocess.run([sys.executable, "-m", "sslticket", *words], check=True)  # a process that has not seen the file
    run_command(["report", str(run), "--output", str(run / "report.html")])
    run_command(["rows", str(run), "--output", str(run / "rows.csv")])
    assert (pd.read_csv(run / "rows.csv").kind == "score").sum() == 2
    ticket = Ticket.load(run / "tickets" / "level-01.safetensors")
    first, second = ticket.recipe["data"]["transforms"]
    assert (first["is"], first["bits"], second["is"]) == ("Posterize", [2, 6], "Solarize")


def test_a_transform_of_ones_own_is_searched_evaluated_and_reported_from_python(tmp_path: Path) -> None:
    plain = recipe()
    chosen = replace(plain, data=replace(plain.data, transforms=(posterize(probability=0.5),)))
    assert plain.family != chosen.family
    tickets = find_tickets(chosen, out=tmp_path / "runs", progress=False)
    assert not evaluate_tickets(tickets[-1], protocol="own", progress=False).empty
    write_report(tmp_path / "runs", tmp_path / "report.html")


def test_a_transform_without_apply_and_one_that_is_unknown_are_refused() -> None:
    with pytest.raises(TypeError, match=r"must define apply\(self, pixels"):
        type("Idle", (Transform,), {})
    with pytest.raises(BadInput, match="unknown transform 'Solarise'; did you mean Solarize"):
        TRANSFORMS.get("Solarise")
