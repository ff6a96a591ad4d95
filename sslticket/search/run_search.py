"""A planned search, run to its end or resumed."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from sslticket.config.recipe import Data, flatten_settings
from sslticket.config.runtime import RuntimeConfig
from sslticket.data.datasets.arrays import MADE_UP, register_made_up_dataset
from sslticket.data.loader import Loader
from sslticket.errors import BadInput, Diverged
from sslticket.escaping import escape_terminal
from sslticket.models import RANDOM_INIT
from sslticket.models.pretrained import Pretrained
from sslticket.objectives.base import objective_of
from sslticket.pruning.prunable import shorten_names
from sslticket.results.rows import DivergedRow
from sslticket.results.run_dir import RunDir, read_json_or_empty, resumption_differences
from sslticket.results.throughput import Busy, ProbedRun, Speed, probe_speed
from sslticket.search.base import search_of
from sslticket.search.plan import SearchPlan, plan_search
from sslticket.search.runner import SearchRunner
from sslticket.search.scoring import Monitor
from sslticket.seeds import derive_seed
from sslticket.storage.files import write_row
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine, Invariant, flag_invariant
from sslticket.training.network import MaskedNetwork
from sslticket.training.progress import Progress
from sslticket.training.trackers import TrackerSet
from sslticket.training.trial import Kernels

_LOW_EFFECTIVE_FRACTION = 0.5  # of a ticket's weights: where fewer lie on a path, its density is not what it seems


def run_search(
    plan: SearchPlan, runtime: RuntimeConfig, *, show_progress: bool = True, trackers: TrackerSet | None = None
) -> dict[str, str]:
    """Finds every ticket of the plan that is not there yet.

    Args:
        plan: The search.
        runtime: How this machine computes.
        show_progress: Whether the first process shows a progress bar, with a line for each level above it.
        trackers: Those of a process that does more than this search; None for what the settings name.

    Returns:
        The images that could not be read, with reasons.

    Raises:
        BadInput: If the machine cannot run it, another process is at it, or more images than allowed are unreadable.
        Diverged: If a loss is not finite.
    """
    recipe, run_dir = plan.recipe, plan.run_dir
    memory = plan.memory_model  # estimated while this process is alone: an objective may gather from the others
    engine = Engine.create(runtime, recipe.precision, trackers)
    network = plan.build_network()
    engine.accumulation_steps(network, recipe.training)  # which refuses what cannot be, before anything is written
    monitor = Monitor(plan, engine, network)
    engine.check_invariants(_search_invariants(plan, monitor))
    there = engine.gather_until_equal(
        lambda: [level for level in range(plan.levels + 1) if run_dir.ticket_path(level).exists()]
    )
    if odd := [rank for rank, levels in enumerate(there) if levels != there[0]]:
        raise BadInput(
            f"process {odd[0]} sees {len(there[odd[0]])} tickets in {run_dir.path}, and process 0 {len(there[0])}; "
            "give --out on a folder that all machines share"
        )
    notes, finished = [], plan.levels in there[0]
    if engine.is_main_process and not finished:
        numerics = str(engine.numerics_for(network, plan.total_steps, recipe.training, plan.images.source))
        notes.append(resumption_differences(run_dir, there[0], numerics=numerics, device=engine.device_name))
    if finished and (changed := run_dir.changed_parts()):
        notes.append(
            f"all tickets were found with another {' and '.join(changed)}; give another --out to search with today's"
        )
    if not finished:
        notes.append(engine.fit_in_memory(network, recipe.training, memory, recipe=True))
    show = show_progress and engine.is_main_process and not runtime.quiet
    done = max((plan.cumulative_samples(level) for level in there[0]), default=0)
    with (
        _held_by_the_first(run_dir, engine, _note_on_stderr if show else lambda text: None),
        engine.prepare(
            network, plan.total_steps, recipe.training, _choose_kernels(plan, engine, network, there[0])
        ) as wrapped,
        engine.show_progress(
            plan.cumulative_samples(plan.levels), done=done, show=show_progress, stages=plan.training_stages
        ) as progress,
    ):
        for note in filter(None, notes):
            progress.note(note)
        _tell_measured_levels(progress, plan, there[0], engine)
        if engine.is_main_process and plan.images.split is not None:
            plan.images.split.save(run_dir.path.parent)
        runner = SearchRunner(plan, engine, network, wrapped, monitor, progress)
        warned = False
        for ticket in _noting_divergence(search_of(recipe).tickets(runner), plan, engine, network):
            summary = training_summary(runner.measured, ticket.level) if runner.measured else "already there"
            row = read_json_or_empty(run_dir.row_path(ticket.level))
            kernels = f"; {row['kernels']}" if runner.measured and row.get("kernels") else ""
            progress.note(f"level {ticket.level}: density {ticket.mask.density:.3%}, {summary}{kernels}")
            effective = row.get("effective_density")
            ineffective = isinstance(effective, float) and effective < _LOW_EFFECTIVE_FRACTION * ticket.mask.density
            for note in _warnings(ticket, effective if ineffective and not (warned and effective) else None):
                progress.note(note)
            warned = warned or bool(ineffective and effective)  # later levels are hardly better
        runner.forget_snapshots()
    return runner.unreadable_images


@contextmanager
def _held_by_the_first(run_dir: RunDir, engine: Engine, note: Callable[[str], object]) -> Iterator[None]:
    """Keeps a second writer out of the folder; what keeps this one out is raised in all processes.

    Else the others would begin this search while the first one goes on, in a campaign, to the next.
    """
    with ExitStack() as held:
        refused: BadInput | None = None
        try:
            held.enter_context(run_dir.locked(engine.is_main_process, note))
        except BadInput as error:
            refused = error
        if (refused := engine.broadcast(refused)) is not None:
            raise refused
        yield


def _tell_measured_levels(progress: Progress, plan: SearchPlan, there: Sequence[int], engine: Engine) -> None:
    """Tells how long the levels took that an earlier process of this device has found, for the time that is left."""
    for level in there:
        row = read_json_or_empty(plan.run_dir.row_path(level))
        samples, seconds = row.get("samples"), row.get("seconds")
        if row.get("device") == engine.device_name and isinstance(samples, int) and isinstance(seconds, float):
            progress.know(level, samples, seconds)


def _choose_kernels(plan: SearchPlan, engine: Engine, network: MaskedNetwork, there: Sequence[int]) -> Kernels:
    """The kernels of a search's dense network, whose layout all levels have; what was begun without any goes on so."""
    images, recipe, seeds = plan.images, plan.recipe, plan.recipe.seeds
    path = plan.run_dir.kernels_path(0)
    if engine.broadcast((bool(there) or plan.run_dir.rewind_path.exists()) and not path.exists()):
        return Kernels()

    def load() -> Loader:
        return engine.make_loader(
            images.source,
            images.views,
            batch_size=recipe.training.batch_size,
            order=derive_seed(seeds.order, 0),
            augment=derive_seed(seeds.augment, 0),
            labelled=images.labelled,
        )

    return engine.choose_kernels(path, network, plan.build_network, load, recipe.training, plan.clock.total_steps)


