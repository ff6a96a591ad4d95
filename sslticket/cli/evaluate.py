"""`sslticket evaluate`."""

import argparse
from typing import TYPE_CHECKING

from sslticket.cli import flags, selection
from sslticket.escaping import block, shell, terminal
from sslticket.machine import Machine

CONTROLS = ("random", "preserved", "local", "adjusted", "reset", "permuted")

if TYPE_CHECKING:
    from sslticket.evaluation.tasks import Task
    from sslticket.training.workbench import Workbench


def add(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
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
    selection.add(parser)
    parser.add_argument("--controls", nargs="*", default=[], metavar="NAME", help=f"{', '.join(CONTROLS)} [none]")
    flags.add(parser, Machine(), without=("probe",))  # it looks on at searches only
    parser.set_defaults(command=_evaluate)


def _evaluate(given: argparse.Namespace) -> None:
    from sslticket.evaluation import tasks
    from sslticket.evaluation.controls import check

    chosen = selection.protocols(given)
    for name in given.controls:
        check(name)
    levels, places = selection.levels(given.levels), selection.places(given)
    paths = tasks.tickets(places, levels)
    controls = list(dict.fromkeys(given.controls))
    matrix = tasks.matrix(paths, controls, chosen, selection.seeds(given.seeds), given.head, given.part)

    from sslticket.training.workbench import Workbench

    bench = Workbench.on(flags.override(Machine(), vars(given)), given.precision)
    out = tasks.left_out(places, levels) if levels == tasks.USUAL else []
    if out and bench.first:
        print(f"levels left out: {' '.join(map(str, out))}; --levels all takes them too")
    if given.dry_run:
        _print_outlook(matrix, bench)
        return
    from sslticket.evaluation.evaluate import evaluate

    done = sum(1 for _ in evaluate(matrix, bench))
    if bench.first:
        skipped = f", {len(matrix) - done} were there already" if done < len(matrix) else ""
        print(f"{done} rows measured{skipped}")
        from sslticket.ticket import run_of

        folders = dict.fromkeys(place if place.is_dir() else run_of(place) for place in places)
        print(f"next: sslticket report {' '.join(shell(str(folder)) for folder in folders)} -o report.html")


def _print_outlook(rows: "list[Task]", bench: "Workbench") -> None:
    from sslticket.evaluation.matrix import Matrix
    from sslticket.evaluation.memory import Memory
    from sslticket.evaluation.outlook import outlook
    from sslticket.evaluation.pace import Pace

    if bench.first:
        pace = Pace(dict.fromkeys(task.run for task in rows), bench.device_name)
        matrix = Matrix.of(rows, bench.machine.data_root, bench.numerics)
        print(block(outlook(matrix, pace)))
        print(f"numerics: {bench.numerics.said}")
        trainings = [each for each in matrix.trainings() if each.samples]
        kinds = dict.fromkeys((each.like.protocol, each.model, each.channels) for each in trainings)
        for line in Memory(bench).lines(kinds, matrix.gallery):
            print(terminal(line))
