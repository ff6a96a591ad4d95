"""Few images: what stays as on all of them, where W_k is taken, which labels are known."""

import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sslticket.api import find_tickets
from sslticket.config.flags import resolve_recipe
from sslticket.config.recipe import Data, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, Span, TrainConfig
from sslticket.errors import BadInput
from sslticket.objectives.base import Objective
from sslticket.objectives.exemplar import Exemplar
from sslticket.objectives.mocov2 import MoCoV2
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.s4l import S4LRotation
from sslticket.objectives.simclr import SimCLR
from sslticket.objectives.supervised import Supervised
from sslticket.search.imp import IMP
from sslticket.search.plan import TrainingImages, batch_within, plan_search
from tests.runs import recipe

IMAGES = 1438  # of digits, that are trained on
LONG = TrainConfig(
    length="30ep", batch_size=64, optimizer=SGD(lr=0.1), warmup="2ep", drops=("10ep", "66%"), hold="samples"
)
EARLY = IMP(levels=2, rate=0.5, rewind="3ep")


def resolved(out: Path, training: TrainConfig, rewind: str = "3ep", **data: object) -> Recipe:
    which = recipe(training=training, search=replace(EARLY, rewind=rewind), data=Data(dataset="digits", **data))  # type: ignore[arg-type]
    return plan_search(which, RuntimeConfig(), out).recipe


def lengths(which: Recipe) -> tuple[str, ...]:
    fit = which.training
    return fit.length, fit.warmup, *fit.drops, which.to_dict()["search"]["rewind"]


@pytest.mark.parametrize("few", [{"subset": 0.1}, {"subset": 0.2, "subset_by": "classes"}, {"shots": 5}])
def test_samples_are_held_as_those_of_all_images_whatever_the_subset(few: dict[str, object], tmp_path: Path) -> None:
    found = resolved(tmp_path, LONG, **few)
    # Percentages are of the length anyway.
    assert lengths(found) == ("43140samples", "2876samples", "14380samples", "66%", "4314samples")
    assert (found.training.hold, found.training.hold_batch) == ("epochs", None)
    assert plan_search(found, RuntimeConfig(), tmp_path).recipe.key == found.key, "what is resolved stays"
    assert resolved(tmp_path, replace(LONG, hold="epochs"), **few).key != found.key


@pytest.mark.parametrize(
    ("objective", "batch_size", "told"),
    [
        (SimCLR(), 64, ["a batch of 64 holds copies of the 10 images, which simclr takes for other images; "
                        "give --batch-size 10 or less"]),
        (SimCLR(), 10, []),
        (MoCoV2(queue=64), 64, ["a batch of 64 holds copies of the 10 images, which mocov2 takes for other images; "
                                "give --batch-size 10 or less"]),
        (MoCoV2(queue=64), 8, ["a queue of 64 keys holds copies of the 10 images, which mocov2 takes for other images; "
                               "give --queue 10 or less"]),
        (MoCoV2(queue=10), 8, []),
        (Exemplar(), 64, []),
        (RotNet(), 64, []),
    ],
)  # fmt: skip
def test_a_batch_or_a_queue_of_more_images_than_there_are_is_told_where_copies_are_taken_for_others(
    objective: Objective, batch_size: int, told: list[str], tmp_path: Path
) -> None:
    which = recipe(
        objective=objective, training=TrainConfig(length="8it", batch_size=batch_size, optimizer=SGD(lr=0.1)),
        search=replace(EARLY, rewind="2it"), data=Data(dataset="digits", shots=1),
    )  # fmt: skip
    planned = plan_search(which, RuntimeConfig(), tmp_path)
    assert [note for note in planned.notes if "copies" in note] == told


def test_steps_are_held_as_at_the_recipe_s_own_batch(tmp_path: Path) -> None:
    base = recipe(training=replace(LONG, hold="epochs"), search=EARLY)
    asked = resolve_recipe(base, {"hold": "steps", "batch_size": 16, "data.subset": 0.1})
    assert asked.training.hold_batch == 64
    found = plan_search(asked, RuntimeConfig(), tmp_path).recipe
    # 30, 2, 10 and 3 epochs of 1,438 images at 64 a step.
    assert lengths(found) == ("675it", "45it", "225it", "66%", "68it")
    assert resolve_recipe(base, {"batch_size": 16}).training.hold_batch is None
    whole = resolve_recipe(base, {"hold": "steps", "batch_size": 16})
    assert lengths(plan_search(whole, RuntimeConfig(), tmp_path).recipe) == lengths(found), "on all images, too"


