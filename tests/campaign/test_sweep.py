"""A sweep is a file; its cells are the recipes that single commands with the same flags would run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from sslticket import BadInput, Evaluate, RotNet, RuntimeConfig, Sweep, View
from sslticket.campaign import local, worker
from sslticket.campaign.state import CampaignFolder
from sslticket.campaign.sweep import (
    Analyse,
    count_cells,
    expand,
    find_sweep_file,
    keep_cells,
    load_sweeps,
    published_sweeps,
)
from sslticket.cli import recipe_commands
from sslticket.cli.commands import make_parser, run_command
from sslticket.config import flags
from sslticket.config.recipe import Recipe
from sslticket.config.recipe_files import load_recipe
from sslticket.results.throughput import device_name

RECIPE = "supervised_digits"


def typed(name: str, *words: str) -> Recipe:
    """The recipe that `sslticket run NAME WORDS` runs."""
    recipe = flags.choose_parts(load_recipe(name), words)
    return flags.resolve_recipe(recipe, vars(recipe_commands._recipe_parser(recipe).parse_args(list(words))))


def test_a_cell_is_the_recipe_that_the_same_flags_make() -> None:
    sweep = Sweep(
        recipes=[RECIPE],
        settings={"length": "80it", "training.optimizer.weight_decay": 0.01, "criterion": "Random", "drops": ["50%"]},
        points=[{"subset": "10%", "batch_size": 64}],
        grid={"rewind": ["10it", "20it"]},
        seeds=[3],
    )
    words = "--length 80it --weight-decay 0.01 --criterion Random --drops 50% --subset 0.1 --batch-size 64 --seed 3"
    wanted = [typed(RECIPE, *words.split(), "--rewind", rewind) for rewind in ("10it", "20it")]
    assert [cell.recipe for cell in expand(sweep)] == wanted
    assert [cell.trial for cell in expand(sweep)] == [False, False]


def test_a_length_without_a_rewind_point_is_a_trial() -> None:
    assert [cell.trial for cell in expand(Sweep(recipes=[RECIPE], settings={"length": "20it"}))] == [True]


def test_weights_in_a_file_are_told_by_their_content_and_not_by_its_path(tmp_path: Path) -> None:
    first, second, kept = (tmp_path / name for name in ("one.pth", "two.pth", "sweep.json"))
    sweep = Sweep(recipes=[RECIPE], settings={"init": str(first)})
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    (cell,) = expand(sweep)
    (copy,) = expand(Sweep(recipes=[RECIPE], settings={"init": str(second)}))
    keep_cells([cell], kept)
    first.write_bytes(b"others")
    (other,) = expand(sweep)
    (begun,) = expand(load_sweeps(kept))  # workers take what the campaign was begun with
    assert copy.key == cell.key == begun.key != other.key
    assert (begun.recipe.init, copy.recipe.init) == (str(first), str(second))


def test_what_cannot_be_typed_is_given_as_it_is() -> None:
    view = View(size=8)
    (cell,) = expand(
        Sweep(recipes=[RECIPE], settings={"objective": RotNet(), "augment": view, "data.image-size": None})
    )
    assert (cell.recipe.objective, cell.recipe.data.augment, cell.recipe.data.image_size) == (RotNet(), view, None)


@pytest.mark.parametrize("name", ["levels", "length", "subset", "batch-size", "shuffle-labels", "model"])
def test_a_setting_that_must_have_a_value_is_refused_as_none(name: str) -> None:
    with pytest.raises(BadInput, match=rf"^supervised_digits, seed 0: {name} must have a value, got None"):
        expand(Sweep(recipes=["supervised_digits"], settings={name: None}))
    assert expand(Sweep(recipes=["supervised_digits"], settings={"prune-up-to": None}))


def test_cells_of_the_first_seed_come_first_and_have_names() -> None:
    cells = expand(Sweep(recipes=[RECIPE, "rotnet_digits"], grid={"subset": [0.1, 1]}, seeds=[0, 1]))
    assert [cell.recipe.seed for cell in cells] == [0] * 4 + [1] * 4
    several = expand([Sweep(recipes=[RECIPE], seeds=[4, 2]), Sweep(recipes=["rotnet_digits"], seeds=[2, 4])])
    assert [cell.recipe.seed for cell in several] == [4, 2, 2, 4]
    assert [cell.number for cell in cells] == list(range(8))
    assert cells[2].name == "rotnet_digits, subset 0.1, seed 0"
    assert len({cell.key for cell in cells}) == 8


def test_names_say_what_settings_have_made_of_a_recipe() -> None:
    sweep = Sweep(recipes=[RECIPE], settings={"model": "resnet20", "dataset": "cifar10"}, grid={"rewind": ["0it"]})
    assert [cell.name for cell in expand(sweep)] == [
        "supervised_digits, model resnet20, dataset cifar10, rewind 0it, seed 0"
    ]
    varied = Sweep(recipes=[RECIPE], grid={"model": ["resnet20", "conv3"]})
    assert [cell.name for cell in expand(varied)] == [
        "supervised_digits, model resnet20, seed 0",
        "supervised_digits, model conv3, seed 0",
    ]


def test_no_two_cells_of_a_campaign_have_the_same_name() -> None:
    sweeps = [
        Sweep(recipes=[RECIPE], settings={"lr": lr, "batch_size": size}) for lr in (0.1, 0.2) for size in (32, 64)
    ]
    alone = [cell.key for sweep in sweeps for cell in expand(sweep)]
    cells = expand(sweeps)
    assert [cell.key for cell in cells] == alone
    assert sorted(cell.name for cell in cells) == [
        f"supervised_digits, batch-size {size}, lr {lr}, seed 0" for size in (32, 64) for lr in (0.1, 0.2)
    ]


def test_a_search_of_two_sweeps_is_one_cell_with_what_both_measure() -> None:
    one, other = Evaluate(protocols=["digits-demo"]), Analyse(analysis="overlap")
    sweeps = [
        Sweep(recipes=[RECIPE], grid={"subset": [0.1, 1.0]}, evaluate=[one]),
        Sweep(recipes=[RECIPE], evaluate=[one], analyse=[other]),
    ]
    tenth, whole = expand(sweeps)
    assert (tenth.evaluate, tenth.analyse) == ((one,), ())
    assert (whole.evaluate, whole.analyse) == ((one,), (other,))


def test_toml_and_python_say_the_same() -> None:
    folder = find_sweep_file("lowshot").parent
    (one,), (other,) = load_sweeps(folder / "lowshot.py"), load_sweeps(folder / "lowshot.toml")
    assert one == other


@pytest.mark.parametrize("name", published_sweeps())
def test_published_sweeps_expand_to_what_can_be_measured(name: str) -> None:
    sweeps = load_sweeps(name)
    cells = expand(sweeps)
    worker.check_cells(cells)
    assert 0 < len(cells) <= count_cells(sweeps)


def test_recipes_beside_a_sweep_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(Path(__file__).parents[2] / "recipes" / "supervised_digits.py", tmp_path / "own.py")
    (tmp_path / "sweep.toml").write_text('recipes = ["own.py"]')
    assert expand(load_sweeps(tmp_path / "sweep.toml"))[0].name == "own, seed 0"


ONE = 'recipes = ["supervised_digits"]\n'
BAD = {
    "no recipe": ("recipes = []", r"recipes of a sweep must be at least one, got none"),
    "no sweep": ("", r"defines no sweep; it needs a line such as: recipes ="),
    "unknown recipe": ('recipes = ["supervised_digit"]', r"did you mean supervised_digits"),
    "unknown field": ('recipes = ["supervised_digits"]\n[grid]\nsubst = [1]', r"subst'; did you mean --subset"),
    "unknown key": ('recipe = ["supervised_digits"]', r"there is no field 'recipe' of a sweep; did you mean recipes"),
    "bad value": ('recipes = ["supervised_digits"]\n[grid]\nlr = ["big"]', r"--lr: must be a number"),
    "no list": (
        'recipes = ["supervised_digits"]\n[grid]\nlr = 0.1',
        r"lr in the grid must be a list of values",
    ),
    "twice": ('recipes = ["supervised_digits"]\n[grid]\nsubset = [1, 1.0]', r"got the same search twice"),
    "two places": ('recipes = ["supervised_digits"]\n[settings]\nlr = 1\n[grid]\nlr = [2]', r"lr must be in one of"),
    "seed": (
        'recipes = ["supervised_digits"]\n[settings]\nseed = 1',
        r"must not be a setting of a sweep; give seeds=",
    ),
    "protocol": ('recipes = ["supervised_digits"]\n[[evaluate]]\nprotocols = ["cifar"]', r"unknown protocol 'cifar'"),
    "its network": (
        'recipes = ["supervised_digits"]\n[[evaluate]]\nprotocols = ["fashion_mnist-lenet"]',
        r"supervised_digits, seed 0: ",
    ),
    "control": ('recipes = ["supervised_digits"]\n[[evaluate]]\ncontrols = ["randm"]', r"did you mean random"),
    "analysis": ('recipes = ["supervised_digits"]\n[[analyse]]\nanalysis = "overlp"', r"did you mean overlap"),
    "no analysis": ('recipes = ["supervised_digits"]\n[[analyse]]\nlevels = "0"', r"analyse must have analysis"),
    "levels that none has": (
        ONE + '[settings]\nlevels = 1\n[[evaluate]]\nlevels = "7"',
        r"supervised_digits, seed 0: levels of Evaluate\(...\) must have one of 0 to 1, got 7; give levels=\"all\"",
    ),
    "no levels": (
        ONE + '[[evaluate]]\nlevels = ""',
        r"levels of Evaluate.* must be text, got",
    ),
    "head": (ONE + '[[evaluate]]\nheads = ["old"]', r"heads of .* must be names, got 'old'"),
    "no seeds": (
        ONE + "[[evaluate]]\nseeds = []",
        r"seeds of .* whole numbers .*, got \[\]",
    ),
    "seeds": (ONE + '[[evaluate]]\nseeds = "0-5"', r"seeds of .*, got '0-5'; give seeds="),
    "below 0": (ONE + "seeds = [-1]", r"seeds of a sweep must be .* from 0 on, got \[-1\]"),
    "no protocol": (ONE + "[[evaluate]]\nprotocols = []", r"protocols of .* got none"),
    "number": (
        ONE + "[[evaluate]]\nprotocols = [3]",
        r"protocols of .* must be names, got 3",
    ),
    "settings": (
        ONE + '[[analyse]]\nanalysis = "overlap"\nsettings = 3',
        r"settings of Analyse.* must be settings by their names, got 3",
    ),
    "points": (ONE + "points = [1]", r"points of Sweep.* must be settings .*, got 1"),
    "grid": (ONE + "grid = 3", r"grid of Sweep.* must be settings .*, got 3"),
    "levels": (ONE + '[[evaluate]]\nlevels = "all 2"', r"levels must be numbers or ranges"),
    "too many": (
        ONE + f"seeds = {list(range(101))}\n[grid]\nlr = {[n / 10 for n in range(1, 101)]}",
        r"the sweep has 10,100 cells, which is more than 1,000; give --yes",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_before_anything_is_written(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        run_command(["sweep", str(file), "--out", str(tmp_path / "out")])
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]


BAD_PYTHON = {
    'Sweep(recipe=["supervised_digits"])': "there is no field 'recipe' of a sweep; did you mean recipes?",
    'Sweep(recipes=["supervised_digits"], seed=[0])': "there is no field 'seed' of a sweep; did you mean seeds?",
    'Evaluate(protocol="own")': (
        "there is no field 'protocol' of an evaluation (Evaluate); did you mean protocols or part?"
    ),
    'Analyse(analysis="overlap", level="0")': (
        "there is no field 'level' of an analysis (Analyse); did you mean levels?"
    ),
    "Sweep(seeds=[1])": "sweep must have recipes, got seeds",
    'Sweep(recipes=["supervised_digits", 3])': (
        "recipes of a sweep must be names or recipes, got 3; give a published name"
    ),
    'Sweep(recipes=["supervised_digits"], settings={3: 4})': (
        'settings of Sweep(...) must be settings by their names, got {3: 4}; give {"length": "400it"}'
    ),
    "Sweep(recipes=[])": 'recipes of a sweep must be at least one, got none; give recipes=["supervised_digits"]',
    'Sweep(recipes=["supervised_digits"], grid={"subset": []})': (
        "subset in the grid must be a list of values, got []; give [0.1, 1.0]"
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_PYTHON.items(), ids=BAD_PYTHON)
def test_what_a_file_of_python_gives_is_answered_as_in_toml(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(
        f"from sslticket import Evaluate, Sweep\nfrom sslticket.campaign.sweep import Analyse\nx = {text}\n"
    )
    with pytest.raises(BadInput) as error:
        load_sweeps(file)
    assert str(error.value) == f"{file}: {message}"


def test_a_file_of_python_that_is_broken_says_where(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("from sslticket import Sweep\nsweep = Sweep(recipes=1 / 0)\n")
    with pytest.raises(BadInput, match=r"broken\.py cannot be imported: .*\(line 2\)"):
        load_sweeps(tmp_path / "broken.py")


def test_a_file_without_a_sweep_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("x = 1")
    with pytest.raises(BadInput, match=r"empty\.py defines no sweep; a file of a sweep has a line that starts with"):
        load_sweeps(tmp_path / "empty.py")
    with pytest.raises(BadInput, match=r"unknown sweep 'lowshots'; did you mean lowshot"):
        load_sweeps("lowshots")


def test_workers_get_the_cells_that_the_campaign_was_begun_with(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path / "out")
    sweep = Sweep(
        recipes=[RECIPE],
        settings={"length": "20it", "drops": ["50%"]},
        grid={"subset": [0.5, 1.0], "rewind": ["0it", "10it"]},
        evaluate=[Evaluate(protocols=["digits-demo"], seeds=[0, 1])],
        analyse=[Analyse(analysis="overlap", levels="0 2")],
    )
    cells = [*expand(sweep), *expand(Sweep(recipes=["rotnet_digits"], settings={"length": "20it"}))]
    folder.begin(cells, "four", retry=False)
    command = local.worker_command(["sweep", "/x/four.py", "--rows", "r"], folder, RuntimeConfig(), None)
    assert command[3:7] == ["sweep", str(folder.kept_file), "--rows", "r"]
    found = expand(load_sweeps(folder.kept_file))
    assert [replace(cell, number=0) for cell in found] == [replace(cell, number=0) for cell in cells]
    assert [cell.key for cell in found] == [cell.key for cell in cells]
    folder.kept_file.write_text("{}")
    with pytest.raises(BadInput, match=r"sweep\.json is damaged .*; type the command of the sweep again"):
        load_sweeps(folder.kept_file)


def test_workers_read_the_file_where_it_has_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass\nfrom sslticket import RotNet, Sweep\n"
        "@dataclass(frozen=True)\nclass Mine(RotNet):\n    pass\n"
        'sweep = Sweep(recipes=["rotnet_digits"], settings={"objective": Mine()})\n'
    )
    folder = CampaignFolder(tmp_path / "out")
    folder.begin(expand(load_sweeps(tmp_path / "own.py")), "own", retry=False)
    words = ["sweep", str(tmp_path / "own.py")]
    assert local.worker_command(words, folder, RuntimeConfig(), None)[3:5] == words


def test_cells_may_be_added_and_other_sweeps_are_refused(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path)
    half, whole = Sweep(recipes=[RECIPE], grid={"subset": [0.5]}), Sweep(recipes=[RECIPE], grid={"subset": [0.5, 1.0]})
    folder.begin(expand(half), "one", retry=False)
    assert folder.compare(expand(half)) == ""
    assert folder.compare(expand(whole)) == "1 of 2 cells are new"
    folder.begin(expand(whole), "one", retry=False)
    assert "1 cells of before are no longer in the sweep" in folder.compare(expand(half))
    with pytest.raises(BadInput, match=r"holds the campaign of another sweep, whose 2 cells are none of these 1"):
        folder.compare(expand(Sweep(recipes=["rotnet_digits"])))


def test_the_flags_of_a_campaign_are_those_of_the_machine_and_of_slurm() -> None:
    words = "sweep lowshot --threads 2 --exact --partition gpu --launch print"
    given = make_parser().parse_args(words.split())
    assert (given.threads, given.exact, given.partition, given.launch) == (2, True, "gpu", "print")


def test_a_plan_for_another_device_is_for_one_of_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one.toml").write_text('recipes = ["supervised_digits"]')
    words = ["sweep", str(tmp_path / "one.toml"), "--out", str(tmp_path / "out"), "--dry-run", "--on"]
    run_command([*words, "A100"])
    assert "not measured here: TurboPrune, ResNet-18 on ImageNet, 69 s an epoch on four A100" in capsys.readouterr().out
    for command in (words, ["reproduce", "stabilizing_figure3", "--dry-run", "--on"]):
        with pytest.raises(BadInput, match=r"^--on must name a device of the tables, got 'B999': no such device"):
            run_command([*command, "B999"])


def test_a_plan_is_made_with_the_threads_that_workers_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local, "visible_devices", list)
    before = torch.get_num_threads()
    with local.worker_threads():
        assert device_name() == "cpu, 1 threads"
    assert torch.get_num_threads() == before


EXPERIMENTS = {
    "experiments/early_bird/early_bird_sweep.py": "docs/searches/early_bird.parquet",
    "experiments/early_bird/resnet8_sweep.py": "docs/searches/early_bird_resnet8.parquet",
    "experiments/agreement/agreement_sweep.py": "docs/evaluation/agreement.parquet",
    "experiments/searches/conv3_sweep.py": "docs/searches/conv3.parquet",
    "experiments/searches/dynamic_sweep.py": "docs/searches/dynamic.parquet",
    "experiments/searches/pattern_sweep.py": "docs/searches/pattern.parquet",
    "experiments/transfer/own_sweep.py": "docs/transfer/own.parquet",
}


@pytest.mark.parametrize(("file", "rows"), EXPERIMENTS.items(), ids=lambda path: Path(path).stem)
def test_the_sweeps_of_experiments_are_those_whose_rows_are_published(file: str, rows: str) -> None:
    root = Path(__file__).parents[2]
    cells = expand(load_sweeps(root / file))
    worker.check_cells(cells)
    runs = set(pd.read_parquet(root / rows).run)
    # The key of a search on a part of a set has the hash of its images, which are not here.
    found = {replace(cell.recipe, precision="fp32").key for cell in cells if cell.recipe.data.part is None}
    assert found <= runs
    assert len(runs) == len(cells)
