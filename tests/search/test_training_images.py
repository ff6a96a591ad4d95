"""What a recipe makes of the images: labels hidden and shuffled; and looking on with a probe."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslticket.config.recipe import Data, Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.config.training import SGD, TrainConfig
from sslticket.data.augment import View
from sslticket.data.source import open_split
from sslticket.errors import BadInput
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.supervised import Supervised
from sslticket.search.plan import SearchPlan, TrainingImages, plan_search
from sslticket.search.run_search import run_search
from tests.data.test_arrays import write_cifar10
from tests.digits import write_digits
from tests.runs import recipe, search, tickets


def test_shuffled_labels_are_told_by_the_ticket_and_repeat_with_the_seed(tmp_path: Path) -> None:
    which = recipe(data=Data(dataset="digits", shuffle_labels=1.0))
    images = TrainingImages.open(which, RuntimeConfig())
    plain = TrainingImages.open(recipe(), RuntimeConfig())
    assert np.array_equal(images.source.manifest.class_counts(), plain.source.manifest.class_counts())
    assert images.true_labels.manifest.hash == plain.source.manifest.hash != images.source.manifest.hash
    assert "supervised-shuffled-conv3" in which.key
    found = tickets(search(tmp_path, which))[-1].provenance
    assert found["permutation"] == images.permutation
    assert found["permutation"]["seed"] == which.seeds.labels
    assert found["data_hash"] == images.source.manifest.hash
    other = TrainingImages.open(replace(which, seed=1), RuntimeConfig())
    assert other.permutation is not None
    assert other.permutation["hash"] != found["permutation"]["hash"]


def test_classes_without_images_are_named_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    machine, which = RuntimeConfig(data_root=tmp_path), recipe(data=Data(dataset="cifar10", part="10 images"))
    TrainingImages.open(which, machine)
    assert caplog.messages == ["no training images of classes bird, deer, dog, horse, truck in cifar10"]
    with pytest.raises(BadInput, match=r"must have images of every class for --subset 0\.5"):
        TrainingImages.open(replace(which, data=Data(dataset="cifar10", part="10 images", subset=0.5)), machine)


@pytest.mark.parametrize(
    "data",
    [
        Data(dataset="digits", half="b", subset=0.3),
        Data(dataset="digits", half="a", shots=3),
        Data(dataset="digits", subset=0.4, subset_by="classes"),
        Data(dataset="digits", half="a", subset=0.1, subset_by="random"),
        pytest.param(
            Data(dataset="digits", shuffle_labels=1.0), marks=pytest.mark.xfail(raises=AssertionError, strict=True)
        ),
    ],
    ids=["samples of a half", "shots of a half", "classes", "images at random", "other labels are other data"],
)
def test_the_images_are_found_again_from_the_ticket_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Data
) -> None:
    folder = search(tmp_path, recipe(data=data, seed=7)).run_dir.path
    monkeypatch.chdir(folder / "tickets")
    page = (Path(__file__).parents[2] / "docs" / "ticket-format.md").read_text()
    found = re.search(r"## The images that .*?```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    exec(found[1], {})


def test_an_objective_that_needs_labels_gets_them_all_or_is_refused() -> None:
    partly = Data(dataset="digits", labels=0.1)
    with pytest.raises(BadInput, match="supervised needs every image's label, and 145 of 1,438 are known; give --sub"):
        TrainingImages.open(recipe(Supervised(), data=partly), RuntimeConfig())
    hidden = TrainingImages.open(recipe(RotNet(), data=partly), RuntimeConfig())
    assert np.count_nonzero(hidden.source.manifest.labels >= 0) == 145
    assert np.count_nonzero(hidden.true_labels.manifest.labels >= 0) == 1438


def test_a_ticket_tells_its_half_and_another_seed_changes_nothing_about_it(tmp_path: Path) -> None:
    which = recipe(data=Data(dataset="digits", half="a", subset=0.5))
    planned = search(tmp_path, which)
    found = tickets(planned)[-1].provenance
    assert found["dataset"] == "digitsa"
    assert found["half"] == planned.images.half
    assert (found["half"]["which"], found["half"]["images"], found["images"]) == ("a", 721, 364)
    rows = [json.loads(planned.run_dir.row_path(level).read_text()) for level in range(4)]
    assert {row["source"] for row in rows} == {"digitsa"}
    assert "-digitsa-" in planned.run_dir.path.name
    other = TrainingImages.open(replace(which, seed=1), RuntimeConfig())
    assert other.half == found["half"]
    assert other.source.manifest.hash != found["data_hash"]
    b = TrainingImages.open(recipe(data=Data(dataset="digits", half="b")), RuntimeConfig())
    assert b.half is not None
    assert b.half["hash"] != found["half"]["hash"]
    assert not set(b.source.manifest.array_indices) & set(planned.images.source.manifest.array_indices)


def test_shots_take_the_place_of_a_share_and_only_then_change_the_key() -> None:
    plain, few = recipe(), recipe(data=Data(dataset="digits", shots=3, labels=0.1))
    assert "shots" not in plain.to_dict()["data"]
    images = TrainingImages.open(replace(few, objective=RotNet()), RuntimeConfig())
    assert images.true_labels.manifest.class_counts().tolist() == [3] * 10
    assert np.count_nonzero(images.source.manifest.labels >= 0) == 10, "at least one label of each class is known"
    assert few.key != replace(few, data=replace(few.data, shots=4)).key


@pytest.mark.parametrize("other", [{"subset": 0.1}, {"subset_by": "classes"}, {"subset_list": Path("list.txt")}])
def test_shots_and_another_choice_of_images_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="--shots"):
        Data(dataset="digits", shots=3, **other)
    with pytest.raises(BadInput, match="--shots must be at least 1"):
        Data(dataset="digits", shots=0)


@pytest.mark.parametrize("bad", [{"labels": 0.0}, {"labels": 1.5}, {"shuffle_labels": -0.1}, {"shuffle_labels": 2.0}])
def test_shares_beyond_all_images_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=r"must be in .*, got"):
        Data(dataset="digits", **bad)  # type: ignore[arg-type]


def test_given_views_take_the_place_of_the_objective_s_own() -> None:
    large, small = View(size=32, crop="resized"), View(size=16, crop="resized")
    which = recipe(data=Data(dataset="digits", augment=(large, small), image_size=8))
    assert [view.size for view in which.views(View(size=8))] == [8, 4]
    assert recipe(data=Data(dataset="digits", augment=large)).views(View(size=8)) == (large,)


def test_a_probe_tells_what_the_features_know_and_changes_nothing(tmp_path: Path) -> None:
    which = recipe(RotNet())
    plain = search(tmp_path / "plain", which)
    machine = RuntimeConfig(probe="2it")
    probed = plan_search(which, machine, tmp_path / "probed")
    run_search(probed, machine)
    for one, other in zip(tickets(plain), tickets(probed), strict=True):
        assert one.hash == other.hash
    rows = [json.loads(probed.run_dir.row_path(level).read_text()) for level in range(4)]
    assert [list(row["probe"]) for row in rows] == [["2"], ["4", "6"], ["4", "6"], ["4", "6"]]
    # Ten classes; even an untrained net's features tell most digits apart.
    assert all(0.5 < accuracy <= 1 for row in rows for accuracy in row["probe"].values())


def test_grey_images_can_be_shown_in_colour(tmp_path: Path) -> None:
    long = TrainConfig(length="6it", batch_size=64, optimizer=SGD(lr=0.1))  # sees more images than there are to measure
    found = search(tmp_path, recipe(data=Data(dataset="digits", channels=3), training=long))
    assert tickets(found)[1].weights["features.0.weight"].shape == (16, 3, 3, 3)
    row = json.loads(found.run_dir.row_path(1).read_text())
    assert 0 < row["metrics"]["top1"] <= 1, "the evaluation images are in colour too"
    with pytest.raises(BadInput, match="--channels must be 1 or 3, got 2"):
        Data(dataset="digits", channels=2)


def rows(planned: SearchPlan) -> list[dict[str, Any]]:
    return [json.loads(planned.run_dir.row_path(level).read_text()) for level in range(planned.levels + 1)]


def in_folder(**changes: Any) -> Recipe:
    """A search on 8 x 8 images of a folder of one's own."""
    settings: dict[str, Any] = {"dataset": "folder", "image_size": 8} | changes
    return recipe(data=Data(**settings))