def probe_search(plan: SearchPlan, runtime: RuntimeConfig) -> Speed:
    """Measures the speed of a search on this device: the same search in short, on made-up images of the right size.

    Images are in memory, so that what decoding files takes is not in it.

    Args:
        plan: The search.
        runtime: How this machine computes.
    """
    least = 2 * objective_of(plan.recipe).min_images

    def run(batch: int, steps: int, measured: int) -> ProbedRun:
        return _run_short(plan, runtime, batch, steps, measured)

    return probe_speed(plan.work.workload, run, evaluation=plan.images.evaluation, least=least)


def _run_short(plan: SearchPlan, runtime: RuntimeConfig, batch: int, steps: int, measured: int) -> ProbedRun:
    """Does a search of two trainings of so many steps after W_k."""
    recipe, classes = plan.recipe, len(plan.images.source.manifest.classes)
    register_made_up_dataset(plan.images.source.dataset, classes, max(classes, batch), measured)
    data = Data(
        dataset=MADE_UP, image_size=recipe.data.image_size, augment=recipe.data.augment, labels=recipe.data.labels
    )
    training = replace(recipe.training, batch_size=batch, length=f"{2 * steps}it", warmup="0it", drops=())
    if batch < recipe.training.batch_size:
        training = replace(training, ghost_batch=None)
    names, shorter = {each.name for each in fields(search_of(recipe))}, dict[str, Any]()
    for number in names & {"levels", "rounds"}:
        shorter[number] = min(2, getattr(recipe.search, number))
    # A mask changes in one step of many, so a short search is as the long one where it stays.
    usual = {"rewind": f"{steps}it", "early_bird": None, "anneal": "step", "update_until": "0it"}
    shorter |= {name: value for name, value in usual.items() if name in names}
    if "densities" in names:
        shorter["densities"] = cast(Any, recipe.search).densities[:2]
    with tempfile.TemporaryDirectory() as folder:
        small = replace(
            recipe, data=data, training=training, init=RANDOM_INIT, search=replace(search_of(recipe), **shorter)
        )
        # What pays in the long run is compiled in a short one, too.
        how = replace(runtime, compile=plan.numerics.compiled, probe=None, log=(), tensorboard=False)
        probed = plan_search(small, how, Path(folder))
        with Busy() as busy:
            run_search(probed, how, show_progress=False)
        levels = range(probed.levels + 1)
        rows = [read_json_or_empty(probed.run_dir.row_path(level)) for level in levels]
        return ProbedRun.of_rows(rows, [probed.run_dir.ticket_path(level) for level in levels], busy)


