import numpy as np
import pytest

from sslticket.data.manifest import HIDDEN_LABEL, hide_labels_except, labelled_then_unlabelled, with_shuffled_labels
from tests.data.test_manifest import files, manifest


def test_shuffled_labels_keep_every_class_s_count_and_forget_the_images() -> None:
    whole = manifest(300, 200, 100)
    mixed = with_shuffled_labels(whole, 1.0, seed=3)
    assert mixed.class_counts().tolist() == [300, 200, 100]
    assert list(mixed.frame["file"]) == list(whole.frame["file"])
    # Each image keeps its label by chance alone: the sum of the squared class shares, 0.389; four deviations are 0.08.
    assert np.mean(mixed.labels == whole.labels) == pytest.approx(0.389, abs=0.08)
    assert mixed.hash != whole.hash
    assert mixed.hash == with_shuffled_labels(whole, 1.0, seed=3).hash != with_shuffled_labels(whole, 1.0, seed=4).hash


def test_a_share_of_the_labels_is_shuffled_among_itself() -> None:
    whole = manifest(300, 200, 100)
    mixed = with_shuffled_labels(whole, 0.25, seed=3)
    changed = np.count_nonzero(mixed.labels != whole.labels)
    assert mixed.class_counts().tolist() == [300, 200, 100]
    assert 60 < changed <= 150
    assert with_shuffled_labels(whole, 0.0, seed=3).hash == whole.hash


def test_known_labels_are_those_of_the_subset_of_this_size() -> None:
    whole = manifest(300, 200, 100)
    known = whole.stratified_rows(0.1, seed=3)
    partly = hide_labels_except(whole, known)
    assert partly.class_counts().tolist() == [30, 20, 10]
    assert np.count_nonzero(partly.labels == HIDDEN_LABEL) == 540
    shown = partly.frame[partly.labels >= 0]
    assert set(shown["file"]) == files(whole.subset(0.1, seed=3))
    np.testing.assert_array_equal(partly.labels[known], whole.labels[known])


def test_two_streams_are_the_labelled_images_and_then_all_without_labels() -> None:
    whole = manifest(30, 20)
    known = whole.stratified_rows(0.1, seed=3)
    both = labelled_then_unlabelled(whole, known)
    assert len(both) == 5 + 50
    assert both.labels[:5].tolist() == [0, 0, 0, 1, 1]
    assert set(both.labels[5:]) == {HIDDEN_LABEL}
    assert list(both.frame["file"][5:]) == list(whole.frame["file"])
    assert both.classes == whole.classes


def test_a_labelled_share_knows_at_least_one_image_of_each_class(caplog: pytest.LogCaptureFixture) -> None:
    known = manifest(30, 4).stratified_rows(0.1, 0, "--labels")
    assert manifest(30, 4).take_rows(known).class_counts().tolist() == [3, 1]
    assert caplog.messages == ["--labels 0.1 of imagenet rounds to no image in 1 of 2 classes, which keep one each"]


def test_a_thinned_set_is_spread_over_the_classes() -> None:
    assert manifest(30, 20, 10).evenly_spaced(12).class_counts().tolist() == [6, 4, 2]
    assert len(manifest(3, 2).evenly_spaced(12)) == 5
