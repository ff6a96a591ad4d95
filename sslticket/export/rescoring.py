"""Whether tickets are what their rows say: files are verified, loaded, trained and measured again, row by row.

Anybody's tickets can be checked so, in folders of runs and in exported folders: what was measured lies beside them.
"""

import math
import shutil
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sslticket import hub, models, processes, provenance
from sslticket.config.recipe import Precision
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput, one_line
from sslticket.evaluation.jobs import evaluate_tasks
from sslticket.evaluation.protocols import Protocol, resolve_protocol
from sslticket.evaluation.tasks import (
    ALL_LEVELS,
    EvalTask,
    Levels,
    TicketInfo,
    find_ticket_files,
    read_task_row,
    ticket_row_fields,
)
from sslticket.evaluation.trainer import SplitCache
from sslticket.export.card import CONFIG_FILE, WEIGHTS_FILE
from sslticket.export.description import density_text, hub_config, image_arguments, network_construction
from sslticket.export.writer import plain_state_dict
from sslticket.pruning import pruned_model
from sslticket.results.rows import DEFAULT_HEAD, row_error
from sslticket.storage.files import read_json
from sslticket.ticket import Ticket, run_folder_of
from sslticket.training.engine import Engine
from sslticket.training.trial import Kernels, kernels_path

