"""Every setting has a dotted flag and, where it is alone with it, a short one; classes are chosen by flags."""

import argparse
import json
from dataclasses import field, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sslticket import IMP, LARS, SGD, SNIP, Adam, OneShot, Recipe, RotNet, SimCLR, TrainConfig
from sslticket.cli import recipe_commands as command
from sslticket.config import flags
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.registry import stored_as
from sslticket.search.dynamic import DynamicSparseSearch
from tests.recipes import RECIPES, load

BEFORE: dict[str, list[str]] = json.loads(Path(__file__).with_name("flags_of_0_1.json").read_text())
MINE = """
from dataclasses import dataclass
from sslticket import RotNet, SGD

@dataclass(frozen=True, kw_only=True)
class Mine(RotNet):
    strength: float
    rate: float = 0.5

@dataclass(frozen=True, kw_only=True)
class Fast(SGD):
    pace: int = 2
"""


def parse(recipe: Recipe, *words: str) -> tuple[Recipe, RuntimeConfig]:
    recipe = flags.choose_parts(recipe, words)
    given = vars(command._recipe_parser(recipe).parse_args(words))
    return flags.resolve_recipe(recipe, given), flags.override_fields(RuntimeConfig(), given)


@pytest.mark.parametrize("name", RECIPES)
def test_every_flag_of_version_0_1_is_still_a_flag(name: str) -> None:
    recipe = load(name)
    now = command._recipe_parser(recipe)._option_string_actions
    # All searches of that version went back to early weights; one whose mask changes in training has none.
    without = {"--rewind"} if isinstance(recipe.search, DynamicSparseSearch) else set()
    assert set(BEFORE["all"]) - without | set(BEFORE.get(name, [])) <= set(now)


def test_short_and_dotted_names_mean_the_same() -> None:
    base = load("rotnet_resnet50")
    for short, dotted, value in [
        ("--lr", "--training.optimizer.lr", "0.5"),
        ("--levels", "--search.levels", "3"),
        ("--subset", "--data.subset", "10%"),
        ("--batch-size", "--training.batch-size", "64"),
    ]:
        assert parse(base, short, value) == parse(base, dotted, value) != parse(base)
    assert parse(base, "--optimizer.lr", "0.5") == parse(base, "--lr", "0.5"), "the end of a dotted name"
    assert parse(base, "--runtime.threads", "3")[1].threads == 3
    assert parse(base, "--runtime.exact")[1].exact
    assert not parse(base, "--exact", "--no-runtime.exact")[1].exact


@pytest.mark.parametrize(
    ("name", "kind", "value", "flag"),
    [
        ("rate", float, 0.5, "--search.rate"),
        ("seed", int, 3, "--seed"),
        ("threads", int, 3, "--runtime.threads"),
        ("training", float, 0.5, None),
        ("no_exact", bool, True, "--runtime.exact"),
        ("out", str, "here", None),
        ("dry_run", int, 1, None),
        ("help", str, "none", None),
    ],
)
def test_no_name_of_a_field_is_forbidden_to_a_users_class(name: str, kind: type, value: object, flag: str) -> None:
    mine = make_dataclass("Mine", [(name, kind, field(default=value))], bases=(RotNet,), frozen=True)
    mine.__module__ = "theirs"
    theirs = replace(load("rotnet_resnet50"), objective=mine())
    dotted = f"--objective.{name.replace('_', '-')}"
    words = [f"--no-{dotted[2:]}"] if kind is bool else [dotted, "7"]
    found, machine = parse(theirs, *words)
    assert getattr(found.objective, name) == {bool: False, str: "7"}.get(kind, 7)
    assert (replace(found, objective=theirs.objective), machine) == (theirs, RuntimeConfig())
    if flag and kind is not bool:
        for other in {flag, f"--{name}"}:
            assert parse(theirs, other, ("0.25" if kind is float else "1"))[0].objective == theirs.objective, (
                "the short name is the other's"
            )


def test_of_two_fields_of_users_none_has_the_short_name(tmp_path: Path) -> None:
    mine = make_dataclass("Mine", [("pace", int, field(default=1))], bases=(RotNet,), frozen=True)
    fast = make_dataclass("Fast", [("pace", int, field(default=2))], bases=(SGD,), frozen=True, kw_only=True)
    base = load("rotnet_resnet50")
    mine.__module__ = fast.__module__ = "theirs"
    both = replace(base, objective=mine(), training=replace(base.training, optimizer=fast(lr=0.1)))
    with pytest.raises(BadInput, match=r"it is written --objective.pace or --training.optimizer.pace"):
        parse(both, "--pace", "3")


