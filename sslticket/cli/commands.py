"""The `sslticket` command and its subcommands. Imports that take time wait until a command needs them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sslticket import hub
from sslticket.cli import analyse, data, evaluate, export, flags, watch
from sslticket.cli.outcome import finish
from sslticket.escaping import block, terminal
from sslticket.machine import Machine

_ABOUT = """Lottery tickets from limited or no supervision.

A search is a recipe that is run as a script, for instance
    accelerate launch recipes/rotnet_resnet50.py --subset 0.1
and leaves tickets in runs/<key>. The commands here score, draw and show them."""


# Where else a command can write; what the others write lies in the folders of their runs.
_PLACES = dict.fromkeys(("rows", "show"), "another name with -o") | {"export": "another OUT"}


def main() -> None:
    """The `sslticket` command."""
    words = sys.argv[1:]
    finish(lambda: _main(words), _PLACES.get("".join(words[:1]), "another place"))


def _main(words: Sequence[str]) -> None:
    parser = flags.Parser(prog="sslticket", description=_ABOUT)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    reports = (_add_report, _add_rows, _add_inspect)
    for add in (evaluate.add, analyse.add, watch.add, *reports, export.add, _add_show, data.add):
        add(commands)
    given = parser.parse_args(words)
    if given.version:
        from importlib.metadata import version

        print(f"sslticket {version('sslticket')}")
    elif hasattr(given, "command"):
        given.command(given)
    else:
        parser.print_help()


def _add_report(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = commands.add_parser(
        "report",
        help="draw accuracy against density from the rows of runs",
        description="Read the rows below the given folders and write one self-contained page and a PNG beside it;\n"
        "on request each figure as a file and the means as a LaTeX table.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("report.html"), help="the page [report.html]")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="a folder for each figure as a file [none]")
    parser.add_argument("--format", choices=("png", "pdf", "svg"), default="pdf", help="of these files [pdf]")
    parser.add_argument("--latex", type=Path, metavar="TABLE.tex", help="the means as a table for LaTeX [none]")
    parser.set_defaults(command=_report)


def _add_rows(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = commands.add_parser(
        "rows",
        help="put the rows of runs into one table for other programs",
        description="Read the rows below the given folders and write them as one tidy table, a line for each\n"
        "measurement; docs/report.md tells its columns.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("rows.csv"), help="a name ending in .parquet or .csv [rows.csv]"
    )
    parser.set_defaults(command=_rows)


def _add_inspect(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = commands.add_parser("inspect", help="print what a ticket holds and where it comes from")
    parser.add_argument("ticket", help=export.TICKET)
    parser.set_defaults(command=_inspect)


def _add_show(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = commands.add_parser(
        "show",
        help="draw what the network sees of the first images under a recipe",
        description="Write a contact sheet of the first images of the first batch, one a row: as evaluations see it,\n"
        "then each view that the objective looks at. After RECIPE, every flag of the recipe may follow.",
    )
    _sheet_flags(parser)
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe file, recipes/rotnet_resnet50.py")
    parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="...", help="of this command or of the recipe")
    parser.set_defaults(command=_show)


def _sheet_flags(parser: flags.Parser) -> None:
    """The flags of a contact sheet, which may stand on either side of the recipe's name."""
    sheet = parser.add_argument_group("sheet")
    sheet.add_argument("-o", "--output", type=Path, default=Path("views.png"), help="the picture [views.png]")
    sheet.add_argument("--images", type=int, default=6, help="of the batch, one a row [6]")
    sheet.add_argument("--sheet-width", type=int, default=1920, metavar="PIXELS", help="at most [1920]")


def _report(given: argparse.Namespace) -> None:
    from sslticket import report

    written = report.write(given.runs, given.output, figures=given.figures, kind=given.format, latex=given.latex)
    if written.text:
        print(block(written.text))
    _print_notes(written.notes)
    if written.figures:
        print(f"figures: {len(written.figures)} in {given.figures}")
    if written.latex:
        print(f"table: {written.latex}")
    print(f"figure: {written.png}\nreport: {written.html}")


def _rows(given: argparse.Namespace) -> None:
    from sslticket.report import table

    exported = table.export(given.runs, given.output)
    _print_notes(exported.notes)
    print(f"table: {given.output}, {exported.rows:,} rows")


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {terminal(note)}")


def _inspect(given: argparse.Namespace) -> None:
    from sslticket.cli.inspect import describe
    from sslticket.ticket import Ticket

    file = hub.file_of(given.ticket)
    print(describe(Ticket.load(file), given.ticket, file.stat().st_size))


def _show(given: argparse.Namespace) -> None:
    from sslticket.cli import recipe, show

    found = recipe.load(given.recipe)
    parser = flags.Parser(prog=f"sslticket show {given.recipe}")
    _sheet_flags(parser)
    recipe.add_settings(parser, found)
    before = argparse.Namespace(output=given.output, images=given.images, sheet_width=given.sheet_width)
    words = vars(parser.parse_args(given.flags, before))
    resolved, machine = recipe.resolve(found, words), flags.override(Machine(), words)
    print(block(show.show(resolved, machine, before.output, images=before.images, width=before.sheet_width)))
