"""A planned search, run to its end."""

from dataclasses import replace

from sslticket.errors import BadInput
from sslticket.machine import Machine
from sslticket.masking.layers import shortened
from sslticket.recipe import flat
from sslticket.search.lab import Lab
from sslticket.search.plan import Plan
from sslticket.search.resuming import changed
from sslticket.search.watch import Watch
from sslticket.ticket import Ticket
from sslticket.training.agreement import Fact, flag
from sslticket.training.progress import Progress
from sslticket.training.workbench import Workbench

_HALF = 0.5  # of a ticket's weights: where fewer lie on a path, its density is not what it seems


def run(plan: Plan, machine: Machine) -> dict[str, str]:
    """Find every ticket of the plan that is not there yet; returns the images that could not be read, with reasons.

    Raises:
        BadInput: if the machine cannot run it, or more images than allowed are unreadable.
        Diverged: if a loss is not finite.
    """
    recipe = plan.recipe
    needs = plan.needs  # told while this process is alone: an objective may gather from the others
    bench = Workbench.on(machine, recipe.precision)
    net = plan.net()
    bench.parts(net, recipe.fit)  # which refuses what cannot be, before anything is written
    watch = Watch(plan, bench, net)
    bench.compare(_facts(plan, watch))
    there = bench.sights(lambda: [level for level in range(plan.levels + 1) if plan.folder.ticket(level).exists()])
    if odd := [rank for rank, levels in enumerate(there) if levels != there[0]]:
        raise BadInput(
            f"process {odd[0]} sees {len(there[odd[0]])} tickets in {plan.folder.path}, and process 0 {len(there[0])}; "
            "give --out on a folder that all machines share"
        )
    otherwise = ""
    if bench.first and plan.levels not in there[0]:
        numerics = str(bench.numerics_of(net, plan.steps, recipe.fit))
        otherwise = changed(plan.folder, there[0], numerics=numerics, device=bench.device_name)
    done = max((plan.samples(level) for level in there[0]), default=0)
    told = "" if plan.levels in there[0] else bench.make_room(net, recipe.fit, needs, recipe=True)
    with (
        plan.folder.opened(bench.first),
        bench.prepared(net, plan.steps, recipe.fit) as wrapped,
        Progress(plan.samples(plan.levels), done=done, show=bench.first) as progress,
    ):
        for note in filter(None, (otherwise, told)):
            progress.note(note)
        lab = Lab(plan, bench, net, wrapped, watch, progress)
        thin = False
        for ticket in recipe.search.tickets(lab):
            progress.note(f"level {ticket.level}: density {ticket.mask.density:.3%}, {lab.summary(ticket.level)}")
            if ticket.mask.emptied:
                progress.note(_emptied(ticket))
            effective = lab.effective(ticket.level)
            if effective == 0:
                progress.note(_cut(ticket))
            elif effective is not None and effective < _HALF * ticket.mask.density and not thin:
                progress.note(_thin(ticket, effective))
                thin = True  # and later levels are hardly better
    return lab.bad_images


def _facts(plan: Plan, watch: Watch) -> dict[str, Fact]:
    """What all processes must have before them alike."""
    # What tells own images apart is in the recipe too, and would only be told as a hash.
    told = replace(plan.recipe, data=replace(plan.recipe.data, origin=None)).to_dict()
    images, fix = plan.images.source.manifest, "--data-root must show the same images to all"
    looked = "no evaluation images"
    if (evaluation := watch.evaluation) is not None:
        looked = f"{len(evaluation.manifest):,} evaluation images with the hash {evaluation.manifest.hash}"
    return {
        **{name: flag(name, value) for name, value in flat(told)},
        "training images": Fact(f"sees {len(images):,} training images with the hash {images.hash}", fix),
        "evaluation images": Fact(f"sees {looked}", fix),
        "out": Fact(f"writes to {plan.folder.path.absolute()}", "give the same --out to every process"),
    }


def _emptied(ticket: Ticket) -> str:
    """That layers have lost every weight, which cuts a network that has no way around them."""
    shown = shortened(ticket.mask.emptied)
    # Only a search that counts can be told how many to keep.
    fix = "; --min-per-layer 1 keeps a weight in each" if "min_per_layer" in ticket.recipe["search"] else ""
    return f"level {ticket.level}: at density {ticket.mask.density:.3%} no weight is left in {shown}{fix}"


def _cut(ticket: Ticket) -> str:
    """That nothing gets through the network although weights are left."""
    spread = " or --scope layer" if ticket.recipe["search"].get("scope") == "global" else ""
    return (
        f"level {ticket.level}: at density {ticket.mask.density:.3%} no path leads from the image to the features, so "
        f"nothing can be learnt; give fewer --levels{spread}"
    )


def _thin(ticket: Ticket, effective: float) -> str:
    """That most of the weights that are left can do nothing."""
    at = f"level {ticket.level}: at density {ticket.mask.density:.3%}"
    return f"{at} only {effective:.3%} of the weights are on a path to the features"
