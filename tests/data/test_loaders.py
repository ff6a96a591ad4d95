"""What both loaders promise, and that they agree with each other."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from sslticket.data.augment import Blur, Grayscale, HSVNoise, Jitter, Rotate, Solarize, View
from sslticket.data.datasets.base import Split
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.loader import Batch, Loader, Sampler
from sslticket.data.manifest import Manifest
from sslticket.data.source import DataSource, make_loader, open_split

CPU = torch.device("cpu")
TRANSFORMS = (
    Rotate(degrees=20, probability=0.5),
    Jitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, probability=0.8),
    HSVNoise(probability=0.3),
    Grayscale(probability=0.2),
    Blur(kernel=5, probability=0.5),
    Solarize(probability=0.2),
)
TRAIN = (View(size=32, crop="pad", pad=2, flip=True), View(size=24, crop="resized", flip=True, transforms=TRANSFORMS))
EVAL = get_dataset("cifar10").eval_view

pytestmark = pytest.mark.data


def in_memory(root: Path, split: Split = "train") -> DataSource:
    return open_split("cifar10", split, root)


def files(root: Path, split: Split = "train") -> DataSource:
    """The same images, decoded from their files by DALI."""
    source = in_memory(root, split)
    return replace(
        source, images=None, manifest=replace(source.manifest, frame=source.manifest.frame.drop(columns="item"))
    )


KINDS = pytest.mark.parametrize("kind", [in_memory, files])


def batches(
    source: DataSource, views: tuple[View, ...] = TRAIN, *, batch: int = 12, rank: int = 0, world: int = 1
) -> Loader:
    order = Sampler(len(source.manifest), batch, 5, rank, world)
    return make_loader(source, views, order, augment_seed=7, device=CPU, threads=2, max_bad_images=0)


def equal(one: Batch, other: Batch) -> bool:
    pairs = zip((*one.views, one.labels, one.indices), (*other.views, other.labels, other.indices), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@KINDS
def test_batches_have_the_shapes_and_rows_of_view_and_sampler(
    few_cifar: Path, kind: Callable[[Path], DataSource]
) -> None:
    source = kind(few_cifar)
    (batch,) = batches(source).train(3, 4)
    assert [tuple(view.shape) for view in batch.views] == [(12, 3, 32, 32), (12, 3, 24, 24)]
    assert {view.dtype for view in batch.views} == {torch.float32}
    assert (batch.labels.dtype, batch.indices.dtype) == (torch.int64, torch.int64)
    np.testing.assert_array_equal(batch.indices, Sampler(60, 12, 5).indices(3))
    np.testing.assert_array_equal(batch.labels, source.manifest.labels[batch.indices])


@pytest.mark.parametrize("together", [1, 40_000, 2**22])
@pytest.mark.parametrize("rank", [0, 1])
def test_batches_that_are_made_together_equal_those_made_one_by_one(
    few_cifar: Path, monkeypatch: pytest.MonkeyPatch, together: int, rank: int
) -> None:
    """As on a GPU: several steps, and equal views, in one go."""
    views = (TRAIN[1], TRAIN[0], TRAIN[1], EVAL)
    expected = batches(in_memory(few_cifar), views, rank=rank, world=2)
    monkeypatch.setattr("sslticket.data.loader._merges_batches", lambda device: True)
    monkeypatch.setattr("sslticket.data.loader._MAX_VALUES", together)
    found = batches(in_memory(few_cifar), views, rank=rank, world=2)
    assert all(map(equal, found.train(3, 12), expected.train(3, 12)))
    assert all(map(equal, found.once(), expected.once()))
    assert len(list(found.train(3, 12))) == 9


@KINDS
def test_any_step_can_be_started_at(few_cifar: Path, kind: Callable[[Path], DataSource]) -> None:
    source = kind(few_cifar)
    whole = list(batches(source).train(0, 9))
    resumed = list(batches(source).train(4, 9))
    assert len(resumed) == 5
    assert all(map(equal, whole[4:], resumed))
    # Were DALI's memory handed out again while a batch is held, these would have become alike.
    assert not torch.equal(whole[0].views[0], whole[1].views[0])


@KINDS
def test_processes_share_one_global_batch_to_the_pixel(few_cifar: Path, kind: Callable[[Path], DataSource]) -> None:
    source = kind(few_cifar)
    for whole, *parts in zip(
        batches(source).train(0, 6),
        *(batches(source, rank=rank, world=3).train(0, 6) for rank in range(3)),
        strict=True,
    ):
        joined = [torch.cat(column) for column in zip(*(part.views for part in parts), strict=True)]
        labels, indices = (torch.cat(column) for column in zip(*(part[1:] for part in parts), strict=True))
        assert equal(whole, Batch(tuple(joined), labels, indices))


@KINDS
def test_one_pass_has_every_image_once_over_all_processes(few_cifar: Path, kind: Callable[[Path], DataSource]) -> None:
    source = kind(few_cifar)
    passes = [list(batches(source, (EVAL,), batch=16, rank=rank, world=2).once()) for rank in range(2)]
    assert [[len(batch.indices) for batch in part] for part in passes] == [[8, 8, 8, 6]] * 2
    row = [torch.cat([batch.indices for batch in part]) for part in passes]
    assert row[0].tolist() == list(range(0, 60, 2))
    assert row[1].tolist() == list(range(1, 60, 2))


@KINDS
def test_a_subset_carries_its_own_images(few_cifar: Path, kind: Callable[[Path], DataSource]) -> None:
    source = kind(few_cifar)
    part = replace(source, manifest=source.manifest.subset(0.4, "classes", seed=1))
    whole = torch.cat([batch.views[0] for batch in batches(source, (EVAL,)).once()])
    shown = torch.cat([batch.views[0] for batch in batches(part, (EVAL,)).once()])
    rows = [list(source.manifest.frame["file"]).index(file) for file in part.manifest.frame["file"]]
    assert torch.equal(shown, whole[rows])


@pytest.mark.parametrize("split", ["train", "eval"])
def test_both_loaders_give_the_same_evaluation_images_to_the_bit(few_cifar: Path, split: Split) -> None:
    for one, other in zip(
        batches(in_memory(few_cifar, split), (EVAL,)).once(),
        batches(files(few_cifar, split), (EVAL,)).once(),
        strict=True,
    ):
        assert equal(one, other)


def test_both_loaders_augment_alike(few_cifar: Path) -> None:
    views = (
        *(View(size=32, crop="pad", pad=2, flip=True), View(size=40)),
        *(View(size=48, crop="resized", flip=True), View(size=40, resize=48, crop="pad", pad=3, flip=True)),
        View(size=20, crop="resized", flip=True),
    )
    for one, other in zip(
        batches(in_memory(few_cifar), views).train(0, 3), batches(files(few_cifar), views).train(0, 3), strict=True
    ):
        exact, resized = (
            [(a - b).abs() * 255 * 0.25 for a, b in zip(one.views[part], other.views[part], strict=True)]
            for part in (slice(2), slice(2, 5))
        )
        assert max(level.max() for level in exact) == 0
        # One shade: of files, torch rounds to whole shades between its two passes too.
        assert max(level.max() for level in resized) < 1.1


def test_both_loaders_transform_pixels_alike_to_the_bit(few_cifar: Path) -> None:
    views = (
        View(size=32, crop="pad", pad=2, flip=True, transforms=TRANSFORMS),
        View(size=40, transforms=TRANSFORMS[::-1]),
    )
    for one, other in zip(
        batches(in_memory(few_cifar), views).train(0, 3), batches(files(few_cifar), views).train(0, 3), strict=True
    ):
        assert equal(one, other)
        # What was painted differs from what was not.
        (plain,) = batches(in_memory(few_cifar), (replace(views[0], transforms=()),)).train(0, 1)
        assert not torch.equal(one.views[0], plain.views[0])


def test_resized_crops_in_memory_are_torchvisions(few_cifar: Path) -> None:
    view = View(size=24, crop="resized", flip=True)
    source = in_memory(few_cifar)
    (batch,) = batches(source, (view,)).train(1, 2)
    draws = view.sample(12, 7, 1, 0)
    window = view.resized_crop_windows(np.full(12, 32), np.full(12, 32), draws)
    assert source.images is not None
    for place, row in enumerate(batch.indices):
        image = torch.from_numpy(source.images[source.manifest.array_indices[row]].copy()).permute(2, 0, 1)
        crop = v2.functional.resized_crop(image, *(int(side[place]) for side in window), [24, 24], antialias=True)
        crop = crop.flip(2) if draws.flip[place] else crop
        mean, std = (torch.tensor(values)[:, None, None] for values in (source.dataset.mean, source.dataset.std))
        assert ((batch.views[0][place] * std + mean) * 255 - crop).abs().max() < 1.1


def test_png_files_are_read_alike(few_cifar: Path, tmp_path: Path) -> None:
    source = in_memory(few_cifar)
    assert source.images is not None
    for row, file in enumerate(source.manifest.frame["file"]):
        place = (tmp_path / "train" / file).with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.images[source.manifest.array_indices[row]]).save(place)
    for one, other in zip(
        batches(in_memory(tmp_path), (EVAL,)).once(), batches(files(tmp_path), (EVAL,)).once(), strict=True
    ):
        assert equal(one, other)


@KINDS
def test_channels_last_changes_the_memory_alone(few_cifar: Path, kind: Callable[[Path], DataSource]) -> None:
    source = kind(few_cifar)
    order = Sampler(len(source.manifest), 12, 5)
    make = partial(make_loader, source, TRAIN, order, augment_seed=7, device=CPU, threads=1, max_bad_images=0)
    (plain,), (last,) = make().train(0, 1), make(channels_last=True).train(0, 1)
    assert equal(plain, last)
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in last.views)


def test_pad_crop_and_flip_are_what_numpy_makes_of_the_random_numbers() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    source = open_split("digits", "train")
    manifest = Manifest(source.manifest.frame.iloc[:20], source.manifest.classes, "cifar10", "train", None)
    (batch,) = batches(DataSource(get_dataset("cifar10"), manifest, images), TRAIN[:1]).train(2, 3)
    draws = TRAIN[0].sample(12, 7, 2, 0)
    for place, row in enumerate(batch.indices):
        padded = np.pad(images[row], ((2, 2), (2, 2), (0, 0)))
        top, left = (int(share * 5) for share in draws.position[place])
        crop = padded[top : top + 32, left : left + 32]
        crop = crop[:, ::-1] if draws.flip[place] else crop
        expected = (crop / 255 - get_dataset("cifar10").mean) / get_dataset("cifar10").std
        np.testing.assert_allclose(batch.views[0][place].permute(1, 2, 0), expected, atol=2e-6)