def test_two_folders_under_the_same_flags_are_two_runs(tmp_path: Path) -> None:
    homes = [tmp_path / home / "flowers" for home in ("one", "other")]
    found = []
    for first, root in enumerate(homes):
        write_digits(root, train=4, first=4 * first)
        planned = plan_search(in_folder(), RuntimeConfig(data_root=root), tmp_path / "runs")
        run_search(planned, RuntimeConfig(data_root=root))
        found.append(planned)
    assert all(re.fullmatch("supervised-conv3-flowers-[0-9a-f]{8}", each.run_dir.path.name) for each in found)
    told = [(row["run"], row["recipe"], row["source"]) for each in found for row in rows(each)]
    for column in zip(*told, strict=True):
        assert len(set(column)) == 2
    for each in found:
        assert each.recipe.data.identity is not None
        digits = each.recipe.data.identity.images_hash[:8]
        assert {row["source"] for row in rows(each)} == {f"flowers[{digits}]"}
        assert tickets(each)[-1].provenance["dataset"] == f"flowers[{digits}]"
    again = plan_search(in_folder(), RuntimeConfig(data_root=homes[0]), tmp_path / "runs")
    assert again.run_dir.path == found[0].run_dir.path


def test_replicates_of_a_folder_s_subset_are_one_family_of_one_source(tmp_path: Path) -> None:
    machine = RuntimeConfig(data_root=write_digits(tmp_path / "flowers", train=8))
    which = in_folder(subset=0.5)
    one, other = (plan_search(replace(which, seed=seed), machine, tmp_path) for seed in (0, 1))
    assert one.images.source.manifest.hash != other.images.source.manifest.hash
    assert one.images.source_hash == other.images.source_hash
    assert one.recipe.data == other.recipe.data
    assert one.recipe.family == other.recipe.family
    assert one.run_dir.path != other.run_dir.path


