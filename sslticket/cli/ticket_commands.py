"""The commands that take tickets, `sslticket evaluate` and `sslticket analyse`, and the flags that they share."""

import argparse
import inspect
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslticket import hub, processes
from sslticket.analysis import ANALYSES
from sslticket.config import flags
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput, unknown_name
from sslticket.escaping import escape_lines, escape_terminal, shell_quote
from sslticket.evaluation import CONTROLS

if TYPE_CHECKING:
    from sslticket.evaluation.tasks import EvalTask, Levels
    from sslticket.evaluation.trainer import SplitCache, TrainingKind
    from sslticket.results.throughput import Speed
    from sslticket.results.work_queue import Job, Row
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
        help="imagenet, cifar10, svhn-sgd, digits-demo, ..., folder:NAME,length=30ep,image_size=64 for a folder of "
        "yours, or own for each ticket's own fit; @k after a name starts its schedule at the rewind point; "
        "docs/evaluation.md has them all",
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
    add_planning_flags(parser)


def add_planning_flags(parser: flags.Parser) -> None:
    """The flags of a dry run that say whose speed its hours are at."""
    parser.add_argument(
        "--probe-speed",
        action="store_true",
        help="with --dry-run: measure the speed of this device first, in 20 real steps on made-up images",
    )
    parser.add_argument(
        "--on",
        metavar="DEVICE",
        help='with --dry-run: plan for a device of the tables, such as A100 or "8 x A100" [this one]',
    )


def check_planning_flags(given: Mapping[str, object]) -> None:
    """Refuse flags of a dry run without one, and a probe of a device that is elsewhere.

    Raises:
        BadInput: If they do not go together.
    """
    for name in ("on", "probe_speed"):
        if given[name] and not given["dry_run"]:
            raise BadInput(f"--{name.replace('_', '-')} is for plans; give --dry-run too, or leave it out")
    if given["on"] and given["probe_speed"]:
        raise BadInput("--probe-speed measures this device, and --on names another; give one of them")
    if given["probe_speed"] and processes.world_size() > 1:
        raise BadInput(f"--probe-speed measures one process, and {processes.world_size()} were started; start one")


def add_parts_flag(parser: flags.Parser) -> None:
    """The flag that names files with parts of one's own, which `run_command` loads before anything else."""
    help_ = "load this file first, which defines parts that runs were made with; may be given several times [none]"
    parser.add_argument("--parts", action="append", default=[], type=Path, metavar="FILE.py", help=help_)


def add_ticket_flags(parser: flags.Parser, *, levels: str = USUAL_LEVELS) -> None:
    """The flags that name tickets."""
    add_parts_flag(parser)
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
    """What --protocol says, each once; where a folder is given by its path, that is where images are looked for.

    Raises:
        BadInput: If a protocol is unknown, --part cannot name a part, or folders lie in several places.
    """
    from sslticket.data.datasets.base import check_part
    from sslticket.data.datasets.catalogue import check_folder, split_folder_path
    from sslticket.evaluation.protocols import OWN_PROTOCOL, find_protocol

    divided = {name: split_folder_path(name, getattr(given, "data_root", None)) for name in given.protocol}
    roots = {root for asked, (name, root) in divided.items() if name != asked}
    if len(roots) > 1:
        raise BadInput(
            f"the protocols' folders lie in {' and '.join(sorted(map(str, roots)))}, and one place is looked in; give "
            "them one by one, or put or link all into one folder and give that with --data-root"
        )
    for root in roots:
        given.data_root = root
    chosen = list(dict.fromkeys(name for name, _ in divided.values()))
    for name in chosen:
        if name.partition("@")[0] != OWN_PROTOCOL:  # which only a ticket can tell
            dataset = find_protocol(name).dataset
            check_part(dataset, given.part)
            if any(name == found and asked != found for asked, (found, _) in divided.items()):
                check_folder(dataset, given.data_root)
    return chosen


