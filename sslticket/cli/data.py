"""`sslticket data list | verify | pack | unpack`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from sslticket.cli import flags
from sslticket.errors import BadInput
from sslticket.escaping import shell, terminal
from sslticket.machine import Machine


def add(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its own commands."""
    parser = commands.add_parser("data", help="list data sets, verify one, or pack one into shards of smaller images")
    own = parser.add_subparsers(metavar="COMMAND", required=True)
    listing = own.add_parser("list", help="the known data sets, and where each was found")
    listing.set_defaults(command=_list)
    verify = own.add_parser(
        "verify",
        help="count images and classes, compare MD5 sums, decode images",
        description="Compare a data set with what was published: its images and classes, and the MD5 sums of official\n"
        "files. Decodes as many images as asked for and names every one that cannot be read. Ends with code 2 if\n"
        "anything is not as it should be.",
    )
    verify.add_argument("name", help="such as imagenet; sslticket data list shows all")
    _add_root(verify)
    verify.add_argument("--decode", default="0", metavar="N", help="images of each split to decode, or all [0]")
    verify.add_argument("--no-md5", action="store_true", help="compare no MD5 sums; ImageNet's take minutes")
    verify.set_defaults(command=_verify)
    pack = own.add_parser(
        "pack",
        help="write tar shards of images shrunk to a given short side",
        description="Write WebDataset shards with DALI's index, to be read with --data-root OUT. Images with a longer\n"
        "short side are shrunk and become JPEGs; others are taken as they are. Interrupted, the same command goes on.",
    )
    pack.add_argument("name", help="such as imagenet; sslticket data list shows all")
    pack.add_argument("out", type=Path, help="folder of the shards, new or of the same command before")
    _add_root(pack)
    pack.add_argument("--short-side", type=int, required=True, metavar="PIXELS", help="such as 256")
    pack.add_argument("--quality", type=int, default=95, help="of the JPEGs, 1 to 100 [95]")
    pack.add_argument("--shard-size", type=int, default=10_000, metavar="IMAGES", help="in a tar file [10000]")
    pack.set_defaults(command=_pack)
    unpack = own.add_parser(
        "unpack",
        help="write Hugging Face's parquet tables as class folders",
        description="Write the images in Hugging Face's parquet tables, byte for byte, to train/<class>/ and\n"
        "val/<class>/, to be read with --data-root OUT. Interrupted, the same command goes on.",
    )
    unpack.add_argument("name", help="such as imagenet; sslticket data list shows all")
    unpack.add_argument("out", type=Path, help="folder of the images, new")
    unpack.add_argument("--data-root", type=Path, metavar="PATH", required=True, help="folder of the tables")
    unpack.set_defaults(command=_unpack)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", type=Path, metavar="PATH", help="folder of the data set [the usual places]")


def _list(given: argparse.Namespace) -> None:
    from sslticket.data import places
    from sslticket.data.catalogue import DATASETS

    rows = [("name", "train / evaluation", "classes", "channels", "licence", "found")]
    for entry in DATASETS.values():
        here = None if entry.layout == "sklearn" else places.look(entry, None)
        found = (
            "inside scikit-learn" if entry.layout == "sklearn" else terminal(str(here.folder)) if here else "not found"
        )
        images = " / ".join(f"{count:,}" for count in entry.images) if entry.images else "yours"
        classes = f"{entry.classes:,}" if entry.classes else "yours"
        rows.append((entry.name, images, classes, str(entry.channels), entry.licence, found))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _verify(given: argparse.Namespace) -> None:
    from sslticket.data.catalogue import dataset
    from sslticket.data.verifying import verify

    if given.decode != "all" and not given.decode.isdigit():
        raise BadInput(f"--decode {given.decode!r} is no number of images; give a number, or all")
    problems = 0
    findings = verify(
        given.name,
        given.data_root,
        decode=None if given.decode == "all" else int(given.decode),
        md5=not given.no_md5,
        threads=Machine().decoders,
        stage=_stage,
    )
    for finding in findings:
        print(terminal(finding.text if finding.good else f"PROBLEM {finding.text}"), flush=True)
        problems += not finding.good
    if problems:
        raise BadInput(f"{given.name} has {problems} problem{'s' if problems > 1 else ''}, named above")
    published = given.decode == "all" and not given.no_md5 and dataset(given.name).images is not None
    print(f"{given.name} is as it was published" if published else f"no problem found in {given.name}")


def _pack(given: argparse.Namespace) -> None:
    from sslticket.data.opening import open_split
    from sslticket.data.parts import differs, is_whole
    from sslticket.data.places import MissingSplit
    from sslticket.data.sharding import Packing, begin, pack

    how = Packing(short_side=given.short_side, quality=given.quality, shard_size=given.shard_size)
    sources = [open_split(given.name, "train", given.data_root)]
    try:
        sources.append(open_split(given.name, "eval", given.data_root))
    except MissingSplit as error:
        print(f"note: {error}", file=sys.stderr)
    if sources[0].images is not None:
        raise BadInput(f"{given.name} is kept whole in memory; there is nothing to pack, use it as it is")
    for source in sources:
        if not is_whole(source):
            print(f"note: {terminal(differs(source))}; runs on these shards need --part NAME", file=sys.stderr)
    manifests = [source.manifest for source in sources]
    begin(manifests, given.out, how)
    for manifest in manifests:
        bad = pack(manifest, given.out, how, _stage(manifest.split, len(manifest)))
        unreadable = f", {len(bad):,} that cannot be read as they are" if bad else ""
        print(f"{manifest.split}: {len(manifest):,} images packed{unreadable}")
    print(f"next: give --data-root {shell(str(given.out))} in place of the folder of the images")


def _unpack(given: argparse.Namespace) -> None:
    from sslticket.data.catalogue import dataset
    from sslticket.data.unpacking import unpack

    for split, count in unpack(dataset(given.name), given.data_root, given.out, _stage).items():
        print(f"{split}: {count:,} images unpacked")
    print(f"next: give --data-root {given.out} in place of the folder of the tables")


def _stage(what: str, total: int) -> Callable[[int], object]:
    """A progress bar, which is gone when it is full."""
    bar = tqdm(total=total, desc=what, unit_scale=True, leave=False, disable=None)

    def advance(done: int) -> None:
        bar.update(done)
        if bar.n >= total:
            bar.close()

    return advance
