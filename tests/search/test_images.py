"""What a recipe makes of the images: labels hidden and shuffled; and looking on with a probe."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sslticket.data.views import View
from sslticket.errors import BadInput
from sslticket.fit import SGD, Fit
from sslticket.machine import Machine
from sslticket.objectives.rotnet import RotNet
from sslticket.objectives.supervised import Supervised
from sslticket.recipe import Data
from sslticket.search.images import Images
from sslticket.search.plan import plan
from sslticket.search.run import run
from tests.data.test_arrays import write_cifar10
from tests.runs import recipe, search, tickets


def test_shuffled_labels_are_told_by_the_ticket_and_repeat_with_the_seed(tmp_path: Path) -> None:
    which = recipe(data=Data(dataset="digits", shuffle_labels=1.0))
    images = Images.of(which, Machine())
    plain = Images.of(recipe(), Machine())
    assert np.array_equal(images.source.manifest.counts(), plain.source.manifest.counts())
    assert images.true.manifest.hash == plain.source.manifest.hash != images.source.manifest.hash
    assert "supervised-shuffled-conv3" in which.key
    found = tickets(search(tmp_path, which))[-1].provenance
    assert found["permutation"] == images.permutation
    assert found["permutation"]["seed"] == which.seeds.labels
    assert found["data_hash"] == images.source.manifest.hash
    other = Images.of(replace(which, seed=1), Machine())
    assert other.permutation is not None
    assert other.permutation["hash"] != found["permutation"]["hash"]


def test_classes_without_images_are_named_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    machine, which = Machine(data_root=tmp_path), recipe(data=Data(dataset="cifar10"))
    Images.of(which, machine)
    assert caplog.messages == ["no training images of classes bird, deer, dog, horse, truck in cifar10"]
    with pytest.raises(BadInput, match=r"no images of class 'bird', so --subset 0\.5"):
        Images.of(replace(which, data=Data(dataset="cifar10", subset=0.5)), machine)


def test_an_objective_that_needs_labels_gets_them_all_or_is_refused() -> None:
    partly = Data(dataset="digits", labels=0.1)
    with pytest.raises(BadInput, match="supervised needs every image's label, and 145 of 1,438 are known; give --sub"):
        Images.of(recipe(Supervised(), data=partly), Machine())
    hidden = Images.of(recipe(RotNet(), data=partly), Machine())
    assert np.count_nonzero(hidden.source.manifest.labels >= 0) == 145
    assert np.count_nonzero(hidden.true.manifest.labels >= 0) == 1438


def test_a_ticket_tells_its_half_and_another_seed_changes_nothing_about_it(tmp_path: Path) -> None:
    which = recipe(data=Data(dataset="digits", half="a", subset=0.5))
    planned = search(tmp_path, which)
    found = tickets(planned)[-1].provenance
    assert found["dataset"] == "digitsa"
    assert found["half"] == planned.images.half
    assert (found["half"]["which"], found["half"]["images"], found["images"]) == ("a", 721, 364)
    rows = [json.loads(planned.folder.row(level).read_text()) for level in range(4)]
    assert {row["source"] for row in rows} == {"digitsa"}
    assert "-digitsa-" in planned.folder.path.name
    other = Images.of(replace(which, seed=1), Machine())
    assert other.half == found["half"]
    assert other.source.manifest.hash != found["data_hash"]
    b = Images.of(recipe(data=Data(dataset="digits", half="b")), Machine())
    assert b.half is not None
    assert b.half["hash"] != found["half"]["hash"]
    assert not set(b.source.manifest.items) & set(planned.images.source.manifest.items)


@pytest.mark.parametrize("bad", [{"labels": 0.0}, {"labels": 1.5}, {"shuffle_labels": -0.1}, {"shuffle_labels": 2.0}])
def test_shares_beyond_all_images_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="give --"):
        Data(dataset="digits", **bad)  # type: ignore[arg-type]


def test_given_views_take_the_place_of_the_objective_s_own() -> None:
    large, small = View(size=32, crop="resized"), View(size=16, crop="resized")
    which = recipe(data=Data(dataset="digits", augment=(large, small), image_size=8))
    assert [view.size for view in which.views(View(size=8))] == [8, 4]
    assert recipe(data=Data(dataset="digits", augment=large)).views(View(size=8)) == (large,)


def test_a_probe_tells_what_the_features_know_and_changes_nothing(tmp_path: Path) -> None:
    which = recipe(RotNet())
    plain = search(tmp_path / "plain", which)
    machine = Machine(probe="2it")
    probed = plan(which, machine, tmp_path / "probed")
    run(probed, machine)
    for one, other in zip(tickets(plain), tickets(probed), strict=True):
        assert one.hash == other.hash
    rows = [json.loads(probed.folder.row(level).read_text()) for level in range(4)]
    assert [list(row["probe"]) for row in rows] == [["2"], ["4", "6"], ["4", "6"], ["4", "6"]]
    # Ten classes; even an untrained net's features tell most digits apart.
    assert all(0.5 < accuracy <= 1 for row in rows for accuracy in row["probe"].values())


def test_grey_images_can_be_shown_in_colour(tmp_path: Path) -> None:
    long = Fit(length="6it", batch_size=64, optimizer=SGD(lr=0.1))  # sees more images than there are to measure
    found = search(tmp_path, recipe(data=Data(dataset="digits", channels=3), fit=long))
    assert tickets(found)[1].weights["features.0.weight"].shape == (16, 3, 3, 3)
    row = json.loads(found.folder.row(1).read_text())
    assert 0 < row["metrics"]["top1"] <= 1, "the evaluation images are in colour too"
    with pytest.raises(BadInput, match="give --channels 1 or 3"):
        Data(dataset="digits", channels=2)