def test_all_images_have_the_key_that_they_always_had(tmp_path: Path) -> None:
    keys = {resolved(tmp_path, replace(LONG, hold=rule)).key for rule in ("epochs", "samples", "steps")}  # type: ignore[arg-type]
    assert len(keys) == 1
    assert "hold" not in resolved(tmp_path, LONG).to_dict()["fit"]
    halves = {resolved(tmp_path, replace(LONG, hold=rule), half="a").key for rule in ("epochs", "samples")}  # type: ignore[arg-type]
    assert len(halves) == 1, "a half is all of its images"


def test_the_images_of_a_half_and_the_passes_of_two_streams_are_what_is_held(tmp_path: Path) -> None:
    assert lengths(resolved(tmp_path, LONG, half="a", subset=0.1))[0] == f"{30 * 721}samples"
    two = recipe(S4LRotation(), training=LONG, search=EARLY, data=Data(dataset="digits", subset=0.5, labels=0.1))
    whole = TrainingImages.open(replace(two, data=Data(dataset="digits", labels=0.1)), RuntimeConfig())
    epoch = whole.epoch_samples(64)
    assert epoch == 2 * len(whole.source.manifest) - 2 * IMAGES > 0, "both streams, while the labelled one is seen once"
    assert lengths(plan_search(two, RuntimeConfig(), tmp_path).recipe)[0] == f"{30 * epoch}samples"


def test_a_rewind_point_beyond_a_subset_s_training_moves_to_table_1_s_largest_share(tmp_path: Path) -> None:
    training = replace(LONG, hold="epochs")
    data = {"subset": 0.01}
    which = recipe(training=training, search=replace(EARLY, rewind="20000samples"), data=Data(dataset="digits", **data))  # type: ignore[arg-type]
    planned = plan_search(which, RuntimeConfig(), tmp_path)
    assert planned.recipe.to_dict()["search"]["rewind"] == "30%"
    assert planned.stages.rewind == planned.clock.steps(Span(30, "%"))
    assert re.fullmatch(
        r"30ep of these images \(\d steps\) end before W_k: this search has --rewind 30% in place of 20000samples and "
        r"takes W_k at step 2 \(--hold samples keeps both as they are on all images\)",
        planned.notice,
    )
    with pytest.raises(BadInput, match="the rewind point must lie before the end"):
        plan_search(which, RuntimeConfig(), tmp_path, rewind_given=True)
    held = plan_search(replace(which, training=LONG), RuntimeConfig(), tmp_path)
    assert (held.notice, held.recipe.to_dict()["search"]["rewind"]) == ("", "20000samples")
    assert plan_search(which, RuntimeConfig(), tmp_path, trial=True).recipe.to_dict()["search"]["rewind"] == "10%"
    whole = replace(which, data=Data(dataset="digits"), search=replace(EARLY, rewind="50000samples"))
    with pytest.raises(BadInput, match="the rewind point must lie before the end"):
        plan_search(whole, RuntimeConfig(), tmp_path)


def test_few_labels_that_end_a_training_before_w_k_move_it_too(tmp_path: Path) -> None:
    which = recipe(
        S4LRotation(),
        training=replace(LONG, hold="epochs"),
        search=replace(EARLY, rewind="20000samples"),
        data=Data(dataset="digits", label_shots=2),
    )
    planned = plan_search(which, RuntimeConfig(), tmp_path)
    assert planned.recipe.to_dict()["search"]["rewind"] == "30%"
    assert planned.notice.endswith(f"takes W_k at step {planned.stages.rewind}")
    with pytest.raises(BadInput, match="the rewind point must lie before the end"):
        plan_search(which, RuntimeConfig(), tmp_path, rewind_given=True)


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"hold": "images"}, "--hold must be epochs, samples, steps, got 'images'"),
        ({"hold_batch": 0}, "--hold-batch must be at least 1, got 0"),
    ],
)
def test_other_rules_are_refused(settings: dict[str, object], answer: str) -> None:
    with pytest.raises(BadInput, match=answer):
        replace(LONG, **settings)  # type: ignore[arg-type]


def test_labels_of_so_many_shots_are_known_beside_all_images() -> None:
    which = recipe(S4LRotation(), data=Data(dataset="digits", label_shots=3))
    images = TrainingImages.open(which, RuntimeConfig())
    assert images.labelled is not None
    assert images.labelled.length == 30
    assert len(images.true_labels.manifest) == IMAGES
    known = images.source.manifest.take_rows(np.arange(30))
    assert known.class_counts().tolist() == [3] * 10
    shots = TrainingImages.open(recipe(data=Data(dataset="digits", shots=3)), RuntimeConfig())
    assert set(known.array_indices) == set(shots.source.manifest.array_indices), "those that --shots 3 takes"
    assert "label_shots" not in recipe().to_dict()["data"]


