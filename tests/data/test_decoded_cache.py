"""Decoded images that are kept: the same bits as without, whoever wrote them and whatever became of the files."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from sslticket.config.runtime import RuntimeConfig
from sslticket.data import decoded_cache
from sslticket.data.augment import Blur, Grayscale, Solarize, Transform, View
from sslticket.data.dali_decoder import DaliDecoder
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.decoded_cache import available_memory
from sslticket.data.loader import Batch, Loader, Sampler
from sslticket.data.shards import ShardSettings, start_shards, write_shards
from sslticket.data.source import DataSource, make_loader, open_split
from sslticket.storage.files import cache_folder

Refused = Callable[..., AbstractContextManager[None]]

CPU = torch.device("cpu")
IMAGENET = get_dataset("imagenet")
TRAIN = IMAGENET.train_view
VIEWS = (
    replace(TRAIN, size=64),
    View(size=48, crop="resized", flip=True, transforms=(Grayscale(probability=0.5), Blur(kernel=5), Solarize())),
    View(size=56, resize=64),
    View(size=40, resize=64, crop="pad", pad=9, flip=True),
    View(size=600),
)

pytestmark = pytest.mark.data


@dataclass(frozen=True, kw_only=True)
class _Failing(Transform):
    def apply(self, pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("an error of one's own")


@pytest.fixture
def root(few_photographs: Path, tmp_path: Path) -> Path:
    """Photographs of the test's own, which have not changed for long."""
    return copytree(few_photographs / "train", tmp_path / "imagenet/train").parent


def loader(
    source: Path | DataSource, *views: View, keep: float | None = 1.0, last: bool = False, batch: int = 6
) -> Loader:
    if isinstance(source, Path):
        source = open_split("imagenet", "train", source)
    order = Sampler(len(source.manifest), batch, 2)
    return make_loader(
        source,
        views or (replace(TRAIN, size=64),),
        order,
        augment_seed=3,
        device=CPU,
        threads=2,
        max_bad_images=100,
        channels_last=last,
        keep_decoded=keep,
    )


def equal(some: Iterator[Batch], others: Iterator[Batch]) -> bool:
    return all(
        torch.equal(one, other)
        for batch, same in zip(some, others, strict=True)
        for one, other in zip((*batch.views, batch.indices), (*same.views, same.indices), strict=True)
    )


def decoded_bytes(root: Path) -> int:
    """Bytes of all photographs as they are decoded."""
    total = 0
    for path in (root / "train").glob("*/*"):
        with Image.open(path) as image:
            total += 3 * image.width * image.height
    return total


