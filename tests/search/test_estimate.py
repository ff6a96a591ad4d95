"""What a search comes to without its images: counts, steps, images forward, files and hours, against the real thing."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sslticket.cli import recipe_commands as command
from sslticket.config.recipe import Data, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import TrainConfig
from sslticket.data.datasets import CATALOGUED
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.manifest import ImageCounts, Manifest, take_half
from sslticket.data.source import open_split
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.objectives.byol import BYOL
from sslticket.objectives.dino import DINO
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.s4l import S4LRotation
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.supervised import Supervised
from sslticket.pruning.criteria import SNIP
from sslticket.results.run_dir import read_json_or_empty
from sslticket.results.throughput import Speed, Throughput, Workload, multiply_adds_of, own_table, remember_speed
from sslticket.search.estimate import Passes, SearchWork, estimate_search
from sslticket.search.learned import ContinuousSparsification
from sslticket.search.oneshot import OneShot
from sslticket.search.plan import plan_search
from tests.recipes import RECIPES, load
from tests.runs import BATCH, recipe, search

CHOICES = [
    {"subset": 0.1},
    {"subset": 0.003},
    {"subset": 0.25, "subset_by": "random"},
    {"subset": 0.3, "subset_by": "classes"},
    {"shots": 7},
    {"shots": 143},
]


def chosen(data: Data, manifest: Manifest) -> Manifest:
    return (
        manifest.take_shots(data.shots, seed=3) if data.shots else manifest.subset(data.subset, data.subset_by, seed=3)
    )


def planned(data: Data, counts: ImageCounts) -> ImageCounts:
    return counts.take_shots(data.shots) if data.shots else counts.subset(data.subset, data.subset_by)


def check_counts(manifest: Manifest, counts: ImageCounts) -> None:
    """Every choice of images has as many of them in the plan, and the same in each class where that can be known."""
    assert np.array_equal(manifest.class_counts(), counts.per_class)
    for which in ("a", "b"):
        half = take_half(manifest, which)
        assert np.array_equal(half.class_counts(), counts.half(which).per_class)
    for choice in CHOICES:
        data = Data(dataset="digits", **choice)  # type: ignore[arg-type]
        real, plan = chosen(data, manifest), planned(data, counts)
        assert len(plan.per_class) == len(real.classes)
        if plan.exact:
            assert len(plan) == len(real), choice
        if plan.exact and data.subset_by == "samples":
            assert np.array_equal(plan.per_class, real.class_counts())
    assert counts.num_labelled(0.1) == len(manifest.stratified_rows(0.1, 3))


def test_counts_of_digits_are_those_of_its_images_class_by_class() -> None:
    counts = ImageCounts.official(get_dataset("digits"), "train")
    assert counts is not None
    check_counts(open_split("digits", "train").manifest, counts)
    unbalanced = counts.subset(0.3, "classes")
    assert not unbalanced.exact, "which classes are drawn decides how many images there are"


def test_counts_of_fashion_mnist_are_those_of_its_images(test_data: Path) -> None:
    counts = ImageCounts.official(get_dataset("fashion_mnist"), "train")
    assert counts is not None
    check_counts(open_split("fashion_mnist", "train", test_data / "fashion-mnist").manifest, counts)
    assert all(planned(Data(dataset="digits", **choice), counts).exact for choice in CHOICES)  # type: ignore[arg-type]


@pytest.mark.slow
def test_counts_of_cifar10_are_those_of_its_images(cifar10: Path) -> None:
    counts = ImageCounts.official(get_dataset("cifar10"), "train")
    assert counts is not None
    check_counts(open_split("cifar10", "train", cifar10).manifest, counts)


def test_the_catalogues_counts_of_classes_add_up_to_the_official_ones() -> None:
    with_counts = [entry for entry in map(get_dataset, CATALOGUED) if entry.class_counts]
    assert len(with_counts) >= 8
    for entry in with_counts:
        counts = ImageCounts.official(entry, "train")
        assert entry.image_counts is not None
        assert counts is not None
        assert len(counts) == entry.image_counts[0], entry.name


def test_shots_of_imagenet_are_exact_up_to_its_smallest_class() -> None:
    counts = ImageCounts.official(get_dataset("imagenet"), "train")
    assert counts is not None
    assert (len(counts), len(counts.take_shots(10)), counts.take_shots(10).exact) == (1_281_167, 10_000, True)
    assert (len(counts.subset(0.1)), counts.subset(0.1).exact) == (128_117, False)
    assert (len(counts.subset(0.1, "random")), counts.subset(0.1, "random").exact) == (128_117, True)
    assert not counts.take_shots(1000).exact


@pytest.mark.parametrize("name", RECIPES)
def test_every_published_recipe_is_planned_without_any_data(name: str, tmp_path: Path) -> None:
    which = load(name)
    plan = plan_search(which, RuntimeConfig(data_root=tmp_path), tmp_path / "runs", dry_run=True)
    work = SearchWork.of_recipe(which, RuntimeConfig(data_root=tmp_path))
    assert work.stages == plan.stages
    assert (work.samples, work.images, work.classes) == (plan.work.samples, plan.work.images, plan.work.classes)
    assert (work.evaluation, work.labelled, work.numerics) == (
        plan.work.evaluation,
        plan.work.labelled,
        plan.work.numerics,
    )
    assert plan.images.source.planned == "" or which.data.dataset != "digits"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("rotnet_resnet50", "--subset", "0.1"),
        ("s4l_resnet50",),
        ("continuous_conv6_cifar10", "--half", "a"),
        ("supervised_vgg19_cifar10", "--channels", "1", "--shots", "100"),
        ("shuffled_resnet18_cifar10",),
    ],
)
def test_a_dry_run_needs_nothing_but_the_recipe(
    words: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    command.run_with_flags(load(words[0]), [*words[1:], "--dry-run", "--data-root", str(tmp_path), "--out", str(out)])
    text = capsys.readouterr().out
    assert "planned from the catalogue's counts: the images are not here" in text
    for line in ("trainings", "images seen", "time", "memory", "disk"):
        assert re.search(rf"^{line} +\S", text, re.MULTILINE), line
    assert list(tmp_path.iterdir()) == []


def test_the_main_job_says_how_many_trainings_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--subset", "0.1", "--dry-run", "--data-root", str(tmp_path), "--on", "A100"]
    command.run_with_flags(load("rotnet_resnet50"), words)
    text = capsys.readouterr().out
    assert "images             about 128,117 of 1,281,167, planned from the catalogue's counts" in text
    assert "30 trainings of 90ep = about 152,710 steps" in text
    assert "938,250,240 images forward" in text  # four turns of each
    assert "published, not measured here" in text


def test_what_a_recipe_refuses_it_refuses_without_images_too(tmp_path: Path) -> None:
    where = ["--dry-run", "--data-root", str(tmp_path)]
    with pytest.raises(BadInput, match="--subset by classes must leave one of the 10 classes"):
        command.run_with_flags(load("supervised_vgg19_cifar10"), ["--subset", "0.01", "--subset-by", "classes", *where])
    with pytest.raises(BadInput, match="give a longer --length or an earlier --rewind"):
        command.run_with_flags(load("rotnet_resnet50"), ["--length", "20it", "--rewind", "30it", *where])
    with pytest.raises(BadInput, match="--probe-speed is for plans; give --dry-run too"):
        command.run_with_flags(load("supervised_digits"), ["--probe-speed"])
    with pytest.raises(BadInput, match="--on must name a device of the tables, got 'abacus'"):
        command.run_with_flags(load("supervised_digits"), ["--on", "abacus", "--dry-run", "--out", str(tmp_path)])


def test_images_that_nobody_counts_are_asked_for_in_one_line(tmp_path: Path) -> None:
    for changes in ({"dataset": "folder:flowers"}, {"dataset": "imagenet", "part": "flowers102"}):
        which = replace(recipe(), model="resnet18", data=Data(**changes))  # type: ignore[arg-type]
        with pytest.raises(BadInput, match=r"found; looked in .* nothing else tells a plan"):
            plan_search(which, RuntimeConfig(data_root=tmp_path), tmp_path / "runs", dry_run=True)


def test_a_search_without_its_images_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no images of imagenet found; looked in .*; get them from"):
        plan_search(load("rotnet_resnet50"), RuntimeConfig(data_root=tmp_path), tmp_path / "runs")


def test_a_list_is_counted_by_its_lines(tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_text("".join(f"n{number:08d}_{number}.JPEG\n" for number in range(2000)))
    (tmp_path / "classes.txt").write_text("".join(f"n{number:08d}\n" for number in range(100)))
    base = load("supervised_resnet50")
    for name, images, classes in (("images.txt", 2000, 1000), ("classes.txt", 128_200, 100)):
        which = replace(base, data=replace(base.data, subset_list=tmp_path / name))
        plan = plan_search(which, RuntimeConfig(data_root=tmp_path / "none"), tmp_path / "runs", dry_run=True)
        assert (plan.work.images, plan.work.classes, plan.work.about) == (images, classes, True)


@pytest.mark.parametrize(
    ("objective", "forward", "backward", "measured"),
    [
        (Supervised(), 1, 1, 1),
        (RotNet(), 4, 4, 4),
        (Exemplar(copies=8), 8, 8, 2),
        (SimCLR(), 2, 2, 2),
        (MoCoV2(), 2, 1, 2),  # the key encoder's images get no gradient
        (BYOL(), 4, 2, 4),  # both views through network and target
        (DINO(local_crops=0), 4, 2, 4),
    ],
)
def test_images_forward_of_each_objective(objective: Objective, forward: int, backward: int, measured: int) -> None:
    standard = get_dataset("cifar10").train_view
    found = Passes.count(objective, objective.views(standard), channels=3, batch_size=64, labelled=None)
    assert found.forward == forward
    assert sum(back for *_, back in found.training) == backward
    assert sum(count for _, count in found.measuring) <= measured


def test_small_crops_cost_what_their_size_does() -> None:
    objective = DINO(local_crops=8)
    views = objective.views(get_dataset("imagenet").train_view)
    found = Passes.count(objective, views, channels=3, batch_size=64, labelled=None)
    assert {size: forward for size, forward, _ in found.training} == {224: 4, 96: 8}


def test_multiply_adds_are_those_that_are_published() -> None:
    # As torchvision's page has it for ResNet-50 at 224 pixels: 4.09 GFLOPS, each of them a multiply-add.
    assert multiply_adds_of("resnet50", 3, 224) == 4_087_136_256
    assert multiply_adds_of("lenet300", 1, 28) == 784 * 300 + 300 * 100


SEARCHES: list[Recipe] = [
    recipe(),
    recipe(RotNet(), data=Data(dataset="digits", subset=0.5)),
    recipe(S4LRotation(), data=Data(dataset="digits", labels=0.1)),
    recipe(BYOL(), training=TrainConfig(length="4it", batch_size=32, optimizer=recipe().training.optimizer)),
    recipe(search=OneShot(levels=2, rate=0.5, rewind="0it", scored="start", criterion=SNIP(score_images=40))),
    recipe(search=ContinuousSparsification(rounds=2, rewind="1it"), data=Data(dataset="digits", shots=20)),
]


@pytest.mark.parametrize("which", SEARCHES, ids=lambda which: f"{which.task} {type(which.search).__name__}")
def test_a_plan_without_images_says_what_a_finished_search_took(which: Recipe, tmp_path: Path) -> None:
    work = SearchWork.of_recipe(which, RuntimeConfig())
    done = search(tmp_path, which)
    rows = [read_json_or_empty(done.run_dir.row_path(level)) for level in range(done.levels + 1)]
    assert work.stages == done.stages
    assert work.samples == rows[-1]["search_samples"]
    assert work.forward_images == rows[-1]["search_forward_images"]
    assert work.evaluation == done.images.evaluation == 359
    files = [path for path in done.run_dir.path.rglob("*") if path.is_file()]
    taken = sum(path.stat().st_size for path in files)
    memory = done.memory_model and done.memory_model.estimate(BATCH)
    assert work.disk_bytes(memory) == pytest.approx(taken, rel=0.15)


def no_protocol(name: str) -> int:
    raise BadInput(f"no protocol {name}")


def speed(rate: float, **changes: object) -> Speed:
    settings: dict[str, object] = {"device": "cpu", "model": "conv3", "image_size": 8, "numerics": "fp32"}
    return Speed(**(settings | {"batch_size": 128, "images_per_second": rate} | changes))  # type: ignore[arg-type]


WORK = Workload("conv3", "", 8, "fp32", 100, 12_800, batch_size=128, multiply_adds=3 * 119_808)


def test_own_rows_come_before_the_own_table_and_that_before_the_packages() -> None:
    row = {"device": "cpu", "precision": "fp32", "numerics": "fp32", "model": "conv3", "objective": "supervised"}
    row |= {"search": "IMP", "settings": {"dataset": "digits"}, "samples": 12_800, "steps": 100, "seconds": 100.0}
    tables = [[speed(10, training_seconds=3.0)], [speed(1)]]
    found = [
        Throughput([], "cpu", no_protocol, rows=[row], tables=tables),
        Throughput([], "cpu", no_protocol, tables=tables),
        Throughput([], "cpu", no_protocol, tables=[[], tables[1]]),
        Throughput([], "cpu", no_protocol),
    ]
    assert [each.images_per_second(WORK) for each in found] == [128, 10, 1, None]
    # A row does not say what a training takes beside its steps: the table does.
    assert found[0].seconds([WORK]) == pytest.approx(100 + 3)
    assert found[0].images_per_second(WORK._replace(objective="rotnet", multiply_adds=0.0)) is None


def test_another_size_is_scaled_by_multiply_adds_and_says_so() -> None:
    line = speed(100, multiply_adds=1e6, source="a command")
    found = Throughput([], "cpu", no_protocol, tables=[[line]]).find(WORK._replace(image_size=16, multiply_adds=4e6))
    assert found is not None
    assert found[0].images_per_second == 25
    assert found[1] == "sslticket's table, scaled from conv3 at 8 px"


def test_of_batches_the_nearest_is_taken() -> None:
    lines = [speed(10, batch_size=16), speed(20, batch_size=64), speed(30, batch_size=1024)]
    assert Throughput([], "cpu", no_protocol, tables=[lines]).images_per_second(WORK) == 20


def test_a_users_table_has_one_line_of_a_kind(tmp_path: Path) -> None:
    for rate in (10.0, 20.0):
        remember_speed(speed(rate, source="your earlier runs: x, y", training_seconds=0.5))
    remember_speed(speed(5.0, model="lenet300"))
    assert [(line.model, line.images_per_second) for line in own_table()] == [("conv3", 20), ("lenet300", 5)]
    assert own_table()[0] == speed(20.0, source="your earlier runs: x, y", training_seconds=0.5)


def test_a_run_says_what_it_comes_to_and_its_speed_is_remembered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--length", "40it", "--levels", "1", "--out", str(tmp_path)]
    command.run_with_flags(load("supervised_digits"), words)
    assert capsys.readouterr().err.count("1 training of 40it, 40 steps, ") == 1
    (line,) = own_table()
    assert (line.model, line.objective, line.image_size, line.batch_size) == ("conv3", "supervised", 8, 128)
    assert line.training_seconds is not None
    command.run_with_flags(load("supervised_digits"), [*words, "--dry-run"])
    assert "rows of these runs" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["continuous_conv6_cifar10", "rigl_resnet20_cifar10"])
def test_a_probe_measures_this_device_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dry-run", "--probe-speed", "--out", str(tmp_path / "runs"), "--data-root", str(tmp_path)]
    words += ["--exclude", "features.0"] if name.startswith("rigl") else []
    command.run_with_flags(load(name), ["--model", "conv3", *words])
    assert re.search(r"^time +about .* \(measured a moment ago", capsys.readouterr().out, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_an_estimate_opens_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("images were looked for")

    monkeypatch.setattr("sslticket.data.source.open_split", refuse)
    monkeypatch.setattr("sslticket.data.datasets.locate.find_local_dataset", refuse)
    found = estimate_search(load("rotnet_digits"))
    assert (found.trainings, found.steps, found.samples, found.forward_images) == (6, 1050, 134_400, 537_600)
