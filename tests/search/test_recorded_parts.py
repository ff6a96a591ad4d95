"""A search with a user's own classes records them, and a later command makes the same recipe again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sslticket import models, registry
from sslticket.config.recipe import Recipe, RecipeRecord
from sslticket.errors import BadInput
from sslticket.evaluation.tasks import make_tasks
from tests import runs

MINE = """
from dataclasses import dataclass

import torch

from sslticket import Supervised
from sslticket.config.training import Optimizer


@dataclass(frozen=True)
class Smoothed(Supervised):
    smoothing: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Plain(Optimizer):
    def build(self, parameters):
        return torch.optim.SGD(parameters, lr=self.lr)
"""


@pytest.fixture
def own_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_user_modules", {})
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    mine = registry.load_user_file(path)
    base = runs.recipe(mine.Smoothed(smoothing=0.2))
    return replace(base, training=replace(base.training, optimizer=mine.Plain(lr=0.1)))


def test_own_classes_are_recorded_and_the_recipe_is_made_again(
    own_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = runs.search(tmp_path / "runs", own_recipe)
    began = json.loads((planned.run_dir.path / "recipe.json").read_text())
    parts = began["parts"]
    assert list(parts) == [f"{tmp_path}/mine.py:Plain", f"{tmp_path}/mine.py:Smoothed"]
    ticket = runs.tickets(planned)[-1]
    assert ticket.provenance["parts"] == parts
    assert json.loads(planned.run_dir.row_path(1).read_text())["parts"] == parts

    monkeypatch.setattr(registry, "_user_modules", {})  # another command
    assert ticket.record.objective == "Smoothed", "a record is read without the classes"
    assert ticket.record.family == own_recipe.family
    with pytest.raises(BadInput, match=r"unknown class 'Smoothed'.*--parts FILE.py"):
        Recipe.from_dict(ticket.recipe)
    again = Recipe.from_dict(ticket.recipe, registry.load_recorded_parts(parts))
    assert again.key == own_recipe.key
    assert again.to_dict() == own_recipe.to_dict()
    assert runs.search(tmp_path / "runs", again).run_dir.path == planned.run_dir.path, "and it goes on there"


def test_a_run_of_built_in_parts_records_none(tmp_path: Path) -> None:
    planned = runs.search(tmp_path)
    assert "parts" not in json.loads((planned.run_dir.path / "recipe.json").read_text())
    assert "parts" not in runs.tickets(planned)[0].provenance
    assert Recipe.from_dict(json.loads((planned.run_dir.path / "recipe.json").read_text())["recipe"]) == planned.recipe


def test_a_run_that_goes_on_with_another_file_says_so(
    own_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = runs.search(tmp_path / "runs", own_recipe)
    planned.run_dir.ticket_path(3).unlink()
    path = tmp_path / "mine.py"
    path.write_text(MINE + "\n# another day\n")
    mine = registry.load_user_file(path)
    changed = replace(own_recipe, objective=mine.Smoothed(smoothing=0.2))
    changed = replace(changed, training=replace(changed.training, optimizer=mine.Plain(lr=0.1)))
    runs.search(tmp_path / "runs", changed)
    printed = capsys.readouterr()
    assert "mine.py:Smoothed" in printed.out + printed.err
    runs.search(tmp_path / "runs", changed)
    printed = capsys.readouterr()
    assert "all tickets were found with another" in printed.out + printed.err


@pytest.mark.parametrize("damage", [{"data": 3}, {"objective": "RotNet"}, {"fit": None}])
def test_a_damaged_record_is_one_line(damage: dict[str, object]) -> None:
    tree = runs.recipe().to_dict() | damage
    record = RecipeRecord(tree)
    with pytest.raises(BadInput):
        _ = (record.data, record.objective, record.training)
    with pytest.raises(BadInput):
        Recipe.from_dict(tree)


NET = """
import torch
from torch import nn


def tiny(channels, image_size):
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def test_a_ticket_of_an_own_model_is_scored_by_another_command_and_not_by_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_user_modules", {})
    (tmp_path / "nets.py").write_text(NET)
    planned = runs.search(tmp_path / "runs", runs.recipe(model=f"{tmp_path}/nets.py:tiny"))
    assert planned.recipe.model == "tiny"
    ticket = planned.run_dir.ticket_path(1)
    for fresh in ("_user_modules", "_registered", "_locations"):
        monkeypatch.setattr(registry, fresh, {})
    monkeypatch.setattr(models.MODELS, "_own", {})
    assert make_tasks([ticket], ["random"], ["digits-demo"], [0])
    assert models.create_model("tiny", channels=1, image_size=8)

    monkeypatch.setattr(registry, "_user_modules", {})
    monkeypatch.setattr(models.MODELS, "_own", {})
    monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path / "of_another_user"))
    make_tasks([ticket], ["random"], ["digits-demo"], [0])
    with pytest.raises(BadInput, match="tiny"):
        models.create_model("tiny", channels=1, image_size=8)
