"""ImageNet as it is downloaded: a tar file of tar files, evaluation images in no class folders, a development kit."""

import io
import shutil
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from sslticket.data.augment import View
from sslticket.data.datasets.base import Split
from sslticket.data.datasets.locate import MissingSplit
from sslticket.data.loader import Batch, Sampler
from sslticket.data.source import make_loader, open_split

Refused = Callable[..., AbstractContextManager[None]]

TRAIN, VAL, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
INSIDE = "ILSVRC2012_devkit_t12/data"


def tar(files: dict[str, bytes], mode: Any = "w") -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def kit(wnids: list[str], truth: list[int]) -> dict[str, bytes]:
    """A development kit's two files. Numbers are not in the order of names, and inner nodes have higher ones."""
    numbers = {wnid: len(wnids) - place for place, wnid in enumerate(wnids)}
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    leaves = [(number, wnid, "a thing", 0) for wnid, number in numbers.items()]
    synsets = np.array([*leaves, (len(wnids) + 1, "n00001740", "entity", 2)], dtype=kinds)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets[:, None]})
    chosen = "".join(f"{numbers[wnids[place]]}\n" for place in truth)
    return {f"{INSIDE}/meta.mat": meta.getvalue(), f"{INSIDE}/ILSVRC2012_validation_ground_truth.txt": chosen.encode()}


