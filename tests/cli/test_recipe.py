"""What a recipe's command line accepts, resolves and refuses, in this process; exit codes are in test_exit.py."""

import re
from dataclasses import field, fields, make_dataclass, replace
from pathlib import Path

import pytest

from sslticket.cli import recipe_commands as command
from sslticket.config import flags
from sslticket.config.recipe import Data, RecipeRecord
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import LARS, Adam, Optimizer, RMSprop, TrainConfig
from sslticket.errors import BadInput
from sslticket.objectives.rotnet import RotNet
from sslticket.search.dynamic import DynamicSparseSearch
from sslticket.search.imp import RankedSearch
from sslticket.training.numerics import resolve_precision
from tests.recipes import RECIPES, load


def run(name: str, *words: object) -> None:
    command.run_with_flags(load(name), [str(word) for word in words])


CONTRACT = "model dataset data-root subset subset-by length batch-size lr weight-decay rewind seed out precision"


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_the_flags_of_the_contract(name: str) -> None:
    recipe = load(name)
    flags = command._recipe_parser(recipe)._option_string_actions
    # A mask that is learnt comes to a density of its own, so its search has rounds in place of levels of a rate. One
    # that changes in training is given its densities, and has no early weights to go back to.
    given = CONTRACT.split()
    if isinstance(recipe.search, DynamicSparseSearch):
        given = ["densities", *(flag for flag in given if flag != "rewind")]
    else:
        given += ["levels", "rate"] if isinstance(recipe.search, RankedSearch) else ["rounds"]
    promised = [f"--{flag}" for flag in [*given, "subset-list", "max-bad-images", "dry-run"]]
    assert [flag for flag in promised if flag not in flags] == []


def test_a_dry_run_says_what_would_happen_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("rotnet_digits", "--dry-run", "--out", tmp_path / "runs", "--length", "40it", "--levels", 2, "--subset", 0.5)
    text = capsys.readouterr().out
    assert " of 1,438, hash " in text
    assert "after step 30 = 3,840 samples = 75.0% of training" in text
    assert "3,492 remain at level 2" in text
    assert "40 dense, then 10 a level; 50 in all" in text
    assert list(tmp_path.iterdir()) == []