def kept_files() -> list[Path]:
    return sorted((cache_folder() / "decoded").glob("*/*.pixels"))


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called on, DALI may not be asked for anything."""

    def fails(*given: object) -> None:
        pytest.fail("DALI was asked")

    return lambda: monkeypatch.setattr(DaliDecoder, "make_pipeline", fails)


@pytest.mark.parametrize("last", [False, True])
def test_views_of_kept_images_are_those_of_decoded_ones_to_the_bit(
    root: Path, no_decoding: Callable[[], None], last: bool
) -> None:
    """All epochs: the first, in which images are kept, and the second, in a loader that never decoded one."""
    for views in (VIEWS[:2], VIEWS):
        expected = list(loader(root, *views, keep=0, last=last).train(0, 10))
        assert equal(loader(root, *views, last=last).train(0, 10), iter(expected))
    wanted = list(loader(root, *VIEWS[2:3], keep=0, last=last).once())
    no_decoding()
    assert equal(loader(root, *VIEWS, last=last).train(0, 10), iter(expected))
    assert equal(loader(root, *VIEWS[2:3], last=last).once(), iter(wanted))
    (file,) = kept_files()
    assert file.stat().st_size == decoded_bytes(root)


def test_resized_views_are_torchvisions_of_the_same_windows_to_the_bit(root: Path) -> None:
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
    view, manifest = replace(TRAIN, size=160), open_split("imagenet", "train", root).manifest
    for keep in (0, 1, 1):
        for step, batch in enumerate(loader(root, view, keep=keep).train(0, 5)):
            draws = view.sample(6, 3, step, 0)
            for place, row in enumerate(batch.indices.tolist()):
                with Image.open(manifest.image_path(row)) as image:
                    whole = v2.functional.pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))
                height, width = (np.array([side]) for side in whole.shape[1:])
                window = view.resized_crop_windows(height, width, draws.slice_batch(slice(place, place + 1)))
                crop = v2.functional.resized_crop(whole, *(int(side[0]) for side in window), [160, 160], antialias=True)
                crop = crop.flip(2) if draws.flip[place] else crop
                assert torch.equal(((batch.views[0][place] * std + mean) * 255).round().to(torch.uint8), crop)


def test_a_changed_file_is_decoded_anew(root: Path) -> None:
    list(loader(root).train(0, 5))
    one, other = sorted((root / "train").glob("*/*"))[:2]
    one.write_bytes(other.read_bytes())
    os.utime(one, (10**9, 10**9))
    assert equal(loader(root).train(0, 5), loader(root, keep=0).train(0, 5))


def test_a_file_that_changes_its_size_while_it_is_used_is_shown(root: Path) -> None:
    view = View(size=32, crop="resized", scale=(1.0, 1.0), ratio=(0.1, 10.0))
    images = loader(root, view, keep=0)
    list(images.train(0, 5))
    for path in (root / "train").glob("*/*"):
        Image.new("RGB", (50, 40), (9, 200, 60)).save(path)
    assert equal(images.train(0, 5), loader(root, view, keep=0).train(0, 5))


def test_what_is_damaged_or_half_written_is_decoded_anew(root: Path) -> None:
    list(loader(root).train(0, 5))
    expected = list(loader(root, keep=0).train(0, 5))
    (file,) = kept_files()
    index = file.with_suffix(".index")
    content, records = file.read_bytes(), index.read_bytes()
    half = len(content) // 2
    damages = {
        "pages that never reached the disk": (content[:half] + bytes(len(content) - half), records),
        "pixels that never did": (content[:half], records),
        "a writer that was killed between the two": (content, records[:-32]),
        "one that was killed within a record": (content, records[:-9]),
        "records of something else": (content, records[:32] + os.urandom(len(records) - 32)),
        "an index of something else": (content, os.urandom(len(records))),
        "an empty index": (content, b""),
    }
    for what, (pixels, entries) in damages.items():
        file.write_bytes(pixels)
        index.write_bytes(entries)
        for _ in range(2):
            assert equal(loader(root).train(0, 5), iter(expected)), what
    index.unlink()
    assert equal(loader(root).train(0, 5), iter(expected))


def test_pillows_and_unreadable_images_are_what_they_are_without(root: Path) -> None:
    paths = sorted((root / "train").glob("*/*"))
    for path, kind, mode in ((paths[4], "JPEG", "CMYK"), (paths[5], "BMP", "RGB")):
        with Image.open(path) as image:
            image.convert(mode).save(path, kind)
    paths[6].write_bytes(paths[6].read_bytes()[:5000])
    paths[7].write_bytes(b"")
    for path in paths[4:8]:
        os.utime(path, (10**9, 10**9))
    plain, first = loader(root, keep=0), loader(root)
    expected = list(plain.train(0, 5))
    assert equal(first.train(0, 5), iter(expected))
    again = loader(root)
    assert equal(again.train(0, 5), iter(expected))
    assert dict(again.unreadable) == dict(first.unreadable) == dict(plain.unreadable)
    assert len(again.unreadable) == 2
    passes = [torch.cat([batch.indices for batch in each.once()]).tolist() for each in (plain, again)]
    assert passes[0] == passes[1] == [row for row in range(30) if row not in (6, 7)]


def test_images_in_archives_are_kept_too(root: Path, tmp_path: Path, no_decoding: Callable[[], None]) -> None:
    manifest, how = open_split("imagenet", "train", root).manifest, ShardSettings(short_side=100, shard_size=12)
    start_shards([manifest], tmp_path / "shards", how)
    write_shards(manifest, tmp_path / "shards", how, lambda _: None)
    expected = list(loader(tmp_path / "shards", keep=0).train(0, 10))
    assert equal(loader(tmp_path / "shards").train(0, 10), iter(expected))
    no_decoding()
    assert equal(loader(tmp_path / "shards").train(5, 10), iter(expected[5:]))


def test_gray_images_are_kept_gray(root: Path) -> None:
    source = open_split("imagenet", "train", root)
    gray = replace(source, dataset=replace(source.dataset, channels=1, mean=(0.5,), std=(0.2,)))
    expected = list(loader(gray, keep=0).train(0, 5))
    assert expected[0].views[0].shape[1] == 1
    for _ in range(2):
        assert equal(loader(gray).train(0, 5), iter(expected))
    list(loader(root).train(0, 5))
    assert len(kept_files()) == 2


def test_other_lists_of_images_have_files_of_their_own_and_seeds_share_one(root: Path) -> None:
    source = open_split("imagenet", "train", root)
    part = replace(source, manifest=source.manifest.take_rows(np.arange(3, 20)))
    turned = replace(part, manifest=source.manifest.take_rows(np.arange(19, 2, -1)))
    for one in (source, part, turned):
        expected = list(loader(one, keep=0).train(0, 5))
        for _ in range(2):
            assert equal(loader(one).train(0, 5), iter(expected))
    assert len(kept_files()) == 2


def test_another_process_decodes_nothing(root: Path) -> None:
    expected = list(loader(root).train(0, 5))
    script = f"""