@pytest.mark.parametrize("same", [True, False], ids=["these images", "other images"])
def test_a_run_of_a_folder_s_former_name_goes_on_if_its_images_are_these(tmp_path: Path, same: bool) -> None:
    machine = RuntimeConfig(data_root=write_digits(tmp_path / "flowers", train=4))
    which, out = in_folder(), tmp_path / "runs"
    new = plan_search(which, machine, out)
    former = out / which.key
    assert former.name == "supervised-conv3-folder-b7f5dcaf", "as it was called before"
    former.mkdir(parents=True)
    data_hash = new.images.source.manifest.hash if same else "0" * 16
    (former / "recipe.json").write_text(json.dumps({"recipe": which.to_dict(), "data_hash": data_hash}))
    planned = plan_search(which, machine, out)
    assert planned.run_dir.path == (former if same else new.run_dir.path)
    run_search(planned, machine)
    assert {row["source"] for row in rows(planned)} == {"folder" if same else new.recipe.data.name}
    assert {row["run"] for row in rows(planned)} == {planned.run_dir.path.name}


def test_other_lists_under_one_path_and_other_parts_of_one_name_are_other_runs(tmp_path: Path) -> None:
    machine = RuntimeConfig(data_root=write_digits(tmp_path / "one", train=4))
    other = RuntimeConfig(data_root=write_digits(tmp_path / "other", train=4, first=4))
    chosen, part = tmp_path / "list.txt", Data(dataset="mnist", part="4 a class", image_size=8)
    found = [plan_search(recipe(data=part), each, tmp_path) for each in (machine, other)]
    for number in (0, 1):
        chosen.write_text("\n".join(f"{label}/{number}.png" for label in range(10)))
        found.append(plan_search(recipe(data=replace(part, subset_list=chosen)), machine, tmp_path))
    assert len({each.run_dir.path for each in found}) == 4
    assert len({each.recipe.family for each in found}) == 4
    assert all(each.run_dir.path.name.startswith("supervised-conv3-mnist-4-a-class-") for each in found)
    assert {each.recipe.data.name for each in found} == {"mnist[4 a class]"}


def test_a_search_looks_at_the_counts_of_both_splits(tmp_path: Path) -> None:
    part = Data(dataset="mnist", image_size=8)
    machine = RuntimeConfig(data_root=write_digits(tmp_path / "few", train=4, val=1))
    with pytest.raises(BadInput, match=r"40 training images of 10 classes, and officially 60,000 of 10; .*--part NAME"):
        TrainingImages.open(recipe(data=part), machine)
    found = plan_search(recipe(data=replace(part, part="4 a class", half="a")), machine, tmp_path / "runs")
    assert found.recipe.data.name == "mnista[4 a class]"
    assert len(found.images.true_labels.manifest) == 20, "the half of what passed the check"
    with pytest.raises(BadInput, match="digits is whole"):
        TrainingImages.open(recipe(data=Data(dataset="digits", part="most")), RuntimeConfig())


def test_rows_and_tickets_tell_the_whole_set_and_the_classes(tmp_path: Path) -> None:
    whole = open_split("digits", "train").manifest
    changes: list[dict[str, Any]] = [{}, {"half": "b"}, {"subset": 0.5}, {"shuffle_labels": 1.0}, {"channels": 3}]
    for seed, change in enumerate(changes):
        images = TrainingImages.open(recipe(data=Data(dataset="digits", **change), seed=seed), RuntimeConfig())
        assert images.source_hash == whole.hash
    planned = search(tmp_path, recipe(data=Data(dataset="digits", subset=0.4, subset_by="classes")))
    assert {row["source_hash"] for row in rows(planned)} == {whole.hash}
    found = tickets(planned)[-1].provenance
    assert (found["source_hash"], found["data_hash"]) == (whole.hash, planned.images.source.manifest.hash)
    assert found["classes_hash"] == planned.images.source.manifest.classes_hash != whole.classes_hash
