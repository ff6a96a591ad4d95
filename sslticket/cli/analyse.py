"""`sslticket analyse`: a subcommand for each analysis."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sslticket.cli import flags, selection
from sslticket.escaping import block, terminal
from sslticket.machine import Machine

if TYPE_CHECKING:
    from sslticket.analysis.analyse import Analysis


def add(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its subcommands."""
    parser = commands.add_parser(
        "analyse",
        help="what tickets are like: stability, connectivity, magnitudes, overlap of masks, channels, rewind points",
        description="Measure what tickets are like, and write one row a ticket, control, protocol and seed.\n"
        "docs/analyses.md says what each analysis computes.",
    )
    analyses = parser.add_subparsers(metavar="ANALYSIS", required=True)
    trained = (_add_stability, _add_connectivity, _add_magnitudes)
    for add_analysis in (*trained, _add_overlap, _add_channels, _add_rewind):
        add_analysis(analyses)


def _add_stability(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "stability",
        help="how near trainings of a subnetwork end, to the dense network's and to each other",
        description="Train the dense network from W_k, and each ticket from W_k in two orders of the data, to the end\n"
        "of a protocol, and write the distances and angles between the ticket's surviving weights there.",
    )
    _add_flags(parser)
    _add_controls(parser)
    parser.set_defaults(command=_stability)


def _add_connectivity(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "connectivity",
        help="error and loss on the line between two trainings of a ticket",
        description="Train each ticket from W_k in two orders of the data to the end of a protocol, and measure error\n"
        "and loss on the line between both ends, with and without batch-norm statistics recalibrated.",
    )
    _add_flags(parser)
    _add_controls(parser)
    parser.add_argument("--points", type=int, default=11, help="on the line, both ends among them [11]")
    parser.set_defaults(command=_connectivity)


def _add_magnitudes(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "magnitudes",
        help="weights that training takes to zero by itself, and the histogram of all",
        description="Train the dense network from W_k to the end of a protocol, and write the histogram of the\n"
        "magnitudes of its weights, and the share above machine precision.",
    )
    _add_flags(parser, levels="0, the dense network")
    parser.set_defaults(command=_magnitudes)


def _add_overlap(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "overlap",
        help="how much the masks of tickets have in common, beside what chance gives",
        description="Compare the masks of tickets of one network, and write one row a pair: the Jaccard index of all\n"
        "weights and of each layer, and what random masks with the same density of each layer are expected to have.",
    )
    selection.add_tickets(parser, levels="all")
    parser.add_argument(
        "--pairs", choices=("level", "all"), default="level", help="of tickets of the same level, or all [level]"
    )
    parser.set_defaults(command=_overlap)


def _add_channels(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "channels",
        help="density of each layer, and output channels that lost every weight",
        description="Count what is left of each layer of each ticket, and its dead output channels; one row a ticket.",
    )
    selection.add_tickets(parser, levels="all")
    parser.set_defaults(command=_channels)


def _add_rewind(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "rewind",
        help="accuracy and stability by rewind point, from the rows of runs",
        description="Read the rows below the given folders and print, of searches that differ in their rewind point\n"
        "only, top-1 and stability by the images seen at W_k and by density. Trains nothing and writes nothing.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.set_defaults(command=_rewind)


def _add_flags(parser: flags.Parser, levels: str = selection.USUAL) -> None:
    selection.add(parser, levels=levels)
    flags.add(parser, Machine(), without=("probe",))  # it looks on at searches only


def _add_controls(parser: flags.Parser) -> None:
    help_ = "local: a random subnetwork of the same W_k, as dense in every layer, beside each ticket [none]"
    parser.add_argument("--controls", nargs="*", default=[], metavar="NAME", help=help_)


def _stability(given: argparse.Namespace) -> None:
    from sslticket.analysis.stability import Stability

    _analyse(Stability(), given)


def _connectivity(given: argparse.Namespace) -> None:
    from sslticket.analysis.connectivity import Connectivity

    _analyse(Connectivity(given.points), given)


def _magnitudes(given: argparse.Namespace) -> None:
    from sslticket.analysis.magnitudes import Magnitudes

    _analyse(Magnitudes(), argparse.Namespace(**{"controls": [], **vars(given), "levels": given.levels or ["0"]}))


def _overlap(given: argparse.Namespace) -> None:
    from sslticket.analysis.overlap import overlaps, summary

    rows = list(overlaps(_paths(given), across_levels=given.pairs == "all"))
    print(f"{block(summary(rows))}\n{len(rows)} rows written")


def _channels(given: argparse.Namespace) -> None:
    from sslticket.analysis.channels import channels, line

    paths = _paths(given)
    for row in channels(paths):
        print(terminal(f"{row['run']} level {row['level']}: {line(row)}"))
    print(f"{len(paths)} rows written")


def _rewind(given: argparse.Namespace) -> None:
    from sslticket.analysis.rewind import rewind

    print(block(rewind(given.runs)))


def _paths(given: argparse.Namespace) -> list[Path]:
    from sslticket.evaluation import tasks

    return tasks.tickets(selection.places(given), selection.levels(given.levels or ["all"]))


def _analyse(analysis: "Analysis", given: argparse.Namespace) -> None:
    """Do an analysis that trains, or say what it would do."""
    from sslticket.analysis.analyse import Survey, analyse
    from sslticket.analysis.outlook import outlook
    from sslticket.analysis.subjects import wanted
    from sslticket.evaluation import tasks
    from sslticket.evaluation.memory import Memory
    from sslticket.evaluation.pace import Pace
    from sslticket.training.workbench import Workbench

    places, levels = selection.places(given), selection.levels(given.levels)
    paths = tasks.tickets(places, levels)
    controls, chosen = list(dict.fromkeys(given.controls)), selection.protocols(given)
    asked = wanted(paths, controls, chosen, selection.seeds(given.seeds), given.head, given.part)
    bench = Workbench.on(flags.override(Machine(), vars(given)), given.precision)
    out = tasks.left_out(places, levels) if levels == tasks.USUAL else []
    if out and bench.first:
        print(f"levels left out: {' '.join(map(str, out))}; --levels all takes them too")
    if given.dry_run:
        pace = Pace(dict.fromkeys(task.run for task in asked), bench.device_name)
        if bench.first:
            survey = Survey.of(analysis, asked, bench.machine.data_root, bench.numerics)
            print(block(outlook(survey, pace)))
            print(f"numerics: {bench.numerics.said}")
            courses = survey.trainings(survey.left())
            kinds = dict.fromkeys((each.task.protocol, each.model, each.channels) for each in courses)
            for line in Memory(bench).lines(kinds, survey.gallery):
                print(terminal(line))
        return
    rows = list(analyse(analysis, asked, bench))
    if bench.first:
        for row in rows:
            told = f"{row['run']} level {row['level']} {row['control']} seed {row['seed']}: {analysis.line(row)}"
            print(terminal(told))
        print(f"{len(rows)} rows measured, {len(asked) - len(rows)} were there already")
