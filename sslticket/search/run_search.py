"""A planned search, run to its end or resumed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslticket import provenance
from sslticket.config.recipe import flatten_settings
from sslticket.config.runtime import RuntimeConfig
from sslticket.errors import BadInput
from sslticket.pruning.prunable import shorten_names
from sslticket.results.run_dir import RunDir
from sslticket.search.base import search_of
from sslticket.search.monitor import Monitor
from sslticket.search.plan import SearchPlan
from sslticket.search.runner import SearchRunner
from sslticket.storage.files import read_json
from sslticket.ticket import Ticket
from sslticket.training.engine import Engine, Invariant, flag_invariant
from sslticket.training.progress import Progress


def resumption_differences(folder: RunDir, levels: Sequence[int], **now: str) -> str:
    """One line for a person about what differs from now, level by level; "" where nothing does.

    Args:
        folder: of the run, as it was left.
        levels: whose tickets are there.
        **now: how numbers are computed, and on which device, as rows tell it.
    """
    here = provenance.collect_provenance() | now
    by_difference: dict[str, list[int]] = {}
    for level in levels:
        if words := provenance.provenance_differences(_read_json_or_empty(folder.row_path(level)), here):
            by_difference.setdefault(words, []).append(level)
    told = [f"{_format_levels(found)} with {words}" for words, found in by_difference.items()]
    began = _read_json_or_empty(folder.path / "recipe.json")
    # What is not committed shows in no commit.
    if not told and began.get("code", provenance.code_hash()) != provenance.code_hash():
        told = [
            f"it was begun with other code or another recipe file (hash {began['code']}, now {provenance.code_hash()})"
        ]
    return (
        f"this search goes on otherwise than it was left, and its rows tell of each level how: {'; '.join(told)}"
        if told
        else ""
    )


def _format_levels(levels: Sequence[int]) -> str:
    first, last = levels[0], levels[-1]
    run = last - first + 1 == len(levels) > 1
    return (
        f"levels {first} to {last}" if run else f"level{'s' if len(levels) > 1 else ''} {', '.join(map(str, levels))}"
    )


def _read_json_or_empty(path: Path) -> Mapping[str, Any]:
    """What a file of one JSON object says; nothing where there is none that can be read, which others complain of."""
    with suppress(OSError, ValueError):
        found = read_json(path)
        if isinstance(found, dict):
            return found
    return {}


_LOW_EFFECTIVE_FRACTION = 0.5  # of a ticket's weights: where fewer lie on a path, its density is not what it seems


def run_search(plan: SearchPlan, machine: RuntimeConfig) -> dict[str, str]:
    """Find every ticket of the plan that is not there yet; returns the images that could not be read, with reasons.

    Raises:
        BadInput: if the machine cannot run it, or more images than allowed are unreadable.
        Diverged: if a loss is not finite.
    """
    recipe = plan.recipe
    needs = plan.memory_model  # told while this process is alone: an objective may gather from the others
    bench = Engine.create(machine, recipe.precision)
    net = plan.build_network()
    bench.accumulation_steps(net, recipe.training)  # which refuses what cannot be, before anything is written
    watch = Monitor(plan, bench, net)
    bench.check_invariants(_search_invariants(plan, watch))
    there = bench.gather_until_equal(
        lambda: [level for level in range(plan.levels + 1) if plan.run_dir.ticket_path(level).exists()]
    )
    if odd := [rank for rank, levels in enumerate(there) if levels != there[0]]:
        raise BadInput(
            f"process {odd[0]} sees {len(there[odd[0]])} tickets in {plan.run_dir.path}, and process 0 {len(there[0])}; "
            "give --out on a folder that all machines share"
        )
    otherwise = ""
    if bench.is_main_process and plan.levels not in there[0]:
        numerics = str(bench.numerics_for(net, plan.total_steps, recipe.training))
        otherwise = resumption_differences(plan.run_dir, there[0], numerics=numerics, device=bench.device_name)
    done = max((plan.cumulative_samples(level) for level in there[0]), default=0)
    told = "" if plan.levels in there[0] else bench.fit_in_memory(net, recipe.training, needs, recipe=True)
    with (
        plan.run_dir.locked(bench.is_main_process),
        bench.prepare(net, plan.total_steps, recipe.training) as wrapped,
        Progress(plan.cumulative_samples(plan.levels), done=done, show=bench.is_main_process) as progress,
    ):
        for note in filter(None, (otherwise, told)):
            progress.note(note)
        lab = SearchRunner(plan, bench, net, wrapped, watch, progress)
        thin = False
        for ticket in search_of(recipe).tickets(lab):
            progress.note(f"level {ticket.level}: density {ticket.mask.density:.3%}, {lab.summary(ticket.level)}")
            if ticket.mask.empty_layers:
                progress.note(_emptied_note(ticket))
            effective = lab.effective_density(ticket.level)
            if effective == 0:
                progress.note(_disconnected_note(ticket))
            elif effective is not None and effective < _LOW_EFFECTIVE_FRACTION * ticket.mask.density and not thin:
                progress.note(_ineffective_note(ticket, effective))
                thin = True  # and later levels are hardly better
    return lab.unreadable_images


def _search_invariants(plan: SearchPlan, watch: Monitor) -> dict[str, Invariant]:
    """What all processes must have before them alike."""
    # What tells own images apart is in the recipe too, and would only be told as a hash.
    told = replace(plan.recipe, data=replace(plan.recipe.data, identity=None)).to_dict()
    images, fix = plan.images.source.manifest, "--data-root must show the same images to all"
    looked = "no evaluation images"
    if (evaluation := watch.evaluation) is not None:
        looked = f"{len(evaluation.manifest):,} evaluation images with the hash {evaluation.manifest.hash}"
    return {
        **{name: flag_invariant(name, value) for name, value in flatten_settings(told).items()},
        "training images": Invariant(f"sees {len(images):,} training images with the hash {images.hash}", fix),
        "evaluation images": Invariant(f"sees {looked}", fix),
        "out": Invariant(f"writes to {plan.run_dir.path.absolute()}", "give the same --out to every process"),
    }


def _emptied_note(ticket: Ticket) -> str:
    """That layers have lost every weight, which cuts a network that has no way around them."""
    shown = shorten_names(ticket.mask.empty_layers)
    # Only a search that counts can be told how many to keep.
    fix = "; --min-per-layer 1 keeps a weight in each" if "min_per_layer" in ticket.recipe["search"] else ""
    return f"level {ticket.level}: at density {ticket.mask.density:.3%} no weight is left in {shown}{fix}"


def _disconnected_note(ticket: Ticket) -> str:
    """That nothing gets through the network although weights are left."""
    spread = " or --scope layer" if ticket.recipe["search"].get("scope") == "global" else ""
    return (
        f"level {ticket.level}: at density {ticket.mask.density:.3%} no path leads from the image to the features, so "
        f"nothing can be learnt; give fewer --levels{spread}"
    )


def _ineffective_note(ticket: Ticket, effective: float) -> str:
    """That most of the weights that are left can do nothing."""
    at = f"level {ticket.level}: at density {ticket.mask.density:.3%}"
    return f"{at} only {effective:.3%} of the weights are on a path to the features"
