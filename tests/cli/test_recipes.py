"""The recipes carry the papers' settings, and those come to the papers' numbers of updates."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sslticket.cli.recipe_commands import run_named
from sslticket.config.recipe_files import load_recipes
from sslticket.config.training import Span
from sslticket.data.augment import View
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.errors import BadInput
from tests.recipes import FOLDER, RECIPES, load

IMAGES = {"imagenet": 1_281_167, "places365": 1_803_460, "cifar10": 50_000, "mnist": 60_000}
_TABLE = [line.split() for line in Path(__file__).with_name("published.txt").read_text().splitlines()]
_COLUMNS, *_ROWS = [row for row in _TABLE if row and row[0] != "#"]
PUBLISHED = {row[0]: dict(zip(_COLUMNS, row, strict=True)) for row in _ROWS}
OURS = ["rigl_digits", "rigl_resnet20_cifar10", "rotnet_digits", "set_resnet20_cifar10", "supervised_digits"]
# Their lengths are in steps and their drops in epochs, which is no line of the table.
DYNAMIC = ["rigl_resnet50", "rigl_resnet50_uniform", "set_resnet50", "static_resnet50"]
BY_LAYER = ("stabilizing_lenet300_mnist", "continuous_conv6_cifar10_imp")


def ranked(search: dict[str, Any]) -> str:
    linear = "" if search["linear_rate"] is None else f"/{search['linear_rate']}"
    return f"{search['levels']}x{search['rate']}{linear}"


def learnt(search: dict[str, Any]) -> str:
    """The numbers as the table has them."""
    kind, last = ("cs", "final_temperature") if "final_temperature" in search else ("iss", "score_lr")
    score, penalty = (f"{search[each]:g}".replace("e-0", "e-") for each in ("initial_score", "penalty"))
    return f"{kind}:{search['rounds']}:{score}:{penalty}:{search[last]:g}{':*' if search['frozen'] else ''}"


def epoch(name: str) -> int:
    """Samples that a recipe's training set shows in an epoch, by arithmetic."""
    row = PUBLISHED[name]
    kind, _, share = row["part"].partition(":")
    images = round(IMAGES[row["data"]] * float(share or 1))
    return 2 * images if kind == "labels" else images


def described(view: View) -> tuple[object, ...]:
    return view.size, view.crop, view.pad, view.flip, [type(effect).__name__ for effect in view.transforms]


def test_every_recipe_of_a_paper_has_its_row() -> None:
    assert sorted([*PUBLISHED, *OURS, *DYNAMIC]) == RECIPES


@pytest.mark.parametrize("name", DYNAMIC)
def test_dynamic_sparse_training_is_that_of_rigls_authors(name: str) -> None:
    """Rigging the Lottery, section 4.1, and its code: 32,000 steps of 4,096 images, 0.1 for 256 of them."""
    recipe = load(name)
    fit, search = recipe.training, recipe.to_dict()["search"]
    assert (fit.length, fit.batch_size, fit.drops) == ("32000it", 4096, ("30ep", "70ep", "90ep"))
    assert (fit.optimizer.lr, vars(fit.optimizer)["weight_decay"]) == (0.1 * 4096 / 256, 1e-4)
    assert recipe.to_dict()["objective"]["label_smoothing"] == 0.1
    assert search["densities"] == [0.2, 0.1]
    assert (search["update_interval"], search["drop_fraction"]) == ("100it", 0.3)
    assert search["update_until"] == ("0it" if name == "static_resnet50" else "25000it")
    assert search["distribution"] == ("uniform" if name.endswith("uniform") else "erk")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_carries_the_papers_settings(name: str) -> None:
    row, recipe = PUBLISHED[name], load(name)
    fit, data, search = recipe.training, recipe.data, recipe.to_dict()["search"]
    optimizer, unit = fit.optimizer, "ep" if row["length"].endswith("ep") else "it"
    assert (recipe.model, data.dataset, type(recipe.objective).__name__) == (
        row["model"],
        row["data"],
        row["objective"],
    )
    assert (fit.length, fit.batch_size) == (row["length"], int(row["batch"]))
    assert fit.ghost_batch == (None if row["ghost"] == "-" else int(row["ghost"]))
    assert type(optimizer).__name__ == row["optimizer"]
    assert (optimizer.lr, vars(optimizer)["weight_decay"]) == (float(row["lr"]), float(row["wd"]))
    assert Span.parse(fit.warmup).amount == float(row["warmup"])
    assert getattr(optimizer, "momentum", 0.9) == 0.9
    curve, _, last = row["falls"].partition(":")
    if last:
        assert (fit.decay, fit.last_lr) == (curve, float(last))
    else:
        assert fit.decay == "drops"
        assert fit.drops == tuple(f"{drop}{unit}" for drop in curve.split("/") if drop != "-")
    assert (ranked(search) if "levels" in search else learnt(search)) == row["search"]
    assert search["rewind"] == row["rewind"].replace("3.84M", "3840000samples")
    assert search.get("scope", "global") == ("layer" if name in BY_LAYER else "global")
    kind, _, share = row["part"].partition(":")
    assert data.subset == (float(share) if kind in ("samples", "classes") else 1)
    assert data.subset_by == ("classes" if kind == "classes" else "samples")
    assert data.labels == (float(share) if kind == "labels" else 1)
    assert data.shuffle_labels == (kind == "shuffled")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rate_rises_and_falls_where_the_paper_says(name: str) -> None:
    row, fit, images = PUBLISHED[name], load(name).training, epoch(name)
    rate, batch = fit.schedule(images).lr_at, int(row["batch"])
    unit = images if row["length"].endswith("ep") else batch
    lr, warm, (curve, _, last) = float(row["lr"]), float(row["warmup"]) * unit, row["falls"].partition(":")
    assert rate(warm or batch) == pytest.approx(lr, rel=1e-4)
    if warm:
        assert rate(warm / 2) == pytest.approx(lr / 2)
        assert rate(batch) == pytest.approx(lr * batch / warm)
    if last:
        end = fit.clock(images).total_steps * batch
        middle = {"exponential": math.sqrt(lr * float(last))}.get(curve, (lr + float(last)) / 2)
        assert rate((warm + end) / 2) == pytest.approx(middle)
        assert rate(end) == pytest.approx(float(last))
        return
    for passed, drop in enumerate(float(part) * unit for part in curve.split("/") if part != "-"):
        assert rate(drop) == pytest.approx(lr / 10**passed)
        assert rate(drop + batch) == pytest.approx(lr / 10 ** (passed + 1))


