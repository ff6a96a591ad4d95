"""What the members of an archive are called, and which of them are images of which class."""

import io
import tarfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sslticket.data.source import open_split
from sslticket.data.tar import list_tar

Refused = Callable[..., AbstractContextManager[None]]
Entries = list[tuple[str, bytes]]

WNIDS = ("n01440764", "n01443537", "n01484850")
IMAGES = {wnid: [(f"{wnid}_{place}.JPEG", f"{wnid} {place}".encode()) for place in range(3)] for wnid in WNIDS}
NAMES = [f"{wnid}/{name}" for wnid in WNIDS for name, _ in IMAGES[wnid]]


def tar(entries: Iterable[tuple[str, bytes] | tarfile.TarInfo]) -> bytes:
    """A tar file of these files, or of these headers without content."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            header = tarfile.TarInfo(entry[0])
            header.size = len(entry[1])
            archive.addfile(header, io.BytesIO(entry[1]))
    return written.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def inner(name: str = "{name}", extra: Entries | None = None) -> Entries:
    """The archives of the classes, their members called so."""
    return [
        (f"{wnid}.tar", tar([(name.format(wnid=wnid, name=own), data) for own, data in IMAGES[wnid]] + (extra or [])))
        for wnid in WNIDS
    ]


def in_folders(above: str = "") -> Entries:
    return [(f"{above}{wnid}/{name}", data) for wnid in WNIDS for name, data in IMAGES[wnid]]


def place(folder: Path, entries: Iterable[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar(entries))
    return folder


STRAYS = [("README.txt", b"hello"), ("._n01440764.tar", b"macOS"), ("__MACOSX/n01440764.tar", b"macOS")]
FORMS: dict[str, Entries] = {
    "as published": inner(),
    "backwards": inner()[::-1],
    "files beside the archives": [*STRAYS, *inner()],
    "files within the archives": inner(extra=[("Thumbs.db", b""), ("._1.JPEG", b""), ("labels.csv", b"")]),
    "./ before the archives": [(f"./{name}", data) for name, data in inner()],
    "archives in a folder": [(f"./train/{name}", data) for name, data in inner()],
    "./ before the images": inner("./{name}"),
    "a folder in each archive": inner("{wnid}/{name}"),
    "folders in each archive": inner("./train/{wnid}/{name}"),
    "class folders": in_folders(),
    "class folders in a folder": in_folders("./ILSVRC2012/train/"),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_have_the_names_that_class_folders_give_them(form: str, tmp_path: Path) -> None:
    manifest = open_split("imagenet", "train", place(tmp_path, FORMS[form])).manifest
    assert (list(manifest.frame["file"]), manifest.classes) == (NAMES, WNIDS)
    content = manifest.archives[0].read_bytes()
    assert [content[start : start + size].decode() for _, start, size in manifest.byte_ranges] == [
        f"{wnid} {number}" for wnid in WNIDS for number in range(3)
    ]


def test_what_is_left_out_is_named_from_the_archive_and_from_the_cache(tmp_path: Path) -> None:
    folder = special("n01491361/", tarfile.DIRTYPE)
    place(tmp_path, [*STRAYS, folder, *inner(extra=[("a.csv", b"")])[:1], *inner()[1:]])
    expected = {*(name for name, _ in STRAYS), "n01491361/", "n01440764.tar/a.csv"}
    for _ in range(2):
        assert {*open_split("imagenet", "train", tmp_path).left_out} == expected


REFUSED: dict[str, tuple[list[tuple[str, bytes] | tarfile.TarInfo], str]] = {
    "an image twice": ([*in_folders(), in_folders()[4]], "'n01443537/n01443537_1.JPEG', twice"),
    "an image twice, once with ./": ([*in_folders(), (f"./{NAMES[0]}", b"other")], f"'./{NAMES[0]}', twice"),
    "an archive twice": ([*inner(), inner()[1]], "'n01443537.tar', twice"),
    "a class as an archive and as a folder": ([*inner(), in_folders()[0]], f"{NAMES[0]!r}, which are one image"),
    "a class in two folders": ([*in_folders("a/"), *in_folders("b/")], f"'b/{NAMES[0]}' and 'a/{NAMES[0]}'"),
    "an image beside the class folders": ([*in_folders(), ("1.JPEG", b"1")], "'1.JPEG'"),
    "an image beside the archives": ([*inner(), ("1.JPEG", b"1")], "'1.JPEG'"),
    "an image deeper than the others": ([*in_folders(), ("a/b/1.JPEG", b"1")], "'a/b/1.JPEG'"),
    "images of no class": ([("1.JPEG", b"1"), ("2.JPEG", b"2")], "1.JPEG"),
    "another folder in an archive": ([*inner(), ("n1.tar", tar([("n2/1.JPEG", b"1")]))], "in n1.tar, has 'n2/1.JPEG'"),
    "an archive without images": ([*inner(), ("n1.tar", tar([("a.txt", b"1")]))], "in n1.tar, has no images"),
    "an archive in an archive's archive": ([*inner(), ("n1.tar", tar(inner()))], "'n01440764.tar', an archive in"),
    "a compressed archive": ([*inner(), ("n1.tar.gz", b"1")], "'n1.tar.gz', a compressed archive"),
    "a symbolic link": ([*in_folders(), special("a/1.JPEG", tarfile.SYMTYPE, "../x")], "'a/1.JPEG', a link"),
    "a hard link": ([*in_folders(), special("a/1.JPEG", tarfile.LNKTYPE, NAMES[0])], "'a/1.JPEG', a link"),
    "an archive that is a link": ([*inner(), special("n1.tar", tarfile.SYMTYPE, "../x")], "'n1.tar', a link"),
    "a FIFO": ([*in_folders(), special("a/1.JPEG", tarfile.FIFOTYPE)], "'a/1.JPEG', which is no regular file"),
    "a device": ([*in_folders(), special("a/1.JPEG", tarfile.CHRTYPE)], "'a/1.JPEG', which is no regular file"),
    "a path out of the archive": ([*in_folders(), ("../a/1.JPEG", b"1")], "'../a/1.JPEG', which leads out"),
    "an absolute path": ([*in_folders(), ("/a/1.JPEG", b"1")], "'/a/1.JPEG', which leads out"),
    "nothing but text": ([("README.txt", b"hello")], "no images in"),
    "two classes that read the same": (
        [("caf\u00e9/1.jpg", b"1"), ("cafe\u0301/1.jpg", b"1")],
        "two classes that read",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_leaves_an_image_or_its_class_open_is_refused_by_name(what: str, tmp_path: Path, refused: Refused) -> None:
    entries, words = REFUSED[what]
    with refused(str(place(tmp_path, entries) / "ILSVRC2012_img_train.tar"), words):
        open_split("imagenet", "train", tmp_path)


def test_a_sparse_member_is_refused(tmp_path: Path, refused: Refused) -> None:
    """What GNU tar --sparse writes: the stored bytes are not the file's."""
    header = special("a/1.JPEG", tarfile.GNUTYPE_SPARSE)
    header.size = 512
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (1024, 512)  # one piece of 512 bytes, at 1024
    block[483:495] = b"%011o\0" % 1536
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "x.tar").write_bytes(bytes(block) + bytes(512 * 21))
    with refused("'a/1.JPEG', which is no regular file"):
        list_tar(tmp_path / "x.tar")


def test_strays_of_any_kind_are_no_obstacle(tmp_path: Path) -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
    strays = [special(f"stray{place}", kind, "x") for place, kind in enumerate(kinds)]
    found = list_tar(place(tmp_path, [*strays, ("/etc/passwd", b""), *in_folders()]) / "ILSVRC2012_img_train.tar")
    assert [image.name for image in found.images] == NAMES
    assert found.left_out == [*(entry.name for entry in strays), "/etc/passwd"]


def test_names_are_what_was_stored_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.tar").write_bytes(tar([("caf\u00e9/1.jpg", b"1"), ("caf\udce9/1.jpg", b"2")]))
    monkeypatch.setattr(tarfile, "ENCODING", "iso8859-1")
    assert [image.name for image in list_tar(tmp_path / "x.tar").images] == ["caf\u00e9/1.jpg", "caf\udce9/1.jpg"]
