"""A planned search, run to its end."""

from sslticket.machine import Machine
from sslticket.masking.layers import shortened
from sslticket.search.lab import Lab
from sslticket.search.plan import Plan
from sslticket.search.watch import Watch
from sslticket.ticket import Ticket
from sslticket.training.memory import Needs, Room, smallest_parts
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
    bench.check_batch(recipe.fit.batch_size)
    if needs is not None and not plan.folder.ticket(plan.levels).exists():
        _check_memory(plan, needs, bench)
    net = plan.net()
    done = max(
        (plan.samples(level) for level in range(plan.levels + 1) if plan.folder.ticket(level).exists()), default=0
    )
    with (
        plan.folder.opened(bench.first),
        bench.prepared(net) as wrapped,
        Progress(plan.samples(plan.levels), done=done, show=bench.first) as progress,
    ):
        lab = Lab(plan, bench, net, wrapped, Watch(plan, bench, net), progress)
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


def _check_memory(plan: Plan, needs: Needs, bench: Workbench) -> None:
    """Whether a part of a batch fits on the device.

    Raises:
        BadInput: if not, with what would help.
    """
    room = Room.on(bench.accelerator.device)
    if room is None:
        return
    fitting = plan.part // smallest_parts(needs, plan.part, room.free)
    fixes = [f"--ghost-batch {fitting} (another recipe)"] if fitting < plan.part else []
    fixes += ["--precision bf16 (another recipe)"] if bench.precision == "fp32" else []
    room.check(needs.need(plan.part), *fixes, "more processes", "a smaller --image-size")


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