def selected_levels(words: Sequence[str] | None) -> "Levels":
    """What --levels says: the usual ones where nothing was given.

    Raises:
        BadInput: If a word is no number, no range and not "all".
    """
    from sslticket.evaluation import tasks

    if words is None:
        return tasks.DEFAULT_LEVELS
    return tasks.ALL_LEVELS if list(words) == ["all"] else tasks.Levels(tuple(flags.parse_numbers(words, "--levels")))


def count_rows(count: int) -> str:
    """So many rows, in words."""
    return f"{count:,} row{'s' * (count != 1)}"


def selected_seeds(words: Sequence[str] | None) -> list[int] | None:
    """What --seeds says; None for each protocol's own.

    Raises:
        BadInput: If a word is no number and no range.
    """
    return None if words is None else flags.parse_numbers(words, "--seeds")


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
    controls = f"{', '.join(CONTROLS.names())}, or file.py:Name [none]"
    parser.add_argument("--controls", nargs="*", default=[], metavar="NAME", help=controls)
    parser.add_argument(
        "--curve",
        metavar="LENGTH",
        help="measure top-1 on the way too, after each such length of the protocol's training, such as 5ep, 1000it or "
        "10%%; a measurement changes no result [none]",
    )
    flags.add_flags(parser, RuntimeConfig(), without=("probe",))  # it watches searches only
    parser.set_defaults(command=_run_evaluate)


def _run_evaluate(given: argparse.Namespace) -> None:
    from sslticket.evaluation.controls import get_control
    from sslticket.evaluation.tasks import find_ticket_files, make_tasks

    check_planning_flags(vars(given))
    chosen = selected_protocols(given)
    for name in given.controls:
        get_control(name)
    locations = ticket_locations(given)
    paths = find_ticket_files(locations, selected_levels(given.levels))
    seeds = selected_seeds(given.seeds)
    tasks = make_tasks(paths, given.controls, chosen, seeds, given.head, given.part, curve=given.curve)
    engine = _make_engine(given, locations)

    from sslticket.evaluation.jobs import EvaluationPlan, TrainingJob, evaluate_tasks, probe_training
    from sslticket.evaluation.trainer import SplitCache

    if given.dry_run:
        plan = EvaluationPlan.build(tasks, SplitCache(engine.runtime.data_root, "missing"), engine.numerics)
        jobs = plan.jobs()
        trained = [(job if isinstance(job, TrainingJob) else job.needed_by) for job in jobs if job.samples]
        probed = None
        if given.probe_speed and trained:
            probed = probe_training(trained[0].tasks[0], trained[0].info, engine, trained[0].measured)
        if engine.is_main_process:
            kinds = [(job.tasks[0].protocol, job.info.model, job.info.channels) for job in trained]
            runs = [task.run for task in tasks]
            _print_estimate(plan.groups(), jobs, runs, engine, kinds, plan.split_cache, on=given.on, probed=probed)
        return
    from sslticket.results.throughput import process_seconds

    began = process_seconds()
    rows = list(evaluate_tasks(tasks, engine))
    done = len(rows)
    if engine.is_main_process:
        _remember_evaluation(rows, tasks, began)
        skipped = f", {len(tasks) - done} were there already" if done < len(tasks) else ""
        print(f"{count_rows(done)} measured{skipped}")
        from sslticket.ticket import run_folder_of

        folders = dict.fromkeys(place if place.is_dir() else run_folder_of(place) for place in locations)
        print(f"next: sslticket report {' '.join(shell_quote(str(folder)) for folder in folders)} -o report.html")


