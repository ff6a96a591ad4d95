"""`sslticket evaluate`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslticket import hub
from sslticket.cli import flags
from sslticket.errors import BadInput
from sslticket.machine import Machine

if TYPE_CHECKING:
    from sslticket.evaluation.tasks import Levels, Task
    from sslticket.training.workbench import Workbench


def add(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "evaluate",
        help="score tickets, and random ones beside them, under fixed supervised protocols",
        description="Train each ticket from its W_k with a new head under a fixed supervised protocol, measure it,\n"
        "and write one row a ticket, control, protocol and seed. Rows that are there are not measured again; the\n"
        "same command in several processes shares the work.\n"
        "On several devices: accelerate launch -m sslticket evaluate ...",
    )
    parser.add_argument(
        "tickets", nargs="+", type=Path, help="folders of runs, such as runs/<key>, ticket files, or hf://USER/NAME"
    )
    parser.add_argument(
        "--protocol",
        nargs="+",
        required=True,
        metavar="NAME",
        help="imagenet, cifar10, svhn-sgd, digits-demo, ...; docs/evaluation.md has them all",
    )
    parser.add_argument(
        "--controls", nargs="*", default=[], metavar="NAME", help="random, preserved, local, adjusted [none]"
    )
    parser.add_argument("--seeds", nargs="+", metavar="SEED", help="such as 0 1 2 or 0-5 [the protocol's own]")
    parser.add_argument(
        "--levels", nargs="+", metavar="LEVEL", help="of folders: such as 0 3 6 or 0-6, or all [0-6, then every third]"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="PATH",
        help="where tickets named hf:// are kept, with their rows; other rows lie beside their tickets [runs]",
    )
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the passes [fp32]")
    parser.add_argument("--dry-run", action="store_true", help="print what is done and what is left; train nothing")
    flags.add(parser, Machine(), without=("probe",))  # it looks on at searches only
    parser.set_defaults(command=_evaluate)


def _evaluate(given: argparse.Namespace) -> None:
    from sslticket.evaluation import protocols, tasks
    from sslticket.evaluation.controls import check

    chosen = [protocols.find(name) for name in dict.fromkeys(given.protocol)]
    for name in given.controls:
        check(name)
    levels = _levels(given.levels)
    places = [hub.kept(place, given.out) if hub.is_name(place) else place for place in given.tickets]
    paths = tasks.tickets(places, levels)
    seeds = None if given.seeds is None else numbers(given.seeds, "--seeds")
    matrix = tasks.matrix(paths, list(dict.fromkeys(given.controls)), chosen, seeds)

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
        folders = dict.fromkeys(place if place.is_dir() else tasks.run_of(place) for place in places)
        print(f"next: sslticket report {' '.join(map(str, folders))} -o report.html")


def _print_outlook(rows: "list[Task]", bench: "Workbench") -> None:
    from sslticket.evaluation.matrix import Matrix
    from sslticket.evaluation.outlook import outlook
    from sslticket.evaluation.pace import Pace

    if bench.first:
        pace = Pace(dict.fromkeys(task.run for task in rows), bench.device_name, bench.precision)
        print(outlook(Matrix.of(rows, bench.machine.data_root, bench.precision), pace))


def _levels(words: Sequence[str] | None) -> "Levels":
    from sslticket.evaluation import tasks

    if words is None:
        return tasks.USUAL
    return tasks.ALL if list(words) == ["all"] else tasks.Levels(tuple(numbers(words, "--levels")))


def numbers(words: Sequence[str], flag: str) -> list[int]:
    """Numbers and ranges: "0 2 4-6" is 0, 2, 4, 5, 6.

    Raises:
        BadInput: for anything else.
    """
    found: list[int] = []
    for word in words:
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise BadInput(f"{flag} {word!r} is no number or range; write it like 0 1 2 or 0-5")
        some = range(int(first), int(last or first) + 1)
        if not some:
            raise BadInput(f"{flag} {word!r} is an empty range; write it like {last}-{first}")
        found += some
    return list(dict.fromkeys(found))
