"""Images of other kinds than 8-bit RGB: both ways of reading them make the same of them."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslticket.data.augment import View
from sslticket.data.loader import Sampler
from sslticket.data.shards import ShardSettings, start_shards, write_shards
from sslticket.data.source import DataSource, make_loader, open_split


def gray16(image: Image.Image) -> Image.Image:
    shades = np.asarray(image.convert("L")).astype(np.uint16)
    return Image.fromarray(shades * 256 + np.arange(32, dtype=np.uint16) * 7)


def transparent(image: Image.Image) -> Image.Image:
    see_through = image.convert("RGBA")
    see_through.putalpha(60)
    return see_through


KINDS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "CMYK": ("jpg", lambda image: image.convert("CMYK")),
    "16-bit gray PNG": ("png", gray16),
    "16-bit gray TIFF": ("tif", gray16),
    "palette": ("png", lambda image: image.convert("P", palette=Image.Palette.ADAPTIVE)),
    "black and white": ("png", lambda image: image.convert("1")),
    "gray with alpha": ("png", lambda image: image.convert("LA")),
    "alpha": ("png", transparent),
    "gray": ("jpg", lambda image: image.convert("L")),
}


def pixels(source: DataSource) -> torch.Tensor:
    order = Sampler(len(source.manifest), len(source.manifest), 0)
    (batch,) = make_loader(
        source, (View(size=32),), order, augment_seed=0, device=torch.device("cpu"), threads=1, max_bad_images=0
    ).once()
    return batch.views[0]


@pytest.mark.data
@pytest.mark.parametrize("kind", KINDS)
def test_dali_and_pillow_make_the_same_of_it(few_cifar: Path, tmp_path: Path, kind: str) -> None:
    suffix, convert = KINDS[kind]
    for place, path in enumerate(sorted((few_cifar / "train/airplane").iterdir())[:3]):
        (tmp_path / "train/airplane").mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            convert(image.convert("RGB")).save(tmp_path / f"train/airplane/{place}.{suffix}")
    small = open_split("cifar10", "train", tmp_path)
    frame = small.manifest.frame.drop(columns="item")
    files = replace(small, images=None, manifest=replace(small.manifest, frame=frame))
    difference = (pixels(small) - pixels(files)).abs() * torch.tensor(small.dataset.std)[:, None, None] * 255
    assert difference.max() < 0.01
    assert pixels(small).std() > 0.1  # not all black or all white


@pytest.mark.data
def test_packing_keeps_16_bit_shades(few_photographs: Path, tmp_path: Path) -> None:
    path = next((few_photographs / "train").glob("*/*"))
    (tmp_path / "data/train/a").mkdir(parents=True)
    with Image.open(path) as image:
        shades = np.asarray(image.convert("L").resize((90, 60))).astype(np.uint16)
    Image.fromarray(shades * 257).save(tmp_path / "data/train/a/1.png")
    manifest = open_split("folder", "train", tmp_path / "data").manifest
    how = ShardSettings(short_side=30)
    start_shards([manifest], tmp_path / "out", how)
    assert write_shards(manifest, tmp_path / "out", how, lambda _: None) == {}
    found = open_split("folder", "train", tmp_path / "out").manifest
    _, offset, size = found.byte_ranges[0]
    with Image.open(BytesIO(found.archives[0].read_bytes()[offset : offset + size])) as image:
        assert image.size == (45, 30)
        exact = np.asarray(
            Image.fromarray(shades.astype(np.uint8)).resize((45, 30), Image.Resampling.BICUBIC), np.int16
        )
        assert abs(np.asarray(image.convert("L")) - exact).mean() < 2