def _remember_evaluation(rows: "Sequence[Row]", tasks: "Sequence[EvalTask]", began: float) -> None:
    """Keep the speed of an evaluation of one kind of training that has ended, for later plans."""
    from sslticket.data.datasets.catalogue import get_dataset
    from sslticket.data.manifest import ImageCounts
    from sslticket.evaluation.tasks import protocol_multiply_adds
    from sslticket.results import throughput
    from sslticket.training.numerics import numerics_of_row

    protocols = {task.protocol.name: task.protocol for task in tasks}
    kinds = {(row["model"], row["protocol"], row["channels"]) for row in rows}
    if len(kinds) != 1:
        return
    ((model, name, channels),) = kinds
    protocol = protocols[name]
    forward = throughput.multiply_adds_of(model, channels, protocol.input_size)
    measured = ImageCounts.official(get_dataset(protocol.dataset), "eval")
    work = throughput.Workload(
        model=model,
        protocol=name,
        image_size=protocol.input_size,
        numerics=numerics_of_row(rows[0]),
        steps=rows[0]["steps"],
        samples=rows[0]["samples"],
        batch_size=protocol.training_for(model).batch_size,
        multiply_adds=protocol_multiply_adds(protocol, model, channels),
        measured=len(measured) if measured else 0,
        measured_multiply_adds=forward,
    )
    own = {(row["seconds"], row["steps"], row["top1"]): row for row in rows}  # a training may fill several rows
    ended = throughput.process_seconds()
    trained = list(own.values())
    count = len(trained)
    speed = throughput.speed_of_rows(trained, work, trainings=count, command_seconds=began, total_seconds=ended)
    if speed is not None:
        throughput.remember_speed(speed)


def _make_engine(given: argparse.Namespace, locations: Sequence[Path]) -> "Engine":
    """The engine of a command that trains; levels that it leaves out are printed."""
    from sslticket.evaluation.tasks import DEFAULT_LEVELS, levels_left_out
    from sslticket.training.engine import Engine

    engine = Engine.create(flags.override_fields(RuntimeConfig(), vars(given)), given.precision)
    out = levels_left_out(locations, DEFAULT_LEVELS) if given.levels is None else []
    if out and engine.is_main_process:
        print(f"levels left out: {' '.join(map(str, out))}; --levels all takes them too")
    return engine


def _print_estimate(
    rows: "Sequence[tuple[tuple[str, str], bool]]",
    jobs: "Sequence[Job[Any]]",
    runs: Sequence[Path],
    engine: "Engine",
    kinds: "Sequence[TrainingKind]",
    split_cache: "SplitCache",
    *,
    on: str | None = None,
    probed: "Speed | None" = None,
) -> None:
    """Print what is done, what is left, and what that takes of time, memory and disk."""
    from sslticket.data.source import PLANNED
    from sslticket.evaluation.protocols import find_protocol
    from sslticket.evaluation.trainer import MemoryEstimator
    from sslticket.results.throughput import ROW_BYTES, Throughput, find_device, work_cost
    from sslticket.results.work_queue import describe_queue

    known = Throughput.known(
        find_device(on) if on else engine.device_name,
        lambda name: find_protocol(name).input_size,
        runs=dict.fromkeys(runs),
        probed=probed,
    )
    print(escape_lines(describe_queue(rows, jobs, known)))
    for name in split_cache.planned():
        print(escape_terminal(f"{name}: {PLANNED}"))
    works = [job.workload for job in jobs if job.workload is not None]
    left = sum(not done for _, done in rows)
    devices = max(known.devices, engine.accelerator.num_processes)
    cost = work_cost(works, known, devices=devices, disk_bytes=ROW_BYTES * left)
    for name, value in cost.lines():
        print(escape_terminal(f"{name}: {value}"))
    print(f"numerics: {engine.numerics.description}")
    for line in MemoryEstimator(engine).describe(dict.fromkeys(kinds), split_cache):
        print(escape_terminal(line))