import dataclasses, pathlib, torch
from sslticket.data.dali_decoder import DaliDecoder
from sslticket.data.loader import Sampler
from sslticket.data.source import make_loader, open_split
source = open_split("imagenet", "train", pathlib.Path({str(root)!r}))
how = dict(augment_seed=3, device=torch.device("cpu"), threads=2, max_bad_images=0)
DaliDecoder.make_pipeline = None
view = dataclasses.replace(source.dataset.train_view, size=64)
batches = make_loader(source, (view,), Sampler(30, 6, 2), **how).train(0, 5)
print([batch.views[0].double().sum().item() for batch in batches])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([batch.views[0].double().sum().item() for batch in expected])


def test_processes_that_decode_at_once_keep_each_image_once(root: Path) -> None:
    """Two ranks and two seeds begin together; a lock on a file holds between descriptors as between processes."""
    expected = list(loader(root, keep=0).train(0, 10))
    batches = [loader(root).train(0, 10) for _ in range(4)]
    for step, same in enumerate(zip(*batches, strict=True)):
        assert all(torch.equal(batch.views[0], expected[step].views[0]) for batch in same)
    (file,) = kept_files()
    assert file.stat().st_size == decoded_bytes(root)


def test_no_more_is_kept_than_the_budget_allows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = decoded_bytes(root)
    expected = list(loader(root, keep=0).train(0, 10))
    for _ in range(2):
        assert equal(loader(root, keep=whole / 2e9).train(0, 10), iter(expected))
    (file,) = kept_files()
    assert whole / 4 < file.stat().st_size <= whole / 2
    # Without a budget, half a list is not worth its memory.
    file.unlink()
    monkeypatch.setattr(decoded_cache, "available_memory", lambda: whole)
    assert equal(loader(root, keep=None).train(0, 10), iter(expected))
    assert kept_files() == []
    monkeypatch.setattr(decoded_cache, "available_memory", lambda: 3 * whole)
    assert equal(loader(root, keep=None).train(0, 10), iter(expected))
    assert kept_files()[0].stat().st_size == whole


def test_lists_that_nobody_uses_make_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_split("imagenet", "train", root)
    first, second = (replace(source, manifest=source.manifest.take_rows(rows)) for rows in np.split(np.arange(30), 2))
    used = loader(first)
    list(used.train(0, 5))
    (file,) = kept_files()
    budget = 1.2 * file.stat().st_size / 1e9
    list(loader(second, keep=budget).train(0, 5))
    assert file in kept_files(), "it is in use"
    del used
    assert equal(loader(second, keep=budget).train(0, 5), loader(second, keep=0).train(0, 5))
    assert file not in kept_files()
    (file,) = kept_files()
    # Neither a list that cannot fit takes another's place, nor does one that nobody uses stay for ever.
    monkeypatch.setattr(decoded_cache, "available_memory", lambda: 1000)
    list(loader(first, keep=None).train(0, 1))
    assert kept_files() == [file]
    os.utime(file.with_suffix(".index"), (10**9, 10**9))
    list(loader(first, keep=None).train(0, 1))
    assert kept_files() == []


def test_a_cache_folder_that_cannot_be_written_is_no_error(root: Path) -> None:
    cache_folder().mkdir(exist_ok=True)
    (cache_folder() / "decoded").write_text("in its place")
    assert equal(loader(root).train(0, 5), loader(root, keep=0).train(0, 5))


def test_a_file_system_that_maps_no_files_is_no_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*given: object, **named: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    expected = list(loader(root, keep=0).train(0, 5))
    monkeypatch.setattr("mmap.mmap", refuses)
    for _ in range(2):
        assert equal(loader(root).train(0, 5), iter(expected))


def test_an_error_of_a_transform_is_told_where_all_images_are_kept(root: Path) -> None:
    view = View(size=64, crop="resized", transforms=(_Failing(),))
    list(loader(root).once())
    with pytest.raises(RuntimeError, match="of one's own"):
        list(loader(root, view).train(0, 1))


def test_memory_that_is_free_is_known_here() -> None:
    assert 2**26 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_budget_is_a_number_of_gigabytes(refused: Refused) -> None:
    for wrong in (-1.0, 1e300, float("inf"), float("nan")):
        with refused("--keep-decoded", "gigabytes", f"{wrong:g}", "0"):
            RuntimeConfig(keep_decoded=wrong)