def test_a_field_that_was_renamed_keeps_its_former_flag() -> None:
    renamed = make_dataclass(
        "Mine", [("early_bird", float, field(default=0.5, metadata=stored_as("settled")))], bases=(RotNet,), frozen=True
    )
    base = replace(load("supervised_digits"), objective=renamed())
    base = replace(base, search=OneShot(levels=1, rate=0.5, criterion=SNIP()))
    assert parse(base, "--settled", "0.1") == parse(base, "--early-bird", "0.1")
    assert parse(base, "--settled", "0.1")[0].objective.early_bird == 0.1  # type: ignore[attr-defined]
    assert "settled" in base.to_dict()["objective"], "keys of runs stay what they were"


def test_classes_are_chosen_by_name_and_their_fields_are_flags() -> None:
    base = load("rotnet_resnet50")
    found, _ = parse(base, "--objective", "SimCLR", "--temperature", "0.2")
    assert isinstance(found.objective, SimCLR)
    assert found.objective.temperature == 0.2
    assert (found.training, found.search) == (base.training, base.search)
    found, _ = parse(base, "--optimizer", "LARS", "--trust", "0.01")
    assert found.training.optimizer == LARS(lr=base.training.optimizer.lr, trust=0.01)
    assert parse(base, "--training.optimizer", "Adam", "--lr", "0.001")[0].training.optimizer == Adam(lr=0.001)
    found, _ = parse(base, "--search", "OneShot", "--criterion", "SNIP")
    assert isinstance(found.search, OneShot)
    assert isinstance(base.search, IMP)
    assert found.search == OneShot(
        levels=base.search.levels, rate=base.search.rate, rewind=base.search.rewind, criterion=SNIP()
    )
    assert parse(base, "--search", "IMP")[0] == base, "what is chosen already stays as it is"


def test_classes_of_users_are_chosen_by_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path))
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    base = load("rotnet_resnet50")
    found, _ = parse(base, "--objective", f"{path}:Mine", "--strength", "50%", "--objective.rate", "0.25")
    assert type(found.objective).__name__ == "Mine"
    assert vars(found.objective) == {"strength": 0.5, "rate": 0.25}
    assert found.search == base.search, "--rate is the search's"
    with pytest.raises(BadInput, match="--objective Mine needs --strength, which has no default"):
        parse(base, "--objective", f"{path}:Mine")
    found, _ = parse(base, "--optimizer", f"{path}:Fast", "--pace", "3")
    assert vars(found.training.optimizer) == vars(base.training.optimizer) | {"pace": 3}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--objective", "SimCLRR"], "unknown objective 'SimCLRR'; did you mean SimCLR"),
        (["--search", "ContinuousSparsification", "--criterion", "SNIP"], "--criterion must be left out"),
        (["--optimizer", "nowhere.py:Mine"], "there is no Python file nowhere.py"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(words: list[str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        parse(load("rotnet_resnet50"), *words)


def test_help_shows_the_dotted_name_and_the_short_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command._recipe_parser(load("rotnet_resnet50")).parse_args(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--lr, --training.optimizer.lr FLOAT" in shown
    assert "SimCLR, SimSiam" in shown


def test_a_recipe_of_earlier_versions_may_say_fit() -> None:
    base = load("rotnet_digits")
    fit = TrainConfig(length="3ep", batch_size=8, optimizer=SGD(lr=0.1))
    older: Any = Recipe
    made = older(model=base.model, data=base.data, objective=base.objective, fit=fit, search=base.search)
    assert made == replace(base, training=fit, seed=made.seed, precision=made.precision)
    assert replace(made, seed=4).training == fit


def test_flags_of_a_command_are_those_of_the_machine_that_it_uses() -> None:
    parser = argparse.ArgumentParser()
    flags.add_flags(parser, RuntimeConfig(), without=("probe",))
    assert "--probe" not in parser._option_string_actions
    assert parser.parse_args(["--threads", "2"]).threads == 2
