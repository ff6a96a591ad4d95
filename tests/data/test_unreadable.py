"""One verdict on an image: what can be read, what it shows, and who needs to know."""

import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslticket.data import unreadable as module
from sslticket.data.augment import View
from sslticket.data.datasets.catalogue import get_dataset
from sslticket.data.decode import DecodeError, ImageKind, Verdict, decode_whole, judge_image, to_upright
from sslticket.data.loader import Loader, Sampler
from sslticket.data.manifest import Manifest
from sslticket.data.shards import ShardSettings, start_shards, write_shards
from sslticket.data.source import make_loader, open_split
from sslticket.data.unreadable import Verdicts, unreadable_fields

FOLDER = get_dataset("folder")
HEIGHT, WIDTH = 48, 64


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and files that count as settled at once."""
    monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "CLOCK_GRANULARITY", -1.0)
    return tmp_path / "cache"


def drawn() -> Image.Image:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2], pixels[:, WIDTH // 2 :], pixels[:16] = (200, 40, 40), (40, 60, 200), (30, 180, 60)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str, **how: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **how)
    return content.getvalue()


def without(content: bytes, marker: bytes) -> bytes:
    """A JPEG without the first segment of a kind."""
    start = content.find(marker)
    (length,) = struct.unpack_from(">H", content, start + 2)
    return content[:start] + content[start + 2 + length :]


def exif(orientation: int, kind: int = 3, count: int = 1, head: bytes = b"II*\0") -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, kind, count, orientation, 0)
    return b"Exif\0\0" + head + b"\x08\0\0\0\x01\0" + entry + bytes(4)


def app1(content: bytes, data: bytes) -> bytes:
    """A JPEG with one more APP1 segment, before all others."""
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + content[2:]


def png(width: int, height: int, bits: int, colours: int, raw: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def odd() -> dict[str, bytes]:
    """Images that Pillow reads, of kinds of which DALI shows something else, nothing, or dies."""
    image = drawn()
    plain, cmyk, gray = encoded(image, "JPEG", quality=95), encoded(image.convert("CMYK"), "JPEG"), image.convert("L")
    shades = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 21
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    ycck, whole_png = bytearray(cmyk), encoded(image, "PNG")
    ycck[ycck.find(b"\xff\xee") + 15] = 2
    transparent = image.copy()
    transparent.putalpha(77)
    return {
        "CMYK without Adobe's marker": without(cmyk, b"\xff\xee"),
        "CMYK": cmyk,
        "YCCK": bytes(ycck),
        "two blocks of EXIF": app1(encoded(image, "JPEG", exif=exif(6)), exif(3)),
        "orientation as a byte": encoded(image, "JPEG", exif=exif(6, kind=1)),
        "orientation as text": encoded(image, "JPEG", exif=exif(6, kind=2)),
        "orientation of no numbers": encoded(image, "JPEG", exif=exif(6, count=0)),
        "EXIF with a damaged head": encoded(image, "JPEG", exif=exif(6, head=b"IIX\0")),
        "EXIF that breaks off": encoded(image, "JPEG", exif=exif(6)[:18]),
        "orientation in XMP alone": app1(plain, xmp),
        "orientation in a PNG": encoded(image, "PNG", exif=exif(6)[6:]),
        "16-bit gray PNG": encoded(Image.fromarray(shades), "PNG"),
        "16-bit gray PGM": f"P5 {WIDTH} {HEIGHT} 65535\n".encode() + shades.astype(">u2").tobytes(),
        "PPM of 100 shades": f"P6 {WIDTH} {HEIGHT} 100\n".encode() + (np.asarray(image) // 3).tobytes(),
        "PNG without its end": whole_png[: whole_png.find(b"IEND") - 4],
        "palette with transparency": encoded(image.quantize(16), "PNG", transparency=bytes([0, 128, 255, 3])),
        "BMP of 16 bits": b"BM"
        + struct.pack("<IHHI", 54 + HEIGHT * WIDTH * 2, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 16, 0, 0, 0, 0, 0, 0)
        + shades.tobytes(),
        "TIFF of 32 bits": encoded(Image.fromarray(shades.astype(np.int32)), "TIFF"),
        "black and white TIFF": encoded(image.convert("1"), "TIFF"),
        "TIFF in YCbCr": encoded(image.convert("YCbCr"), "TIFF"),
        "TIFF of several pages": encoded(image, "TIFF", save_all=True, append_images=[image.rotate(180)]),
        "TIFF of gray with alpha": encoded(transparent.convert("LA"), "TIFF"),
        "alpha": encoded(transparent, "PNG"),
        "gray with alpha": encoded(transparent.convert("LA"), "PNG"),
        "animation": encoded(image, "WEBP", save_all=True, append_images=[image.rotate(180)], lossless=True),
        "JPEG and then junk": plain + bytes(range(256)) * 40,
        "JPEG of two pictures": encoded(image, "MPO", save_all=True, append_images=[image.rotate(180)]),
        "JPEG in the colours RGB": encoded(image, "JPEG", keep_rgb=True),
        "gray": encoded(gray, "JPEG"),
        "progressive": encoded(image, "JPEG", progressive=True),
        "arithmetic coding": plain.replace(b"\xff\xc0", b"\xff\xc9", 1),
        **{f"orientation {number}": encoded(image, "JPEG", exif=exif(number)) for number in (0, 3, 6, 8, 9)},
    }


def unreadable() -> dict[str, tuple[bytes, str]]:
    """Files that are no images, with words of why."""
    image = drawn()
    plain, sequential = encoded(image, "JPEG"), encoded(image, "JPEG", progressive=True)
    size = plain.find(b"\xff\xc0") + 5
    return {
        "nothing": (b"", "empty"),
        "text": (b"<html>not found</html>", "not an image"),
        "GIF": (encoded(image, "GIF"), "a GIF"),
        "AVIF": (encoded(image, "AVIF"), "AVIF"),
        "JPEG 2000": (encoded(image, "JPEG2000"), "not an image"),
        "cut JPEG": (plain[:-60], "truncated"),
        "JPEG without its end": (plain[:-2], "truncated"),
        "cut progressive JPEG": (sequential[: len(sequential) // 2], "truncated"),
        "cut PNG": (encoded(image, "PNG", compress_level=0)[:5000], "truncated"),
        "cut BMP": (encoded(image, "BMP")[:5000], "truncated"),
        "cut TIFF": (encoded(image, "TIFF")[:-500], "truncated"),
        "cut WebP": (encoded(image, "WEBP")[:-40], ""),
        "no height": (plain[:size] + b"\0\0" + plain[size + 2 :], ""),
        "no pixels": (png(0, 0, 8, 0, b""), ""),
        "2^31 pixels": (png(65536, 32768, 8, 0, bytes(10)), "pixels"),
        "a width of 2^31 - 1": (png(2**31 - 1, 1, 8, 0, bytes(10)), "pixels"),
        "65,535 x 65,535 pixels": (plain[:size] + b"\xff" * 4 + plain[size + 4 :], "pixels"),
        "a bomb that is whole": (png(10000, 9500, 1, 0, bytes(1251 * 9500)), "10,000 x 9,500 pixels"),
    }


def folder(root: Path, images: dict[str, bytes]) -> Path:
    (root / "train/a").mkdir(parents=True)
    for place, content in enumerate(images.values()):
        (root / f"train/a/{place:04d}.jpg").write_bytes(content)
    return root


def batches(root: Path, view: View, *, batch: int, rank: int = 0, world: int = 1, name: str = "folder") -> Loader:
    source = open_split(name, "train", root)
    order = Sampler(len(source.manifest), batch, 2, rank, world)
    return make_loader(
        source, (view,), order, augment_seed=3, device=torch.device("cpu"), threads=2, max_bad_images=10_000
    )


def shown(images: Loader) -> Iterator[tuple[int, np.ndarray]]:
    """Row and pixels, (H, W, 3) from 0 to 255, of one pass."""
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (FOLDER.mean, FOLDER.std))
    for batch in images.once():
        for row, view in zip(batch.indices.tolist(), batch.views[0], strict=True):
            yield row, ((view * std + mean) * 255).permute(1, 2, 0).numpy()


def middle(content: bytes, size: int) -> np.ndarray:
    """What Pillow shows of an image, its middle with black around where it is smaller."""
    image = to_upright(decode_whole(content)).convert("RGB")
    left, top = (round((side - size) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)), np.float32)


def test_every_kind_of_image_is_pillows_picture(tmp_path: Path) -> None:
    kinds = odd()
    images = batches(folder(tmp_path / "data", kinds), View(size=32), batch=5)
    found = dict(shown(images))
    assert images.unreadable == {}
    assert sorted(found) == list(range(len(kinds)))
    wrong = {
        name: float(abs(found[row] - middle(content, 32)).max())
        for row, (name, content) in enumerate(kinds.items())
        if abs(found[row] - middle(content, 32)).max() > 1
    }
    assert wrong == {}


def test_a_cmyk_jpeg_without_adobes_marker_is_not_black(tmp_path: Path) -> None:
    images = batches(folder(tmp_path / "data", {"": odd()["CMYK without Adobe's marker"]}), View(size=32), batch=1)
    ((_, pixels),) = shown(images)
    assert pixels.mean() > 60


def test_shards_of_odd_kinds_are_pillows_pictures_too(tmp_path: Path) -> None:
    kinds = odd() | {name: content for name, (content, _) in unreadable().items()}
    manifest = open_split("folder", "train", folder(tmp_path / "data", kinds)).manifest
    start_shards([manifest], tmp_path / "out", how := ShardSettings(short_side=500, shard_size=7))
    bad = write_shards(manifest, tmp_path / "out", how, lambda _: None)
    assert [int(Path(name).stem) for name in bad] != []
    assert sorted(int(Path(name).stem) for name in bad) == list(range(len(odd()), len(kinds)))
    images = batches(tmp_path / "out", View(size=32), batch=5)
    found = dict(shown(images))
    assert sorted(found) == list(range(len(odd())))
    assert len(images.unreadable) == len(unreadable())
    for row, content in enumerate(odd().values()):
        assert abs(found[row] - middle(content, 32)).max() <= 1


def test_what_is_no_image_is_left_out_and_named(tmp_path: Path) -> None:
    kinds = unreadable()
    contents = {name: content for name, (content, _) in kinds.items()} | {"good": encoded(drawn(), "JPEG")}
    images = batches(folder(tmp_path / "data", contents), View(size=32), batch=4)
    assert [row for row, _ in shown(images)] == [len(kinds)]
    reasons = [images.unreadable[name] for name in sorted(images.unreadable)]
    assert len(reasons) == len(kinds)
    for reason, (name, (_, words)) in zip(reasons, kinds.items(), strict=True):
        assert words in reason, name
        assert reason
        assert "\n" not in reason


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path / "data", {"good": encoded(drawn(), "JPEG")})
    place = root / "train/a"
    os.mkfifo(place / "1.jpg")
    (place / "2.jpg").symlink_to("/dev/zero")
    (place / "3.jpg").symlink_to("/dev/null")
    (place / "4.jpg").symlink_to("nowhere")
    (place / "5.jpg").mkdir()
    (place / "7.jpg").symlink_to("7.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(place)  # a socket's path may have 107 bytes
        listening.bind("6.jpg")
        images = batches(root, View(size=32), batch=2)
        assert [row for row, _ in shown(images)] == [0]
        batch = next(iter(images.train(0, 1)))
    assert batch.indices.tolist() == [0, 0]
    reasons = {Path(name).stem: reason for name, reason in images.unreadable.items()}
    odd_ones = {name for name, reason in reasons.items() if reason == "it is no regular file"}
    assert {"1", "2", "3", "6"} <= odd_ones
    assert reasons["4"] == os.strerror(2)
    assert set(reasons) == {path.stem for path in place.iterdir()} - {"0000", "5"}  # a folder is no image at all
    with pytest.raises(DecodeError, match="regular"):
        decode_whole(place / "1.jpg")


@pytest.fixture
def cut(few_photographs: Path, tmp_path: Path) -> Path:
    """The photographs, seven of them without their last tenth, which most small crops do not touch."""
    root = tmp_path / "imagenet"
    for path in (few_photographs / "train").glob("*/*"):
        place = root / path.relative_to(few_photographs)
        place.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        place.write_bytes(content)
    for path in sorted((root / "train").glob("*/*"))[2::4]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    return root


@pytest.mark.data
def test_global_batches_hold_the_same_images_on_any_number_of_processes(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = View(size=16, crop="resized", scale=(0.01, 0.02))
    bad = set(range(2, 30, 4))
    stream = np.concatenate([Sampler(30, 8, 2).indices(step) for step in range(14)])
    expected = [next(int(row) for row in stream[place:] if row not in bad) for place in range(64)]
    seen = {}
    for world in (1, 2, 4):
        shares = []
        for rank in range(world):
            monkeypatch.setenv("SSLTICKET_CACHE", str(tmp_path / f"cache of {rank} of {world}"))
            images = batches(cut, small, batch=8, rank=rank, world=world, name="imagenet")
            shares.append([(batch.indices, batch.views[0]) for batch in images.train(0, 8)])
        rows, pixels = (torch.cat([share[step][part] for step in range(8) for share in shares]) for part in (0, 1))
        assert rows.tolist() == expected
        seen[world] = pixels
        later = batches(cut, small, batch=8, name="imagenet")
        assert torch.cat([batch.indices for batch in later.train(5, 8)]).tolist() == expected[40:]
    assert torch.equal(seen[1], seen[2])
    assert torch.equal(seen[1], seen[4])


@pytest.mark.data
def test_a_resumed_training_logs_the_unreadable_images_it_had_met(cut: Path) -> None:
    whole_run = batches(cut, View(size=16, crop="resized"), batch=6, name="imagenet")
    list(whole_run.train(0, 2))
    rest = batches(cut, View(size=16, crop="resized"), batch=6, name="imagenet")
    list(rest.train(1, 2))
    assert 0 < len(whole_run.unreadable) < 7
    assert dict(rest.unreadable) == dict(whole_run.unreadable)


def damaged(content: bytes, draw: np.random.Generator) -> bytes:
    """A JPEG with a fault in its coded part: bits turned, bytes lost, overwritten or put in, its end missing."""
    first = content.rfind(b"\xff\xda") + 14
    place, length = int(draw.integers(first, len(content) - 2)), int(draw.integers(1, 400))
    changed = bytearray(content)
    match int(draw.integers(6)):
        case 0:
            for bit in draw.integers(8 * first, 8 * len(content) - 16, 5).tolist():
                changed[bit // 8] ^= 1 << bit % 8
        case 1:
            del changed[place : place + length]
        case 2:
            changed[place : place + length] = bytes(min(length, len(content) - place))
        case 3:
            changed[place:place] = draw.integers(0, 256, length, np.uint8).tobytes()
        case 4:
            del changed[place:]
        case _:
            del changed[-int(draw.integers(1, 4)) :]
    return bytes(changed)


@pytest.mark.data
def test_damaged_photographs_are_pillows_picture_or_left_out(few_photographs: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    photographs = [path.read_bytes() for path in sorted((few_photographs / "train").glob("*/*"))[:12]]
    contents = {str(number): damaged(photographs[number % 12], draw) for number in range(200)}
    images = batches(folder(tmp_path / "data", contents), View(size=64), batch=16)
    found = dict(shown(images))
    assert len(found) + len(images.unreadable) == 200
    assert len(found) > 60
    assert len(images.unreadable) > 30
    for row, pixels in found.items():
        assert abs(pixels - middle(contents[str(row)], 64)).max() < 1
    for name in images.unreadable:
        with pytest.raises(DecodeError):
            decode_whole(Path(name))
    # Windows, of which DALI decodes only what it needs, meet the same images and are never refused.
    windows = batches(tmp_path / "data", View(size=16, crop="resized"), batch=16)
    rows = torch.cat([batch.indices for batch in windows.train(0, 25)])
    assert set(rows.tolist()) <= set(found)


def test_what_dali_refuses_is_pillows_picture_and_logged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = odd()["PNG without its end"]
    root = folder(tmp_path / "data", {"refused": content, "good": encoded(drawn(), "PNG")})
    assert judge_image(content).kind == ImageKind.GOOD
    images = batches(root, View(size=32), batch=2)
    assert dict(shown(images)).keys() == {0, 1}
    assert images.unreadable == {}
    monkeypatch.setattr(module, "judge_image", never)
    assert kept(root) == [ImageKind.PILLOW, ImageKind.GOOD]


def never(_: object) -> Verdict:
    raise AssertionError("judged again")


def listed(root: Path) -> Manifest:
    return open_split("folder", "train", root).manifest


def kept(root: Path) -> list[ImageKind]:
    manifest = listed(root)
    found = Verdicts(manifest, 1, None).kinds(np.arange(len(manifest)))
    return [ImageKind(kind) for kind in found.tolist()]


def test_verdicts_are_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cmyk = odd()["CMYK"]
    root = folder(tmp_path / "data", {"good": encoded(drawn(), "JPEG"), "cmyk": cmyk, "bad": b"none"})
    verdicts = Verdicts(listed(root), 2, None)
    assert verdicts.kinds(np.arange(3)).tolist() == [ImageKind.GOOD, ImageKind.PILLOW, ImageKind.UNREADABLE]
    assert verdicts.complete
    verdicts.save()
    with monkeypatch.context() as patch:
        patch.setattr(module, "judge_image", never)
        again = Verdicts(listed(root), 2, None)
        assert again.known_unreadable.tolist() == [2]
        assert again.kinds(np.arange(3)).tolist() == [ImageKind.GOOD, ImageKind.PILLOW, ImageKind.UNREADABLE]
        assert again.reasons[2] == verdicts.reasons[2] == "not an image, or damaged at its start"
    (root / "train/a/0000.jpg").write_bytes(b"none")
    (root / "train/a/0002.jpg").write_bytes(cmyk)
    assert Verdicts(listed(root), 2, None).known_unreadable.tolist() == []
    assert kept(root) == [ImageKind.UNREADABLE, ImageKind.PILLOW, ImageKind.PILLOW]


def test_a_file_that_was_written_just_now_is_judged_and_its_verdict_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(module, "CLOCK_GRANULARITY", 60.0)
    verdicts = Verdicts(listed(folder(tmp_path / "data", {"good": encoded(drawn(), "JPEG")})), 1, None)
    assert verdicts.kinds(np.arange(1)).tolist() == [ImageKind.GOOD]
    verdicts.save()
    assert not list(cache.glob("verdicts/*.good"))


def test_a_cache_that_cannot_be_written_or_is_damaged_changes_nothing(tmp_path: Path, cache: Path) -> None:
    root = folder(tmp_path / "data", {"good": encoded(drawn(), "JPEG"), "cmyk": odd()["CMYK"], "bad": b"none"})
    right = [ImageKind.GOOD, ImageKind.PILLOW, ImageKind.UNREADABLE]
    cache.mkdir(exist_ok=True)
    (cache / "verdicts").write_text("in the way")
    verdicts = Verdicts(listed(root), 1, None)
    assert verdicts.kinds(np.arange(3)).tolist() == right
    verdicts.save()
    (cache / "verdicts").unlink()
    verdicts.save()
    for kind in ("good", "bad"):
        (path,) = cache.glob(f"verdicts/*.{kind}")
        whole_file = path.read_bytes()
        for damage in (whole_file[:-3], b"\xff\0 \n" * 99 + whole_file, b"zz zz zz\n" + whole_file, b""):
            path.write_bytes(damage)
            assert kept(root) == right
            images = batches(root, View(size=32), batch=1)
            assert [row for row, _ in shown(images)] == [0, 1]
        path.unlink()
        os.mkfifo(path)  # which who opens it would wait for
        verdicts = Verdicts(listed(root), 1, None)
        assert verdicts.kinds(np.arange(3)).tolist() == right
        verdicts.save()
        path.unlink()
        path.write_bytes(whole_file)
    assert kept(root) == right


def test_names_of_any_bytes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "data/train/a"
    place.mkdir(parents=True)
    for name in ("with space.jpg", "with\nline.jpg", "\udcff%0a.jpg", "café.jpg"):
        (place / name).write_bytes(b"none")
    verdicts = Verdicts(listed(tmp_path / "data"), 1, None)
    assert (verdicts.kinds(np.arange(4)) == ImageKind.UNREADABLE).all()
    verdicts.save()
    monkeypatch.setattr(module, "judge_image", never)
    assert Verdicts(listed(tmp_path / "data"), 1, None).known_unreadable.tolist() == [0, 1, 2, 3]


def test_processes_share_what_they_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {str(number): b"none" if number % 5 == 0 else encoded(drawn(), "JPEG") for number in range(80)}
    root = folder(tmp_path / "data", contents)
    code = (
        "import sys, numpy as np; from pathlib import Path; from sslticket.data import unreadable\n"
        "from sslticket.data.source import open_split\n"
        "unreadable.CLOCK_GRANULARITY = -1.0\n"
        "found = unreadable.Verdicts(open_split('folder', 'train', Path(sys.argv[1])).manifest, 1, None)\n"
        "for row in range(int(sys.argv[2]), 80, 2):\n"
        "    found.kinds(np.array([row])); found.save()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(root), str(rank)]) for rank in range(2)]
    assert [process.wait() for process in running] == [0] * 2
    monkeypatch.setattr(module, "judge_image", never)
    assert [kind == ImageKind.UNREADABLE for kind in kept(root)] == [number % 5 == 0 for number in range(80)]


def test_images_in_archives_are_judged_once_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {"good": encoded(drawn(), "JPEG"), "cmyk": odd()["CMYK"], "bad": b"none"}
    manifest = listed(folder(tmp_path / "data", contents))
    start_shards([manifest], tmp_path / "out", how := ShardSettings(short_side=500))
    write_shards(manifest, tmp_path / "out", how, lambda _: None)
    first = batches(tmp_path / "out", View(size=32), batch=3)
    assert [row for row, _ in shown(first)] == [0, 1]
    monkeypatch.setattr(module, "judge_image", never)
    again = batches(tmp_path / "out", View(size=32), batch=3)
    assert [row for row, _ in shown(again)] == [0, 1]
    assert dict(again.unreadable) == dict(first.unreadable)


def test_rows_count_what_was_left_out_and_name_it_by_a_hash() -> None:
    here = unreadable_fields({"/data/train/a/1.jpg": "empty", "/data/train/b/2.jpg": "a GIF"})
    assert here["bad_images"] == 2
    assert here == unreadable_fields({"/mnt/train/b/2.jpg": "cut", "/mnt/train/a/1.jpg": ""})
    assert here != unreadable_fields({"/data/train/a/1.jpg": "empty", "/data/train/b/3.jpg": "a GIF"})
    assert unreadable_fields({}) == {"bad_images": 0}