def _note_on_stderr(text: str) -> None:
    print(escape_terminal(text), file=sys.stderr, flush=True)


def _noting_divergence(
    tickets: Iterator[Ticket], plan: SearchPlan, engine: Engine, network: MaskedNetwork
) -> Iterator[Ticket]:
    """The tickets as they are found; where a training diverges, a row says so until another one succeeds.

    Raises:
        Diverged: If a loss is not finite.
    """
    last, file = None, plan.run_dir.diverged_path
    try:
        for last in tickets:
            yield last
    except Diverged as error:
        if engine.is_main_process:
            numerics = str(engine.numerics_for(network, plan.total_steps, plan.recipe.training, plan.images.source))
            row = DivergedRow(
                **plan.row_fields(last or Ticket.load(plan.run_dir.initial_path)),
                device=engine.device_name,
                numerics=numerics,
                reason=str(error),
                at_step=error.step,
                of_steps=error.steps,
                learning_rate=error.lr,
            )
            write_row(file, row.to_dict())
        raise
    if engine.is_main_process:
        file.unlink(missing_ok=True)


def _search_invariants(plan: SearchPlan, monitor: Monitor) -> dict[str, Invariant]:
    """What must be the same in all processes."""
    # The identity of own images is in the recipe too, and would only be shown as a hash.
    recipe = replace(plan.recipe, data=replace(plan.recipe.data, identity=None)).to_dict()
    images, fix = plan.images.source.manifest, "--data-root must show the same images to all"
    seen = "no evaluation images"
    if (evaluation := monitor.evaluation) is not None:
        seen = f"{len(evaluation.manifest):,} evaluation images with the hash {evaluation.manifest.hash}"
    return {
        **{name: flag_invariant(name, value) for name, value in flatten_settings(recipe).items()},
        "training images": Invariant(f"sees {len(images):,} training images with the hash {images.hash}", fix),
        "evaluation images": Invariant(f"sees {seen}", fix),
        **({} if plan.weights is None else {"weights": _weights_invariant(plan.weights)}),
        "out": Invariant(f"writes to {plan.run_dir.path.absolute()}", "give the same --out to every process"),
    }


def _weights_invariant(weights: Pretrained) -> Invariant:
    said = f"starts from the weights {weights.name} with the hash {weights.digest}"
    return Invariant(said, "have the same file in every machine's cache, or give it with --init")


def _warnings(ticket: Ticket, effective: float | None) -> list[str]:
    """What a person should know of a ticket whose density is not what it seems.

    Args:
        ticket: The ticket.
        effective: The fraction of the weights that lie on a path from the image to the features, where that is low.
    """
    at, search = f"level {ticket.level}: at density {ticket.mask.density:.3%}", ticket.record.search_settings
    found = []
    if ticket.mask.empty_layers:
        # Only a search that counts can keep a number of weights in each layer.
        fix = "; --min-per-layer 1 keeps a weight in each" if "min_per_layer" in search else ""
        found.append(f"{at} no weight is left in {shorten_names(ticket.mask.empty_layers)}{fix}")
    if effective == 0:
        spread = " or --scope layer" if search.get("scope") == "global" else ""
        found.append(
            f"{at} no path leads from the image to the features, so nothing can be learned; give fewer --levels{spread}"
        )
    elif effective is not None:
        found.append(f"{at} only {effective:.3%} of the weights are on a path to the features")
    return found


def training_summary(measured: Mapping[str, Any], level: int) -> str:
    """What was measured in the training that found a ticket, in one line that says which network was trained.

    Args:
        measured: The entries of the ticket's row about that training.
        level: The level of the ticket.
    """
    values = {name: value for name, value in measured["metrics"].items() if name != "loss"}
    if measured["probe"]:
        values["nearest neighbours"] = list(measured["probe"].values())[-1]
    metrics = "".join(f", {name} {value:.4g}" for name, value in values.items())
    if measured["loss"] is None:
        return f"{'no further training' if level else 'untrained'}{metrics}, {measured['seconds']:.0f} s"
    # What was trained is the network before the pruning: its metrics are not those of the ticket that it led to.
    density = measured.get("trained_density", 1.0)
    trained = "the dense network, trained to W_k" if not level else f"found by training at density {density:.3%}"
    saved = measured["saved_samples"]
    early = f", converged early with {saved:,} samples saved" if saved else ""
    return f"{trained}: loss {measured['loss']:.4g}{metrics}{early}, {measured['seconds']:.0f} s"
