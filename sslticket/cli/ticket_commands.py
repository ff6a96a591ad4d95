"""The commands that take tickets, `sslticket evaluate` and `sslticket analyse`, and the flags that they share."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslticket import hub
from sslticket.cli import flags
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.escaping import escape_lines, escape_terminal, shell_quote

if TYPE_CHECKING:
    from sslticket.analysis.base import Analysis
    from sslticket.evaluation.tasks import EvalTask, Levels
    from sslticket.training.engine import Engine

USUAL_LEVELS = "0-6, then every third"


def add_training_flags(parser: flags.Parser, *, levels: str = USUAL_LEVELS) -> None:
    """The flags of commands that train tickets; `levels` says which are taken by default."""
    add_ticket_flags(parser, levels=levels)
    parser.add_argument(
        "--protocol",
        nargs="+",
        required=True,
        metavar="NAME",
        help="imagenet, cifar10, svhn-sgd, digits-demo, ..., or own for each ticket's own fit; @k after a "
        "name starts its schedule at the rewind point; docs/evaluation.md has them all",
    )
    parser.add_argument(
        "--head",
        nargs="+",
        choices=("own", "new"),
        help="go on from the ticket's own classification layer, or draw a new one, or each in turn [own where the "
        "ticket was found on the protocol's task]",
    )
    parser.add_argument(
        "--part",
        metavar="NAME",
        help="what the protocol's images are if they are not the whole official set, such as flowers102 [none]",
    )
    parser.add_argument("--seeds", nargs="+", metavar="SEED", help="such as 0 1 2 or 0-5 [the protocol's own]")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), help="of the passes [bf16 on CUDA without --exact, else fp32]"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what is done and what is left; train nothing")


def add_ticket_flags(parser: flags.Parser, *, levels: str = USUAL_LEVELS) -> None:
    """The flags that name tickets."""
    parser.add_argument(
        "tickets", nargs="+", type=Path, help="folders of runs, such as runs/<key>, ticket files, or hf://USER/NAME"
    )
    parser.add_argument(
        "--levels", nargs="+", metavar="LEVEL", help=f"of folders: such as 0 3 6 or 0-6, or all [{levels}]"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="PATH",
        help="where tickets named hf:// are kept, with their rows; other rows lie beside their tickets [runs]",
    )


def ticket_locations(given: argparse.Namespace) -> list[Path]:
    """The folders and files that were given; tickets on the Hub are fetched.

    Raises:
        BadInput: If one cannot be fetched.
    """
    return [hub.copy_from_hub(place, given.out) if hub.is_hub_name(place) else place for place in given.tickets]


def selected_protocols(given: argparse.Namespace) -> list[str]:
    """What --protocol says, each once.

    Raises:
        BadInput: If a protocol is unknown, or --part cannot name a part.
    """
    from sslticket.data.datasets.base import check_part
    from sslticket.evaluation.protocols import OWN_PROTOCOL, find_protocol

    chosen = list(dict.fromkeys(given.protocol))
    for name in chosen:
        if name.partition("@")[0] != OWN_PROTOCOL:  # which only a ticket can tell
            check_part(find_protocol(name).dataset, given.part)
    return chosen


def selected_levels(words: Sequence[str] | None) -> "Levels":
    """What --levels says: the usual ones where nothing was given.

    Raises:
        BadInput: If a word is no number, no range and not "all".
    """
    from sslticket.evaluation import tasks

    if words is None:
        return tasks.DEFAULT_LEVELS
    return tasks.ALL_LEVELS if list(words) == ["all"] else tasks.Levels(tuple(parse_numbers(words, "--levels")))


def selected_seeds(words: Sequence[str] | None) -> list[int] | None:
    """What --seeds says; None for each protocol's own.

    Raises:
        BadInput: If a word is no number and no range.
    """
    return None if words is None else parse_numbers(words, "--seeds")


def parse_numbers(words: Sequence[str], flag: str) -> list[int]:
    """Numbers and ranges: "0 2 4-6" is 0, 2, 4, 5, 6.

    Raises:
        BadInput: If a word is no number and no range.
    """
    found: list[int] = []
    for word in words:
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise BadInput(f"{flag} must be numbers or ranges, got {word!r}; write it like 0 1 2 or 0-5")
        some = range(int(first), int(last or first) + 1)
        if not some:
            raise BadInput(f"{flag} must be a range that rises, got {word!r}; write it like {last}-{first}")
        found += some
    return list(dict.fromkeys(found))


CONTROL_NAMES = ("random", "preserved", "local", "adjusted", "reset", "permuted")


def add_evaluate(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "evaluate",
        help="score tickets, and random ones beside them, under fixed supervised protocols",
        description="Train each ticket from its W_k under a fixed supervised protocol, with its own classification\n"
        "layer where it was found on the same task and else with a new one, measure it, and write one row a\n"
        "ticket, control, protocol, head and seed. Rows that are there are not measured again; the same\n"
        "command in several processes shares the work.\n"
        "On several devices: accelerate launch -m sslticket evaluate ...",
    )
    add_training_flags(parser)
    parser.add_argument("--controls", nargs="*", default=[], metavar="NAME", help=f"{', '.join(CONTROL_NAMES)} [none]")
    flags.add_flags(parser, RuntimeConfig(), without=("probe",))  # it looks on at searches only
    parser.set_defaults(command=_run_evaluate)


def _run_evaluate(given: argparse.Namespace) -> None:
    from sslticket.evaluation import tasks
    from sslticket.evaluation.controls import check_control

    chosen = selected_protocols(given)
    for name in given.controls:
        check_control(name)
    levels, places = selected_levels(given.levels), ticket_locations(given)
    paths = tasks.find_ticket_files(places, levels)
    controls = list(dict.fromkeys(given.controls))
    matrix = tasks.make_tasks(paths, controls, chosen, selected_seeds(given.seeds), given.head, given.part)

    from sslticket.training.engine import Engine

    bench = Engine.create(flags.override_fields(RuntimeConfig(), vars(given)), given.precision)
    out = tasks.levels_left_out(places, levels) if levels == tasks.DEFAULT_LEVELS else []
    if out and bench.is_main_process:
        print(f"levels left out: {' '.join(map(str, out))}; --levels all takes them too")
    if given.dry_run:
        _print_evaluation_estimate(matrix, bench)
        return
    from sslticket.evaluation.worker import evaluate

    done = sum(1 for _ in evaluate(matrix, bench))
    if bench.is_main_process:
        skipped = f", {len(matrix) - done} were there already" if done < len(matrix) else ""
        print(f"{done} rows measured{skipped}")
        from sslticket.ticket import run_folder_of

        folders = dict.fromkeys(place if place.is_dir() else run_folder_of(place) for place in places)
        print(f"next: sslticket report {' '.join(shell_quote(str(folder)) for folder in folders)} -o report.html")


def _print_evaluation_estimate(rows: "list[EvalTask]", bench: "Engine") -> None:
    from sslticket.evaluation.jobs import EvaluationPlan
    from sslticket.evaluation.protocols import Throughput
    from sslticket.evaluation.trainer import MemoryEstimator
    from sslticket.evaluation.worker import describe_evaluation_plan

    if bench.is_main_process:
        pace = Throughput(dict.fromkeys(task.run for task in rows), bench.device_name)
        matrix = EvaluationPlan.build(rows, bench.runtime.data_root, bench.numerics)
        print(escape_lines(describe_evaluation_plan(matrix, pace)))
        print(f"numerics: {bench.numerics.description}")
        trainings = [each for each in matrix.jobs() if each.samples]
        kinds = dict.fromkeys((each.first_task.protocol, each.model, each.channels) for each in trainings)
        for line in MemoryEstimator(bench).describe(kinds, matrix.split_cache):
            print(escape_terminal(line))


def add_analyse(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
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
    _add_analysis_flags(parser)
    _add_controls_flag(parser)
    parser.set_defaults(command=_run_stability)


def _add_connectivity(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "connectivity",
        help="error and loss on the line between two trainings of a ticket",
        description="Train each ticket from W_k in two orders of the data to the end of a protocol, and measure error\n"
        "and loss on the line between both ends, with and without batch-norm statistics recalibrated.",
    )
    _add_analysis_flags(parser)
    _add_controls_flag(parser)
    parser.add_argument("--points", type=int, default=11, help="on the line, both ends among them [11]")
    parser.set_defaults(command=_run_connectivity)


def _add_magnitudes(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "magnitudes",
        help="weights that training takes to zero by itself, and the histogram of all",
        description="Train the dense network from W_k to the end of a protocol, and write the histogram of the\n"
        "magnitudes of its weights, and the share above machine precision.",
    )
    _add_analysis_flags(parser, levels="0, the dense network")
    parser.set_defaults(command=_run_magnitudes)


def _add_overlap(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "overlap",
        help="how much the masks of tickets have in common, beside what chance gives",
        description="Compare the masks of tickets of one network, and write one row a pair: the Jaccard index of all\n"
        "weights and of each layer, and what random masks with the same density of each layer are expected to have.",
    )
    add_ticket_flags(parser, levels="all")
    parser.add_argument(
        "--pairs", choices=("level", "all"), default="level", help="of tickets of the same level, or all [level]"
    )
    parser.set_defaults(command=_run_overlap)


def _add_channels(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "channels",
        help="density of each layer, and output channels that lost every weight",
        description="Count what is left of each layer of each ticket, and its dead output channels; one row a ticket.",
    )
    add_ticket_flags(parser, levels="all")
    parser.set_defaults(command=_run_channels)


def _add_rewind(analyses: "argparse._SubParsersAction[flags.Parser]") -> None:
    parser = analyses.add_parser(
        "rewind",
        help="accuracy and stability by rewind point, from the rows of runs",
        description="Read the rows below the given folders and print, of searches that differ in their rewind point\n"
        "only, top-1 and stability by the images seen at W_k and by density. Trains nothing and writes nothing.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.set_defaults(command=_run_rewind)


def _add_analysis_flags(parser: flags.Parser, levels: str = USUAL_LEVELS) -> None:
    add_training_flags(parser, levels=levels)
    flags.add_flags(parser, RuntimeConfig(), without=("probe",))  # it looks on at searches only


def _add_controls_flag(parser: flags.Parser) -> None:
    help_ = "local: a random subnetwork of the same W_k, as dense in every layer, beside each ticket [none]"
    parser.add_argument("--controls", nargs="*", default=[], metavar="NAME", help=help_)


def _run_stability(given: argparse.Namespace) -> None:
    from sslticket.analysis.stability import Stability

    _run_analysis(Stability(), given)


def _run_connectivity(given: argparse.Namespace) -> None:
    from sslticket.analysis.connectivity import Connectivity

    _run_analysis(Connectivity(given.points), given)


def _run_magnitudes(given: argparse.Namespace) -> None:
    from sslticket.analysis.magnitudes import Magnitudes

    _run_analysis(Magnitudes(), argparse.Namespace(**{"controls": [], **vars(given), "levels": given.levels or ["0"]}))


def _run_overlap(given: argparse.Namespace) -> None:
    from sslticket.analysis.overlap import measure_overlap, summarize_overlap

    rows = list(measure_overlap(_selected_tickets(given), across_levels=given.pairs == "all"))
    print(f"{escape_lines(summarize_overlap(rows))}\n{len(rows)} rows written")


def _run_channels(given: argparse.Namespace) -> None:
    from sslticket.analysis.overlap import describe_channels, measure_channels

    paths = _selected_tickets(given)
    for row in measure_channels(paths):
        print(escape_terminal(f"{row['run']} level {row['level']}: {describe_channels(row)}"))
    print(f"{len(paths)} rows written")


def _run_rewind(given: argparse.Namespace) -> None:
    from sslticket.report.sections.training_analyses import describe_rewinding

    print(escape_lines(describe_rewinding(given.runs)))


def _selected_tickets(given: argparse.Namespace) -> list[Path]:
    from sslticket.evaluation import tasks

    return tasks.find_ticket_files(ticket_locations(given), selected_levels(given.levels or ["all"]))


def _run_analysis(analysis: "Analysis", given: argparse.Namespace) -> None:
    """Do an analysis that trains, or say what it would do."""
    from sslticket.analysis.base import AnalysisPlan, describe_analysis_plan, run_analysis
    from sslticket.analysis.endpoints import make_analysis_tasks
    from sslticket.evaluation import tasks
    from sslticket.evaluation.protocols import Throughput
    from sslticket.evaluation.trainer import MemoryEstimator
    from sslticket.training.engine import Engine

    places, levels = ticket_locations(given), selected_levels(given.levels)
    paths = tasks.find_ticket_files(places, levels)
    controls, chosen = list(dict.fromkeys(given.controls)), selected_protocols(given)
    asked = make_analysis_tasks(paths, controls, chosen, selected_seeds(given.seeds), given.head, given.part)
    bench = Engine.create(flags.override_fields(RuntimeConfig(), vars(given)), given.precision)
    out = tasks.levels_left_out(places, levels) if levels == tasks.DEFAULT_LEVELS else []
    if out and bench.is_main_process:
        print(f"levels left out: {' '.join(map(str, out))}; --levels all takes them too")
    if given.dry_run:
        pace = Throughput(dict.fromkeys(task.run for task in asked), bench.device_name)
        if bench.is_main_process:
            survey = AnalysisPlan.build(analysis, asked, bench.runtime.data_root, bench.numerics)
            print(escape_lines(describe_analysis_plan(survey, pace)))
            print(f"numerics: {bench.numerics.description}")
            courses = survey.remaining_trainings(survey.remaining_targets())
            kinds = dict.fromkeys((each.task.protocol, each.model, each.channels) for each in courses)
            for line in MemoryEstimator(bench).describe(kinds, survey.split_cache):
                print(escape_terminal(line))
        return
    rows = list(run_analysis(analysis, asked, bench))
    if bench.is_main_process:
        for row in rows:
            told = (
                f"{row['run']} level {row['level']} {row['control']} seed {row['seed']}: {analysis.describe_row(row)}"
            )
            print(escape_terminal(told))
        print(f"{len(rows)} rows measured, {len(asked) - len(rows)} were there already")
