"""The `sslticket` command: its parser, and the commands that need no flags of a recipe or of tickets.

Imports that take time wait until a command needs them, so that `sslticket --help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslticket import hub
from sslticket.cli import campaign_commands, inspect_commands, reproduce_command, ticket_commands
from sslticket.cli.exit_status import run_and_exit
from sslticket.cli.ticket_commands import add_parts_flag, count_rows
from sslticket.config import flags
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.escaping import escape_lines, escape_terminal, shell_quote
from sslticket.processes.allocator import keep_freed_memory
from sslticket.registry import load_user_file

if TYPE_CHECKING:
    from sslticket.training.trackers import TrackerSet

_DESCRIPTION = """Lottery tickets from limited or no supervision.

A search is a recipe, and leaves tickets in runs/<key>:
    accelerate launch -m sslticket run rotnet_resnet50 --subset 0.1
The other commands score, analyse, draw, watch and export them."""
RECIPE_HELP = "a published recipe such as rotnet_resnet50, a file mine.py, or mine.py:NAME for one of its recipes"

_OTHER_OUTPUT = {
    "rows": "another name with -o",
    "show": "another name with -o",
    "export": "another OUT",
    "import": "another OUT",
    "run": "another folder with --out",
    "sweep": "another folder with --out",
    "reproduce": "another folder with --out",
    "rescore": "another folder with --out",
    **dict.fromkeys(("evaluate", "analyse"), "a copy of the run's folder where you can write"),
}
"""Where else a command can write; what the others write lies in the folders of their runs."""


def main() -> None:
    """The `sslticket` command."""
    keep_freed_memory()
    words = sys.argv[1:]
    run_and_exit(lambda: run_command(words), _OTHER_OUTPUT.get("".join(words[:1]), "another place"))


def run_command(words: Sequence[str]) -> None:
    """Parse the words of a command line and run the command that they name."""
    parser = make_parser()
    given = parser.parse_args(words)
    for file in getattr(given, "parts", ()):
        load_user_file(file)
    if given.version:
        from importlib.metadata import version

        print(f"sslticket {version('sslticket')}")
    elif hasattr(given, "command"):
        given.command(given)
    else:
        parser.print_help()


def make_parser() -> flags.Parser:
    """The parser of the command and of its subcommands; parsing runs nothing."""
    parser = flags.Parser(prog="sslticket", description=_DESCRIPTION)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    reports = (_add_report, _add_rows, _add_inspect)
    for add in (
        _add_run,
        ticket_commands.add_evaluate,
        ticket_commands.add_analyse,
        ticket_commands.add_rescore,
        campaign_commands.add_sweep,
        reproduce_command.add_reproduce,
        inspect_commands.add_watch,
        *reports,
        _add_export,
        _add_import,
        _add_show,
        _add_data,
    ):
        add(commands)
    return parser


def _add_report(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = commands.add_parser(
        "report",
        help="draw accuracy against density from the rows of runs",
        description="Read the rows below the given folders and in the given tables, and write one self-contained page\n"
        "and a PNG beside it; on request each figure as a file, with a Vega-Lite specification beside it, and\n"
        "the means as a LaTeX table.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help=ROWS_HELP)
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="the page [report.html]")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="a folder for each figure as a file [none]")
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="pdf", help="of these files [pdf]")
    parser.add_argument(
        "--width", type=_read_width, default=7.2, metavar="LENGTH", help="of each, as 3.25in, 8.2cm or 82mm [7.2in]"
    )
    parser.add_argument("--latex", type=Path, metavar="TABLE.tex", help="the means as a table for LaTeX [none]")
    parser.add_argument(
        "--log",
        nargs="+",
        default=(),
        metavar="NAME",
        help="trackers that get page, figures and tables: wandb, mlflow, trackio, comet, or mine.py:Mine [none]",
    )
    add_parts_flag(parser)
    parser.set_defaults(command=_run_report)


def _add_rows(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = commands.add_parser(
        "rows",
        help="put the rows of runs into one table for other programs",
        description="Read the rows below the given folders and in the given tables, and write them as one table, a\n"
        "line for each measurement; docs/rows.md tells its columns.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help=ROWS_HELP)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("rows.csv"), help="a name ending in .parquet or .csv [rows.csv]"
    )
    add_parts_flag(parser)
    parser.set_defaults(command=_run_rows)


def _add_inspect(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = commands.add_parser("inspect", help="print what a ticket holds and where it comes from")
    parser.add_argument("ticket", help=TICKET_HELP)
    add_parts_flag(parser)
    parser.set_defaults(command=_run_inspect)


def _add_show(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = commands.add_parser(
        "show",
        help="draw what the network sees of the first images under a recipe",
        description="Write a contact sheet of the first images of the first batch, one a row: as evaluations see it,\n"
        "then each view that the objective looks at. After RECIPE, every flag of the recipe may follow.",
    )
    _add_sheet_flags(parser)
    parser.add_argument("recipe", metavar="RECIPE", help=RECIPE_HELP)
    parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="...", help="of this command or of the recipe")
    parser.set_defaults(command=_run_show)


def _add_run(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = commands.add_parser(
        "run",
        help="run the search of a recipe, a published one or one of your own",
        description="Find the tickets of a recipe: train, prune and rewind, level by level. The same command goes on\n"
        "from the last finished level. `sslticket run RECIPE --help` lists the flags of the recipe.\n"
        "On several devices: accelerate launch -m sslticket run RECIPE ...",
    )
    parser.add_argument("recipe", metavar="RECIPE", help=RECIPE_HELP)
    parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="...", help="flags of the recipe")
    parser.set_defaults(command=_run_recipe)


def _add_sheet_flags(parser: flags.Parser) -> None:
    """The flags of a contact sheet, which may stand on either side of the recipe's name."""
    sheet = parser.add_argument_group("sheet")
    sheet.add_argument("-o", "--output", type=Path, default=Path("views.png"), help="the picture [views.png]")
    sheet.add_argument("--images", type=int, default=6, help="of the batch, one a row [6]")
    sheet.add_argument("--sheet-width", type=int, default=1920, metavar="PIXELS", help="at most [1920]")


_INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72.27}


def _read_width(told: str) -> float:
    """A length as LaTeX writes it, in inches."""
    number, unit = told[:-2].strip(), told[-2:]
    try:
        return float(number) * _INCHES[unit]
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(
            f"{told!r} is no length; give a number and its unit, {', '.join(_INCHES)}: 3.25in"
        ) from None


def _run_report(given: argparse.Namespace) -> None:
    from sslticket import report

    trackers = _check_trackers(given.log)
    written = report.write_report(
        given.runs, given.output, figures=given.figures, kind=given.format, latex=given.latex, width=given.width
    )
    if written.text:
        print(escape_lines(written.text))
    _print_notes(written.notes)
    if written.figures:
        print(f"figures: {len(written.figures)} in {given.figures}")
    if written.latex:
        print(f"table: {written.latex}")
    print(f"figure: {written.png}\nreport: {written.html}")
    if trackers:
        files = [written.html, written.png, *written.figures, *([written.latex] if written.latex else [])]
        trackers.log_report(given.output.absolute().parent, given.output.stem, files, _note)


def _check_trackers(names: Sequence[str]) -> "TrackerSet | None":
    """The trackers that --log names, which can be used; None for none."""
    if not names:
        return None
    from sslticket.training.trackers import TrackerSet  # imports torch

    trackers = TrackerSet(names)
    trackers.check()
    return trackers


def _run_rows(given: argparse.Namespace) -> None:
    from sslticket.report import content
    from sslticket.results import table

    written = table.write_table(given.runs, given.output)
    _print_notes(content.notes_of_rows(written.frame))
    print(f"table: {given.output}, {count_rows(written.rows)}")


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {escape_terminal(note)}")


def _run_inspect(given: argparse.Namespace) -> None:
    from sslticket.cli.inspect_commands import describe_ticket
    from sslticket.ticket import Ticket

    file = hub.resolve_ticket_file(given.ticket)
    print(describe_ticket(Ticket.load(file).with_parts(), given.ticket, file.stat().st_size))


