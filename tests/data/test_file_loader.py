"""Photographs through DALI and through torchvision: what is cut from them, and files that cannot be read."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from nvidia.dali import Pipeline, fn
from PIL import Image, ImageOps
from torchvision.transforms import v2

from sslticket.data import torchvision_decoder
from sslticket.data.augment import Blur, CropWindow, View
from sslticket.data.dali_decoder import dali_resized_window, dali_square_start
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.decode import Decoder, choose_decoder
from sslticket.data.file_loader import FileLoader
from sslticket.data.loader import Loader, Sampler
from sslticket.data.source import make_loader, open_split

Refused = Callable[..., AbstractContextManager[None]]

CPU = torch.device("cpu")
IMAGENET = get_dataset("imagenet")
STD = torch.tensor(IMAGENET.std)[:, None, None]
MEAN = torch.tensor(IMAGENET.mean)[:, None, None]


@pytest.fixture(params=["dali", "torchvision"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return cast(Decoder, request.param)


def photos(
    root: Path, *views: View, batch: int = 6, bad: int = 100, rank: int = 0, world: int = 1, decoder: Decoder = "dali"
) -> Loader:
    """Nothing is kept: the first batches are decoded as all of them are where a set is large."""
    source = open_split("imagenet", "train", root)
    order = Sampler(len(source.manifest), batch, 2, rank, world)
    return make_loader(
        source,
        views,
        order,
        augment_seed=3,
        device=CPU,
        threads=2,
        max_bad_images=bad,
        keep_decoded=0,
        decoder=decoder,
    )


def levels(view: torch.Tensor) -> torch.Tensor:
    """Undoes the normalisation: 0 to 255."""
    return (view * STD + MEAN) * 255


def upright(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


@pytest.mark.parametrize(
    "view",
    [
        View(size=224, crop="resized"),
        View(size=8, crop="resized", scale=(0.9, 1.0), ratio=(0.98, 1.02)),
        View(size=224),
        View(size=224, crop="pad", pad=7),
    ],
)
def test_windows_in_dalis_arithmetic_are_those_of_the_view(view: View) -> None:
    sides = np.random.default_rng(0).integers(1, 600, (500, 2))
    draws = view.sample(500, 1)
    # The largest place below 1 must not lead beyond the last window.
    draws.position[:20] = np.nextafter(np.float32(1), np.float32(0))
    names = {"resized": ("area", "ratio", "position"), "pad": ("position",), "center": ()}[view.crop]
    given = (sides, *(getattr(draws, name) for name in names))
    pipe = Pipeline(500, 1, None)
    with pipe:
        shape, *numbers = fn.external_source(lambda: given, num_outputs=len(given))
        if view.crop == "resized":
            pipe.set_outputs(*dali_resized_window(view, shape, *numbers))
        else:
            pipe.set_outputs(dali_square_start(view, shape, *(numbers or [None])))
    start, *size = (np.array(output.as_tensor()) for output in pipe.run())
    if view.crop == "resized":
        expected = view.resized_crop_windows(sides[:, 0], sides[:, 1], draws)
        np.testing.assert_array_equal(size[0], np.stack([expected.height, expected.width], 1))
        assert (start + size[0] <= sides).all()
    else:
        each = [
            view.square_crop_windows(height, width, draws.slice_batch(slice(row, row + 1)))
            for row, (height, width) in enumerate(sides.tolist())
        ]
        expected = CropWindow(*(np.concatenate(column) for column in zip(*each, strict=True)))
    np.testing.assert_array_equal(start, np.stack(expected[:2], 1))


@pytest.mark.data
def test_the_evaluation_view_is_torchvisions(few_photographs: Path, decoder: Decoder) -> None:
    transform = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224), v2.PILToTensor()])
    worst = []
    manifest = open_split("imagenet", "train", few_photographs).manifest
    for batch in photos(few_photographs, IMAGENET.eval_view, decoder=decoder).once():
        for view, row in zip(batch.views[0], batch.indices, strict=True):
            difference = (levels(view) - transform(upright(manifest.image_path(int(row))))).abs()
            worst.append(difference.max())
            assert difference.mean() < 0.3
    # torch resizes bytes as Pillow does, with weights of 16 bits: a shade may be rounded the other way.
    assert len(worst) == 30
    assert max(worst) < 1.01


@pytest.mark.data
def test_training_crops_are_torchvisions_of_the_same_windows(few_photographs: Path, decoder: Decoder) -> None:
    view = IMAGENET.train_view
    manifest = open_split("imagenet", "train", few_photographs).manifest
    for step, batch in enumerate(photos(few_photographs, view, decoder=decoder).train(0, 5)):
        draws = view.sample(6, 3, step, 0)
        images = [upright(manifest.image_path(int(row))) for row in batch.indices]
        height, width = (np.array([getattr(i, side) for i in images]) for side in ("height", "width"))
        window = view.resized_crop_windows(height, width, draws)
        for place, image in enumerate(images):
            top, left, tall, wide = (int(side[place]) for side in window)
            crop = image.crop((left, top, left + wide, top + tall)).resize((224, 224), Image.Resampling.BILINEAR)
            crop = ImageOps.mirror(crop) if draws.flip[place] else crop
            difference = (levels(batch.views[0][place]) - torch.from_numpy(np.array(crop)).permute(2, 0, 1)).abs()
            # Only a part of the image was decoded, and at its edges too it is what the whole image shows.
            assert difference.mean() < 0.3
            assert difference.max() < 1.01


@pytest.mark.data
def test_more_views_do_not_change_the_first(few_photographs: Path) -> None:
    small = View(size=96, crop="resized", flip=True)
    (alone,) = photos(few_photographs, small).train(0, 1)
    (both,) = photos(few_photographs, small, small).train(0, 1)
    assert torch.equal(alone.views[0], both.views[0])
    assert not torch.equal(both.views[0], both.views[1])


@pytest.mark.data
@pytest.mark.parametrize("view", [IMAGENET.train_view, IMAGENET.eval_view, View(size=64, crop="pad", pad=4)])
def test_both_decoders_show_the_same_pixels(few_photographs: Path, view: View) -> None:
    """Both are libjpeg-turbo, so what differs would be a shade that one rounds otherwise; here not one does."""
    one, other = (photos(few_photographs, view, decoder=each).train(0, 5) for each in ("dali", "torchvision"))
    for dali, torchvision in zip(one, other, strict=True):
        assert torch.equal(dali.indices, torchvision.indices)
        difference = (levels(dali.views[0]) - levels(torchvision.views[0])).abs()
        assert difference.mean() < 0.05
        assert difference.max() < 4


@pytest.mark.data
def test_pillow_takes_over_where_torchvision_decodes_no_more(
    few_photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = photos(few_photographs, IMAGENET.eval_view, batch=30, decoder="torchvision").once()
    monkeypatch.setattr(torchvision_decoder, "decode_jpeg", None)
    (after,) = photos(few_photographs, IMAGENET.eval_view, batch=30, decoder="torchvision").once()
    difference = (levels(before.views[0]) - levels(after.views[0])).abs()
    assert difference.mean() < 0.05
    assert difference.max() < 4


@pytest.mark.data
def test_formats_that_torchvision_is_not_given_are_shown_as_pillow_shows_them(
    few_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.memfd_create")  # as on every system but Linux
    folder = tmp_path / "imagenet" / "train" / "n01440764"
    folder.mkdir(parents=True)
    photograph = upright(next((few_photographs / "train").glob("*/*"))).resize((300, 280))
    photograph.save(folder / "a.png")
    photograph.save(folder / "b.webp", lossless=True)
    photograph.convert("CMYK").save(folder / "c.jpg")
    photograph.convert("P").save(folder / "d.png")
    (folder.parents[1] / "val").symlink_to("train")
    view = View(size=256)
    (batch,) = photos(tmp_path, view, batch=4, decoder="torchvision").once()
    for position, file in enumerate(sorted(folder.iterdir())):
        shown = np.asarray(upright(file))[12:268, 22:278]
        expected = torch.from_numpy(shown.copy()).permute(2, 0, 1)
        assert (levels(batch.views[0][position]) - expected).abs().max() < 0.01, file.name


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_decoder_that_is_not_installed_is_refused_with_its_cure(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    assert choose_decoder(None, device) == choose_decoder("dali", device) == "dali"
    monkeypatch.setattr("sslticket.data.decode.find_spec", lambda name: None)
    assert choose_decoder("torchvision", device) == "torchvision"
    with refused("pip install 'sslticket[cuda13]'", "--decoder torchvision"):
        choose_decoder("dali", device)
    if device == "cpu":
        assert choose_decoder(None, device) == "torchvision"
    else:
        with refused("decode images for a GPU", "pip install 'sslticket[cuda13]'"):
            choose_decoder(None, device)


@pytest.fixture
def spoilt(few_photographs: Path, tmp_path: Path) -> Path:
    """The photographs with four bad ones among them and a fifth that vanishes after the listing."""
    root = tmp_path / "imagenet"
    shutil.copytree(few_photographs / "train", root / "train")
    paths = sorted((root / "train").glob("*/*"))
    paths[3].write_bytes(paths[3].read_bytes()[:5000])
    paths[8].write_bytes(b"")
    paths[15].write_text("<html>not found</html>")
    Image.open(paths[20]).save(paths[20], format="GIF")
    return root


def kinds(bad: Loader) -> list[tuple[int, str]]:
    paths = sorted(Path(next(iter(bad.unreadable))).parents[1].glob("*/*"))
    return sorted((paths.index(Path(name)), reason) for name, reason in bad.unreadable.items())


@pytest.mark.data
def test_unreadable_images_are_logged_and_left_out(
    spoilt: Path, decoder: Decoder, caplog: pytest.LogCaptureFixture
) -> None:
    images = photos(spoilt, IMAGENET.eval_view, decoder=decoder)
    rows = torch.cat([batch.indices for batch in images.once()]).tolist()
    assert rows == [row for row in range(30) if row not in (3, 8, 15, 20)]
    assert kinds(images) == [
        (3, "image file is truncated (2 bytes not processed)"),
        (8, "the file is empty"),
        (15, "not an image, or damaged at its start"),
        (20, "a GIF, which is not read; convert it to PNG"),
    ]
    assert len(caplog.messages) == 4
    assert all(name in caplog.text for name in images.unreadable)
    again = torch.cat([batch.indices for batch in images.once()]).tolist()
    assert again == rows


@pytest.mark.data
def test_in_training_the_next_readable_image_replaces_an_unreadable_one(spoilt: Path, decoder: Decoder) -> None:
    images = photos(spoilt, View(size=32, crop="resized"), decoder=decoder)
    whole = list(images.train(0, 12))
    stream = np.concatenate([Sampler(30, 6, 2).indices(step) for step in range(14)])
    expected = [next(row for row in stream[place:] if row not in (3, 8, 15, 20)) for place in range(72)]
    assert torch.cat([batch.indices for batch in whole]).tolist() == expected
    # A run that starts later, or on more processes, meets the bad images at other moments and sees the same batches.
    for later in (1, 7):
        for one, other in zip(
            whole[later:], photos(spoilt, View(size=32, crop="resized"), decoder=decoder).train(later, 12), strict=True
        ):
            assert torch.equal(one.views[0], other.views[0])
            assert torch.equal(one.labels, other.labels)
    for rank in (0, 1):
        part = photos(spoilt, View(size=32, crop="resized"), rank=rank, world=2, decoder=decoder).train(0, 12)
        for one, other in zip(whole, part, strict=True):
            assert torch.equal(one.views[0][3 * rank : 3 * rank + 3], other.views[0])


@pytest.mark.data
def test_more_unreadable_images_than_allowed_end_the_run(spoilt: Path, refused: Refused) -> None:
    with refused("unreadable images of imagenet must be at most 3, got 4", "--max-bad-images", ".JPEG"):
        list(photos(spoilt, IMAGENET.eval_view, bad=3).once())
    for path in (spoilt / "train").glob("*/*"):
        path.write_bytes(b"")
    with refused("must be readable, got none"):
        list(photos(spoilt, IMAGENET.train_view).train(0, 1))


@pytest.mark.data
def test_files_that_vanish_are_named(spoilt: Path, decoder: Decoder) -> None:
    images = photos(spoilt, IMAGENET.eval_view, decoder=decoder)
    assert isinstance(images, FileLoader)
    sorted((spoilt / "train").glob("*/*"))[29].unlink()
    list(images.once())
    (name,) = [name for name, reason in images.unreadable.items() if reason == os.strerror(2)]
    assert not Path(name).exists()


@pytest.mark.gpu
@pytest.mark.data
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("transforms", [(), (Blur(kernel=5, probability=0.5),)])
def test_a_batch_that_torch_reads_late_is_not_overwritten(few_photographs: Path, transforms: tuple[Blur, ...]) -> None:
    """The host runs ahead of a busy device and forgets each batch before the kernels that read it have begun."""
    source = open_split("imagenet", "train", few_photographs)
    device = torch.device("cuda")

    def sums(late: bool) -> list[float]:
        found = []
        batches = make_loader(
            source,
            (View(size=224, crop="resized", transforms=transforms),),
            Sampler(len(source.manifest), 6, 2),
            augment_seed=3,
            device=device,
            threads=2,
            max_bad_images=0,
        )
        for batch in batches.train(0, 12):
            if late:
                torch.cuda._sleep(100_000_000)
            else:
                torch.cuda.synchronize()
            found.append(batch.views[0].double().sum())
        return torch.stack(found).tolist()

    assert sums(late=True) == sums(late=False)
