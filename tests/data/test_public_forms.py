"""The public forms in which people hold data sets are read, or named with what cures them, as datasets/README.md says.

Every form is made small, of real images, and what is found in it is compared by the images' content: each has the class
that it was given, whatever its place. Where the error tells a command, the command is run, and then everything is read.
"""

import gzip
import io
import itertools
import json
import pickle
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from sslticket.data.datasets.base import SPLITS, Split
from sslticket.data.datasets.locate import MissingSplit
from sslticket.data.decode import image_reader
from sslticket.data.source import open_split
from sslticket.errors import BadInput

pytestmark = pytest.mark.data

README = Path(__file__).parents[2] / "datasets/README.md"
WNIDS = ("n01443537", "n01629819", "n01641577")
TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SCENES = {"airfield": "a/airfield", "bar": "b/bar", "apartment_building-outdoor": "a/apartment_building/outdoor"}
KIT = "ILSVRC2012_devkit_t12"


@dataclass
class World:
    """A small data set: of each split, images as they lie in files, or their pixels, and the names of their classes."""

    root: Path
    train: list[tuple[Any, str]]
    eval: list[tuple[Any, str]]
    classes: tuple[str, ...]

    def write(self, name: str, content: bytes | str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def split(self, split: str) -> list[tuple[Any, str]]:
        return self.train if split == "train" else self.eval

    def stacked(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        pixels, names = zip(*self.split(split), strict=True)
        return np.stack(pixels), np.array([self.classes.index(name) for name in names])


def packed(files: dict[str, bytes], mode: Any = "w") -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return written.getvalue()


def png(pixels: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(written, "PNG")
    return written.getvalue()


def everything(name: str, root: Path, splits: tuple[Split, ...]) -> dict[str, Counter[tuple[bytes, str]]]:
    """Every image's content and class, by split."""
    found = dict[str, Counter[tuple[bytes, str]]]()
    for split in splits:
        source = open_split(name, split, root)
        read = image_reader(source.manifest)
        items = source.manifest.array_indices if source.images is not None else range(len(source.manifest))
        contents = [
            read(row) if source.images is None else source.images[item].tobytes() for row, item in enumerate(items)
        ]
        labels = [source.manifest.classes[label] for label in source.manifest.labels]
        found[split] = Counter(zip(contents, labels, strict=True))
    return found


def expected(world: World) -> dict[str, Counter[tuple[bytes, str]]]:
    return {
        split: Counter(
            (image if isinstance(image, bytes) else image.tobytes(), name) for image, name in world.split(split)
        )
        for split in SPLITS
    }


# The images of ImageNet in their official names, and the files that tell what evaluation images show.


def training_names(world: World) -> dict[str, bytes]:
    return {f"{wnid}/{wnid}_{10 * i + 3}.JPEG": image for i, (image, wnid) in enumerate(world.train)}


def evaluation_names(world: World) -> dict[str, bytes]:
    # In no order: the place of an image in an archive must tell nothing.
    numbered = {f"ILSVRC2012_val_{i:08d}.JPEG": image for i, (image, _) in enumerate(world.eval, 1)}
    return dict(sorted(numbered.items(), key=lambda pair: pair[1]))


def folders(world: World, *, train: str = "train", val: str = "val") -> None:
    for name, image in training_names(world).items():
        world.write(f"{train}/{name}", image)
    for i, (image, wnid) in enumerate(world.eval, 1):
        world.write(f"{val}/{wnid}/ILSVRC2012_val_{i:08d}.JPEG", image)


def flat(world: World, *, train: str = "train", val: str = "val") -> None:
    folders(world, train=train, val="sorted")
    shutil.rmtree(world.root / "sorted")
    for name, image in evaluation_names(world).items():
        world.write(f"{val}/{name}", image)


def archives(world: World) -> None:
    inner = {
        wnid: packed({name.split("/")[1]: image for name, image in group})
        for wnid, group in itertools.groupby(sorted(training_names(world).items()), lambda pair: pair[0].split("/")[0])
    }
    world.write("ILSVRC2012_img_train.tar", packed({f"{wnid}.tar": inner[wnid] for wnid in reversed(inner)}))
    world.write("ILSVRC2012_img_val.tar", packed(evaluation_names(world)))


def kit(world: World) -> dict[str, bytes]:
    """The development kit's two files; its numbers are in no order."""
    numbers = {wnid: 3 - place for place, wnid in enumerate(WNIDS)}
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    synsets = [*((number, wnid, "a thing", 0) for wnid, number in numbers.items()), (4, "n00001740", "entity", 2)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(synsets, dtype=kinds)[:, None]}, do_compression=True)
    truth = "".join(f"{numbers[wnid]}\n" for _, wnid in world.eval)
    return {
        f"{KIT}/data/meta.mat": meta.getvalue(),
        f"{KIT}/data/ILSVRC2012_validation_ground_truth.txt": truth.encode(),
    }


def with_kit(make: Callable[[World], None], name: str, mode: str, before: str = "") -> Callable[[World], None]:
    def write(world: World) -> None:
        make(world)
        world.write(name, packed({before + file: content for file, content in kit(world).items()}, mode))

    return write


def zipped_kit(world: World) -> None:
    archives(world)
    world.write(f"{KIT}.zip", zipped(kit(world)))


def kit_unpacked(*skipped: str) -> Callable[[World], None]:
    def write(world: World) -> None:
        archives(world)
        for name, content in kit(world).items():
            for part in skipped:
                name = name.replace(part, "")
            world.write(name, content)

    return write


def browser_kit(world: World) -> None:
    archives(world)
    for name, content in kit(world).items():
        world.write(f"{KIT} (1)/{name}", content)


def with_lists(lists: Callable[[World], dict[str, str]], **where: str) -> Callable[[World], None]:
    def write(world: World) -> None:
        flat(world, **where)
        for name, text in lists(world).items():
            world.write(name, text)

    return write


def numbered_names(world: World) -> list[tuple[str, str]]:
    names = [(f"ILSVRC2012_val_{i:08d}", wnid) for i, (_, wnid) in enumerate(world.eval, 1)]
    return names[::-1]  # lists need no order either


def caffe(world: World) -> dict[str, str]:
    order = WNIDS[::-1]
    lines = [f"{name}.JPEG {order.index(wnid)}" for name, wnid in numbered_names(world)]
    return {"val.txt": "\n".join(lines), "synsets.txt": "\n".join(order) + "\n"}


def caffe_alone(world: World) -> dict[str, str]:
    return {"val.txt": "\n".join(f"{name}.JPEG {WNIDS.index(wnid)}" for name, wnid in numbered_names(world))}


def tensorflow(world: World) -> dict[str, str]:
    return {"imagenet_2012_validation_synset_labels.txt": "".join(f"{wnid}\n" for _, wnid in world.eval)}


def kaggle(world: World) -> dict[str, str]:
    lines = [f"{name},{wnid} 85 1 499 272 {wnid} 1 2 3 4 " for name, wnid in numbered_names(world)]
    return {"LOC_val_solution.csv": "\n".join(["ImageId,PredictionString", *lines])}


def script(world: World) -> dict[str, str]:
    lines = [f"mv {name}.JPEG {wnid}/" for name, wnid in numbered_names(world)]
    return {"val/valprep.sh": "\n".join(["#!/bin/bash", *(f"mkdir -p {wnid}" for wnid in WNIDS), *lines])}


def torchvision_meta(world: World) -> None:
    import torch

    flat(world)
    torch.save((dict.fromkeys(WNIDS, ("a thing",)), [wnid for _, wnid in world.eval]), world.root / "meta.bin")


def class_archives(world: World) -> None:
    folders(world)
    for folder in list((world.root / "train").iterdir()):
        world.write(f"train/{folder.name}.tar", packed({path.name: path.read_bytes() for path in folder.iterdir()}))
        shutil.rmtree(folder)


def half_unpacked(world: World) -> None:
    class_archives(world)
    first, *_ = sorted((world.root / "train").iterdir())
    for archive in sorted((world.root / "train").iterdir())[1:]:
        with tarfile.open(archive) as content:
            content.extractall(archive.with_suffix(""))
    assert first.is_file()


def hugging_names(world: World) -> tuple[dict[str, bytes], dict[str, bytes]]:
    train = {f"{Path(name).stem}_{name.split('/')[0]}.JPEG": image for name, image in training_names(world).items()}
    val = {f"ILSVRC2012_val_{i:08d}_{wnid}.JPEG": image for i, (image, wnid) in enumerate(world.eval, 1)}
    return train, val


def hugging_archives(end: str, mode: str, home: str = "data/") -> Callable[[World], None]:
    def write(world: World) -> None:
        train, val = hugging_names(world)
        for number in range(2):
            part = dict(list(train.items())[number::2])
            world.write(f"{home}train_images_{number}{end}", packed(part, mode))
        world.write(f"{home}val_images{end}", packed(val, mode))

    return write


def hugging_flat(world: World) -> None:
    for split, files in zip(("train", "val"), hugging_names(world), strict=True):
        for name, image in files.items():
            world.write(f"{split}/{name}", image)


def parquet(
    world: World,
    name: str,
    images: list[tuple[bytes, str | None]],
    labels: dict[str, list[int]],
    classes: dict[str, list[str]],
    column: str = "image",
) -> None:
    """A table as the `datasets` library writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {column: {"_type": "Image"}} | {
        label: {"names": names, "_type": "ClassLabel"} for label, names in classes.items()
    }
    table = pa.table({column: [{"bytes": content, "path": path} for content, path in images], **labels})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (world.root / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, world.root / name, row_group_size=2)


def imagenet_parquet(world: World) -> None:
    for split, files in zip(("train", "validation"), hugging_names(world), strict=True):
        for number in range(2):
            part = list(files.items())[number::2]
            labels = [WNIDS.index(re.findall(r"n\d{8}", name)[-1]) for name, _ in part]
            # The classes are called in words, so only the images' names tell which they are.
            words = {"label": ["goldfish", "European fire salamander", "bullfrog"]}
            images: list[tuple[bytes, str | None]] = [(image, name) for name, image in part]
            parquet(world, f"data/{split}-0000{number}-of-00002.parquet", images, {"label": labels}, words)


def table_of(home: str, column: str = "image", label: str = "label") -> Callable[[World], None]:
    def write(world: World) -> None:
        for split in SPLITS:
            pixels, labels = world.stacked(split)
            word = "train" if split == "train" else "test"
            told = {label: list(world.classes)}
            values = {label: labels.tolist()}
            if label == "fine_label":
                told["coarse_label"], values["coarse_label"] = ["all"], [0] * len(labels)
            images: list[tuple[bytes, str | None]] = [(png(each), None) for each in pixels]
            parquet(world, f"{home}/{word}-00000-of-00001.parquet", images, values, told, column)

    return write


# Small sets.


def picture_folders(train: str = "train", val: str = "test") -> Callable[[World], None]:
    def write(world: World) -> None:
        for split, folder in zip(SPLITS, (train, val), strict=True):
            for number, (pixels, name) in enumerate(world.split(split)):
                world.write(f"{folder}/{name}/{number}.png", png(pixels))

    return write


def cifar_python(world: World, home: str | None = None, protocol: int = 2) -> None:
    hundred = len(world.classes) == 100
    home = home or ("cifar-100-python" if hundred else "cifar-10-batches-py")
    for split in SPLITS:
        pixels, labels = world.stacked(split)
        names = {"train": [f"data_batch_{number}" for number in range(1, 6)], "eval": ["test_batch"]}[split]
        names = [{"train": "train", "eval": "test"}[split]] if hundred else names
        for name, part, own in zip(
            names, np.array_split(pixels, len(names)), np.array_split(labels, len(names)), strict=True
        ):
            content = {b"data": part.transpose(0, 3, 1, 2).reshape(len(part), -1).copy()}
            content[b"fine_labels" if hundred else b"labels"] = own.tolist()
            world.write(f"{home}/{name}", pickle.dumps(content, protocol))
    key, name = (b"fine_label_names", "meta") if hundred else (b"label_names", "batches.meta")
    world.write(f"{home}/{name}", pickle.dumps({key: [each.encode() for each in world.classes]}, protocol))


def cifar_protocols(world: World) -> None:
    for number, split in enumerate(SPLITS):
        cifar_python(world, f"{number}", protocol=5 * number)
        assert split
    (world.root / "0").rename(world.root / "cifar10")
    for name in ("test_batch", "test"):
        with suppress(FileNotFoundError):
            (world.root / "1" / name).replace(world.root / "cifar10" / name)
    shutil.rmtree(world.root / "1")


def cifar_binary(world: World) -> None:
    hundred = len(world.classes) == 100
    home = "cifar-100-binary" if hundred else "cifar-10-batches-bin"
    for split in SPLITS:
        pixels, labels = world.stacked(split)
        records = [
            bytes([7, label] if hundred else [label]) + each.transpose(2, 0, 1).tobytes()
            for each, label in zip(pixels, labels.tolist(), strict=True)
        ]
        if hundred:
            world.write(f"{home}/{'train' if split == 'train' else 'test'}.bin", b"".join(records))
        elif split == "eval":
            world.write(f"{home}/test_batch.bin", b"".join(records))
        else:
            for number in range(5):
                world.write(f"{home}/data_batch_{number + 1}.bin", b"".join(records[number::5]))
    world.write(f"{home}/{'fine_label_names' if hundred else 'batches.meta'}.txt", "\n".join(world.classes) + "\n\n")


def kaggle_cifar(world: World) -> None:
    for number, (pixels, _) in enumerate(world.train):
        world.write(f"train/{number}.png", png(pixels))
    lines = [f"{number},{name}" for number, (_, name) in enumerate(world.train)]
    world.write("trainLabels.csv", "\r\n".join(["id,label", *lines[::-1]]) + "\r\n")


def archived(make: Callable[[World], None], name: str) -> Callable[[World], None]:
    """What `make` writes, as an archive of the given name."""

    def write(world: World) -> None:
        make(world)
        files = {
            path.relative_to(world.root).as_posix(): path.read_bytes()
            for path in world.root.rglob("*")
            if path.is_file()
        }
        shutil.rmtree(world.root)
        world.write(name, zipped(files) if name.endswith(".zip") else packed(files, "w:gz" if "gz" in name else "w"))

    return write


def idx(spelling: Callable[[str], str], home: str = "") -> Callable[[World], None]:
    def write(world: World) -> None:
        for split, start in zip(SPLITS, ("train", "t10k"), strict=True):
            pixels, labels = world.stacked(split)
            for values, name in (
                (pixels[..., 0], f"{start}-images-idx3-ubyte"),
                (labels, f"{start}-labels-idx1-ubyte"),
            ):
                head = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
                content = head + values.astype(np.uint8).tobytes()
                called = home + spelling(name)
                world.write(called, gzip.compress(content) if called.endswith(".gz") else content)

    return write


def npz(world: World) -> None:
    (train, train_labels), (test, test_labels) = map(world.stacked, SPLITS)
    arrays: Any = {"x_train": train[..., 0], "x_test": test[..., 0]}
    labels: Any = {"y_train": train_labels.astype(np.uint8), "y_test": test_labels.astype(np.uint8)}
    np.savez(world.root / "mnist.npz", **arrays, **labels)


def csv(start: str) -> Callable[[World], None]:
    def write(world: World) -> None:
        for split, word in zip(SPLITS, ("train", "test"), strict=True):
            pixels, labels = world.stacked(split)
            rows = np.concatenate([labels[:, None], pixels.reshape(len(pixels), -1)], axis=1)
            heading = ",".join(["label", *(f"pixel{number}" for number in range(784))])
            world.write(f"{start}_{word}.csv", "\n".join([heading, *(",".join(map(str, row)) for row in rows)]))

    return write


def mat(extra: bool) -> Callable[[World], None]:
    def write(world: World) -> None:
        for split in SPLITS:
            pixels, labels = world.stacked(split)
            names = ["test"] if split == "eval" else ["train", "extra"] if extra else ["train"]
            for part, name in enumerate(names):
                own = slice(part, None, len(names))
                y = np.where(labels[own] == 0, 10, labels[own]).astype(np.uint8)[:, None]
                savemat(world.root / f"{name}_32x32.mat", {"X": pixels[own].transpose(1, 2, 3, 0), "y": y})

    return write


# Tiny-ImageNet and Places365.


def tiny(world: World, home: str = "") -> None:
    world.write(f"{home}wnids.txt", "\n".join(WNIDS[::-1]) + "\n")
    world.write(f"{home}words.txt", "".join(f"{wnid}\ta thing\n" for wnid in WNIDS))
    for number, (image, wnid) in enumerate(world.train):
        world.write(f"{home}train/{wnid}/images/{wnid}_{number}.JPEG", image)
        world.write(f"{home}train/{wnid}/{wnid}_boxes.txt", f"{wnid}_{number}.JPEG\t0\t0\t63\t63\n")
    lines = [f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t62\n" for number, (_, wnid) in enumerate(world.eval)]
    world.write(f"{home}val/val_annotations.txt", "".join(lines[::-1]))
    for number, (image, _) in enumerate(world.eval):
        world.write(f"{home}val/images/val_{number}.JPEG", image)
    world.write(f"{home}test/images/test_0.JPEG", world.eval[0][0])


def tiny_parquet(world: World) -> None:
    for split, word in zip(SPLITS, ("train", "valid"), strict=True):
        images: list[tuple[bytes, str | None]] = [(image, None) for image, _ in world.split(split)]
        labels = {"label": [WNIDS.index(wnid) for _, wnid in world.split(split)]}
        parquet(world, f"data/{word}-00000-of-00001-1359597a978bc4fa.parquet", images, labels, {"label": list(WNIDS)})


def places(train: str, val: str, lists: str = "") -> Callable[[World], None]:
    def write(world: World) -> None:
        listed: dict[str, list[str]] = {"train": [], "eval": []}
        files: dict[str, dict[str, bytes]] = {"train": {}, "eval": {}}
        for number, (image, name) in enumerate(world.train):
            listed["train"].append(f"/{SCENES[name]}/{number:08d}.jpg {list(SCENES).index(name)}")
            files["train"][f"{SCENES[name]}/{number:08d}.jpg"] = image
        for number, (image, name) in enumerate(world.eval, 1):
            listed["eval"].append(f"Places365_val_{number:08d}.jpg {list(SCENES).index(name)}")
            files["eval"][f"Places365_val_{number:08d}.jpg"] = image
        for split, place in zip(SPLITS, (train, val), strict=True):
            if place.endswith(".tar"):
                top = {"train": "data_large", "eval": "val_large"}[split]
                inside = {f"{top}/{name}": image for name, image in reversed(files[split].items())}
                world.write(place, packed(inside))
            else:
                for name, image in files[split].items():
                    world.write(f"{place}/{name}", image)
        world.write(f"{lists}places365_train_standard.txt", "\n".join(listed["train"]))
        world.write(f"{lists}places365_val.txt", "\n".join(listed["eval"]))
        numbered = [f"/{folder} {number}" for number, folder in enumerate(SCENES.values())]
        world.write(f"{lists}categories_places365.txt", "\n".join(numbered))

    return write


def places_list_archive(world: World) -> None:
    lists = world.root / "filelist_places365-standard"
    places("train_large_places365standard.tar", "val_large.tar", f"{lists.name}/")(world)
    world.write(
        f"{lists.name}.tar", packed({f"{lists.name}/{path.name}": path.read_bytes() for path in lists.iterdir()})
    )
    shutil.rmtree(lists)


def scenes(world: World, home: str = "") -> None:
    for split, folder in zip(SPLITS, ("train", "val"), strict=True):
        for number, (image, name) in enumerate(world.split(split)):
            world.write(f"{home}{folder}/{name}/{number:08d}.jpg", image)


def empty(*names: str) -> Callable[[World], None]:
    def write(world: World) -> None:
        for name in names:
            world.write(name, b"")

    return write


READ, COMMAND, NAMED = "read", "a command", "named"


@dataclass
class Form:
    """A row of the table in datasets/README.md, and how the form is made."""

    sets: str
    form: str
    outcome: str
    make: Callable[[World], None]
    splits: tuple[Split, ...] = SPLITS


FORMS = [
    Form("imagenet", "`train/<wnid>/` and `val/<wnid>/`", READ, folders),
    Form(
        "imagenet", "the official archives with the development kit", READ, with_kit(archives, f"{KIT}.tar.gz", "w:gz")
    ),
    Form("imagenet", "the kit as `.tar`, as a browser leaves it", READ, with_kit(archives, f"{KIT}.tar", "w")),
    Form("imagenet", "the kit as a plain tar file called `.tar.gz`", READ, with_kit(archives, f"{KIT}.tar.gz", "w")),
    Form("imagenet", "the kit packed anew with `./` names", READ, with_kit(archives, f"{KIT}.tar.gz", "w:gz", "./")),
    Form("imagenet", "the kit downloaded twice, as `(1).tgz`", READ, with_kit(archives, f"{KIT} (1).tgz", "w:gz")),
    Form("imagenet", "the kit unpacked", READ, kit_unpacked()),
    Form("imagenet", "the kit unpacked without its first folder", READ, kit_unpacked(f"{KIT}/")),
    Form("imagenet", "the kit's two files alone", READ, kit_unpacked(f"{KIT}/", "data/")),
    Form("imagenet", "the kit in a folder that a browser named", READ, browser_kit),
    Form("imagenet", "flat `val/` with the kit", READ, with_kit(flat, f"{KIT}.tar.gz", "w:gz")),
    Form("imagenet", "flat `val/` with Caffe's `val.txt` and `synsets.txt`", READ, with_lists(caffe)),
    Form("imagenet", "flat `val/` with Caffe's `val.txt` alone", COMMAND, with_lists(caffe_alone)),
    Form(
        *("imagenet", "flat `val/` with TensorFlow's `imagenet_2012_validation_synset_labels.txt`", READ),
        with_lists(tensorflow),
    ),
    Form("imagenet", "flat `val/` with the script `valprep.sh`", READ, with_lists(script)),
    Form("imagenet", "flat `val/` with torchvision's `meta.bin`", COMMAND, torchvision_meta),
    Form(
        *("imagenet", "Kaggle's `ILSVRC/Data/CLS-LOC/` with `LOC_val_solution.csv`", READ),
        with_lists(kaggle, train="ILSVRC/Data/CLS-LOC/train", val="ILSVRC/Data/CLS-LOC/val"),
    ),
    Form(
        *("imagenet", "Kaggle's archive as downloaded", COMMAND),
        archived(
            with_lists(kaggle, train="ILSVRC/Data/CLS-LOC/train", val="ILSVRC/Data/CLS-LOC/val"),
            "imagenet-object-localization-challenge.zip",
        ),
    ),
    Form("imagenet", "the archives of single classes in `train/`", COMMAND, class_archives),
    Form("imagenet", "some of them beside class folders", COMMAND, half_unpacked),
    Form("imagenet", "Hugging Face's `train_images_0.tar.gz` and so on", COMMAND, hugging_archives(".tar.gz", "w:gz")),
    Form("imagenet", "these as `.tar`", READ, hugging_archives(".tar", "w", "")),
    Form("imagenet", "these unpacked to flat `train/` and `val/`", READ, hugging_flat),
    Form("imagenet", "Hugging Face's parquet", COMMAND, imagenet_parquet),
    Form("imagenet", "the kit as `.zip`", COMMAND, zipped_kit),
    Form(
        "imagenet",
        "records of TensorFlow or FFCV, shards of WebDataset",
        NAMED,
        empty("train-00000-of-01024", "validation-00000-of-00128"),
    ),
    Form(
        "places365",
        "the folders and lists as torchvision arranges them",
        READ,
        places("data_large_standard", "val_large"),
    ),
    Form(
        *("places365", "the folders and lists as `tar` unpacks them", READ),
        places("data_large", "val_large", "filelist_places365-standard/"),
    ),
    Form(
        *("places365", "the official archives with the lists", READ),
        places("train_large_places365standard.tar", "val_large.tar"),
    ),
    Form("places365", "these with the archive of the lists", COMMAND, places_list_archive),
    Form("places365", "`train/<class>/` and `val/<class>/`", READ, scenes),
    Form(
        "places365_small",
        "the folders and lists as torchvision arranges them",
        READ,
        places("data_256_standard", "val_256"),
    ),
    Form("places365_small", "the folders and lists as `tar` unpacks them", READ, places("data_256", "val_256")),
    Form(
        *("places365_small", "the official archives with the lists", READ),
        places("train_256_places365standard.tar", "val_256.tar"),
    ),
    Form("places365_small", "the easy format unpacked", READ, lambda world: scenes(world, "places365_standard/")),
    Form(
        *("places365_small", "the easy format as downloaded", COMMAND),
        archived(lambda world: scenes(world, "places365_standard/"), "places365standard_easyformat.tar"),
    ),
    Form("places365", "Places365-Challenge", NAMED, empty("train_large_places365challenge.tar")),
    Form("tiny_imagenet", "the tree with `val_annotations.txt`", READ, tiny),
    Form("tiny_imagenet", "the tree in its own folder", READ, lambda world: tiny(world, "tiny-imagenet-200/")),
    Form(
        *("tiny_imagenet", "`tiny-imagenet-200.zip` as downloaded", COMMAND),
        archived(lambda world: tiny(world, "tiny-imagenet-200/"), "tiny-imagenet-200.zip"),
    ),
    Form("tiny_imagenet", "`train/<wnid>/` and `val/<wnid>/`", READ, folders),
    Form("tiny_imagenet", "Hugging Face's parquet", COMMAND, tiny_parquet),
    Form("cifar10", "the python version", READ, cifar_python),
    Form("cifar10", "the same saved anew by any Python, in any protocol of pickles", READ, cifar_protocols),
    Form("cifar10", "the binary version", READ, cifar_binary),
    Form(
        "cifar10", "`cifar-10-python.tar.gz` as downloaded", COMMAND, archived(cifar_python, "cifar-10-python.tar.gz")
    ),
    Form(
        "cifar10", "`cifar-10-binary.tar.gz` as downloaded", COMMAND, archived(cifar_binary, "cifar-10-binary.tar.gz")
    ),
    Form("cifar10", "Kaggle's `train/` with `trainLabels.csv`", COMMAND, kaggle_cifar, ("train",)),
    Form("cifar10", "the MATLAB version", NAMED, empty("cifar-10-batches-mat/data_batch_1.mat")),
    Form("cifar10", "class folders", READ, picture_folders()),
    Form("cifar10", "Hugging Face's parquet", COMMAND, table_of("plain_text", "img")),
    Form("cifar100", "the python version", READ, cifar_python),
    Form("cifar100", "the binary version", READ, cifar_binary),
    Form(
        "cifar100",
        "`cifar-100-python.tar.gz` as downloaded",
        COMMAND,
        archived(cifar_python, "cifar-100-python.tar.gz"),
    ),
    Form(
        "cifar100",
        "`cifar-100-binary.tar.gz` as downloaded",
        COMMAND,
        archived(cifar_binary, "cifar-100-binary.tar.gz"),
    ),
    Form("cifar100", "the MATLAB version", NAMED, empty("cifar-100-matlab/train.mat")),
    Form("cifar100", "class folders", READ, picture_folders()),
    Form("cifar100", "Hugging Face's parquet", COMMAND, table_of("cifar100", "img", "fine_label")),
    Form("svhn", "format 2, the cropped digits", READ, mat(extra=False)),
    Form("svhn", "format 1, the full numbers", NAMED, empty("train.tar.gz", "test.tar.gz")),
    Form("svhn", "class folders", READ, picture_folders()),
    Form("svhn", "Hugging Face's parquet", COMMAND, table_of("cropped_digits")),
    Form("svhn_extra", "format 2, the cropped digits", READ, mat(extra=True)),
    Form("mnist", "the idx files", READ, idx(str)),
    Form("mnist", "the idx files, gzipped", READ, idx(lambda name: f"{name}.gz", "MNIST/raw/")),
    Form(
        "mnist", "the idx files called `train-images.idx3-ubyte`", READ, idx(lambda name: name.replace("-idx", ".idx"))
    ),
    Form("mnist", "Keras's `mnist.npz`", READ, npz),
    Form("mnist", "Kaggle's `mnist_train.csv` and `mnist_test.csv`", READ, csv("mnist")),
    Form("mnist", "torchvision's older `processed/training.pt`", NAMED, empty("MNIST/processed/training.pt")),
    Form("mnist", "`mnist.pkl.gz`", NAMED, empty("mnist.pkl.gz")),
    Form("mnist", "the `train.csv` of Kaggle's competition", NAMED, empty("train.csv", "test.csv")),
    Form("mnist", "class folders, also in `training/` and `testing/`", READ, picture_folders("training", "testing")),
    Form("mnist", "Hugging Face's parquet", COMMAND, table_of("mnist")),
    Form("fashion_mnist", "the idx files", READ, idx(str, "FashionMNIST/raw/")),
    Form("fashion_mnist", "the idx files, gzipped", READ, idx(lambda name: f"{name}.gz")),
    Form(
        "fashion_mnist", "Kaggle's `fashion-mnist_train.csv` and `fashion-mnist_test.csv`", READ, csv("fashion-mnist")
    ),
    Form("fashion_mnist", "Hugging Face's parquet", COMMAND, table_of("fashion_mnist")),
]


@pytest.fixture(scope="module")
def photographs_by_wnid(few_photographs: Path) -> tuple[list[bytes], list[bytes]]:
    """Six photographs to train on and six to evaluate."""
    contents = [path.read_bytes() for path in sorted((few_photographs / "train").glob("*/*"))[:12]]
    return contents[:6], contents[6:]


@pytest.fixture(scope="module")
def small(few_cifar: Path) -> np.ndarray:
    paths = sorted(few_cifar.glob("t*/*/*"))
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


@pytest.fixture(scope="module")
def gray(test_data: Path) -> np.ndarray:
    with gzip.open(test_data / "fashion-mnist/train-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read(16 + 60 * 784), np.uint8, offset=16).reshape(60, 28, 28, 1)


@pytest.fixture(scope="module")
def tiny_images(test_data: Path) -> list[bytes]:
    """Twelve images of the first class."""
    images: list[bytes] = []
    with tarfile.open(test_data / "tiny-imagenet-80.tar.xz") as archive:
        for member in archive:
            if member.isfile():
                images.append(archive.extractfile(member).read())  # type: ignore[union-attr]
            if len(images) == 12:
                return images
    return images


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    photographs_by_wnid: tuple[list[bytes], list[bytes]],
    small: np.ndarray,
    gray: np.ndarray,
    tiny_images: list[bytes],
) -> World:
    """The images of the form's data set; labels are in no order."""
    name = request.param
    root = tmp_path / "my data" / name  # commands have to quote it
    root.mkdir(parents=True)
    if name == "tiny_imagenet" or name == "imagenet" or name.startswith("places"):
        classes = tuple(SCENES) if name.startswith("places") else WNIDS
        train, val = (tiny_images[:6], tiny_images[6:]) if name == "tiny_imagenet" else photographs_by_wnid
        order = [classes[place] for place in (2, 0, 1, 1, 0, 2)]
        return World(root, list(zip(train, order, strict=True)), list(zip(val, order[::-1], strict=True)), classes)
    classes = {
        "cifar10": TEN,
        "cifar100": tuple(f"kind_{number:02d}" for number in range(100)),
        "fashion_mnist": CLOTHES,
    }.get(name, tuple("0123456789"))
    pixels = gray if "mnist" in name else small
    count = 100 if name == "cifar100" else 20
    labels = np.random.default_rng(0).permutation(np.arange(count) % len(classes))
    first = [(pixels[i % len(pixels)], classes[label]) for i, label in enumerate(labels)]
    others = [(pixels[-1 - i % len(pixels)], classes[label]) for i, label in enumerate(labels[::-1])]
    return World(root, first, others, classes)


def decoded(found: dict[str, Counter[tuple[bytes, str]]]) -> dict[str, Counter[tuple[bytes, str]]]:
    return {
        split: Counter(
            (np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).tobytes(), name)
            for image, name in each.elements()
        )
        for split, each in found.items()
    }


@pytest.mark.parametrize(
    ("world", "form"),
    [(form.sets, form) for form in FORMS],
    indirect=["world"],
    ids=[f"{f.sets}: {f.form}" for f in FORMS],
)
def test_a_public_form_is_read_or_named_with_its_cure(world: World, form: Form) -> None:
    form.make(world)
    right, root = expected(world), world.root
    if form.sets == "tiny_imagenet":
        right = decoded(right)
    if form.outcome != READ:
        with pytest.raises(BadInput) as caught:
            everything(form.sets, root, form.splits)
        message = str(caught.value)
        assert "\n" not in message
        assert str(root) in message
        if form.outcome == NAMED:
            assert "which is not read as it is" in message
            assert "://" in message, "it says where another form is"
            return
        root = cured(message, root)
    found = everything(form.sets, root, form.splits)
    if form.sets == "fashion_mnist" and form.outcome == COMMAND:  # a folder cannot be called T-shirt/top
        right = {s: Counter({(i, n.replace("/", "-")): k for (i, n), k in each.items()}) for s, each in right.items()}
    assert found == {split: right[split] for split in form.splits}
    for split in set(SPLITS) - set(form.splits):
        with pytest.raises(MissingSplit, match="has no evaluation images"):
            open_split(form.sets, split, root)


def cured(message: str, root: Path) -> Path:
    """Types the command that a message tells; returns where the data set is then."""
    told = re.search(r"(?:type: |the training images: )(.*?)(?:; then give --data-root (.*))?$", message)
    assert told, message
    command = re.sub(
        "^python ", f"{sys.executable} ", re.sub("^sslticket ", f"{sys.executable} -m sslticket ", told[1])
    )
    subprocess.run(["bash", "-ec", command], check=True, capture_output=True, text=True, timeout=120)
    return Path(*shlex.split(told[2])) if told[2] else root


def test_the_readme_lists_these_forms_and_no_others() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (read|a command|named) \|", README.read_text(), re.MULTILINE)
    assert rows == [(form.sets, form.form, form.outcome) for form in FORMS]