def _run_recipe(given: argparse.Namespace) -> None:
    from sslticket.cli import recipe_commands
    from sslticket.config.recipe_files import load_recipes

    recipes = load_recipes(given.recipe)
    chosen = next(iter(recipes.values())) if len(recipes) == 1 else recipes
    recipe_commands.run_named(chosen, given.flags, f"sslticket run {given.recipe}")


def _run_show(given: argparse.Namespace) -> None:
    from sslticket.cli import recipe_commands
    from sslticket.config.recipe_files import load_recipe

    found = load_recipe(given.recipe)
    parser = flags.Parser(prog=f"sslticket show {given.recipe}")
    _add_sheet_flags(parser)
    found = flags.choose_parts(found, given.flags)
    recipe_commands.add_recipe_flags(parser, found)
    before = argparse.Namespace(output=given.output, images=given.images, sheet_width=given.sheet_width)
    words = vars(parser.parse_args(given.flags, before))
    words |= recipe_commands.find_folder(words.get("dataset", found.data.dataset), words.get("data_root"))
    resolved, machine = flags.resolve_recipe(found, words), flags.override_fields(RuntimeConfig(), words)
    print(
        escape_lines(
            recipe_commands.show_views(resolved, machine, before.output, images=before.images, width=before.sheet_width)
        )
    )


ROWS_HELP = "folders of runs, and tables of rows that end in .parquet or .csv"
TICKET_HELP = "a .safetensors file that a search wrote, an exported folder, or hf://USER/NAME[@REVISION][/PATH]"


def _add_export(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command."""
    parser = commands.add_parser(
        "export",
        help="write a ticket for the Hugging Face Hub, as a state dict, or as ONNX",
        description="Write a folder for the Hugging Face Hub: the ticket, its weights as a plain state dict, a model\n"
        "card with accuracy against density, and config.json. Where OUT ends in .safetensors, .pt or .pth, write a\n"
        "state dict with the mask applied, and where it ends in .onnx, the network. Nothing that is there is replaced.",
    )
    parser.add_argument("ticket", metavar="TICKET", help=TICKET_HELP)
    parser.add_argument("out", metavar="OUT", type=Path, help="a new folder, or a file's name with such an ending")
    parser.add_argument(
        "--format",
        choices=("plain", "prune"),
        help="of a state dict: W_k x mask, or <weight>_orig and <weight>_mask as torch.nn.utils.prune has them [plain]",
    )
    parser.add_argument(
        "--data-licence", metavar="TEXT", help="of the images, for the card, such as 'CC BY 4.0' [the catalogue's]"
    )
    add_parts_flag(parser)
    parser.set_defaults(command=_run_export)


def _run_export(given: argparse.Namespace) -> None:
    from sslticket.export.writer import export_ticket

    print(escape_lines(export_ticket(given.ticket, given.out, layout=given.format, licence=given.data_licence)))


def _add_import(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command."""
    parser = commands.add_parser(
        "import",
        help="make tickets of what other tools found: open_lth, torch.nn.utils.prune, RigL, sparse checkpoints",
        description="Write tickets of other tools' files: a folder of open_lth with its levels, or a checkpoint with\n"
        "masks (torch.nn.utils.prune, weight_mask, RigL, masks alone) or whose zeros are the mask. What they do not\n"
        "tell stays unknown, unless the flags say it. No code in them is run. docs/importing.md has examples.",
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="a checkpoint, or a folder of open_lth")
    parser.add_argument("out", metavar="OUT", type=Path, help="a name ending in .safetensors, or a folder of a run")
    told = {
        "model": (
            str,
            "NAME",
            "a name here, of timm or torchvision, or file.py:function [as SOURCE says]",
        ),
        "early": (Path, "W_k", "a checkpoint with the early weights, where SOURCE has a mask and later ones or none"),
        "level": (int, "N", "how often the search had pruned; of open_lth, the one level that is taken"),
        "dataset": (str, "NAME", "what the ticket was found on, such as cifar10"),
        "objective": (str, "NAME", "what the network learnt, such as supervised"),
        "seed": (int, "N", "of the search"),
        "rewind-samples": (int, "N", "images that the network had seen at W_k"),
        "image-size": (int, "PIXELS", "side of the images that the network takes"),
        "channels": (int, "N", "of these images"),
    }
    for name, (kind, metavar, help_) in told.items():
        known = "" if name == "model" else " [unknown, where SOURCE does not tell]"
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, help=help_ + known)
    parser.set_defaults(command=_run_import)


