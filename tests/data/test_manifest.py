from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sslticket.data.manifest import Manifest

Refused = Callable[..., AbstractContextManager[None]]


def manifest(*counts: int, root: Path | None = Path("/somewhere/train")) -> Manifest:
    classes = tuple(f"n{label:03}" for label in range(len(counts)))
    labels = np.repeat(np.arange(len(counts)), counts)
    files = [f"{classes[label]}/{classes[label]}_{place}.JPEG" for place, label in enumerate(labels)]
    return Manifest(pd.DataFrame({"file": files, "label": labels}), classes, "imagenet", "train", root)


def files(part: Manifest) -> set[str]:
    return set(part.frame["file"])


def test_every_class_keeps_its_share_rounded_half_up() -> None:
    whole = manifest(1300, 732, 50, 5)
    assert whole.subset(0.1, seed=1).class_counts().tolist() == [130, 73, 5, 1]
    # 0.29 * 50 is 14.499999999999998 in floating point and 14.5 on paper.
    assert whole.subset(0.29, seed=1).class_counts().tolist() == [377, 212, 15, 1]


def test_smaller_subsets_lie_within_larger_ones() -> None:
    whole = manifest(300, 200, 100)
    one, ten, thirty = (files(whole.subset(share, seed=3)) for share in (0.01, 0.1, 0.3))
    assert one < ten < thirty < files(whole)
    assert one != files(whole.subset(0.01, seed=4))


def test_the_choice_does_not_depend_on_the_order_of_the_rows() -> None:
    whole = manifest(30, 20)
    mixed = Manifest(whole.frame.sample(frac=1, random_state=0), whole.classes, whole.dataset, "train", whole.root)
    assert files(mixed.subset(0.3, seed=0)) == files(whole.subset(0.3, seed=0))


def test_a_random_subset_is_nested_and_not_balanced() -> None:
    whole = manifest(3000, 2000, 1000)
    one, ten, thirty = (whole.subset(share, "random", seed=3) for share in (0.01, 0.1, 0.3))
    assert files(one) < files(ten) < files(thirty) < files(whole)
    assert (len(one), len(ten), len(thirty)) == (60, 600, 1800)
    assert files(one) != files(whole.subset(0.01, "random", seed=4))
    counts, balanced = ten.class_counts(), whole.subset(0.1, seed=3).class_counts()
    assert balanced.tolist() == [300, 200, 100]
    # Drawn without replacement, the counts are hypergeometric: standard deviations of 11.6, 10.9 and 8.7 images.
    assert 0 < abs(counts - balanced).max() < 40
    assert len({tuple(whole.subset(0.1, "random", seed=seed).class_counts()) for seed in range(20)}) > 15


def test_a_random_subset_depends_neither_on_labels_nor_on_the_order_of_the_rows() -> None:
    whole = manifest(30, 20)
    labels = np.random.default_rng(0).permutation(whole.labels)
    other = Manifest(whole.frame.assign(label=labels), whole.classes, whole.dataset, "train", whole.root)
    mixed = Manifest(whole.frame.sample(frac=1, random_state=0), whole.classes, whole.dataset, "train", whole.root)
    found = files(whole.subset(0.3, "random", seed=0))
    assert found == files(other.subset(0.3, "random", seed=0)) == files(mixed.subset(0.3, "random", seed=0))
    assert files(other.subset(0.3, seed=0)) != files(whole.subset(0.3, seed=0)), "by samples, labels matter"


def test_a_random_subset_has_at_least_an_image_and_may_leave_classes_empty() -> None:
    (only,) = files(manifest(3, 2).subset(0.01, "random", seed=0))
    assert only in files(manifest(3, 2))
    assert manifest(300, 1, 1, 1).subset(0.1, "random", seed=0).class_counts().tolist()[0] >= 28


def test_labels_still_belong_to_their_files() -> None:
    part = manifest(30, 20, 10).subset(0.5, seed=0)
    assert all(
        file.startswith(part.classes[label]) for file, label in zip(part.frame["file"], part.labels, strict=True)
    )


def test_subsets_of_classes_are_nested_and_renumbered_in_the_old_order() -> None:
    whole = manifest(*range(1, 41))
    tenth, half = (whole.subset(share, "classes", seed=5) for share in (0.1, 0.5))
    assert len(tenth.classes) == 4
    assert set(tenth.classes) < set(half.classes)
    for part in (tenth, half):
        assert list(part.classes) == sorted(part.classes)
        expected = [int(name[1:]) + 1 for name in part.classes]
        assert part.class_counts().tolist() == expected
        assert {file.split("/")[0] for file in part.frame["file"][part.labels == 2]} == {part.classes[2]}


def test_another_split_can_be_brought_to_the_same_classes() -> None:
    classes = manifest(*range(1, 41)).subset(0.1, "classes", seed=5).classes
    held_out = manifest(*[3] * 40).take_classes(classes)
    assert held_out.classes == classes
    assert held_out.class_counts().tolist() == [3] * 4


def test_the_whole_set_is_a_subset_of_itself() -> None:
    whole = manifest(3, 2)
    assert whole.subset(1.0, seed=9).hash == whole.subset(1.0, "classes", seed=9).hash == whole.hash