@pytest.mark.parametrize(
    ("share", "epochs", "updates", "percent"),
    [("", 3, 2500, 3.3), ("30", 10, 2500, 5.0), ("10", 30, 5000, 15.0), ("1", 300, 5000, 30.0)],
)
@pytest.mark.parametrize("by", ["samples", "classes"])
def test_w_k_is_where_table_1_has_it(by: str, share: str, epochs: int, updates: int, percent: float) -> None:
    """Finding Winning Tickets with Limited (or No) Supervision, Table 1, whose samples are about 3 x 1,280,000."""
    name = f"supervised_resnet50_{by}{share}" if share else "supervised_resnet50"
    recipe, images = load(name), epoch(name)
    clock, rewind = recipe.training.clock(images), Span.parse(recipe.to_dict()["search"]["rewind"])
    assert clock.steps(rewind) == updates
    assert clock.samples(rewind) == 3 * 1_280_000
    assert round(clock.samples(rewind) / images) == epochs
    assert 100 * updates / clock.total_steps == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize("objective", ["rotnet", "exemplar", "simclr"])
@pytest.mark.parametrize(("share", "percent"), [("10", 15.0), ("1", 30.0)])
def test_w_k_without_labels_is_where_table_1_has_it_with_labels(objective: str, share: str, percent: float) -> None:
    for by in ("samples", "classes"):
        recipe = load(name := f"{objective}_resnet50_{by}{share}")
        clock = recipe.training.clock(epoch(name))
        rewind = clock.samples(Span.parse(recipe.to_dict()["search"]["rewind"]))
        assert rewind == 3 * 1_280_000
        assert 100 * rewind / clock.samples(clock.length) == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize(
    ("name", "updates", "percent"),
    [
        # An epoch of S4L is a pass of the 128,117 labelled images, of which a step has 1,024; W_k counts both streams.
        ("s4l_resnet50", 1875, 7.5),
        ("exemplar_resnet50", 2500, 10.0),
        ("rotnet_alexnet", 469, 3.3),
        # Morcos et al.: 3 epochs of 90.
        ("transfer_resnet50_imagenet", 7507, 3.3),
        # Stabilizing the Lottery Ticket Hypothesis, section 5: "4.4%, 3.5%, and 6.6% into training".
        ("stabilizing_resnet50_oneshot", 5005, 4.4),
        ("stabilizing_inception_oneshot", 7507, 3.5),
        ("stabilizing_squeezenet_oneshot", 12512, 6.65),
        ("stabilizing_vgg19_cifar10_standard", 100, 0.1),
    ],
)
def test_other_rewind_points(name: str, updates: int, percent: float) -> None:
    recipe = load(name)
    clock = recipe.training.clock(epoch(name))
    assert clock.steps(Span.parse(recipe.to_dict()["search"]["rewind"])) == updates
    assert 100 * updates / clock.total_steps == pytest.approx(percent, abs=0.05)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # ImageNet: random sizes and shapes, mirrored; the noise of S4L where there is 1% of the labels.
        (["supervised_resnet50", "supervised_resnet50_samples10", "s4l_resnet50"], (224, "resized", 0, True, [])),
        (
            ["supervised_resnet50_samples1", "supervised_resnet50_classes1"],
            (224, "resized", 0, True, ["HSVNoise"]),
        ),
        (["stabilizing_inception_oneshot"], (299, "resized", 0, True, [])),
        (["exemplar_resnet50"], (224, "resized", 0, True, ["Rotate", "HSVNoise"])),
        # CIFAR-10: padded by 2 in the one paper and by 4 in the others; shuffled labels without augmentation.
        (["supervised_vgg19_cifar10", "rotnet_resnet18_cifar10"], (32, "pad", 2, True, [])),
        (["exemplar_vgg19_cifar10"], (32, "pad", 2, True, ["Rotate", "HSVNoise"])),
        (["shuffled_vgg19_cifar10", "shuffled_resnet18_cifar10"], (32, "center", 0, False, [])),
        (
            ["transfer_vgg19_cifar10", "stabilizing_resnet20_cifar10_low", "continuous_resnet20_cifar10"],
            (32, "pad", 4, True, []),
        ),
        (["continuous_conv6_cifar10", "continuous_conv6_cifar10_imp"], (32, "center", 0, False, [])),
        (["stabilizing_lenet300_mnist"], (28, "center", 0, False, [])),
    ],
)
def test_the_network_sees_what_the_paper_says(names: list[str], expected: tuple[object, ...]) -> None:
    for name in names:
        recipe = load(name)
        for view in recipe.views(get_dataset(recipe.data.dataset).train_view):
            assert described(view) == expected


