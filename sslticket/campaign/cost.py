"""What a campaign comes to before there is any ticket: its searches, evaluations and analyses, shared work once.

The tickets to be are written down as their files will say, and the very plans that an evaluation and an analysis make
of tickets that are there count their trainings. Of a part of a set, and of one's own images, the files are listed where
they are here; else no image is looked for. No network is built but for its shapes.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from sslticket.campaign.sweep import Analyse, Cell, Evaluate
from sslticket.config.flags import override_fields
from sslticket.config.recipe import Recipe
from sslticket.config.runtime import RuntimeConfig
from sslticket.data.source import UnknownCounts
from sslticket.errors import BadInput
from sslticket.evaluation.jobs import EvaluationPlan
from sslticket.evaluation.protocols import find_protocol
from sslticket.evaluation.tasks import DEFAULT_LEVELS, EvalTask, Levels, TicketInfo, tasks_of_headers
from sslticket.evaluation.trainer import SplitCache
from sslticket.results.throughput import (
    ROW_BYTES,
    CostEstimate,
    Row,
    Throughput,
    Workload,
    device_name,
    network_shape,
    num_features,
    work_cost,
)
from sslticket.search.base import search_of
from sslticket.search.estimate import SearchWork, state_entries
from sslticket.training.numerics import Numerics


@dataclass(frozen=True, kw_only=True)
class CampaignCost:
    """What a campaign comes to, in parts.

    Attributes:
        searches: What the search of each cell comes to, by the cell's key; those of `uncounted` are missing.
        measuring: What all evaluations and analyses come to.
        uncounted: Names of cells of which nobody knows how many images there are.
        devices: Devices of one worker.
    """

    searches: Mapping[str, CostEstimate]
    measuring: CostEstimate
    uncounted: tuple[str, ...] = ()
    devices: int = 1

    def total(self, searched: Collection[str] = ()) -> CostEstimate:
        """All together, without the searches of cells with these keys, which are done."""
        kinds = Counter(cost for key, cost in self.searches.items() if key not in searched)
        start = CostEstimate(devices=self.devices, uncounted=self.uncounted)
        return sum((cost.times(count) for cost, count in kinds.items()), start) + self.measuring


def estimate_cells(
    cells: Iterable[Cell],
    *,
    device: str | None = None,
    rows: Iterable[Row] = (),
    runtime: RuntimeConfig | None = None,
    throughput: Throughput | None = None,
    searched: Collection[str] = (),
) -> CampaignCost:
    """What cells come to: searches, evaluations and analyses of their tickets, and shared controls once.

    Args:
        cells: The cells of a campaign.
        device: Name of the device whose speeds are looked up; None for this machine's.
        rows: Rows that were measured, whose speeds come first.
        runtime: How the machine computes; None for its defaults.
        throughput: What is known of the device's speed, in the place of `device` and `rows`.
        searched: Keys of cells whose searches are done: of those that ask for no measurement, unknown numbers of images
            do not matter.

    What has as many images as nobody publishes, where they are not here either, and an evaluation on them, is named as
    `CostEstimate.uncounted`.

    Raises:
        BadInput: If a search, an evaluation or an analysis cannot be done with its images, naming it.
    """
    listed, runtime = list(cells), runtime or RuntimeConfig()
    known = throughput or Throughput.known(device or device_name(), _input_size, rows=rows)
    families = {cell.number: (cell.recipe.family, cell.trial) for cell in listed}
    works: dict[tuple[str, bool], SearchWork] = {}
    uncounted: set[tuple[str, bool]] = set()
    by_seed: dict[int, list[Cell]] = defaultdict(list)
    for cell in listed:
        if (key := families[cell.number]) not in works and key not in uncounted:
            try:
                works[key] = SearchWork.of_recipe(cell.recipe, runtime, trial=cell.trial)
            except UnknownCounts:
                uncounted.add(key)
            except BadInput as error:
                raise BadInput(f"{cell.name}: {error}") from error
    asked = [cell for cell in listed if cell.evaluate or cell.analyse or cell.key not in searched]
    missing = tuple(cell.name for cell in asked if families[cell.number] in uncounted)
    listed = [cell for cell in listed if families[cell.number] in works]
    for cell in listed:
        by_seed[cell.recipe.seed].append(cell)
    costs = {key: work.estimate(known) for key, work in works.items()}
    devices = max(known.devices, runtime.world_size)
    measuring = CostEstimate(devices=devices)
    # Searches of other seeds share nothing, so those of one seed tell what as many of another come to.
    measured: dict[str, CostEstimate] = {}
    for group in by_seed.values():
        signature = repr(sorted(repr((families[cell.number], cell.evaluate, cell.analyse)) for cell in group))
        if signature not in measured:
            # Which heads are trained depends on all tickets that are measured together, so one of each kind looks on.
            here = {families[cell.number] for cell in group}
            others = {families[cell.number]: cell for cell in listed if families[cell.number] not in here}
            beside = list(others.values())
            tickets = {cell.number: _tickets_of(cell, works[families[cell.number]]) for cell in [*group, *beside]}
            measured[signature] = _measuring(group, beside, tickets, runtime, known)
        measuring += measured[signature]
    searches = {cell.key: costs[families[cell.number]] for cell in listed}
    return CampaignCost(searches=searches, measuring=measuring, uncounted=missing, devices=devices)


@dataclass(frozen=True, kw_only=True)
class _Ticket:
    """A ticket to be.

    Attributes:
        path: Where its file would lie.
        level: Its level.
        header: What its file would say, as far as an evaluation asks.
        info: What an evaluation has to know of it.
    """

    path: Path
    level: int
    header: Mapping[str, Any]
    info: TicketInfo


def _tickets_of(cell: Cell, work: SearchWork) -> list[_Ticket]:
    recipe, stages = replace(work.recipe, seed=cell.recipe.seed), work.stages
    model, channels, size = recipe.model, work.dataset.channels, work.views[0].size
    layers, total = _prunable(recipe, channels, size)
    head: dict[str, tuple[int, ...]] = {}
    if work.passes.classifies:
        head = {"weight": (work.classes, num_features(model, channels, size)), "bias": (work.classes,)}
    rewind_samples = stages.rewind * recipe.training.batch_size
    origin = {
        "seed": recipe.seed,
        "objective": recipe.task,
        "rewind_samples": rewind_samples,
        "classes": work.classes,
    }
    header = {"recipe": recipe.to_dict(), "head": head, "provenance": origin}
    key, found, schedule = cell.key, [], getattr(recipe.search, "schedule", None)
    pattern = getattr(schedule, "pattern", None)
    unknown = int(key, 16)  # how many weights a search leaves that finds that out itself: as many as no other
    for level in range(stages.levels + 1):
        left = total if level == 0 else stages.survivors[level] if stages.survivors else -unknown - level
        info = TicketInfo(
            hash=f"{key}-{level}",
            model=model,
            channels=channels,
            survivors=left,
            prunable=total,
            layers=layers,
            parameters=state_entries(model, channels, size),
            rewind_samples=rewind_samples,
            seed=recipe.seed,
            head=head,
            classes_hash=None,
            row_fields={},
            # As sparse as the pattern or sparser: what `Mask.top` makes of it keeps to it then.
            pattern=str(pattern) if pattern is not None and left * pattern.size <= total * pattern.kept else None,
        )
        path = Path("planned") / key / "tickets" / f"level-{level:02d}.safetensors"
        found.append(_Ticket(path=path, level=level, header=header, info=info))
    return found


def _prunable(recipe: Recipe, channels: int, size: int) -> tuple[tuple[str, ...], int]:
    """The layers that a search may prune, and how many weights they have."""
    network = network_shape(recipe.model, channels, size)
    names = search_of(recipe).prunable_layers(network)
    return tuple(sorted(names)), sum(network.get_parameter(name).numel() for name in names)


@cache
def _counted_splits(data_root: Path | None) -> SplitCache:
    """How many images all protocols have that were asked for in this process."""
    return SplitCache(data_root, "always")


def _measuring(
    cells: Sequence[Cell],
    beside: Sequence[Cell],
    tickets: Mapping[int, Sequence[_Ticket]],
    runtime: RuntimeConfig,
    known: Throughput,
) -> CostEstimate:
    """Evaluations and analyses of the searches of one seed, with searches of other seeds beside them."""
    works, rows, endpoints = list[Workload](), 0, 0
    uncounted: list[str] = []
    for measured in _without_repeats([each for cell in cells for each in (*cell.evaluate, *cell.analyse)]):
        try:
            if isinstance(measured, Evaluate):
                trainings, more_rows = _evaluated(measured, cells, beside, tickets, runtime)
            else:
                trainings, more_rows = _trainings_of(measured, cells, tickets, runtime)
                endpoints += len(trainings)
        except UnknownCounts:
            uncounted.append(measured.describe())
        except BadInput as error:
            raise BadInput(f"{measured.describe()}: {error}") from error
        else:
            works, rows = works + trainings, rows + more_rows
    kept = endpoints * 4 * max((each.info.parameters for group in tickets.values() for each in group), default=0)
    found = work_cost(works, known, devices=max(known.devices, runtime.world_size), disk_bytes=ROW_BYTES * rows + kept)
    return replace(found, uncounted=tuple(uncounted))


def _evaluated(
    evaluate: Evaluate,
    cells: Sequence[Cell],
    beside: Sequence[Cell],
    tickets: Mapping[int, Sequence[_Ticket]],
    runtime: RuntimeConfig,
) -> tuple[list[Workload], int]:
    """The trainings of an evaluation, and its rows."""
    levels = _levels_of(evaluate.levels)
    chosen, others = (_chosen(some, tickets, evaluate, levels) for some in (cells, beside))
    seeds, repeats = _one_seed(evaluate, cells)
    tasks = tasks_of_headers(
        {each.path: each.header for each in [*chosen, *others]},
        evaluate.controls,
        evaluate.protocols,
        seeds,
        evaluate.heads,
        evaluate.part,
        curve=evaluate.curve,
    )
    infos = {each.path: each.info for each in chosen}
    splits, numerics = _counted_splits(runtime.data_root), Numerics.resolve(runtime, None)
    works: list[Workload] = []
    rows = 0
    for count, some in _by_repeats([task for task in tasks if task.path in infos], repeats):
        plan = EvaluationPlan(some, infos, splits, numerics)
        works += [job.workload for job in plan.jobs()] * count
        rows += len(some) * count
    return works, rows


def _trainings_of(
    analyse: Analyse, cells: Sequence[Cell], tickets: Mapping[int, Sequence[_Ticket]], runtime: RuntimeConfig
) -> tuple[list[Workload], int]:
    """The trainings that an analysis rests on, and its rows; one that trains nothing has a row a ticket."""
    from sslticket.analysis import ANALYSES
    from sslticket.analysis.base import EndpointAnalysis
    from sslticket.analysis.endpoints import targets_of

    kind = ANALYSES.get(analyse.analysis)
    names = {name.replace("-", "_"): value for name, value in analyse.settings.items()}
    analysis = override_fields(kind(), names)
    levels = analyse.levels or (getattr(kind, "default_levels", "") if issubclass(kind, EndpointAnalysis) else "all")
    chosen = _chosen(cells, tickets, analyse, _levels_of(levels or None))
    if not isinstance(analysis, EndpointAnalysis):
        return [], len(chosen)
    seeds, repeats = _one_seed(analyse, cells)
    tasks = tasks_of_headers(
        {each.path: each.header for each in chosen},
        analyse.controls,
        analyse.protocols,
        seeds,
        analyse.heads,
        analyse.part,
        both_heads=False,
        own_weights=True,
    )
    infos = {each.path: each.info for group in tickets.values() for each in group}
    splits, numerics = _counted_splits(runtime.data_root), Numerics.resolve(runtime, None)
    works: list[Workload] = []
    rows = 0
    for count, some in _by_repeats(tasks, repeats):
        found: dict[Path, Workload] = {}
        for target in targets_of(some, infos, splits, numerics, dense=analysis.needs_dense):
            found |= {training.endpoint_file: training.workload for training in analysis.trainings(target)}
        works, rows = works + list(found.values()) * count, rows + len(some) * count
    return works, rows


def _chosen(
    cells: Sequence[Cell], tickets: Mapping[int, Sequence[_Ticket]], measured: Evaluate | Analyse, levels: Levels
) -> list[_Ticket]:
    """The tickets of the cells that ask for this."""
    asking = [cell for cell in cells if measured in (*cell.evaluate, *cell.analyse)]
    return [each for cell in asking for each in tickets[cell.number] if levels.includes(each.level)]


def _one_seed(measured: Evaluate | Analyse, cells: Sequence[Cell]) -> tuple[list[int] | None, int]:
    """One of the seeds of an evaluation, and how many there are; None and 0 where protocols have their own.

    Rows of one seed share nothing with those of another.
    """
    if measured.seeds is None:
        return None, 0
    if measured.seeds == "search":
        return [cells[0].recipe.seed], 1
    seeds = [int(seed) for seed in measured.seeds]
    return seeds[:1], len(seeds)


def _by_repeats(tasks: Sequence[EvalTask], repeats: int) -> list[tuple[int, list[EvalTask]]]:
    """Tasks that are done so many times under other seeds: of protocols with their own seeds those of the first."""
    if repeats:
        return [(repeats, list(tasks))]
    found: dict[int, list[EvalTask]] = defaultdict(list)
    for task in tasks:
        if task.seed == task.protocol.seeds[0]:
            found[len(task.protocol.seeds)].append(task)
    return list(found.items())


def _levels_of(text: str | None) -> Levels:
    """The levels that a sweep's "0 2 4-6" means; "all", and the usual ones for None."""
    if text is None:
        return DEFAULT_LEVELS
    if text == "all":
        return Levels()
    chosen: list[int] = []
    for word in text.replace(",", " ").split():
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise BadInput(f"levels must be numbers or ranges, got {word!r}; write them like 0 2 4-6")
        chosen += range(int(first), int(last or first) + 1)
    return Levels(tuple(chosen))


def _input_size(name: str) -> int:
    return find_protocol(name).input_size


def _without_repeats(items: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found