@pytest.mark.parametrize("other", [{"labels": 0.1}, {"labels_list": Path("list.txt")}])
def test_labels_of_shots_and_another_choice_of_labels_are_refused(other: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="--labels 1 with --label-shots"):
        Data(dataset="digits", label_shots=3, **other)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="--label-shots must be at least 1 image of each class, got 0"):
        Data(dataset="digits", label_shots=0)


@pytest.mark.parametrize("objective", [Supervised(), S4LRotation()])
def test_a_single_class_cannot_be_told_apart(objective: Objective) -> None:
    data = Data(dataset="digits", subset=0.06, subset_by="classes", labels=0.5 if objective.name == "s4l" else 1.0)
    with pytest.raises(BadInput, match=r"must be 2 or more, got 1 of the 10 of digits; give at least --subset 0\.15,"):
        TrainingImages.open(recipe(objective, data=data), RuntimeConfig())
    assert len(TrainingImages.open(recipe(objective, data=replace(data, subset=0.15)), RuntimeConfig()).source.manifest)
    assert TrainingImages.open(recipe(RotNet(), data=replace(data, labels=1.0)), RuntimeConfig())


@pytest.fixture(scope="module")
def photographs(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of each of 6 classes of Tiny-ImageNet."""
    root = tmp_path_factory.mktemp("tiny")
    taken: dict[str, int] = {}
    with tarfile.open(test_data / "tiny-imagenet-80.tar.xz") as archive:
        for member in archive:
            split, _, rest = member.name.removeprefix("./").partition("/")
            name = rest.partition("/")[0]
            if member.isfile() and split == "train" and taken.get(name, 0) < 12 and (name in taken or len(taken) < 6):
                taken[name] = taken.get(name, 0) + 1
                archive.extract(member, root)
            elif len(taken) == 6 and min(taken.values()) == 12:
                break
    return root


@pytest.mark.data
@pytest.mark.parametrize(
    ("objective", "few", "images"),
    [
        (Supervised(), {"subset": 0.001}, 6),
        (RotNet(), {"shots": 1}, 6),
        (Exemplar(), {"subset": 0.3, "subset_by": "classes"}, 24),
        (S4LRotation(), {"label_shots": 1, "subset": 0.5}, 36),
        (SimCLR(), {"subset": 0.001}, 6),
    ],
    ids=["supervised", "rotnet", "exemplar", "s4l", "simclr"],
)
def test_every_objective_finds_tickets_on_a_few_photographs(
    objective: Objective, few: dict[str, object], images: int, photographs: Path, tmp_path: Path
) -> None:
    which = Recipe(
        model="conv3",
        data=Data(dataset="folder", image_size=16, **few),  # type: ignore[arg-type]
        objective=objective,
        training=TrainConfig(length="4ep", batch_size=24, optimizer=SGD(lr=0.01), hold="samples"),
        search=IMP(levels=1, rate=0.5, rewind="1000samples"),
        precision="fp32",
    )
    *_, ticket = find_tickets(which, out=tmp_path, runtime=RuntimeConfig(data_root=photographs), progress=False)
    assert ticket.provenance["images"] == images
    # 72 images are an epoch; of the 6 labelled ones and as many others, 12 are.
    assert ticket.provenance["search_samples"] == (4 * 12 if "label_shots" in few else 4 * 72)


@pytest.mark.parametrize(
    ("images", "batch", "ghost", "expected"),
    [(100_000, 1536, 96, (1536, 0.1)), (10_000, 1536, 96, (1248, 0.0813)), (600, 1536, 96, (64, 0.00417))],
)
def test_a_batch_is_at_most_an_eighth_of_few_images(
    images: int, batch: int, ghost: int, expected: tuple[int, float]
) -> None:
    fit = TrainConfig(length="90ep", batch_size=batch, ghost_batch=ghost, optimizer=SGD(lr=0.1))
    fitted, told = batch_within(recipe(training=fit), images)
    assert (fitted.training.batch_size, fitted.training.optimizer.lr) == expected
    assert ("" if expected[0] == batch else f"--batch-size {expected[0]} and lr {expected[1]}") in told
    assert bool(told) == (expected[0] < batch)
    assert 8 * fitted.training.batch_size <= images