def test_what_published_settings_say_of_objectives_for_so_short_a_training() -> None:
    """The authors' presets for 100 epochs; prototypes and last layers stay for the first of them."""
    byol, swav, dino = (load(f"{name}_resnet50") for name in ("byol", "swav", "dino"))
    assert byol.to_dict()["objective"]["ema"] == 0.99
    for recipe in (swav, dino):
        assert recipe.to_dict()["objective"]["frozen_for"] * Span.parse(recipe.training.length).amount == 1


def test_what_published_commands_say_of_transformers_beside_their_rate() -> None:
    """PRETRAIN.md of MAE, the README of iBOT for ViT-S/16, and ssl_default_config.yaml of DINOv2."""
    mae, ibot, dinov2 = (load(name) for name in ("mae_vit_base", "ibot_vit_small", "dinov2_vit_large"))
    assert (mae.to_dict()["objective"]["mask_ratio"], mae.to_dict()["objective"]["normalised_pixels"]) == (0.75, True)
    assert vars(mae.training.optimizer)["betas"] == (0.9, 0.95)
    for recipe, epochs, crops, temperature in ((ibot, 800, 10, 30), (dinov2, 100, 8, 30)):
        objective, fit = recipe.to_dict()["objective"], recipe.training
        assert objective["teacher_rise"] * epochs == pytest.approx(temperature)
        assert objective["frozen_for"] * epochs == pytest.approx(1)
        assert len(recipe.views(get_dataset("imagenet").train_view)) == 2 + crops
        assert (objective["least_masked"], objective["most_masked"], objective["mask_probability"]) == (0.1, 0.5, 0.5)
        assert (vars(fit.optimizer)["last_weight_decay"], fit.clip) == (0.4, 3.0)
    assert (ibot.training.drop_path, dinov2.training.drop_path, dinov2.training.layer_decay) == (0.1, 0.3, 0.9)
    assert dinov2.training.optimizer.lr == pytest.approx(0.004 * math.sqrt(2048 / 1024), rel=1e-3)


def test_the_page_of_recipes_is_as_its_files_say() -> None:
    done = subprocess.run([sys.executable, FOLDER.parent / "docs" / "recipe_table.py", "--check"], check=False)
    assert done.returncode == 0


def test_every_recipe_has_the_key_that_it_had_in_a_file_of_its_own() -> None:
    keys = json.loads(Path(__file__).with_name("recipe_keys.json").read_text())
    assert {name: load(name).key for name in RECIPES} == keys


def test_a_file_of_several_recipes_takes_the_name_of_one_as_its_first_word() -> None:
    recipes = load_recipes(FOLDER / "stabilizing.py")
    assert next(iter(recipes)) == "stabilizing_lenet300_mnist"
    with pytest.raises(BadInput, match=r"unknown recipe 'stabilizing_lenet'; .*stabilizing_lenet300_mnist"):
        run_named(recipes, ["stabilizing_lenet"], "stabilizing.py")
    with pytest.raises(
        BadInput, match=r"defines 11 recipes; give one of them, as .*stabilizing\.py:stabilizing_lenet300"
    ):
        load(FOLDER / "stabilizing.py")
    assert load(f"{FOLDER}/stabilizing.py:stabilizing_resnet50") == load("stabilizing_resnet50")


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="unknown recipe 'rotnet_resnet5'; did you mean rotnet_resnet50"):
        load("rotnet_resnet5")
    with pytest.raises(BadInput, match=r"there is no recipe at nowhere\.py; give a Python file"):
        load("nowhere.py")