def _run_import(given: argparse.Namespace) -> None:
    from dataclasses import fields

    from sslticket.export.description import density_text
    from sslticket.importing.importer import Origin, import_tickets

    origin = Origin(**{field.name: getattr(given, field.name) for field in fields(Origin)})
    unknown: dict[str, None] = {}
    last = given.out
    for path, ticket in import_tickets(given.source, given.out, origin):
        print(escape_terminal(f"{path}: level {density_text(ticket)}"), flush=True)
        unknown |= dict.fromkeys(ticket.provenance["imported"]["unknown"])
        last = path if path.stem != "initial" else last
    can_say = [f"--{name.replace('_', '-')}" for name in unknown if hasattr(origin, name)]
    said = f"; who knows says it with {', '.join(can_say)}" if can_say else ""
    print(f"unknown: {', '.join(unknown)}{said}")
    print(f"next: sslticket inspect {shell_quote(str(last))}")


def _add_data(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its own commands."""
    parser = commands.add_parser("data", help="list data sets, verify one, or pack one into shards of smaller images")
    own = parser.add_subparsers(metavar="COMMAND", required=True)
    listing = own.add_parser("list", help="the known data sets, and where each was found")
    listing.set_defaults(command=_run_data_list)
    verify = own.add_parser(
        "verify",
        help="count images and classes, compare MD5 sums, decode images",
        description="Compare a data set with what was published: its images and classes, and the MD5 sums of official\n"
        "files. Decodes as many images as asked for and names every one that cannot be read. Ends with code 2 if\n"
        "anything is not as it should be.",
    )
    verify.add_argument("name", help="such as imagenet; sslticket data list shows all")
    _add_data_root(verify)
    verify.add_argument("--decode", default="0", metavar="N", help="images of each split to decode, or all [0]")
    verify.add_argument("--no-md5", action="store_true", help="compare no MD5 sums; ImageNet's take minutes")
    verify.set_defaults(command=_run_data_verify)
    pack = own.add_parser(
        "pack",
        help="write tar shards of images shrunk to a given short side",
        description="Write WebDataset shards with DALI's index, to be read with --data-root OUT. Images with a longer\n"
        "short side are shrunk and become JPEGs; others are taken as they are. Interrupted, the same command goes on.",
    )
    pack.add_argument("name", help="such as imagenet; sslticket data list shows all")
    pack.add_argument("out", type=Path, help="folder of the shards, new or of the same command before")
    _add_data_root(pack)
    pack.add_argument("--short-side", type=int, required=True, metavar="PIXELS", help="such as 256")
    pack.add_argument("--quality", type=int, default=95, help="of the JPEGs, 1 to 100 [95]")
    pack.add_argument("--shard-size", type=int, default=10_000, metavar="IMAGES", help="in a tar file [10000]")
    pack.set_defaults(command=_run_data_pack)
    unpack = own.add_parser(
        "unpack",
        help="write Hugging Face's parquet tables as class folders",
        description="Write the images in Hugging Face's parquet tables, byte for byte, to train/<class>/ and\n"
        "val/<class>/, to be read with --data-root OUT. Interrupted, the same command goes on.",
    )
    unpack.add_argument("name", help="such as imagenet; sslticket data list shows all")
    unpack.add_argument("out", type=Path, help="folder of the images, new")
    unpack.add_argument("--data-root", type=Path, metavar="PATH", required=True, help="folder of the tables")
    unpack.set_defaults(command=_run_data_unpack)


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-root", type=Path, metavar="PATH", help="folder of the data set [the usual places]")


def _run_data_list(given: argparse.Namespace) -> None:
    from sslticket.data.datasets import DATASETS, locate

    rows = [("name", "train / evaluation", "classes", "channels", "licence", "found")]
    for entry in map(DATASETS.get, DATASETS.names()):
        here = None if entry.layout.package else locate.find_local_dataset(entry, None)
        inside = f"inside {entry.layout.package}" if entry.layout.package else "not found"
        found = escape_terminal(str(here.folder)) if here else inside
        images = " / ".join(f"{count:,}" for count in entry.image_counts) if entry.image_counts else "yours"
        classes = f"{entry.classes:,}" if entry.classes else "yours"
        rows.append((entry.name, images, classes, str(entry.channels), entry.licence, found))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _run_data_verify(given: argparse.Namespace) -> None:
    from sslticket.data.datasets.catalogue import find_folder_path, load_dataset
    from sslticket.data.source import verify_dataset

    given.name, given.data_root = find_folder_path(given.name, given.data_root)

    if given.decode != "all" and not given.decode.isdigit():
        raise BadInput(f"--decode {given.decode!r} is no number of images; give a number, or all")
    problems, entry = 0, load_dataset(given.name)
    findings = verify_dataset(
        entry.name,
        given.data_root,
        decode=None if given.decode == "all" else int(given.decode),
        md5=not given.no_md5,
        threads=RuntimeConfig().decode_threads,
        stage=_progress_bar,
    )
    for finding in findings:
        print(escape_terminal(finding.text if finding.ok else f"PROBLEM {finding.text}"), flush=True)
        problems += not finding.ok
    if problems:
        raise BadInput(f"{given.name} has {problems} problem{'s' if problems > 1 else ''}, named above")
    published = given.decode == "all" and not given.no_md5 and entry.image_counts is not None
    print(f"{given.name} is as it was published" if published else f"no problem found in {given.name}")


def _run_data_pack(given: argparse.Namespace) -> None:
    from sslticket.data.datasets.catalogue import find_folder_path, load_dataset
    from sslticket.data.datasets.locate import MissingSplit
    from sslticket.data.shards import ShardSettings, start_shards, write_shards
    from sslticket.data.source import describe_difference, is_complete, open_split
    from sslticket.storage.leases import hold_alone

    given.name, given.data_root = find_folder_path(given.name, given.data_root)
    name = load_dataset(given.name).name
    how = ShardSettings(short_side=given.short_side, quality=given.quality, shard_size=given.shard_size)
    sources = [open_split(name, "train", given.data_root)]
    try:
        sources.append(open_split(name, "eval", given.data_root))
    except MissingSplit as error:
        print(f"note: {error}", file=sys.stderr)
    if sources[0].images is not None:
        raise BadInput(f"{given.name} is kept whole in memory; there is nothing to pack, use it as it is")
    for source in sources:
        if not is_complete(source):
            print(
                f"note: {escape_terminal(describe_difference(source))}; runs on these shards need --part NAME",
                file=sys.stderr,
            )
    manifests = [source.manifest for source in sources]
    start_shards(manifests, given.out, how)
    with hold_alone(given.out / ".pack.claim", f"packing into {given.out}", "; wait for it or give another OUT", _note):
        for manifest in manifests:
            bad = write_shards(manifest, given.out, how, _progress_bar(manifest.split, len(manifest)))
            unreadable = f", {len(bad):,} that cannot be read as they are" if bad else ""
            print(f"{manifest.split}: {len(manifest):,} images packed{unreadable}")
    _print_next(name, given.out)


def _run_data_unpack(given: argparse.Namespace) -> None:
    from sslticket.data.datasets.catalogue import load_dataset
    from sslticket.data.datasets.unpack import unpack_parquet

    dataset = load_dataset(given.name)
    counts = unpack_parquet(dataset, given.data_root, given.out, _progress_bar, _note)
    for split, count in counts.items():
        print(f"{split}: {count:,} images unpacked")
    _print_next(dataset.name, given.out)


def _print_next(dataset: str, out: Path) -> None:
    """Print the command that checks what was written; its --data-root is that of runs, too."""
    print(f"next: sslticket data verify {shell_quote(dataset)} --data-root {shell_quote(str(out))}")


def _note(text: str) -> None:
    print(escape_terminal(text), file=sys.stderr, flush=True)


def _progress_bar(what: str, total: int) -> Callable[[int], object]:
    """A progress bar, which is gone when it is full."""
    from tqdm import tqdm

    bar = tqdm(total=total, desc=what, unit_scale=True, leave=False, disable=None)

    def advance(done: int) -> None:
        bar.update(done)
        if bar.n >= total:
            bar.close()

    return advance