_ERRORS_APART = 3
"""Standard errors of a difference that a score may be off by: of hundreds of rows that differ by chance, about one."""
_OF_THE_TICKET = (
    *("recipe", "objective", "model", "source", "source_hash", "subset", "subset_by", "level", "density"),
    *("search_seed", "rewind_samples", "search_samples"),
)
"""What a row says of its ticket in words that every version writes alike."""
_IN_CONFIG = ("model", "level", "density", "survivors", "prunable", "ticket_hash", "recipe", "provenance")
"""What config.json of an exported folder says of its ticket in words that every version writes alike."""


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        text: What was found, in a line.
        ok: Whether it is as it should be.
    """

    text: str
    ok: bool = True


@dataclass(frozen=True, kw_only=True)
class RecordedScore:
    """A row beside a ticket, and the measurement that repeats it.

    Attributes:
        name: What it is called in a line.
        row: What was recorded.
        task: The measurement, of a copy of the ticket.
        images: Number of the evaluation images.
    """

    name: str
    row: Mapping[str, Any]
    task: EvalTask
    images: int


@dataclass(frozen=True, kw_only=True)
class Rescoring:
    """One check of tickets and of the rows beside them.

    Attributes:
        runtime: Where the images lie and how it is computed.
        out: Folder of the copies that are trained, and of their rows.
        levels: Levels that are taken of folders of runs.
        seeds: Seeds of the rows that are measured again; None for all.
        part: What the images of the protocols are, if they are not the whole official set.
        tolerance: How far a top-1 may be off, in points; None for what chance does to a training.
        counts: How many tickets, rows and so on there were, for the last line.
        scores_by_seed: Recorded top-1 by seed, of each ticket under each protocol with each head.
    """

    runtime: RuntimeConfig
    out: Path
    levels: Levels = ALL_LEVELS
    seeds: Sequence[int] | None = None
    part: str | None = None
    tolerance: float | None = None
    counts: Counter[str] = field(default_factory=Counter)
    scores_by_seed: dict[tuple[str, ...], dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def verify(self, places: Sequence[Path]) -> Iterator[Finding | RecordedScore]:
        """Checks ticket files, what was exported beside them, and what rows say of them; nothing is trained.

        Args:
            places: Ticket files, folders of runs, exported folders, and folders that hold such.

        Yields:
            What was found, and the scores that can be measured again.

        Raises:
            BadInput: If a place is not there or holds no ticket, or no row has one of the seeds.
        """
        splits = SplitCache(self.runtime.data_root)
        missing: dict[str, int] = Counter()
        damaged = False
        for path in find_tickets(places, self.levels):
            name = str(path.parent if path.name == hub.TICKET_FILE else path)
            try:
                ticket = Ticket.load(path).with_parts()
                loads = _load_into_networks(ticket)
            except BadInput as error:
                yield Finding(_about(name, error), ok=False)
                continue
            self.counts["tickets"] += 1
            exported, faults = _check_export(path, ticket)
            agree = f"; {', '.join(exported)} agree with it" if exported and not faults else ""
            yield Finding(f"{name}: level {density_text(ticket)}; hash {ticket.hash}; {loads}{agree}")
            yield from (Finding(f"{name}: {fault}", ok=False) for fault in faults)
            for file in sorted((run_folder_of(path) / "rows").glob("*.jsonl")):
                if not file.name.startswith(f"{path.stem}."):
                    continue
                try:
                    found = self._read_row(file, path, ticket, splits)
                except BadInput as error:
                    damaged = True
                    yield Finding(_about(name, error), ok=False)
                    continue
                if isinstance(found, RecordedScore):
                    yield found
                elif found is not None:
                    missing[found] += 1
        if self.seeds is not None and self.counts["other seeds"] and not (self.counts["rows"] or damaged):
            there = " ".join(str(seed) for seed in sorted({seed for by in self.scores_by_seed.values() for seed in by}))
            given = " ".join(str(seed) for seed in self.seeds)
            raise BadInput(f"--seeds must be some of the rows', which are {there}, got {given}; leave it out for all")
        for why, count in missing.items():
            self.counts["left"] += count
            yield Finding(f"{_rows(count)} not measured again, though verified with their tickets: {why}")

    def _read_row(self, file: Path, path: Path, ticket: Ticket, splits: SplitCache) -> RecordedScore | str | None:
        """What can be measured again; else why not, or None for a row that is of no ticket's score.

        Raises:
            BadInput: If the row is damaged, or about something else than its ticket and today's protocol.
        """
        row = read_task_row(file) or {}
        if fault := row_error(row):
            raise BadInput(f"{file.name} {fault}")
        if row["kind"] != "score":
            return None
        if row["control"] != "ticket":
            self.counts["controls"] += 1
            return None
        self.scores_by_seed[_measurement(row)][row["seed"]] = row["top1"]
        if self.seeds is not None and row["seed"] not in self.seeds:
            self.counts["other seeds"] += 1
            return None
        self.counts["rows"] += 1
        if row["ticket_hash"] != ticket.hash:
            other = row["ticket_hash"]
            raise BadInput(f"{file.name} is about the ticket with hash {other}, and this one has {ticket.hash}")
        known = ticket_row_fields(path, ticket)
        for key in _OF_THE_TICKET:
            if key in row and key in known and row[key] != known[key]:
                raise BadInput(f"{file.name} says {key} {row[key]}, and the ticket says {known[key]}")
        try:
            protocol = self._protocol_of(row, ticket)
        except BadInput as error:  # somebody's own, whose file is not here
            return f"protocol {row['protocol']}: {one_line(error)}"
        model = ticket.record.model
        if row.get("protocol_hash", digest := protocol.hash_for(model)) != digest:
            raise BadInput(
                f"{file.name} was measured under other settings of {protocol.name}: they had the hash "
                f"{row['protocol_hash']}, and have {digest} here"
            )
        copy = self.out / ticket.hash / path.name
        task = EvalTask(copy, "ticket", protocol, row["seed"], row.get("head", DEFAULT_HEAD))
        info = TicketInfo.read(path, {protocol.name: protocol})
        try:
            found = splits.get(protocol, info.channels)
        except BadInput as error:
            return one_line(error)
        for key, manifest in (("data_hash", found.training.manifest), ("eval_hash", found.evaluation.manifest)):
            if row.get(key, manifest.hash) != manifest.hash:
                return f"the images of {manifest.name} here have the hash {manifest.hash}, and the rows' had {row[key]}"
        if processes.rank() == 0:
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
            _copy_kernels(file, row, task)
        head = "own head" if task.head == "own" else "new head"
        where = path.parent.name if path.name == hub.TICKET_FILE else path.stem
        name = f"{where} {protocol.name} {head} seed {task.seed}"
        return RecordedScore(name=name, row=row, task=task, images=len(found.evaluation.manifest))

    def _protocol_of(self, row: Mapping[str, Any], ticket: Ticket) -> Protocol:
        found = resolve_protocol(row.get("protocol_given") or row["protocol"], ticket.recipe)
        return found if self.part is None else replace(found, part=self.part)

    def measure(self, scores: Sequence[RecordedScore], *, show_progress: bool = True) -> Iterator[Finding]:
        """Trains tickets anew as their rows say, each at its row's precision, and compares.

        Args:
            scores: What `verify` found.
            show_progress: Whether a bar shows progress.

        Yields:
            One finding a row.

        Raises:
            Diverged: If a loss is not finite.
        """
        processes.barrier()  # the first one has made the copies
        by_precision: dict[Precision, list[RecordedScore]] = defaultdict(list)
        for each in scores:
            by_precision[each.row["precision"]].append(each)
        otherwise: Counter[str] = Counter()
        for precision, group in by_precision.items():
            try:
                engine = Engine.create(self.runtime, precision)
            except BadInput as error:  # fp16 without a GPU, say
                self.counts["left"] += len(group)
                yield Finding(f"{_rows(len(group))} not measured again: {one_line(error)}")
                continue
            tasks = list(dict.fromkeys(each.task for each in group))
            for _ in evaluate_tasks(tasks, engine, show_progress=show_progress):
                pass
            for each in group:
                row = read_task_row(each.task.row_file) or {}
                yield self._compare(each, row)
                if words := provenance.provenance_differences(each.row, row):
                    otherwise[words] += 1
        for words, count in otherwise.items():
            yield Finding(f"{_rows(count)} recorded elsewhere, which may change last digits: {words}")

    def _compare(self, recorded: RecordedScore, now: Mapping[str, Any]) -> Finding:
        before = recorded.row
        points = 100 * (now["top1"] - before["top1"])
        text = f"{recorded.name}: {100 * before['top1']:.2f} recorded, {100 * now['top1']:.2f} now"
        if odd := [key for key in ("steps", "samples") if before.get(key, now[key]) != now[key]]:
            self.counts["wrong"] += 1
            return Finding(f"{text}; {odd[0]} {before[odd[0]]:,} recorded, {now[odd[0]]:,} now", ok=False)
        allowed = self.tolerance
        if allowed is None:
            by_seed = self.scores_by_seed[_measurement(before)]
            others = [score for seed, score in by_seed.items() if seed != before["seed"]]
            allowed = 100 * chance_of_a_difference(before["top1"], recorded.images, others)
        if all(before[key] == now[key] for key in ("top1", "top5", "loss")):
            self.counts["same"] += 1
            return Finding(f"{text}, the same to the bit")
        close = abs(points) <= allowed + 1e-9
        self.counts["close" if close else "wrong"] += 1
        within = "within" if close else "more than"
        return Finding(f"{text}, {points:+.2f}, {within} {allowed:.2f} points", ok=close)

    def summary(self) -> str:
        """The last line."""
        found = self.counts
        again = found["same"] + found["close"] + found["wrong"]
        tickets = f"{found['tickets']:,} ticket{'s' * (found['tickets'] != 1)} verified and loaded"
        words = [f"{_rows(found['rows'])} beside them"]
        if again:
            ways = f"{found['same']:,} the same to the bit, {found['close']:,} close, {found['wrong']:,} wrong"
            words.append(f"{again:,} measured again: {ways}")
        words += [f"{found[key]:,} of {key} left aside" for key in ("controls", "other seeds") if found[key]]
        return ", ".join([tickets, *words])


def chance_of_a_difference(top1: float, images: int, others: Sequence[float]) -> float:
    """How far apart two trainings of one ticket may end that differ by chance alone, as a fraction.

    Other processors and libraries sum in another order, and after a few hundred steps that is another training: as far
    from the first as one with another seed. So it is three standard errors of the difference of two scores, whose
    spread is that over the evaluation's other seeds, where rows of two or more lie beside the ticket, but at least that
    of so many images, each guessed right with one probability.

    Args:
        top1: Recorded top-1.
        images: Number of evaluation images.
        others: Recorded top-1 of the same ticket with other seeds: a wrong row must not widen its own bound.
    """
    likely = (top1 * images + 1) / (images + 2)  # of all or no images guessed right there is a spread, too
    spread = math.sqrt(likely * (1 - likely) / max(images, 1))
    if len(others) > 1:
        spread = max(spread, statistics.stdev(others))
    return _ERRORS_APART * math.sqrt(2) * spread


def find_tickets(places: Sequence[Path], levels: Levels) -> list[Path]:
    """Ticket files: those given, those of runs, and those of exported folders, also of ones below a folder given.

    Args:
        places: Files and folders.
        levels: Levels that are taken of runs.

    Raises:
        BadInput: For a place that is not there or holds no ticket.
    """
    found: list[Path] = []
    for place in places:
        if hub.is_hub_name(place):
            fix = f"hf download {hub.parse_hub_name(place).repo} --local-dir FOLDER"
            raise BadInput(f"{place} comes without its rows; fetch the whole repository, `{fix}`, and give the folder")
        exported = sorted(place.glob(f"**/{hub.TICKET_FILE}")) if place.is_dir() else []
        runs = [] if exported and not any(place.glob("**/tickets/*.safetensors")) else [place]
        found += [*(find_ticket_files(runs, levels) if runs else ()), *exported]
    return list(dict.fromkeys(found))


def _load_into_networks(ticket: Ticket) -> str:
    """In which networks it was loaded, in words.

    Raises:
        BadInput: If it does not fit its own network.
    """
    model, images = ticket.record.model, image_arguments(ticket)
    made = network_construction(ticket)
    theirs = "" if made.imports.startswith("from sslticket") else f" and {made.call}"
    if "image_size" not in images:
        return f"fits {made.call}" if theirs else f"not loaded, since the size of the images of {model} is unknown"
    with torch.random.fork_rng(devices=[]):
        backbone = models.create_model(model, channels=images.get("channels", 3), image_size=images["image_size"])
    stored = pruned_model.read_state(ticket.apply(backbone))
    if odd := [name for name, value in ticket.weights.items() if not torch.equal(stored[name], value)]:
        raise BadInput(f"{model} does not hold {odd[0]} as it is in the ticket")
    return f"loads into {model}{theirs}"


def _check_export(path: Path, ticket: Ticket) -> tuple[list[str], list[str]]:
    """The files of an exported folder that were compared with its ticket, and what is wrong with them."""
    folder, compared, faults = path.parent, [], []
    if path.name != hub.TICKET_FILE:
        return [], []
    if (weights := folder / WEIGHTS_FILE).is_file():
        compared.append(WEIGHTS_FILE)
        try:
            state, plain = load_file(weights), plain_state_dict(ticket)
        except (SafetensorError, OSError) as error:
            faults.append(f"{WEIGHTS_FILE} cannot be read: {one_line(error)}")
        else:
            odd = sorted(
                name
                for name in state.keys() | plain.keys()
                if name not in state or name not in plain or not torch.equal(state[name], plain[name])
            )
            faults += [f"{WEIGHTS_FILE} differs from the ticket in {odd[0]}"] if odd else []
    if (config := folder / CONFIG_FILE).is_file():
        compared.append(CONFIG_FILE)
        told, known = read_json(config, fix="export the ticket anew"), hub_config(ticket)
        odd = [key for key in _IN_CONFIG if not isinstance(told, dict) or told.get(key) != known[key]]
        faults += [f"{CONFIG_FILE} differs from the ticket in {odd[0]}"] if odd else []
    if (card := folder / "README.md").is_file():
        compared.append(card.name)
        if ticket.hash not in card.read_text(encoding="utf-8", errors="replace"):
            faults.append(f"{card.name} is the card of another ticket: it does not name the hash {ticket.hash}")
    return compared, faults


def _copy_kernels(file: Path, row: Mapping[str, Any], task: EvalTask) -> None:
    """Leave beside a copy what chose the order of sums in the row's training: a new trial may choose otherwise."""
    name = file.name.removesuffix(".jsonl")
    there, here = kernels_path(file.parents[1], name), kernels_path(task.run, task.name)
    if here.exists():
        return
    kernels = Kernels.read(there) if there.exists() else None
    if kernels is None and not row.get("kernels"):
        kernels = Kernels()
    if kernels is not None:
        here.parent.mkdir(parents=True, exist_ok=True)
        kernels.write(here)


def _measurement(row: Mapping[str, Any]) -> tuple[str, ...]:
    return row["ticket_hash"], row["protocol"], row.get("start", "0"), row.get("head", DEFAULT_HEAD)


def _about(name: str, error: BadInput) -> str:
    """An error's line, with the name of the ticket where it has it not."""
    text = one_line(error)
    return text if name in text else f"{name}: {text}"


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"