def test_the_hash_names_images_and_labels_wherever_they_lie() -> None:
    whole = manifest(3, 2)
    assert whole.hash == manifest(3, 2, root=Path("/elsewhere")).hash == "328d76253ddcb811"
    others = [
        manifest(2, 3),
        whole.subset(0.5, seed=0),
        Manifest(whole.frame.assign(label=[0, 0, 1, 1, 0]), whole.classes, whole.dataset, "train", whole.root),
    ]
    assert len({whole.hash, *(other.hash for other in others)}) == 4


def test_the_classes_hash_follows_their_names_and_their_order_and_nothing_else() -> None:
    whole = manifest(3, 2)
    assert whole.classes_hash == manifest(7, 1, root=None).classes_hash == "7f0891981cc24703"
    others = [manifest(3, 2, 1), replace(whole, classes=("n001", "n000")), replace(whole, classes=("n000n001",))]
    assert len({whole.classes_hash, *(other.classes_hash for other in others)}) == 4
    assert len(whole.classes_hash) == 16


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, float("nan")])
def test_fractions_out_of_range_are_refused(fraction: float, refused: Refused) -> None:
    with refused("--subset must be in (0, 1]", f"got {fraction}"):
        manifest(3, 2).subset(fraction, seed=0)


def test_a_class_too_small_for_the_fraction_keeps_one_image_with_a_warning(
    refused: Refused, caplog: pytest.LogCaptureFixture
) -> None:
    whole = manifest(300, 13, 16, 17)
    assert whole.subset(0.03, seed=0).class_counts().tolist() == [9, 1, 1, 1]
    assert caplog.messages == ["--subset 0.03 of imagenet rounds to no image in 2 of 4 classes, which keep one each"]
    assert files(whole.subset(0.03, seed=0)) < files(whole.subset(0.1, seed=0)) < files(whole.subset(0.5, seed=0))
    caplog.clear()
    assert whole.subset(0.0385, seed=0).class_counts().tolist() == [12, 1, 1, 1]
    assert not caplog.messages
    with refused("--subset 0.5, got none of 'n001'"):
        manifest(3, 0).subset(0.5, seed=0)
    with refused("one of the 2 classes", "--subset 0.25"):
        manifest(300, 13).subset(0.2, "classes", seed=0)


def test_shots_are_so_many_of_each_class_and_lie_within_subsets_and_more_shots(
    refused: Refused, caplog: pytest.LogCaptureFixture
) -> None:
    whole = manifest(300, 200, 100, 7)
    one, five, ten = (whole.take_shots(count, seed=3) for count in (1, 5, 10))
    assert [part.class_counts().tolist() for part in (one, five, ten)] == [[1] * 4, [5] * 4, [10, 10, 10, 7]]
    assert files(one) < files(five) < files(ten) < files(whole)
    assert caplog.messages == [
        "1 of 4 classes of imagenet have fewer than the 10 images of --shots and keep all of theirs"
    ]
    assert files(five) < files(manifest(300, 200, 100, 50).subset(0.1, seed=3)) | files(five.take_classes(["n003"]))
    assert files(manifest(50, 50).take_shots(5, seed=3)) == files(manifest(50, 50).subset(0.1, seed=3))
    assert files(five) != files(whole.take_shots(5, seed=4))
    mixed = replace(whole, frame=whole.frame.sample(frac=1, random_state=0))
    assert files(mixed.take_shots(5, seed=3)) == files(five)
    with refused("--shots must be at least 1", "got 0"):
        whole.take_shots(0, seed=3)
    with refused("--shots 2, got none of 'n001'"):
        manifest(3, 0).take_shots(2, seed=3)


def test_a_published_list_takes_bare_names_and_paths(tmp_path: Path, refused: Refused) -> None:
    names = tmp_path / "1percent.txt"
    names.write_text("n000_0.JPEG\nn001/n001_4.JPEG\ntrain/n001/n001_3.JPEG\n\n")
    part = manifest(3, 2).restrict_to_list(names)
    assert files(part) == {"n000/n000_0.JPEG", "n001/n001_4.JPEG", "n001/n001_3.JPEG"}
    assert part.class_counts().tolist() == [1, 2]
    with refused("each of the 3 classes, got none of 1: n002"):
        manifest(3, 2, 1).restrict_to_list(names)


def test_unknown_names_in_a_list_are_counted_and_quoted(tmp_path: Path, refused: Refused) -> None:
    names = tmp_path / "list.txt"
    names.write_text("n000_0.JPEG\nn009_1.JPEG\nn009_2.JPEG\nn001/n000_0.JPEG\n")
    with refused("3 of the 4 images", "n009_1.JPEG", "n001/n000_0.JPEG"):
        manifest(3, 2).restrict_to_list(names)
    twins = Manifest(pd.DataFrame({"file": ["a/1.png", "b/1.png"], "label": [0, 1]}), ("a", "b"), "x", "train", None)
    names.write_text("1.png\n")
    with refused("fit several images", "1.png"):
        twins.restrict_to_list(names)
    with refused("cannot read the subset list", "none.txt"):
        twins.restrict_to_list(tmp_path / "none.txt")