def add_rescore(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "rescore",
        help="verify tickets, load them, and measure anew what the rows beside them say",
        description="Check tickets of anybody: hashes, masks and counts of each file, the files exported beside it,\n"
        "whether it loads into its network, and what rows in rows/ beside it say. Then train it from its W_k\n"
        "under each row's protocol, head and seed, and compare. Nothing in the folders given is changed. Ends with\n"
        "code 2 if anything is not as recorded; rows whose images are not here are named and fail nothing.",
    )
    add_parts_flag(parser)
    parser.add_argument(
        "tickets",
        nargs="+",
        type=Path,
        help="exported folders, folders of runs, folders that hold such, or ticket files",
    )
    parser.add_argument("--levels", nargs="+", metavar="LEVEL", help="of runs: such as 0 3 6 or 0-6 [all]")
    parser.add_argument("--seeds", nargs="+", metavar="SEED", help="rows of these seeds alone, such as 0 [all]")
    parser.add_argument(
        "--part", metavar="NAME", help="what the images are if they are not the whole official set [none]"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="POINTS",
        help="how far top-1 may be off; 0 for the same top-1 [three standard errors of a difference]",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="keep what is measured in this folder, where the same command goes on [a temporary folder]",
    )
    parser.add_argument("--dry-run", action="store_true", help="verify and load; train nothing")
    flags.add_flags(parser, RuntimeConfig(), without=("probe",))  # it watches searches only
    parser.set_defaults(command=_run_rescore)


def _run_rescore(given: argparse.Namespace) -> None:
    from sslticket.evaluation import tasks
    from sslticket.export.rescoring import RecordedScore, Rescoring

    if given.tolerance is not None and not 0 <= given.tolerance <= 100:
        raise BadInput(f"--tolerance must be from 0 to 100 points, got {given.tolerance:g}; give for instance 0.5")
    if given.out is None and processes.world_size() > 1:
        raise BadInput("several processes need one folder for what they measure; give --out, on a disk that all see")
    runtime, first = flags.override_fields(RuntimeConfig(), vars(given)), processes.rank() == 0
    with nullcontext(given.out) if given.out else tempfile.TemporaryDirectory(prefix="sslticket-") as folder:
        check = Rescoring(
            runtime=runtime,
            out=Path(folder),
            levels=tasks.ALL_LEVELS if given.levels is None else selected_levels(given.levels),
            seeds=selected_seeds(given.seeds),
            part=given.part,
            tolerance=given.tolerance,
        )
        scores: list[RecordedScore] = []
        problems = 0
        for found in chain(check.verify(given.tickets), () if given.dry_run else check.measure(scores)):
            if isinstance(found, RecordedScore):
                scores.append(found)
                continue
            problems += not found.ok
            if first:
                print(escape_terminal(found.text if found.ok else f"PROBLEM {found.text}"), flush=True)
    if first:
        print(check.summary())
    if problems:
        raise BadInput(f"{problems:,} problem{'s' * (problems > 1)}, named above")


class _AnalysisParsers(dict[str, flags.Parser]):
    """The parser of each analysis, made when its name is typed: its flags are fields of a class that loads torch."""

    def __contains__(self, name: object) -> bool:
        return not str(name).startswith("-")

    def __missing__(self, name: str) -> flags.Parser:
        known = [*ANALYSES.names(), "rewind"]
        if name not in known and ":" not in name:
            raise unknown_name("analysis", name, known)
        self[name] = _make_rewind_parser() if name == "rewind" else _make_analysis_parser(name)
        return self[name]


def add_analyse(commands: "argparse._SubParsersAction[flags.Parser]") -> None:
    """The command and its subcommands."""
    names = ", ".join(sorted([*ANALYSES.names(), "rewind"]))
    parser = commands.add_parser(
        "analyse",
        help=f"what tickets are like: {names}",
        description="Measure what tickets are like, and write one row a ticket, control, protocol and seed.\n"
        f"ANALYSIS is one of {names},\n"
        "or file.py:Name for one of your own; `sslticket analyse ANALYSIS --help` lists its flags, and\n"
        "docs/analyses.md says what it computes.",
    )
    analyses = parser.add_subparsers(metavar="ANALYSIS", required=True)
    analyses.choices = analyses._name_parser_map = _AnalysisParsers()