@pytest.fixture(scope="session")
def forms(few_photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same seven classes of photographs as `folders`, as the `archives` that are downloaded, and `flat`."""
    root = tmp_path_factory.mktemp("forms")
    chosen = sorted((few_photographs / "train").glob("*/*"))[-14:]
    groups = [chosen[place : place + 2] for place in range(0, 14, 2)]
    wnids = [group[0].parent.name for group in groups]
    images = {
        wnid: {f"{wnid}_{i}.JPEG": path.read_bytes() for i, path in enumerate(group)}
        for wnid, group in zip(wnids, groups, strict=True)
    }
    truth = [6, 0, 3, 3, 1, 5, 2, 4]
    val = {
        f"ILSVRC2012_val_{i:08d}.JPEG": images[wnids[place]][f"{wnids[place]}_{i % 2}.JPEG"]
        for i, place in enumerate(truth, 1)
    }
    for wnid in wnids:
        for name, content in images[wnid].items():
            write(root / "folders/train" / wnid / name, content)
    for place, (name, content) in zip(truth, val.items(), strict=True):
        write(root / "folders/val" / wnids[place] / name, content)
        write(root / "flat/val" / name, content)
    shutil.copytree(root / "folders/train", root / "flat/train")
    mixed = [wnids[place] for place in (3, 0, 6, 1, 5, 2, 4)]
    write(root / "archives" / TRAIN, tar({f"{wnid}.tar": tar(images[wnid]) for wnid in mixed}))
    write(root / "archives" / VAL, tar(dict(reversed(val.items()))))
    for home in ("archives", "flat"):
        write(root / home / KIT, tar(kit(wnids, truth), "w:gz"))
    return root


@pytest.fixture
def own(forms: Path, tmp_path: Path) -> Path:
    """The archives, to be spoilt."""
    return Path(shutil.copytree(forms / "archives", tmp_path / "imagenet"))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def batches(root: Path, view: View, count: int, rank: int = 0, world: int = 1) -> list[Batch]:
    source = open_split("imagenet", "train", root)
    order = Sampler(len(source.manifest), 6, 2, rank, world)
    images = make_loader(
        source, (view,), order, augment_seed=3, device=torch.device("cpu"), threads=2, max_bad_images=3
    )
    return list(images.train(0, count))


@pytest.mark.data
@pytest.mark.parametrize("split", ["train", "eval"])
def test_archives_hold_what_the_folders_hold(forms: Path, split: Split) -> None:
    folders, archives = (open_split("imagenet", split, forms / form).manifest for form in ("folders", "archives"))
    assert archives.hash == folders.hash
    for row in range(len(folders)):
        archive, offset, size = archives.byte_ranges[row]
        inside = archives.archives[archive].read_bytes()[offset : offset + size]
        assert inside == folders.image_path(row).read_bytes()


@pytest.mark.data
def test_published_lists_name_images_in_archives_too(forms: Path, tmp_path: Path) -> None:
    manifest = open_split("imagenet", "train", forms / "archives").manifest
    chosen = list(manifest.frame["file"])[::2]
    (tmp_path / "list.txt").write_text("\n".join(["train/" + chosen[0], *(Path(file).name for file in chosen[1:])]))
    assert list(manifest.restrict_to_list(tmp_path / "list.txt").frame["file"]) == chosen


@pytest.mark.data
def test_batches_are_the_same_from_archives_and_from_folders(forms: Path) -> None:
    view = View(size=64, crop="resized", flip=True)
    for one, other in zip(batches(forms / "folders", view, 9), batches(forms / "archives", view, 9), strict=True):
        assert torch.equal(one.views[0], other.views[0])
        assert torch.equal(one.labels, other.labels)
    for one, other in zip(
        batches(forms / "folders", view, 4), batches(forms / "archives", view, 4, rank=1, world=2), strict=True
    ):
        assert torch.equal(one.views[0][3:], other.views[0])


@pytest.mark.data
def test_a_flat_folder_is_labelled_by_the_ground_truth(forms: Path, tmp_path: Path) -> None:
    known = open_split("imagenet", "eval", forms / "folders").manifest
    for unpacked in (False, True):
        root = tmp_path / str(unpacked)
        shutil.copytree(forms / "flat", root)
        if unpacked:
            with tarfile.open(root / KIT) as archive:
                archive.extractall(root)
            (root / KIT).unlink()
        flat = open_split("imagenet", "eval", root).manifest
        assert flat.classes == known.classes
        assert flat.labels.tolist() == known.labels.tolist()
        assert [flat.image_path(row).name for row in range(8)] == [known.image_path(row).name for row in range(8)]
        assert flat.image_path(0).read_bytes() == known.image_path(0).read_bytes()


@pytest.mark.data
def test_without_the_kit_evaluation_images_are_missing_and_training_ones_are_not(own: Path) -> None:
    (own / KIT).unlink()
    assert len(open_split("imagenet", "train", own).manifest) == 14
    with pytest.raises(MissingSplit, match=f"put {KIT} beside them"):
        open_split("imagenet", "eval", own)


@pytest.mark.data
@pytest.mark.parametrize(("name", "split"), [(TRAIN, "train"), (VAL, "eval"), (KIT, "eval")])
def test_truncated_archives_are_named(own: Path, refused: Refused, name: str, split: Split) -> None:
    whole = (own / name).read_bytes()
    ends = {0, 300, 512, 700, len(whole) // 3, len(whole) // 2 // 512 * 512}
    if name != KIT:
        with tarfile.open(own / name) as archive:  # cut exactly where a file ends, and before the end mark
            ends |= {member.offset for member in archive} - {0}
            ends.add(archive.offset)
    for end in sorted(end for end in ends if end < len(whole)):
        (own / name).write_bytes(whole[:end])
        with refused(str(own / name), "download it again"):
            open_split("imagenet", split, own)
    (own / name).write_text("<html>please log in</html>")
    with refused(str(own / name)):
        open_split("imagenet", split, own)


@pytest.mark.data
def test_a_damaged_class_within_the_archive_is_named(own: Path, refused: Refused) -> None:
    with tarfile.open(own / TRAIN) as archive:
        third = archive.getmembers()[2]
    whole = bytearray((own / TRAIN).read_bytes())
    whole[third.offset_data + 100 : third.offset_data + 300] = bytes(200)
    (own / TRAIN).write_bytes(whole)
    with refused(str(own / TRAIN), third.name, "download it again"):
        open_split("imagenet", "train", own)


@pytest.mark.data
def test_kits_that_do_not_fit_the_images_are_refused(own: Path, refused: Refused) -> None:
    wnids = list(open_split("imagenet", "train", own).manifest.classes)
    cases = {
        "has the classes of 7 evaluation images, and not that of ILSVRC2012_val_00000008.JPEG": kit(wnids, [0] * 7),
        "has class 'n99999999', which the training images do not": kit([*wnids[:-1], "n99999999"], [6] * 8),
        "holds 40, which is none of its 7 classes": kit(wnids, [0] * 8)
        | {f"{INSIDE}/ILSVRC2012_validation_ground_truth.txt": b"40\n" * 8},
        "is damaged": {**kit(wnids, [0] * 8), f"{INSIDE}/meta.mat": b"no matrix"},
        "another archive": {"readme.txt": b"no kit"},
    }
    for words, files in cases.items():
        (own / KIT).write_bytes(tar(files, "w:gz"))
        with refused(words):
            open_split("imagenet", "eval", own)


@pytest.mark.data
def test_a_bad_image_in_an_archive_is_named_and_replaced_as_one_in_a_folder(own: Path, tmp_path: Path) -> None:
    manifest = open_split("imagenet", "train", own).manifest
    _, offset, size = manifest.byte_ranges[4]
    whole = bytearray((own / TRAIN).read_bytes())
    whole[offset : offset + size] = bytes(size)
    (own / TRAIN).write_bytes(whole)
    for row in range(len(manifest)):
        place, length = manifest.byte_ranges[row, 1:]
        write(tmp_path / "folders/train" / manifest.frame["file"][row], bytes(whole[place : place + length]))
    view = View(size=32, crop="resized")
    for one, other in zip(batches(tmp_path / "folders", view, 5), batches(own, view, 5), strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.views[0], other.views[0])
        assert 4 not in one.indices


@pytest.mark.data
def test_an_evaluation_image_is_known_by_its_number_and_a_stray_one_is_refused(
    forms: Path, tmp_path: Path, refused: Refused
) -> None:
    root = Path(shutil.copytree(forms / "flat", tmp_path / "imagenet"))
    whole = open_split("imagenet", "eval", root).manifest
    known = {file: whole.classes[label] for file, label in zip(whole.frame["file"], whole.labels, strict=True)}
    lost = root / "val/ILSVRC2012_val_00000001.JPEG"
    content = lost.read_bytes()
    lost.unlink()
    part = open_split("imagenet", "eval", root).manifest
    assert len(part) == 7
    assert {file: part.classes[label] for file, label in zip(part.frame["file"], part.labels, strict=True)} == {
        file: wnid for file, wnid in known.items() if file != lost.name
    }
    for name, words in {
        "preview.jpg": "none of ImageNet's evaluation images",
        "ILSVRC2012_val_00000003.png": "image 3 twice, as ILSVRC2012_val_00000003.JPEG and ILSVRC2012_val_00000003.png",
        "ILSVRC2012_val_00000003 copy.JPEG": "image 3 twice",
        "ILSVRC2012_test_00000001.JPEG": "none of ImageNet's evaluation images",
    }.items():
        write(root / "val" / name, content)
        with refused(str(root / "val"), name, words):
            open_split("imagenet", "eval", root)
        (root / "val" / name).unlink()
        # The number of images is right again, which tells nothing.
        write(tmp_path / VAL, tar({f"ILSVRC2012_val_{i:08d}.JPEG": content for i in range(2, 9)} | {name: content}))
        (tmp_path / VAL).replace(root / VAL)
        (root / "val").rename(root / "away")
        with refused(str(root / VAL), name, words):
            open_split("imagenet", "eval", root)
        (root / "away").rename(root / "val")


@pytest.mark.data
def test_evaluation_images_in_another_class_than_the_kit_tells_are_refused(
    forms: Path, own: Path, tmp_path: Path, refused: Refused
) -> None:
    known = open_split("imagenet", "eval", own).manifest
    folders = Path(shutil.copytree(forms / "folders", tmp_path / "folders"))
    files = {path.relative_to(folders).as_posix(): path for path in sorted((folders / "val").glob("*/*"))}
    (own / VAL).write_bytes(tar({name: path.read_bytes() for name, path in files.items()}))
    shutil.move(own / KIT, folders / KIT)
    for root in (own, folders):  # of class folders: without the kit, and with it
        assert open_split("imagenet", "eval", root).manifest.hash == known.hash
    first = next(name for name, other in pairwise(files) if Path(name).parent == Path(other).parent)  # one stays there
    moved = files[first].rename((folders / max(files)).with_name(files[first].name))
    told = (f"class {first.split('/')[1]}", str(folders))
    with refused(str(moved), *told):
        open_split("imagenet", "eval", folders)
    (own / VAL).write_bytes(tar({moved.relative_to(folders).as_posix(): moved.read_bytes()}))
    shutil.copy(folders / KIT, own / KIT)
    with refused(str(own / VAL), moved.name, told[0]):
        open_split("imagenet", "eval", own)
    (own / KIT).unlink()
    (own / VAL).write_bytes(tar({f"{first.split('/')[1]}/ILSVRC2012_val_00000001_n00000001.JPEG": b"image"}))
    with refused(str(own / VAL), "whose folder is not that of its class"):
        open_split("imagenet", "eval", own)


@pytest.mark.data
def test_what_is_no_image_in_an_archive_is_left_out_and_an_image_in_no_class_refused(
    own: Path, refused: Refused
) -> None:
    known = open_split("imagenet", "train", own).manifest
    with tarfile.open(own / TRAIN) as archive:
        inner = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    (own / TRAIN).write_bytes(tar({"README.txt": b"hello", "._n1.JPEG": b"mac"} | inner))
    assert open_split("imagenet", "train", own).manifest.hash == known.hash
    (own / TRAIN).write_bytes(tar({"preview.jpg": b"a stray"} | inner))
    with refused(str(own / TRAIN), "preview.jpg", "which do not both lie in a class's folder"):
        open_split("imagenet", "train", own)
    (own / TRAIN).write_bytes(tar({"preview.jpg": b"a stray"}))
    with refused(str(own / TRAIN), "preview.jpg", "it has no label"):
        open_split("imagenet", "train", own)


@pytest.mark.data
def test_a_cure_is_told_only_where_it_cures(forms: Path, tmp_path: Path, refused: Refused) -> None:
    root = Path(shutil.copytree(forms / "flat", tmp_path / "imagenet"))
    (root / KIT).unlink()
    write(root / "meta.bin", b"torchvision leaves this beside its class folders too")
    with refused("meta.bin", "a pickle that is not opened"):
        open_split("imagenet", "eval", root)
    shutil.rmtree(root / "val")
    write(root / "train/notes.tar", b"no class")
    with pytest.raises(MissingSplit, match="has no evaluation images: it has no val/"):
        open_split("imagenet", "eval", root)
    # The archive itself is often given in place of its folder.
    write(tmp_path / "cifar-10-python.tar.gz", b"")
    with refused(f"tar -xf {tmp_path / 'cifar-10-python.tar.gz'} -C {tmp_path}"):
        open_split("cifar10", "train", tmp_path / "cifar-10-python.tar.gz")