def test_a_length_alone_brings_the_rewind_point_within(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("rotnet_digits", "--dry-run", "--length", "20it", "--out", tmp_path)
    printed = capsys.readouterr()
    assert "after step 2 = 256 samples" in printed.out
    assert "20it is short: this trial has --rewind 10% in place of 30it" in printed.err
    with pytest.raises(BadInput, match="give a longer --length or an earlier --rewind"):
        run("rotnet_digits", "--dry-run", "--length", "20it", "--rewind", "30it")


def test_the_key_follows_every_setting_and_nothing_else() -> None:
    base = load("rotnet_digits")
    keys = {
        flags.resolve_recipe(base, dict(given)).key
        for given in (
            {},
            {"seed": 1},
            {"lr": 0.1},
            {"subset": 0.5},
            {"rate": 0.2},
            {"length": "90it"},
            {"model": "lenet300"},
        )
    }
    assert len(keys) == 7
    assert flags.resolve_recipe(base, {"data_root": "/elsewhere"}).key == base.key
    other, seeded = flags.resolve_recipe(base, {"lr": 0.1}), flags.resolve_recipe(base, {"seed": 1})
    assert seeded.family == base.family != other.family


def test_keys_are_what_they_were_before_fields_were_added() -> None:
    names = ("rotnet_digits", "rotnet_resnet50", "rotnet_resnet18_cifar10")
    # A ghost batch as large as the batch is what there was before there were any.
    recipes = {name: flags.resolve_recipe(load(name), {"ghost_batch": 1536}) for name in names}
    keys = {name: resolve_precision(recipe, RuntimeConfig(exact=True)).key for name, recipe in recipes.items()}
    assert keys == {
        "rotnet_digits": "rotnet-conv3-digits-10fc1377",
        "rotnet_resnet50": "rotnet-resnet50-imagenet-afe7e22b",
        "rotnet_resnet18_cifar10": "rotnet-resnet18_cifar-cifar10-95191db2",
    }
    assert (
        resolve_precision(load("rotnet_resnet50"), RuntimeConfig(exact=True)).key == "rotnet-resnet50-imagenet-c5542e69"
    ), "with the paper's 96 images a GPU"
    data = load("rotnet_resnet50").to_dict()["data"]
    added = {each.name for each in fields(Data) if each.metadata.get("added")}
    assert {"part", "identity"} <= added
    assert not added & set(data)
    assert data["half"] is None, "fields that were always there stay"


def test_a_part_is_in_the_key_and_in_the_names() -> None:
    base = load("rotnet_resnet50")
    part = flags.resolve_recipe(base, {"part": "1 image a class", "half": "a"})
    assert part.data.name == "imageneta[1 image a class]"
    assert part.key.startswith("rotnet-resnet50-imageneta-1-image-a-class-")
    assert part.to_dict()["data"]["part"] == part.record.settings()["part"] == "1 image a class"
    others = [flags.resolve_recipe(base, {"part": name, "half": "a"}) for name in (None, "1-image-a-class")]
    assert len({each.family for each in (part, *others)}) == 3
    with pytest.raises(BadInput, match="leave --part out"):
        flags.resolve_recipe(base, {"part": "flowers102", "dataset": "folder"})


def test_settings_are_told_by_their_flags_those_of_the_search_first() -> None:
    base = load("rotnet_digits")
    told, other = (
        base.record.settings(),
        flags.resolve_recipe(base, {"lr": 0.125, "seed": 7}).record.settings(),
    )
    assert next(iter(told)) == "search"
    assert list(told).index("rewind") < list(told).index("lr") < list(told).index("dataset")
    assert {name: (told[name], other[name]) for name in told if told[name] != other[name]} == {"lr": (0.003, 0.125)}
    assert not {"seed", "model"} & set(told)
    assert {f"--{name.replace('_', '-')}" for name in told} - {"--search", "--criterion", "--objective"} <= {
        *command._recipe_parser(base)._option_string_actions,
        "--optimizer",
    }


@pytest.mark.parametrize(
    ("search", "name"),
    [
        ({"is": "IMP", "criterion": {"is": "Magnitude"}}, "IMP"),
        ({"is": "IMP", "criterion": {"is": "Taylor"}}, "IMP Taylor"),
        ({"is": "OneShot", "criterion": {"is": "SNIP"}}, "OneShot SNIP"),
        ({"is": "OneShot", "criterion": {"is": "Magnitude"}}, "OneShot Magnitude"),
        ({"is": "ContinuousSparsification"}, "ContinuousSparsification"),
    ],
)
def test_a_search_is_named_by_itself_and_by_its_criterion(search: dict[str, object], name: str) -> None:
    assert RecipeRecord({"search": search}).search_name == name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--subst", "0.1"], r"unknown flag '--subst'; did you mean --subset"),
        (["--objective", "mae"], r"unknown objective 'mae'; did you mean MAE\?"),
        (["--search", "RigL", "--levels", "3"], r"unknown flag '--levels'; .*--densities 0.2 0.1"),
        (["--densities", "0.2"], r"unknown flag '--densities'; .*each level removes --rate"),
        (["--model", "resnet5"], r"unknown model 'resnet5'; did you mean .*resnet50"),
        (["--dataset", "digts"], r"unknown dataset 'digts'; did you mean digits"),
        (["--subset", "0"], r"--subset must be in \(0, 1\], got"),
        (["--subset", "1.5"], r"--subset must be in \(0, 1\], got"),
        (["--subset", "0.001", "--subset-by", "classes"], r"must leave one of the 10 classes of digits, got 0.001"),
        (["--shots", "0"], r"--shots must be at least 1"),
        (["--subset", "ten"], r"argument --subset: must be a number such as 0.1 or 10%, got 'ten'"),
        (["--subset", "ten%"], r"argument --subset: must be a number such as 0.1 or 10%, got 'ten%'"),
        (["--lr", "inf"], r"argument --lr: must be a number .* got 'inf'"),
        (["--epochs", "90"], r"unknown flag '--epochs'; .* --length 90ep"),
        (
            ["/data/imagenet"],
            r"unexpected argument '/data/imagenet'; if images lie there, write --data-root /data/imagenet",
        ),
        (["lr=0.1"], r"unexpected argument 'lr=0.1'; write --lr 0.1"),
        (["--subset-by", "colour"], r"invalid choice: 'colour'"),
        (["--length", "ninety"], r"--length must be like 90ep"),
        (["--length", "6it", "--rewind", "6it"], r"the rewind point must lie before the end"),
        (["--levels", "40"], r"give --levels 14 or less"),
        (["--levels", "0"], r"at least 1"),
        (["--rate", "1"], r"--rate must be in \(0, 1\)"),
        (["--lr", "0"], r"--lr must be above 0, got 0"),
        (["--batch-size", "0"], r"at least 1"),
        (["--dataset", "imagenet", "--data-root", "/nowhere"], r"no images of imagenet found; looked in /nowhere"),
        (["--dataset", "folder"], r"--data-root"),
        (["extra"], r"unexpected argument 'extra'"),
    ],
)
def test_bad_input_gets_one_line_that_names_the_fix_and_nothing_is_written(
    tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        run("rotnet_digits", "--out", tmp_path / "runs", *words)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    short = ["--length", "4it", "--levels", 1, "--batch-size", 16]
    run("rotnet_digits", "--out", tmp_path, *short)
    (folder,) = tmp_path.iterdir()
    with pytest.raises(BadInput, match="is itself the folder of a run"):
        run("rotnet_digits", "--out", folder, *short)
    content = (folder / "recipe.json").read_text()
    (folder / "recipe.json").write_text(content.replace('"seed": 0', '"seed": 9'))
    with pytest.raises(BadInput, match="holds the run of another recipe"):
        run("rotnet_digits", "--out", tmp_path, *short)
    (folder / "recipe.json").write_text(content[:50])
    with pytest.raises(BadInput, match=r"is damaged \(no JSON.*\); move"):
        run("rotnet_digits", "--out", tmp_path, *short)
    (folder / "recipe.json").unlink()
    with pytest.raises(BadInput, match="holds files but no recipe"):
        run("rotnet_digits", "--out", tmp_path, *short)


def test_two_searches_do_not_write_in_one_folder(tmp_path: Path) -> None:
    import fcntl

    short = ["--length", "4it", "--levels", 1, "--batch-size", 16, "--out", tmp_path]
    run("rotnet_digits", *short)
    (folder,) = tmp_path.iterdir()
    with (folder / ".lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="another process is searching"):
            run("rotnet_digits", *short)
    run("rotnet_digits", *short)


def test_the_next_step_is_the_training_that_the_search_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("supervised_digits", "--length", "4it", "--levels", 1, "--out", tmp_path)
    (found,) = tmp_path.iterdir()
    assert f"next: sslticket evaluate {found} --protocol own --controls random" in capsys.readouterr().out


@pytest.mark.data
def test_the_next_step_after_one_half_is_the_other(
    few_cifar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--dataset", "cifar10", "--image-size", 12, "--length", "4it", "--batch-size", 8, "--levels", 1)
    run("supervised_digits", *words, "--half", "a", "--part", "6 each", "--data-root", few_cifar, "--out", tmp_path)
    told = f"--protocol cifar10b --part '6 each' --data-root {few_cifar} --controls random"
    assert told in capsys.readouterr().out
    with pytest.raises(BadInput, match="--half"):
        run("supervised_digits", "--half", "c")


def test_a_batch_alone_scales_the_rate_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dry-run", "--dataset", "digits", "--image-size", "32", "--model", "conv3"]
    words += ["--length", "40it", "--levels", "1"]
    run("rotnet_resnet50", *words, "--batch-size", 16, "--out", tmp_path)
    printed = capsys.readouterr()
    assert "note: lr 1.0 scaled to 0.0104 for --batch-size 16 (give --lr to choose)" in printed.err.splitlines()
    assert re.search(r"^lr +0\.0104$", printed.out, re.MULTILINE)
    run("rotnet_resnet50", *words, "--batch-size", 16, "--lr", 1.0, "--out", tmp_path)
    assert "scaled" not in capsys.readouterr().err
    run("rotnet_digits", "--dry-run", "--batch-size", 32, "--out", tmp_path)
    told = capsys.readouterr().err
    assert "note: Adam's lr 0.003 stays with --batch-size 32 (give --lr to choose)" in told.splitlines()


def test_the_key_holds_the_rate_that_a_batch_has_scaled() -> None:
    base = load("rotnet_resnet50")
    scaled = flags.resolve_recipe(base, {"batch_size": 16})
    assert scaled.training.optimizer.lr == 0.0104
    assert scaled.key == flags.resolve_recipe(base, {"batch_size": 16, "lr": 0.0104}).key
    assert scaled.key != flags.resolve_recipe(base, {"batch_size": 16, "lr": 1.0}).key
    assert flags.resolve_recipe(base, {"batch_size": base.training.batch_size}) == base


def test_other_rates_of_a_curve_and_of_biases_scale_with_it_and_those_given_stay() -> None:
    base = load("barlowtwins_resnet50")
    fit, scaled = base.training, flags.resolve_recipe(base, {"batch_size": base.training.batch_size // 8}).training
    assert isinstance(fit.optimizer, LARS)
    assert isinstance(scaled.optimizer, LARS)
    rates = [
        (fit.optimizer.lr, fit.optimizer.bias_lr, fit.last_lr),
        (scaled.optimizer.lr, scaled.optimizer.bias_lr, scaled.last_lr),
    ]
    assert rates[1] == pytest.approx([each / 8 for each in rates[0]], rel=0.005)  # type: ignore[operator]
    given = flags.resolve_recipe(base, {"batch_size": 256, "bias_lr": 0.5}).training.optimizer
    assert isinstance(given, LARS)
    assert given.bias_lr == 0.5


@pytest.mark.parametrize("optimizer", [Adam(lr=0.1), RMSprop(lr=0.1)])
def test_rates_of_steps_that_do_not_grow_with_the_gradient_stay(optimizer: Optimizer) -> None:
    fit = TrainConfig(length="4it", batch_size=64, optimizer=optimizer)
    assert fit.scaled_to_batch(8) == fit


@pytest.mark.parametrize("text", ["0.1", "10%", "10 %", " 10% ", "1e-1", ".1", "1e1%", "10.00%"])
def test_a_percentage_is_the_fraction_and_has_its_key(text: str) -> None:
    base = load("rotnet_resnet50")
    for flag in ("subset", "labels", "shuffle-labels", "rate"):
        given = vars(command._recipe_parser(base).parse_args([f"--{flag}", text]))
        recipe = flags.resolve_recipe(base, given)
        assert recipe.key == flags.resolve_recipe(base, {flag.replace("-", "_"): 0.1}).key


@pytest.mark.parametrize(
    ("percentage", "fraction"), [("33.3%", 0.333), ("0.7%", 0.007), ("2.9%", 0.029), ("100%", 1.0)]
)
def test_a_percentage_is_what_one_would_write_without(percentage: str, fraction: float) -> None:
    assert command._recipe_parser(load("rotnet_digits")).parse_args(["--subset", percentage]).subset == fraction


def test_a_field_of_a_name_that_nobody_else_has_is_a_flag() -> None:
    mine = make_dataclass("Mine", [("views_apart", int, field(default=3))], bases=(RotNet,), frozen=True)
    parsed = command._recipe_parser(replace(load("rotnet_resnet50"), objective=mine())).parse_args(
        ["--views-apart", "4"]
    )
    assert parsed.views_apart == 4