def _make_analysis_parser(name: str) -> flags.Parser:
    from sslticket.analysis.base import EndpointAnalysis

    kind = ANALYSES.get(name)
    text = (inspect.getdoc(kind) or "").partition("\nAttributes:")[0].strip()
    parser = flags.Parser(prog=f"sslticket analyse {name}", description=text)
    trains = issubclass(kind, EndpointAnalysis)
    if trains:
        add_training_flags(parser, levels=kind.default_levels or USUAL_LEVELS)
        help_ = "local: a random subnetwork of the same W_k, as dense in every layer, beside each ticket [none]"
        parser.add_argument("--controls", nargs="*", default=[], metavar="NAME", help=help_)
        flags.add_flags(parser, RuntimeConfig(), without=("probe",))  # it watches searches only
    else:
        add_ticket_flags(parser, levels="all")
    flags.add_flags(parser, kind())
    parser.set_defaults(command=_run_endpoint_analysis if trains else _run_ticket_analysis, analysis=kind)
    return parser


def _run_ticket_analysis(given: argparse.Namespace) -> None:
    from sslticket.evaluation.tasks import find_ticket_files

    analysis = flags.override_fields(given.analysis(), vars(given))
    rows = []
    for row in analysis.rows(find_ticket_files(ticket_locations(given), selected_levels(given.levels or ["all"]))):
        rows.append(row)
        if words := analysis.describe_row(row):
            print(escape_terminal(f"{row['run']} level {row['level']}: {words}"))
    if summary := analysis.summarize(rows):
        print(escape_lines(summary))
    print(f"{count_rows(len(rows))} written")


def _run_endpoint_analysis(given: argparse.Namespace) -> None:
    """Do an analysis that trains, or print what it would do."""
    from sslticket.analysis.base import AnalysisPlan, run_analysis
    from sslticket.analysis.endpoints import FinalTraining, make_analysis_tasks
    from sslticket.evaluation.jobs import probe_training
    from sslticket.evaluation.tasks import find_ticket_files
    from sslticket.evaluation.trainer import SplitCache

    check_planning_flags(vars(given))
    analysis = flags.override_fields(given.analysis(), vars(given))
    given.levels = given.levels or analysis.default_levels.split() or None
    locations = ticket_locations(given)
    paths = find_ticket_files(locations, selected_levels(given.levels))
    controls, chosen = list(dict.fromkeys(given.controls)), selected_protocols(given)
    tasks = make_analysis_tasks(paths, controls, chosen, selected_seeds(given.seeds), given.head, given.part)
    engine = _make_engine(given, locations)
    if given.dry_run:
        if engine.is_main_process:
            plan = AnalysisPlan.build(analysis, tasks, SplitCache(engine.runtime.data_root, "missing"), engine.numerics)
            jobs = plan.jobs()
            trained = [job for job in jobs if isinstance(job, FinalTraining)]
            kinds = [(job.task.protocol, job.info.model, job.info.channels) for job in trained]
            runs = [task.run for task in tasks]
            probed = None
            if given.probe_speed and trained:
                probed = probe_training(trained[0].task, trained[0].info, engine, trained[0].measured)
            _print_estimate(plan.groups(), jobs, runs, engine, kinds, plan.split_cache, on=given.on, probed=probed)
        return
    rows = list(run_analysis(analysis, tasks, engine))
    if engine.is_main_process:
        for row in rows:
            about = f"{row['run']} level {row['level']} {row['control']} seed {row['seed']}"
            print(escape_terminal(f"{about}: {analysis.describe_row(row)}"))
        print(f"{count_rows(len(rows))} measured, {len(tasks) - len(rows)} were there already")


def _make_rewind_parser() -> flags.Parser:
    parser = flags.Parser(
        prog="sslticket analyse rewind",
        description="Read the rows below the given folders and print, of searches that differ in their rewind point\n"
        "only, top-1 and stability by the images seen at W_k and by density. Trains nothing and writes nothing.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.set_defaults(command=_run_rewind)
    return parser


def _run_rewind(given: argparse.Namespace) -> None:
    from sslticket.report.sections.training_analyses import describe_rewinding

    print(escape_lines(describe_rewinding(given.runs)))
